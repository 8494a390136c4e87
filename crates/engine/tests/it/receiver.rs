//! A subscriber: a real HTTP server that keeps what it was sent and answers as it is told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// One request as it came, and the status that it got.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) status: u16,
}

impl Post {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Decides the status of a post, and how long it takes.
type Answer = dyn Fn(&Post) -> (u16, Duration) + Send + Sync;

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    posts: Arc<Mutex<Vec<Post>>>,
    count: watch::Sender<usize>,
}

impl Receiver {
    /// A receiver that answers 200 at once.
    pub(crate) async fn start() -> Self {
        Self::answering(|_| (200, Duration::ZERO)).await
    }

    pub(crate) async fn answering(answer: impl Fn(&Post) -> (u16, Duration) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (posts, count) = (Arc::new(Mutex::new(Vec::new())), watch::Sender::new(0));
        let answer: Arc<Answer> = Arc::new(answer);
        let receiver = Self { address, posts: Arc::clone(&posts), count: count.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (posts, count, answer) = (Arc::clone(&posts), count.clone(), Arc::clone(&answer));
                let service =
                    service_fn(move |request| take(request, Arc::clone(&posts), count.clone(), Arc::clone(&answer)));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        receiver
    }

    /// All posts so far, in the order of their answers.
    pub(crate) fn posts(&self) -> Vec<Post> {
        self.posts.lock().clone()
    }

    /// All posts, once there are `count`.
    pub(crate) async fn wait(&self, count: usize) -> Vec<Post> {
        let mut watch = self.count.subscribe();
        let enough = watch.wait_for(|now| *now >= count);
        let waited = tokio::time::timeout(Duration::from_secs(30), enough).await.map(|enough| *enough.unwrap());
        assert!(waited.is_ok(), "{} posts of {count} came", self.posts.lock().len());
        self.posts()
    }
}

async fn take(
    request: Request<Incoming>,
    posts: Arc<Mutex<Vec<Post>>>,
    count: watch::Sender<usize>,
    answer: Arc<Answer>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut post = Post { headers: parts.headers, body, status: 0 };
    let (status, delay) = answer(&post);
    post.status = status;
    if delay > Duration::ZERO {
        tokio::time::sleep(delay).await;
    }
    posts.lock().push(post);
    count.send_modify(|count| *count += 1);
    Ok(Response::builder().status(status).body(Full::default()).unwrap())
}
