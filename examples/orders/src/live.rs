//! The live page: a customer's notices and the timelines of their orders. The browser follows Tidings itself, with a ticket
//! that this service, which knows who the customer is, has made for that customer's channel.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{Request, StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::answer::Failure;

const PAGE: &str = include_str!("live.html");
const SCRIPT: &str = include_str!("live.js");
/// One connection for all tabs, which goes on where it was.
const STREAM: &str = include_str!("../../../sdk/javascript/src/stream.js");
/// An answer of Tidings to a ticket, at most.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where Tidings is, as this service and as browsers reach it, and the key, if it asks for one.
pub(crate) struct Tidings {
    pub(crate) url: String,
    pub(crate) key: Option<String>,
}

/// The page, its scripts, and where it gets its tickets.
pub(crate) fn router(tidings: Tidings) -> Router {
    let script = |text: &'static str| get(async move || ([(header::CONTENT_TYPE, "text/javascript")], text));
    Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/live.js", script(SCRIPT))
        .route("/stream.js", script(STREAM))
        .route("/ticket", post(ticket))
        .with_state(Arc::new(tidings))
}

/// Here whoever asks is believed; a real service takes the customer from its session.
#[derive(Deserialize)]
struct Customer {
    customer: String,
}

async fn ticket(
    State(tidings): State<Arc<Tidings>>,
    Query(Customer { customer }): Query<Customer>,
) -> Result<impl IntoResponse, Failure> {
    let wanted = json!({"types": ["order.*"], "channels": [format!("customer:{customer}")]});
    match tidings.ask("/stream-tickets", &wanted).await {
        Ok(ticket) => {
            let path = ticket["url"].as_str().unwrap_or_default();
            Ok(Json(json!({"url": format!("{}{path}", tidings.url)})))
        }
        Err(error) => {
            eprintln!("ticket: {error:#}");
            Err(Failure(StatusCode::SERVICE_UNAVAILABLE, "no ticket now: try again".into()))
        }
    }
}

impl Tidings {
    async fn ask(&self, path: &str, body: &Value) -> Result<Value> {
        let address = self.url.strip_prefix("http://").context("TIDINGS_URL begins with http://")?;
        let socket = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        // What ends the connection is told by the request.
        tokio::spawn(connection);
        let mut request =
            Request::post(path).header(header::HOST, address).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let answer = sender.send_request(request.body(Body::from(body.to_string()))?).await?;
        let status = answer.status();
        let text: Bytes = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(anyhow::Error::from_boxed)?
            .to_bytes();
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&text));
        }
        Ok(serde_json::from_slice(&text)?)
    }
}
