//! An endpoint for webhooks: HTTP/1.1, a thread a connection, and a function that says what is answered.

use anyhow::Result;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

const STACK_BYTES: usize = 256 << 10;
const BODY_BYTES_MAX: usize = 16 << 20;

/// A request as it came.
#[derive(Debug, Default)]
pub(super) struct Post {
    /// Its path.
    pub path: String,
    headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Post {
    /// The value of a header; `name` in lower case. Empty if there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
}

/// Says which status is answered. It may take its time: the connection waits.
pub(super) type Judge = dyn Fn(&Post) -> u16 + Send + Sync;

/// Takes webhooks on a free port until the process ends; returns where.
pub(super) fn take(judge: Arc<Judge>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    serve(listener, judge);
    Ok(address)
}

/// Takes webhooks where `listener` listens.
pub(super) fn serve(listener: TcpListener, judge: Arc<Judge>) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let judge = Arc::clone(&judge);
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            // The end of a connection is the other side's affair; a refused thread shows as a connection that ends.
            let _ = thread.spawn(move || converse(stream, &*judge));
        }
    });
}

fn converse(stream: TcpStream, judge: &Judge) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(8 << 10, stream);
    while let Some(post) = read(&mut stream)? {
        let status = judge(&post);
        let answer = format!("HTTP/1.1 {status} \r\ncontent-length: 0\r\n\r\n");
        stream.get_mut().write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn read(stream: &mut impl BufRead) -> io::Result<Option<Post>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut post = Post { path, ..Post::default() };
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        post.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = post.header("content-length").parse().unwrap_or(0);
    if length > BODY_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    post.body.resize(length, 0);
    stream.read_exact(&mut post.body)?;
    Ok(Some(post))
}
