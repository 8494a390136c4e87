//! A DNS server that answers as a test decides.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

/// What the server says about a name.
pub(crate) enum Reply {
    /// These addresses: IPv4 to who asks for those, IPv6 to who asks for those.
    Addresses(Vec<IpAddr>),
    /// The same, behind another name.
    Alias(Vec<IpAddr>),
    /// There is no such name.
    Unknown,
    /// Nothing.
    Silence,
}

const A: u16 = 1;
const AAAA: u16 = 28;
/// What fits into a datagram without extensions.
const DATAGRAM_BYTES_MAX: usize = 512;

/// Starts a server; `decide` is asked with each name, in lower case, and whether IPv6 is asked for.
pub(crate) async fn server(decide: impl Fn(&str, bool) -> Reply + Send + Sync + 'static) -> SocketAddr {
    let decide = Arc::new(decide);
    // The same port for both ways: another process may have the second.
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let asked = Arc::clone(&decide);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            if let Some(answer) = answer(&buffer[..length], &*asked, DATAGRAM_BYTES_MAX) {
                udp.send_to(&answer, from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let decide = Arc::clone(&decide);
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut query = vec![0; length.into()];
                    stream.read_exact(&mut query).await.unwrap();
                    let Some(answer) = answer(&query, &*decide, usize::from(u16::MAX)) else { return };
                    stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            });
        }
    });
    address
}

/// The answer to a query of one question (RFC 1035 §4); cut if it is too long.
fn answer(query: &[u8], decide: &dyn Fn(&str, bool) -> Reply, bytes_max: usize) -> Option<Vec<u8>> {
    let (name, end) = name(query)?;
    let kind = u16::from_be_bytes([query[end], query[end + 1]]);
    let question = &query[12..end + 4];
    let (code, alias, addresses) = match decide(&name, kind == AAAA) {
        Reply::Addresses(addresses) => (0, false, addresses),
        Reply::Alias(addresses) => (0, true, addresses),
        Reply::Unknown => (3, false, Vec::new()),
        Reply::Silence => return None,
    };
    let mut records = Vec::new();
    let mut count = 0u16;
    // The owner of the addresses: the question's name, or the alias' target, which stands in the first record.
    let owner = if alias { 0xc000 + u16::try_from(12 + question.len() + 12).unwrap() } else { 0xc00c };
    if alias {
        record(&mut records, 0xc00c, 5, b"\x08internal\x04test\x00");
        count += 1;
    }
    for address in addresses {
        match address {
            IpAddr::V4(address) if kind == A => record(&mut records, owner, A, &address.octets()),
            IpAddr::V6(address) if kind == AAAA => record(&mut records, owner, AAAA, &address.octets()),
            _ => continue,
        }
        count += 1;
    }
    let truncated = 12 + question.len() + records.len() > bytes_max;
    let (flags, count) = if truncated { (0x8380 | code, 0) } else { (0x8180 | code, count) };
    let mut message = query[..2].to_vec();
    for number in [flags, 1, count, 0, 0] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    message.extend_from_slice(question);
    if !truncated {
        message.extend_from_slice(&records);
    }
    Some(message)
}

/// A record that is not to be kept.
fn record(records: &mut Vec<u8>, owner: u16, kind: u16, data: &[u8]) {
    for number in [owner, kind, 1, 0, 0, u16::try_from(data.len()).unwrap()] {
        records.extend_from_slice(&number.to_be_bytes());
    }
    records.extend_from_slice(data);
}

/// The name of the question, and where it ends.
fn name(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join(".").to_lowercase(), at));
        }
        labels.push(String::from_utf8(query.get(at..at + length)?.to_vec()).ok()?);
        at += length;
    }
}
