//! The raw streamer: takes lines, and drains what has queued into one write for each socket. No log, no filters, no
//! cursors, nobody who comes back: the price of the bytes and the system calls. With a file it sends that instead.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// What Tidings adds to an event that says nothing but its type: so that frames are equally long.
const ENVELOPE: &str = r#"{"eventId":"01a20173-0000-7000-8000-000000000000","version":1,"timestamp":"2026-11-22T10:15:30.123Z","source":"/","#;
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
/// What a WebSocket begins with: nobody checks what answers its key, and a message says that it is open.
const SOCKET_HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\
\x81\x16{\"state\":\"subscribed\"}";
const TAKEN: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}";
const READY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// What `baseline stream` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to listen; the address is printed, for port 0.
    #[arg(long)]
    listen: SocketAddr,
    /// Threads that write, each to its share of the sockets.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Send this file to whoever asks for a stream, by `sendfile`, and close.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Speak as a WebSocket does.
    #[arg(long)]
    websocket: bool,
}

/// All frames so far, and who gets them.
#[derive(Default)]
struct Queue {
    frames: Mutex<(u64, Vec<u8>)>,
    bell: Condvar,
    sockets: Mutex<Vec<TcpStream>>,
}

/// Serves until killed.
pub(crate) fn serve(args: Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)?;
    // As Tidings does: who finds the queue full tries again after a second.
    rustix::net::listen(&listener, 4_096)?;
    println!(r#"{{"listening":"{}"}}"#, listener.local_addr()?);
    let shares: Vec<Arc<Queue>> = (0..args.threads).map(|_| Arc::default()).collect();
    for share in &shares {
        let share = Arc::clone(share);
        thread::spawn(move || drain(&share));
    }
    let file = args.file.map(Arc::new);
    for (turn, stream) in listener.incoming().enumerate() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        let mut first = [0; 4];
        if stream.peek(&mut first)? == 0 {
            continue;
        }
        if first == *b"POST" {
            let shares = shares.clone();
            thread::spawn(move || take(stream, &shares, args.websocket));
            continue;
        }
        let mut stream = stream;
        let mut request = [0; 2048];
        let length = stream.read(&mut request)?;
        if request[..length].starts_with(b"GET /health") {
            stream.write_all(READY)?;
        } else if let Some(file) = &file {
            let file = Arc::clone(file);
            thread::spawn(move || send_file(stream, &file));
        } else {
            stream.write_all(if args.websocket { SOCKET_HEAD } else { HEAD })?;
            lock(&shares[turn % shares.len()].sockets).push(stream);
        }
    }
    Ok(())
}

/// Takes posts of lines; every line is a frame for all.
fn take(stream: TcpStream, shares: &[Arc<Queue>], websocket: bool) -> anyhow::Result<()> {
    let mut answers = stream.try_clone()?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        lines.read_exact(&mut body)?;
        for share in shares {
            let mut frames = lock(&share.frames);
            for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                frames.0 += 1;
                let id = frames.0;
                if websocket {
                    message(&mut frames.1, id, &line[1..])?;
                    continue;
                }
                write!(frames.1, "id: {id}\ndata: {ENVELOPE}")?;
                frames.1.extend_from_slice(&line[1..]);
                frames.1.extend_from_slice(b"\n\n");
            }
            share.bell.notify_one();
        }
        answers.write_all(TAKEN)?;
    }
}

/// Appends the frame of an event: a text of 126 to 65,535 bytes.
fn message(frames: &mut Vec<u8>, id: u64, line: &[u8]) -> anyhow::Result<()> {
    frames.extend_from_slice(&[0x81, 126, 0, 0]);
    let begin = frames.len();
    write!(frames, r#"{{"type":"event","subscription":"a","offset":{id},"event":{ENVELOPE}"#)?;
    frames.extend_from_slice(line);
    frames.push(b'}');
    let length = u16::try_from(frames.len() - begin)?.to_be_bytes();
    frames[begin - 2..begin].copy_from_slice(&length);
    Ok(())
}

/// Writes what has queued to each socket, in one call.
fn drain(share: &Queue) {
    loop {
        let mut frames = lock(&share.frames);
        while frames.1.is_empty() {
            frames = share.bell.wait(frames).unwrap_or_else(PoisonError::into_inner);
        }
        let queued = std::mem::take(&mut frames.1);
        drop(frames);
        for mut socket in lock(&share.sockets).iter() {
            // Who has gone is not noticed: there is no logic here.
            let _ = socket.write_all(&queued);
        }
    }
}

fn send_file(mut stream: TcpStream, path: &PathBuf) -> anyhow::Result<()> {
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len())?;
    stream.write_all(HEAD)?;
    let mut sent = 0;
    while sent < length {
        match rustix::fs::sendfile(&stream, &file, None, length - sent)? {
            0 => break,
            count => sent += count,
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
