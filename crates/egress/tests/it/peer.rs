//! Peers of the tests: they take requests and do as they are told.

use std::sync::Arc;
use std::time::Duration;

use tidings_egress::{Door, DoorError, Line, Lines, Policy, Resolver, Response, Target, Trust};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a peer does with a request.
#[derive(Clone)]
pub(crate) enum Deed {
    /// Answers and keeps the connection.
    Say(String),
    /// Answers and closes.
    SayAndClose(String),
    /// Answers nothing more and keeps the connection.
    Stall(String),
}

/// A line to a peer that does one deed after the other, over all its connections; each request is told with its
/// connection.
pub(crate) async fn peer(deeds: Vec<Deed>) -> (Line, UnboundedReceiver<(usize, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line = line(&format!("http://{}/path?query=1", listener.local_addr().unwrap()));
    let (told, requests) = unbounded_channel();
    tokio::spawn(async move {
        let mut deeds = deeds.into_iter().peekable();
        for connection in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            while deeds.peek().is_some() {
                let Some(request) = request(&mut stream).await else { break };
                told.send((connection, request)).unwrap();
                match deeds.next().unwrap() {
                    Deed::Say(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                    Deed::SayAndClose(answer) => {
                        // The door may have stopped to listen.
                        let _ = stream.write_all(answer.as_bytes()).await;
                        break;
                    }
                    Deed::Stall(answer) => {
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        tokio::time::sleep(PATIENCE).await;
                    }
                }
            }
        }
    });
    (line, requests)
}

/// One request of a body of two bytes.
pub(crate) async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n{}") {
        let byte = stream.read_u8().await.ok()?;
        text.push(byte);
    }
    String::from_utf8(text).ok()
}

pub(crate) fn door() -> Arc<Door> {
    Arc::new(Door::new(Policy::dev(), Resolver::system().unwrap(), Trust::new(None).unwrap()))
}

pub(crate) fn line(url: &str) -> Line {
    let target = Target::parse(url, &Policy::dev()).unwrap();
    Line::new(door(), target, &Lines::default())
}

pub(crate) async fn post(line: &Line) -> Result<Response, DoorError> {
    let mut lines = Lines::default();
    assert!(lines.push("x-test", b"1"));
    line.post(lines, b"{}", PATIENCE).await
}

pub(crate) fn say(answer: &str) -> Deed {
    Deed::Say(answer.to_owned())
}
