//! A server whose WebSockets send back what they get, for tests/autobahn: a shard of streams behind the smallest handshake.
//! `echo 127.0.0.1:9001` serves until it is killed.
#![expect(clippy::unwrap_used, reason = "a program of the tests: what cannot be unwrapped ends it")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_engine::streams::guest::{Guest, Pass, Wants};
use tidings_engine::streams::{Env, Streams};
use tidings_log::memory::{MemoryDisk, MemoryStore};
use tidings_log::{Store, Tenant, Write, Written};

const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[expect(clippy::disallowed_methods, reason = "the shell of the example")]
fn monotonic() -> Instant {
    Instant::now()
}

fn now() -> Timestamp {
    Timestamp::from_millis(0)
}

fn main() {
    let address = std::env::args().nth(1).expect("an address to listen on");
    let store: Arc<dyn Store> = Arc::new(MemoryStore::open(&MemoryDisk::default()));
    let tenant = tenant(&*store);
    let env = Env { now, monotonic, random: |bytes| getrandom::fill(bytes).unwrap() };
    let (streams, shards) = Streams::new(&store, env, 1).unwrap();
    for shard in shards {
        std::thread::spawn(move || shard.run().unwrap());
    }
    for socket in TcpListener::bind(address).unwrap().incoming() {
        let socket = socket.unwrap();
        // Whoever leaves before its handshake is let go.
        let Some(accept) = handshake(&socket) else { continue };
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ";
        (&socket).write_all(format!("{head}{accept}\r\n\r\n").as_bytes()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let wants = Wants::Talk(Box::new(|_, _| ()));
        streams.admit(Guest { socket, greeting: Vec::new(), tenant, wants, pass: Box::new(|_| Pass::Good(None)) });
    }
}

fn tenant(store: &dyn Store) -> Tenant {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let name = TenantName::parse("default").unwrap();
    let written = runtime.block_on(store.commit(now(), vec![Write::Tenant(name)])).unwrap();
    let [Written::Tenant(tenant)] = written[..] else { panic!("{written:?}") };
    tenant
}

/// Reads a request; what answers its key.
fn handshake(socket: &TcpStream) -> Option<String> {
    let mut key = None;
    for line in BufReader::new(socket).lines() {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("sec-websocket-key") {
            key = Some(value.trim().to_owned());
        }
    }
    Some(STANDARD.encode(sha1_smol::Sha1::from(key? + MAGIC).digest().bytes()))
}
