//! A fresh connection, to an address that the policy lets pass.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connection::Connection;
use crate::door::Door;
use crate::error::DoorError;
use crate::policy::Policy;
use crate::stream::Stream;
use crate::target::{Host, Scheme, Target};

/// For all addresses of a name together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TLS_TIMEOUT: Duration = Duration::from_secs(5);
/// Most addresses of a name that are tried.
const TRIED_MAX: usize = 4;

/// Connects to `target` under `policy`. There is no other way to a socket.
pub(crate) async fn connect(door: &Door, policy: &Policy, target: &Target) -> Result<Connection, DoorError> {
    // The policy may have changed since the URL was parsed.
    target.check(policy).map_err(|_| DoorError::Blocked("not accepted any more"))?;
    let found = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => door.resolver.resolve(name).await?,
    };
    let vetted = vet(&found, target.port, policy, &door.own_addresses())?;
    let stream = reach(&vetted).await?;
    match target.scheme {
        Scheme::Http => Ok(Connection::new(Stream::Plain(stream))),
        Scheme::Https => {
            let secured = timeout(TLS_TIMEOUT, door.trust.secure(&target.host, stream)).await;
            let secured = secured.map_err(|_| DoorError::Tls("no handshake in time".into()))??;
            Ok(Connection::new(Stream::Tls(Box::new(secured))))
        }
    }
}

/// All addresses or none: a mixed answer is an attack or a mistake.
fn vet(found: &[IpAddr], port: u16, policy: &Policy, own: &[IpAddr]) -> Result<Vec<SocketAddr>, DoorError> {
    let vetted: Result<Vec<_>, _> = found.iter().map(|address| policy.vet(*address, port, own)).collect();
    Ok(vetted?)
}

/// Dials the vetted addresses themselves, one after the other: no name is looked up twice.
async fn reach(vetted: &[SocketAddr]) -> Result<TcpStream, DoorError> {
    let tried = &vetted[..vetted.len().min(TRIED_MAX)];
    let share = CONNECT_TIMEOUT / u32::try_from(tried.len()).unwrap_or(1).max(1);
    let mut failed = DoorError::Connect("nobody to connect to".into());
    for address in tried {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return checked(stream, *address),
            Ok(Err(error)) => failed = DoorError::Connect(error.to_string()),
            Err(_) => failed = DoorError::Connect("nobody answered in time".into()),
        }
    }
    Err(failed)
}

fn checked(stream: TcpStream, vetted: SocketAddr) -> Result<TcpStream, DoorError> {
    let wrong = |error: std::io::Error| DoorError::Connect(error.to_string());
    if stream.peer_addr().map_err(wrong)? != vetted {
        return Err(DoorError::Blocked("another peer than was dialled"));
    }
    stream.set_nodelay(true).map_err(wrong)?;
    Ok(stream)
}
