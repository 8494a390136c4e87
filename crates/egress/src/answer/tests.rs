//! Answers as they may come: whole, in pieces, wrong.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Reads `bytes` in pieces of the given lengths, over and over, then the end of the connection.
fn read(bytes: &[u8], pieces: &[usize]) -> Result<(Response, bool), String> {
    let mut answer = Answer::default();
    let (mut buffer, mut rest) = (Vec::new(), bytes);
    let mut pieces = pieces.iter().copied().cycle();
    while !rest.is_empty() && !answer.is_done() {
        let (piece, after) = rest.split_at(pieces.next().unwrap().clamp(1, rest.len()));
        rest = after;
        buffer.extend_from_slice(piece);
        let taken = answer.take(&buffer)?;
        assert!(taken <= buffer.len());
        buffer.drain(..taken);
        assert!(buffer.len() <= HEAD_BYTES_MAX, "what is held is bounded");
        assert!(answer.response.body_start.len() <= BODY_BYTES_MAX);
    }
    if answer.is_done() || answer.end() {
        let keeps = answer.keeps() && buffer.is_empty() && rest.is_empty();
        return Ok((answer.into_response(), keeps));
    }
    Err("it ended".into())
}

fn whole(text: &str) -> Result<(Response, bool), String> {
    read(text.as_bytes(), &[usize::MAX])
}

#[test]
fn each_framing_is_read() {
    for (answer, body, keeps) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "hi", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length:  2 \r\n\r\nhi", "hi", true),
        ("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", "", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1\r\nh\r\n1;a=b\r\ni\r\n0\r\nx: y\r\n\r\n", "hi", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n00A\r\n0123456789\r\n0\r\n\r\n", "0123456789", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", "", true),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", "", true),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "hi", true),
        ("HTTP/1.1 200 OK\r\n\r\nhi", "hi", false),
        ("HTTP/1.0 200 OK\r\n\r\nhi", "hi", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", "hi", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive, close\r\n\r\nhi", "hi", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi and more", "hi", false),
    ] {
        let (response, kept) = whole(answer).unwrap_or_else(|error| panic!("{answer:?}: {error}"));
        assert_eq!((&response.body_start[..], kept), (body.as_bytes(), keeps), "{answer:?}");
    }
}

#[test]
fn what_two_readers_could_frame_differently_is_refused() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 2 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\n content-length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\n\ncontent-length: 2\r\n\r\nhi",
        "\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 99 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx\0y: z\r\n\r\n",
    ] {
        assert!(whole(answer).is_err(), "{answer:?}: {:?}", whole(answer));
    }
}

#[test]
fn chunks_are_read_to_the_letter() {
    let chunks = |chunks: &str| whole(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"));
    for wrong in [
        "\r\n",
        "2\nhi\r\n0\r\n\r\n",
        "2\r\nhi\n0\r\n\r\n",
        "2\r\nhi0\r\n\r\n",
        "2\r\nhi!\r\n0\r\n\r\n",
        "g\r\nhi\r\n0\r\n\r\n",
        " 2\r\nhi\r\n0\r\n\r\n",
        "2 \r\nhi\r\n0\r\n\r\n",
        "0x2\r\nhi\r\n0\r\n\r\n",
        "-2\r\nhi\r\n0\r\n\r\n",
        ";a\r\nhi\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhi",
        "2;a\nb\r\nhi\r\n0\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "2\r\nhi\r\n0\r\n",
        "2\r\nhi\r\n",
    ] {
        assert!(chunks(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_head_at_its_bound_is_read_and_one_above_is_not() {
    let of = |length: usize| {
        let (start, end) = ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: ", "\r\n\r\n");
        format!("{start}{}{end}", "x".repeat(length - start.len() - end.len()))
    };
    assert!(whole(&of(HEAD_BYTES_MAX)).is_ok());
    assert!(whole(&of(HEAD_BYTES_MAX + 1)).is_err());
}

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just("HTTP/1.1 200 OK\r\n".to_owned()),
        Just("HTTP/1.1 100 Continue\r\n\r\n".to_owned()),
        Just("content-length: 3\r\n".to_owned()),
        Just("transfer-encoding: chunked\r\n".to_owned()),
        Just("connection: close\r\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("3\r\nabc\r\n".to_owned()),
        Just("0\r\n\r\n".to_owned()),
        "[ -~\r\n]{0,12}",
    ];
    vec(pieces, 0..12).prop_map(|pieces| ("HTTP/1.1 200 OK\r\n".to_owned() + &pieces.concat()).into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn how_an_answer_is_cut_into_pieces_changes_nothing(bytes in answers(), pieces in vec(1usize..40, 1..8)) {
        let (at_once, in_pieces) = (read(&bytes, &[usize::MAX]), read(&bytes, &pieces));
        match (&at_once, &in_pieces) {
            (Ok(a), Ok(b)) => prop_assert_eq!(a, b),
            (Err(_), Err(_)) => {}
            _ => prop_assert!(false, "{at_once:?} but {in_pieces:?}"),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..400), pieces in vec(1usize..40, 1..8)) {
        let _ = read(&bytes, &pieces);
        let _ = read(&[b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat(), &pieces);
        let _ = read(&[b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", &bytes[..]].concat(), &pieces);
    }

    #[test]
    fn a_chunked_body_is_what_was_chunked(chunks in vec(vec(any::<u8>(), 1..600), 0..20), pieces in vec(1usize..700, 1..8)) {
        let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        let (response, keeps) = read(&bytes, &pieces).unwrap();
        prop_assert_eq!(response.body_start, chunks.concat());
        prop_assert!(keeps);
    }
}
