//! Talks to a server: over TCP with a key, or over the socket in the data folder.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::fmt::Write as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::control::socket;

/// Where the server is, and who asks.
#[derive(Args, Debug, Clone)]
pub(crate) struct Target {
    /// URL of the server
    #[arg(long, env = "TIDINGS_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// API key; a development server needs none
    #[arg(long, env = "TIDINGS_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Tenant to speak of, with an operator's key
    #[arg(long)]
    pub(crate) tenant: Option<String>,
}

/// One connection to a server.
pub(crate) struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
    key: Option<String>,
    tenant: Option<String>,
}

impl Client {
    pub(crate) async fn connect(target: &Target) -> Result<Self> {
        let url = url::Url::parse(&target.url).with_context(|| format!("--url {}", target.url))?;
        if url.scheme() != "http" {
            bail!("--url {}: this client speaks http; put a TLS proxy's local port there", target.url);
        }
        let host = url.host_str().with_context(|| format!("--url {}: no host", target.url))?;
        let port = url.port_or_known_default().unwrap_or(80);
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
            .await
            .with_context(|| format!("no server answers at {}: start one with `tidings serve`", target.url))?;
        Self::over(stream, format!("{host}:{port}"), target.key.clone(), target.tenant.clone()).await
    }

    /// Connects to the server that has `folder` open, if there is one.
    pub(crate) async fn on_folder(folder: &std::path::Path) -> Option<Self> {
        let stream = socket::connect(folder).await.ok()?;
        Self::over(stream, "localhost".to_owned(), None, None).await.ok()
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        host: String,
        key: Option<String>,
        tenant: Option<String>,
    ) -> Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What ends the connection is told by the request under way.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self { sender, host, key, tenant })
    }

    /// Names the tenant that requests speak of.
    pub(crate) fn speak_of(&mut self, tenant: Option<String>) {
        self.tenant = tenant;
    }

    /// Sends a request and returns the answer's head; a refusal becomes an error with its text.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<(&str, Bytes)>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host).header(ACCEPT, "*/*");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("tidings-tenant", tenant);
        }
        let body = match body {
            Some((media_type, body)) => {
                request = request.header(CONTENT_TYPE, media_type);
                body
            }
            None => Bytes::new(),
        };
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.into_body().collect().await?.to_bytes();
        bail!("{}", refusal(status, &text))
    }

    /// Sends a request and reads the whole answer as JSON.
    pub(crate) async fn json(
        &mut self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<serde_json::Value> {
        let response = self.send(method, path, &[], body).await?;
        let bytes = response.into_body().collect().await?.to_bytes();
        serde_json::from_slice(&bytes).context("the server's answer is not JSON")
    }
}

/// A problem as a person reads it.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    let mut lines = format!("{status}: {}", text("detail"));
    for error in problem["errors"].as_array().into_iter().flatten() {
        let index = error["index"].as_u64().map(|index| format!("event {index} ")).unwrap_or_default();
        let (pointer, message) = (error["pointer"].as_str(), error["message"].as_str());
        // Writing to a String cannot fail.
        let _ = write!(lines, "\n  {index}{}: {}", pointer.unwrap_or_default(), message.unwrap_or_default());
    }
    let kind = text("type");
    if kind.is_empty() { lines } else { format!("{lines}\n  {kind}") }
}

/// Runs one asynchronous command.
pub(crate) fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
