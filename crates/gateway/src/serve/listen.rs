//! The way in: one acceptor deals connections to one runtime a core.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, watch};

use super::door::{self, Entrance};
use crate::api::stream::wire::{Occupied, Peer};
use crate::app::Phase;
use crate::config::Settings;

/// A request's head arrives within this time.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for a request's head.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
pub(super) const HEADERS_MAX: usize = 100;
/// A peer that acknowledges nothing for so long is gone.
const PEER_TIMEOUT_MS: u32 = 30_000;
/// A timer that is always there.
const TICK: Duration = Duration::from_secs(1);
/// What waits for a runtime.
const DEALT_MAX: usize = 1_024;

/// Said to whom comes when all connections are taken.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 2\r\n\
connection: close\r\ncontent-length: 133\r\n\r\n{\"type\":\"/errors/overloaded\",\"title\":\"Too much is waiting\",\"status\":503,\
\"detail\":\"all connections are taken: come back in 2 seconds\"}";

/// A connection, and what it occupies.
struct Arrival {
    stream: TcpStream,
    peer: IpAddr,
    occupied: Occupied,
}

/// The running listeners.
pub(crate) struct Server {
    /// Open connections.
    pub(crate) open: Arc<AtomicUsize>,
    accept: tokio::task::JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Takes no more connections.
    pub(crate) fn stop_accepting(&self) {
        self.accept.abort();
    }

    /// Waits for the threads; call it when no connection is open or nobody cares for those that are.
    pub(crate) fn threads_left(&self) -> usize {
        self.threads.iter().filter(|thread| !thread.is_finished()).count()
    }
}

pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address}: choose another address with --listen"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

pub(crate) fn start(
    listener: TcpListener,
    router: &Router,
    settings: &Settings,
    threads: usize,
    phase: &watch::Receiver<Phase>,
) -> Result<Server> {
    let open = Arc::new(AtomicUsize::new(0));
    let mut hands = Vec::new();
    let mut handles = Vec::new();
    for number in 0..threads {
        let (sender, receiver) = mpsc::channel(DEALT_MAX);
        let (router, phase) = (router.clone(), phase.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || runtime.block_on(connections(receiver, router, phase));
        handles.push(std::thread::Builder::new().name(format!("tidings-http-{number}")).spawn(work)?);
        hands.push(sender);
    }
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let accept = tokio::spawn(accept(listener, hands, Arc::clone(&open), settings.connections_max));
    Ok(Server { open, accept, threads: handles })
}

async fn accept(
    listener: tokio::net::TcpListener,
    hands: Vec<mpsc::Sender<Arrival>>,
    open: Arc<AtomicUsize>,
    connections_max: usize,
) {
    for hand in hands.iter().cycle() {
        let (mut stream, address) = loop {
            match listener.accept().await {
                Ok(accepted) => break accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: those that close make room.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        if open.load(Ordering::Relaxed) >= connections_max {
            // Who cannot be served is told so, if it listens.
            let _ = tokio::time::timeout(Duration::from_millis(100), stream.write_all(FULL)).await;
            continue;
        }
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, PEER_TIMEOUT_MS);
        let Ok(stream) = stream.into_std() else { continue };
        let arrival = Arrival { stream, peer: address.ip(), occupied: Occupied::new(&open) };
        if hand.send(arrival).await.is_err() {
            return;
        }
    }
}

/// Serves the connections dealt to one runtime; ends when the acceptor is gone and all are closed.
async fn connections(mut dealt: mpsc::Receiver<Arrival>, router: Router, phase: watch::Receiver<Phase>) {
    let answers = tokio::spawn(tidings_log::answers::serve());
    let mut tasks = tokio::task::JoinSet::new();
    // With no timer earlier than a request's own, tokio would ring its own bell, a system call, for every request.
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            arrival = dealt.recv() => {
                let Some(arrival) = arrival else { break };
                tasks.spawn(connection(arrival, router.clone(), phase.clone()));
            }
            Some(_) = tasks.join_next() => {}
        }
    }
    while tasks.join_next().await.is_some() {}
    answers.abort();
}

async fn connection(arrival: Arrival, router: Router, mut phase: watch::Receiver<Phase>) {
    let Arrival { stream, peer, occupied } = arrival;
    let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { return };
    let entrance = tokio::select! {
        entrance = door::enter(stream, peer, occupied, &router) => entrance,
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
    };
    let Entrance::Http(stream, _occupied) = entrance else { return };
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut leaving = false;
    loop {
        tokio::select! {
            // How a connection ends is the client's business; what matters was answered or refused.
            _ = connection.as_mut() => return,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_when_all_connections_are_taken_is_a_whole_problem() {
        let text = str::from_utf8(FULL).expect("it is ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        let kind = &crate::api::kinds::OVERLOADED;
        let problem: serde_json::Value = serde_json::from_str(body).expect("the body is JSON");
        assert_eq!(problem["type"], format!("/errors/{}", kind.slug));
        assert_eq!(problem["title"], kind.title);
        assert_eq!(problem["status"], kind.status.as_u16());
    }
}
