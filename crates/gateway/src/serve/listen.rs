//! The way in: one acceptor deals connections to one runtime a core.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::door::{self, Entrance};
use crate::api::stream::wire::{Afterwards, Occupied, Peer};
use crate::app::Phase;
use crate::config::Settings;

/// A request's head arrives within this time.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for a request's head.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
pub(super) const HEADERS_MAX: usize = 100;
/// Connections that wait to be taken; the system may allow fewer. After a restart all clients come at once, and who finds no
/// room tries again only after a second.
const BACKLOG: i32 = 4_096;
/// A peer that acknowledges nothing for so long is gone.
const PEER_TIMEOUT_MS: u32 = 30_000;
/// Requests at a time on an HTTP/2 connection: streams of all tabs of a browser, and what they ask meanwhile.
const STREAMS_EACH_MAX: u32 = 128;
/// Room for a request's head on one, unpacked.
const HEAD_LIST_BYTES_MAX: u32 = 64 * 1024;
/// How often an HTTP/2 peer is asked whether it is there, and how long it may take to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
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
    /// Its way to speak TLS, if it has to.
    tls: Option<TlsAcceptor>,
    peer: IpAddr,
    occupied: Occupied,
}

/// The running listeners.
pub(crate) struct Server {
    /// Open connections.
    pub(crate) open: Arc<AtomicUsize>,
    accept: Vec<tokio::task::JoinHandle<()>>,
}

impl Server {
    /// Takes no more connections.
    pub(crate) fn stop_accepting(&self) {
        self.accept.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// A socket that connections come to, and what takes TLS off them.
pub(super) type Listener = (TcpListener, Option<TlsAcceptor>);

pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address}: choose another one, with --listen or in the settings"))?;
    // Said again, it only makes the queue longer.
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

pub(crate) fn start(
    listeners: Vec<Listener>,
    router: &Router,
    settings: &Settings,
    threads: usize,
    phase: &watch::Receiver<Phase>,
) -> Result<Server> {
    let open = Arc::new(AtomicUsize::new(0));
    let mut hands = Vec::new();
    for number in 0..threads {
        let (sender, receiver) = mpsc::channel(DEALT_MAX);
        let (router, phase) = (router.clone(), phase.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || runtime.block_on(connections(receiver, router, phase));
        std::thread::Builder::new().name(format!("tidings-http-{number}")).spawn(work)?;
        hands.push(sender);
    }
    let mut accept = Vec::new();
    for (listener, tls) in listeners {
        let gate = Gate {
            listener: tokio::net::TcpListener::from_std(listener)?,
            tls,
            hands: hands.clone(),
            open: Arc::clone(&open),
            connections_max: settings.connections_max,
        };
        accept.push(tokio::spawn(gate.accept()));
    }
    Ok(Server { open, accept })
}

/// A listener, and who takes what comes.
struct Gate {
    listener: tokio::net::TcpListener,
    tls: Option<TlsAcceptor>,
    hands: Vec<mpsc::Sender<Arrival>>,
    open: Arc<AtomicUsize>,
    connections_max: usize,
}

impl Gate {
    async fn accept(self) {
        for hand in self.hands.iter().cycle() {
            let (mut stream, address) = loop {
                match self.listener.accept().await {
                    Ok(accepted) => break accepted,
                    Err(error) => {
                        // Out of file descriptors, most likely: those that close make room.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            };
            if self.open.load(Ordering::Relaxed) >= self.connections_max {
                // Who cannot be served is told so, if it listens.
                if self.tls.is_none() {
                    let _ = tokio::time::timeout(Duration::from_millis(100), stream.write_all(FULL)).await;
                }
                continue;
            }
            let _ = stream.set_nodelay(true);
            let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, PEER_TIMEOUT_MS);
            let Ok(stream) = stream.into_std() else { continue };
            let occupied = Occupied::new(&self.open);
            let arrival = Arrival { stream, tls: self.tls.clone(), peer: address.ip(), occupied };
            if hand.send(arrival).await.is_err() {
                return;
            }
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
    let Arrival { stream, tls, peer, occupied } = arrival;
    let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { return };
    if let Some(tls) = tls {
        return encrypted(stream, &tls, peer, occupied, router, phase).await;
    }
    let entrance = tokio::select! {
        entrance = door::enter(stream, peer, occupied, &router) => entrance,
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
    };
    let Entrance::Http(stream, _occupied) = entrance else { return };
    let afterwards = Afterwards::default();
    let service = Known { router: TowerToHyperService::new(router), peer, afterwards: afterwards.clone() };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut leaving = false;
    loop {
        tokio::select! {
            // How a connection ends is the client's business; what matters was answered or refused.
            _ = connection.as_mut() => break,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    afterwards.run().await;
}

/// Serves a connection over TLS, by HTTP/2 if the client speaks it.
async fn encrypted(
    stream: tokio::net::TcpStream,
    tls: &TlsAcceptor,
    peer: IpAddr,
    _occupied: Occupied,
    router: Router,
    mut phase: watch::Receiver<Phase>,
) {
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)) => shaken,
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
    };
    let Ok(Ok(stream)) = shaken else { return };
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    server.http1().max_headers(HEADERS_MAX);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_EACH_MAX)
        .max_header_list_size(HEAD_LIST_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    let afterwards = Afterwards::default();
    let service = Known { router: TowerToHyperService::new(router), peer, afterwards: afterwards.clone() };
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut leaving = false;
    loop {
        tokio::select! {
            _ = connection.as_mut() => break,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    afterwards.run().await;
}

/// The API for a known peer.
struct Known {
    router: TowerToHyperService<Router>,
    peer: IpAddr,
    afterwards: Afterwards,
}

impl Service<Request<Incoming>> for Known {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Peer(self.peer));
        request.extensions_mut().insert(self.afterwards.clone());
        self.router.call(request)
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
