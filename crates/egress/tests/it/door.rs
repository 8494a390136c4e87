//! Peers that misbehave in every way.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tidings_egress::{BODY_BYTES_MAX, Door, DoorError, HEAD_BYTES_MAX, Response, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
const PATIENCE: Duration = Duration::from_secs(10);

/// What a peer does with a request.
#[derive(Clone)]
enum Deed {
    /// Answers and keeps the connection.
    Say(String),
    /// Answers and closes.
    SayAndClose(String),
    /// Answers nothing more and keeps the connection.
    Stall(String),
}

/// A peer that does one deed after the other, over all its connections; each request is told with its connection.
async fn peer(deeds: Vec<Deed>) -> (Target, UnboundedReceiver<(usize, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::parse(&format!("http://{}/path?query=1", listener.local_addr().unwrap())).unwrap();
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
    (target, requests)
}

/// One request of a body of two bytes.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n{}") {
        let byte = stream.read_u8().await.ok()?;
        text.push(byte);
    }
    String::from_utf8(text).ok()
}

async fn post(door: &Door, target: &Target) -> Result<Response, DoorError> {
    let mut headers = HeaderMap::new();
    headers.insert("x-test", "1".parse().unwrap());
    door.post(target, headers, Bytes::from_static(b"{}"), PATIENCE).await
}

fn say(answer: &str) -> Deed {
    Deed::Say(answer.to_owned())
}

#[tokio::test]
async fn a_post_says_where_it_goes_and_brings_the_answer() {
    let busy = "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nwait";
    let (target, mut requests) = peer(vec![say(busy)]).await;
    let response = post(&Door::new(), &target).await.unwrap();
    assert_eq!((response.status.as_u16(), &response.body_start[..]), (503, &b"wait"[..]));
    assert_eq!(response.retry_after.unwrap(), "7");
    let (_, request) = requests.recv().await.unwrap();
    assert!(request.starts_with("POST /path?query=1 HTTP/1.1\r\n"), "{request}");
    for line in ["host: 127.0.0.1:", "x-test: 1\r\n", "content-length: 2\r\n"] {
        assert!(request.contains(line), "{line} in {request}");
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let (target, mut requests) = peer(vec![say(OK), say(OK), say(OK)]).await;
    let door = Door::new();
    for _ in 0..3 {
        post(&door, &target).await.unwrap();
        assert_eq!(requests.recv().await.unwrap().0, 0);
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let (target, mut requests) = peer(vec![Deed::SayAndClose(OK.to_owned()), say(OK)]).await;
    let door = Door::new();
    for connection in 0..2 {
        post(&door, &target).await.unwrap();
        assert_eq!(requests.recv().await.unwrap().0, connection);
    }
}

#[tokio::test]
async fn redirects_are_an_answer_like_any_other() {
    let (target, _requests) = peer(vec![say("HTTP/1.1 302 Found\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n")]).await;
    assert_eq!(post(&Door::new(), &target).await.unwrap().status.as_u16(), 302);
}

#[tokio::test]
async fn a_large_body_is_cut_and_its_connection_not_used_again() {
    let large = BODY_BYTES_MAX * 4;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {large}\r\n\r\n{}", "x".repeat(large));
    let (target, mut requests) = peer(vec![Deed::SayAndClose(answer), say(OK)]).await;
    let door = Door::new();
    assert_eq!(post(&door, &target).await.unwrap().body_start.len(), BODY_BYTES_MAX);
    post(&door, &target).await.unwrap();
    assert_eq!((requests.recv().await.unwrap().0, requests.recv().await.unwrap().0), (0, 1));
}

#[tokio::test]
async fn what_is_no_proper_answer_is_an_error_with_its_reason() {
    let wide = format!("HTTP/1.1 200 OK\r\nx-wide: {}\r\n\r\n", "x".repeat(2 * HEAD_BYTES_MAX));
    let cases = [
        ("", "reset"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "reset"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "protocol"),
        (&wide, "protocol"),
    ];
    for (answer, word) in cases {
        let (target, _requests) = peer(vec![Deed::SayAndClose(answer.to_owned())]).await;
        let error = post(&Door::new(), &target).await.unwrap_err();
        assert_eq!(error.word(), word, "{answer:.60}: {error}");
    }
}

#[tokio::test]
async fn an_answer_that_never_ends_is_a_timeout() {
    for answer in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
        let (target, _requests) = peer(vec![Deed::Stall(answer.to_owned())]).await;
        let patience = Duration::from_millis(100);
        let door = Door::new();
        let attempt = door.post(&target, HeaderMap::new(), Bytes::from_static(b"{}"), patience);
        assert_eq!(attempt.await.unwrap_err(), DoorError::Timeout, "{answer:?}");
    }
}

#[tokio::test]
async fn a_name_that_is_none_and_a_port_where_nobody_listens_are_told_apart() {
    for (url, word) in [("http://nowhere.invalid/", "dns"), ("http://127.0.0.1:1/", "connect")] {
        let target = Target::parse(url).unwrap();
        assert_eq!(post(&Door::new(), &target).await.unwrap_err().word(), word, "{url}");
    }
}
