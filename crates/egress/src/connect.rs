//! A fresh connection.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};

use crate::door::HEAD_BYTES_MAX;
use crate::error::DoorError;
use crate::target::Target;

/// How long a look-up and the connection may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most response headers.
const HEADERS_MAX: usize = 100;

/// Connects to `target`; the connection lives until its sender is dropped.
pub(crate) async fn connect(target: &Target) -> Result<SendRequest<Full<Bytes>>, DoorError> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, reach(target));
    let stream = stream.await.map_err(|_| DoorError::Connect("nobody answered in time".into()))??;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        // Whoever waits for the answer is told the error.
        let _ = connection.await;
    });
    Ok(sender)
}

async fn reach(target: &Target) -> Result<TcpStream, DoorError> {
    let addresses =
        lookup_host((&*target.host, target.port)).await.map_err(|error| DoorError::Dns(error.to_string()))?;
    let mut failed = DoorError::Dns("it is known, but without an address".into());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|error| DoorError::Connect(error.to_string()))?;
                return Ok(stream);
            }
            Err(error) => failed = DoorError::Connect(error.to_string()),
        }
    }
    Err(failed)
}
