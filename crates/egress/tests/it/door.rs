//! Requests and their answers, over connections that are kept.

use std::sync::Arc;
use std::time::Duration;

use tidings_egress::{BODY_BYTES_MAX, DoorError, HEAD_BYTES_MAX, Line, Lines, Policy, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::peer::{Deed, OK, PATIENCE, door, line, peer, post, say};

#[tokio::test]
async fn a_post_says_where_it_goes_and_brings_the_answer() {
    let busy = "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nwait";
    let (line, mut requests) = peer(vec![say(busy)]).await;
    let response = post(&line).await.unwrap();
    assert_eq!((response.status, &response.body_start[..]), (503, &b"wait"[..]));
    assert_eq!((response.retry_after.as_deref(), response.content_type.as_deref()), (Some("7"), Some("text/plain")));
    let (_, request) = requests.recv().await.unwrap();
    assert!(request.starts_with("POST /path?query=1 HTTP/1.1\r\nhost: 127.0.0.1:"), "{request}");
    for line in ["accept-encoding: identity\r\n", "x-test: 1\r\n", "content-length: 2\r\n"] {
        assert_eq!(request.matches(line).count(), 1, "{line} in {request}");
    }
}

#[tokio::test]
async fn a_connection_is_used_again_whatever_frames_the_answer() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let early =
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    let (line, mut requests) = peer(vec![say(OK), say(chunked), say(early), say(OK)]).await;
    for body in ["hi", "hi", "", "hi"] {
        assert_eq!(post(&line).await.unwrap().body_start, body.as_bytes());
        assert_eq!(requests.recv().await.unwrap().0, 0);
    }
}

#[tokio::test]
async fn a_connection_is_not_used_again_when_its_answer_says_so_or_said_too_much() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: x, Close\r\n\r\n",
        "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nhi",
    ] {
        let (line, mut requests) = peer(vec![say(answer), say(OK)]).await;
        // The peer takes its second connection once the first is closed.
        post(&line).await.unwrap();
        post(&line).await.unwrap();
        assert_eq!((requests.recv().await.unwrap().0, requests.recv().await.unwrap().0), (0, 1), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let (line, mut requests) = peer(vec![Deed::SayAndClose(OK.to_owned()), say(OK)]).await;
    for connection in 0..2 {
        post(&line).await.unwrap();
        assert_eq!(requests.recv().await.unwrap().0, connection);
    }
}

#[tokio::test]
async fn a_kept_connection_that_ends_without_a_byte_of_answer_is_replaced_once() {
    let silent = || Deed::SayAndClose(String::new());
    let (line, mut requests) = peer(vec![say(OK), silent(), say(OK), silent(), silent()]).await;
    post(&line).await.unwrap();
    post(&line).await.unwrap();
    let connections = [requests.recv().await, requests.recv().await, requests.recv().await].map(|told| told.unwrap().0);
    assert_eq!(connections, [0, 0, 1], "the second request came twice");
    assert_eq!(post(&line).await.unwrap_err().word(), "reset", "once, not for ever");
}

#[tokio::test]
async fn lines_to_one_endpoint_share_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let peer = tokio::spawn(async move {
        let mut streams = Vec::new();
        while streams.len() < 2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            crate::peer::request(&mut stream).await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
            streams.push(stream);
        }
    });
    let (door, target) = (door(), Target::parse(&url, &Policy::dev()).unwrap());
    for _ in 0..2 {
        post(&Line::new(Arc::clone(&door), target.clone(), &Lines::default())).await.unwrap();
    }
    peer.await.unwrap();
}

#[tokio::test]
async fn a_new_policy_holds_for_connections_that_are_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while crate::peer::request(&mut stream).await.is_some() {
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    });
    let door = door();
    let line = Line::new(Arc::clone(&door), Target::parse(&url, &Policy::dev()).unwrap(), &Lines::default());
    post(&line).await.unwrap();
    post(&line).await.unwrap();
    door.replace_policy(Policy::default());
    assert_eq!(post(&line).await.unwrap_err().word(), "blocked address");
}

#[tokio::test]
async fn redirects_are_an_answer_like_any_other() {
    let (line, _requests) = peer(vec![say("HTTP/1.1 302 Found\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n")]).await;
    assert_eq!(post(&line).await.unwrap().status, 302);
}

#[tokio::test]
async fn a_large_body_is_cut_and_its_connection_not_used_again() {
    let large = BODY_BYTES_MAX * 4;
    let sized = format!("HTTP/1.1 200 OK\r\ncontent-length: {large}\r\n\r\n{}", "x".repeat(large));
    let chunk = format!("{large:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(large));
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
    let open = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(large));
    for answer in [sized, chunked, open] {
        let (line, mut requests) = peer(vec![Deed::SayAndClose(answer), say(OK)]).await;
        assert_eq!(post(&line).await.unwrap().body_start.len(), BODY_BYTES_MAX);
        post(&line).await.unwrap();
        assert_eq!((requests.recv().await.unwrap().0, requests.recv().await.unwrap().0), (0, 1));
    }
}

#[tokio::test]
async fn a_body_may_end_with_its_connection() {
    let (line, _requests) = peer(vec![Deed::SayAndClose("HTTP/1.1 200 OK\r\n\r\nto the end".to_owned())]).await;
    assert_eq!(post(&line).await.unwrap().body_start, b"to the end");
}

#[tokio::test]
async fn an_answer_before_the_request_is_taken_is_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line = line(&format!("http://{}/", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Reads no more than the start of a request that fills every buffer on the way.
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        tokio::time::sleep(PATIENCE).await;
    });
    let body = vec![b'x'; 64 << 20];
    assert_eq!(line.post(Lines::default(), &body, PATIENCE).await.unwrap().status, 413);
}

#[tokio::test]
async fn what_is_no_proper_answer_is_an_error_with_its_reason() {
    let wide = format!("HTTP/1.1 200 OK\r\nx-wide: {}\r\n\r\n", "x".repeat(2 * HEAD_BYTES_MAX));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    let cases = [
        ("", "reset"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "reset"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf", "reset"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "protocol"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "protocol"),
        (&wide, "protocol"),
        (&many, "protocol"),
    ];
    for (answer, word) in cases {
        let (line, _requests) = peer(vec![Deed::SayAndClose(answer.to_owned())]).await;
        let error = post(&line).await.unwrap_err();
        assert_eq!(error.word(), word, "{answer:.60}: {error}");
    }
}

#[tokio::test]
async fn an_answer_that_never_ends_is_a_timeout() {
    for answer in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
        let (line, _requests) = peer(vec![Deed::Stall(answer.to_owned())]).await;
        let attempt = line.post(Lines::default(), b"{}", Duration::from_millis(100));
        assert_eq!(attempt.await.unwrap_err(), DoorError::Timeout, "{answer:?}");
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_word_without_an_address() {
    assert_eq!(post(&line("http://127.0.0.1:1/")).await.unwrap_err().word(), "connect");
    assert_eq!(post(&line("http://localhost:1/")).await.unwrap_err().word(), "connect");
}

#[test]
fn a_line_cannot_end_early() {
    let mut lines = Lines::default();
    for (name, value) in
        [("a b", "v"), ("a:", "v"), ("", "v"), ("a", "v\r\nb: c"), ("a", "v\n"), ("a", "\0"), ("a", "é")]
    {
        assert!(!lines.push(name, value.as_bytes()), "{name:?} {value:?}");
    }
    assert!(lines.push("a-b", b"two words"));
    assert_eq!(lines.as_bytes(), b"a-b: two words\r\n");
}
