//! Endpoints without end cost one slot until its deadline, and no memory.

use std::time::Duration;

use tidings_egress::{BODY_BYTES_MAX, DoorError, HEAD_BYTES_MAX, Lines};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::peer::{line, request};

/// More than the buffers of both sockets hold.
const BUFFERED_MAX: usize = 32 << 20;
const DEADLINE: Duration = Duration::from_millis(1500);

/// An endpoint that says `start`, then `more` again and again until nobody takes it; how many bytes it got rid of is
/// told when the connection is gone.
async fn endless(start: &str, more: Vec<u8>, pause: Option<Duration>) -> (String, oneshot::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (told, taken) = oneshot::channel();
    let start = start.to_owned();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await.unwrap();
        let mut sent = 0;
        let mut bytes: &[u8] = start.as_bytes();
        while stream.write_all(bytes).await.is_ok() {
            sent += bytes.len();
            bytes = &more;
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        let _ = told.send(sent);
    });
    (url, taken)
}

#[tokio::test]
async fn an_answer_of_one_byte_a_second_ends_at_the_deadline() {
    let second = Some(Duration::from_secs(1));
    for start in
        ["HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nx: "]
    {
        let (url, _taken) = endless(start, b"x".to_vec(), second).await;
        let begun = Instant::now();
        let error = line(&url).post(Lines::default(), b"{}", DEADLINE).await.unwrap_err();
        assert_eq!(error, DoorError::Timeout, "{start}");
        assert!(begun.elapsed() < 2 * DEADLINE, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_body_of_a_gigabyte_is_left_where_it_is() {
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for (start, more) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", "x".repeat(1 << 16)),
        ("HTTP/1.1 200 OK\r\n\r\n", "x".repeat(1 << 16)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk),
    ] {
        let (url, taken) = endless(start, more.into_bytes(), None).await;
        let response = line(&url).post(Lines::default(), b"{}", DEADLINE).await.unwrap();
        assert_eq!(response.body_start.len(), BODY_BYTES_MAX);
        assert!(response.body_start.capacity() <= 2 * BODY_BYTES_MAX, "{}", response.body_start.capacity());
        let taken = taken.await.unwrap();
        assert!(taken < BUFFERED_MAX, "{taken} bytes were taken of {start}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_not_read_on() {
    let early = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
    for (start, more) in [
        ("HTTP/1.1 200 OK\r\nx: ", "x".repeat(1000)),
        ("HTTP/1.1 200 OK\r\n", "x: y\r\n".repeat(100)),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", early),
    ] {
        let (url, taken) = endless(start, more.into_bytes(), None).await;
        let error = line(&url).post(Lines::default(), b"{}", DEADLINE).await.unwrap_err();
        assert!(matches!(error, DoorError::Protocol(_)), "{start}: {error}");
        let taken = taken.await.unwrap();
        assert!(taken > HEAD_BYTES_MAX && taken < BUFFERED_MAX, "{taken} bytes were taken of {start}");
    }
}

#[tokio::test]
async fn chunks_that_are_mostly_frame_are_not_read_on() {
    let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let extension = format!("1;{}\r\nx\r\n", "e".repeat(1000));
    let trailer = "0\r\n".to_owned() + &"x: y\r\n".repeat(10_000);
    for more in [extension, trailer] {
        let (url, taken) = endless(start, more.into_bytes(), None).await;
        let error = line(&url).post(Lines::default(), b"{}", DEADLINE).await.unwrap_err();
        assert!(matches!(error, DoorError::Protocol(_)), "{error}");
        assert!(taken.await.unwrap() < BUFFERED_MAX);
    }
}
