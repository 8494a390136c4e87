//! A gateway that answers as it is told, one request after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tidings_emit::Gateway;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a test decides about a request.
pub(crate) type Decide = dyn Fn(usize, &Request) -> Answer + Send + Sync;

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) key: Option<String>,
    pub(crate) body: Value,
}

pub(crate) enum Answer {
    Status(u16, Value),
    /// With `Retry-After`, in seconds.
    Later(u16, u64),
    /// None, for as long as the test runs.
    Never,
}

pub(crate) struct Fake {
    pub(crate) url: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<VecDeque<Request>>,
    all: Mutex<usize>,
    arrived: Notify,
}

impl Fake {
    pub(crate) async fn start(decide: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(socket, decide)
    }

    pub(crate) fn on(socket: TcpListener, decide: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        let url = format!("http://{}", socket.local_addr().unwrap());
        let seen = Arc::new(Seen::default());
        let decide: Arc<Decide> = Arc::new(decide);
        let router = Router::new().fallback(answer).with_state((Arc::clone(&seen), decide));
        tokio::spawn(async move { axum::serve(socket, router).await });
        Self { url, seen }
    }

    pub(crate) fn gateway(&self) -> Gateway {
        Gateway::new(&self.url).unwrap()
    }

    /// The next request, in the order in which they came.
    pub(crate) async fn next(&self) -> Request {
        let next = async {
            loop {
                let arrived = self.seen.arrived.notified();
                if let Some(request) = self.seen.requests.lock().await.pop_front() {
                    return request;
                }
                arrived.await;
            }
        };
        timeout(PATIENCE, next).await.expect("a request")
    }
}

async fn answer(
    State((seen, decide)): State<(Arc<Seen>, Arc<Decide>)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let key = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let request = Request { path: uri.path().to_owned(), key, body: serde_json::from_slice(&body).unwrap() };
    let number = {
        let mut all = seen.all.lock().await;
        *all += 1;
        *all
    };
    let decided = decide(number, &request);
    seen.requests.lock().await.push_back(request);
    seen.arrived.notify_one();
    match decided {
        Answer::Status(status, body) => (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response(),
        Answer::Later(status, seconds) => {
            (StatusCode::from_u16(status).unwrap(), [("retry-after", seconds.to_string())], "{}").into_response()
        }
        Answer::Never => std::future::pending().await,
    }
}

/// The answer to a batch that the log took, from an offset on.
pub(crate) fn taken(request: &Request, offset: usize) -> Answer {
    let receipt = |(place, event): (usize, &Value)| json!({"eventId": event["eventId"], "offset": offset + place, "sequenceNumber": null, "duplicate": false});
    let results: Vec<Value> = request.body.as_array().unwrap().iter().enumerate().map(receipt).collect();
    Answer::Status(201, json!({"accepted": results.len(), "duplicates": 0, "results": results}))
}
