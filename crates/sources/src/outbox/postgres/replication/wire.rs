//! A connection that speaks of replication: its start, and the messages that it consists of.
//!
//! `tokio-postgres` neither asks for one nor understands its answers. Layouts: PostgreSQL's manual, "Message Formats" and
//! "Streaming Replication Protocol". Where and who is as for any other connection to the same database.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::Config as Target;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect as _};

use crate::outbox::ReadError;
use crate::outbox::postgres::access::Config;
use crate::outbox::postgres::session::trouble;
use crate::outbox::postgres::{ANSWER, CONNECT};

/// Where no port is named.
const PORT: u16 = 5432;
/// The largest message, in bytes: PostgreSQL has no value beyond 1 GiB.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// The buffer grows by at most so many bytes before they have come.
const GROWTH_BYTES_MAX: usize = 1 << 20;

/// A connection of bytes.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Messages of the server, one after the other.
pub(super) struct Frames {
    from: ReadHalf<Box<dyn Socket>>,
    buffer: BytesMut,
}

/// The way to the server.
pub(super) type Out = WriteHalf<Box<dyn Socket>>;

/// A connection whose user is known to the server.
pub(super) struct Wire {
    frames: Frames,
    out: Out,
}

impl Frames {
    /// The next message: its kind and its body.
    pub(super) async fn next(&mut self) -> Result<(u8, Bytes), ReadError> {
        loop {
            let missing = match self.buffer.first_chunk::<5>() {
                Some([_, length @ ..]) => {
                    let length = u32::from_be_bytes(*length) as usize;
                    if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
                        return Err(ReadError::Trouble(format!("a message of {length} bytes from the server")));
                    }
                    (1 + length).saturating_sub(self.buffer.len())
                }
                None => 5 - self.buffer.len(),
            };
            if missing == 0 {
                let kind = self.buffer.get_u8();
                let length = self.buffer.get_u32() as usize;
                let body = self.buffer.split_to(length - 4).freeze();
                if length > GROWTH_BYTES_MAX {
                    // The room that it took is not kept for the next one.
                    self.buffer = BytesMut::from(&self.buffer[..]);
                }
                return Ok((kind, body));
            }
            self.buffer.reserve(missing.min(GROWTH_BYTES_MAX));
            if self.from.read_buf(&mut self.buffer).await.map_err(lost)? == 0 {
                return Err(trouble("the server has closed the connection that tells of replication"));
            }
        }
    }

    /// The next message that is no notice; an error of the server is one.
    async fn answer(&mut self) -> Result<(u8, Bytes), ReadError> {
        loop {
            match self.next().await? {
                // Notices, parameters, the key to cancel by, options that it does not know.
                (b'N' | b'S' | b'K' | b'v', _) => {}
                (b'E', body) => return Err(fault(&body)),
                answer => return Ok(answer),
            }
        }
    }
}

impl Wire {
    /// Connects. `user` and `database`: as another connection to the same database has them.
    pub(super) async fn open(config: &Config, user: &str, database: &str) -> Result<Self, ReadError> {
        let started = async {
            let (from, out) = split(secured(config).await?);
            let mut wire = Self { frames: Frames { from, buffer: BytesMut::new() }, out };
            wire.log_in(&config.config, user, database).await?;
            Ok(wire)
        };
        timeout(ANSWER, started).await.map_err(|_| trouble("no answer in time"))?
    }

    /// The cluster that it leads to.
    pub(super) async fn system(&mut self) -> Result<String, ReadError> {
        let asked = async {
            self.send(|out| frontend::query("IDENTIFY_SYSTEM", out)).await?;
            let mut system = None;
            loop {
                match self.frames.answer().await? {
                    (b'D', mut row) => system = column(&mut row),
                    (b'Z', _) => return system.ok_or_else(|| trouble("the server does not say who it is")),
                    _ => {}
                }
            }
        };
        timeout(ANSWER, asked).await.map_err(|_| trouble("no answer in time"))?
    }

    /// Begins to read a slot where it was confirmed; from now on the server talks.
    pub(super) async fn start(mut self, slot: &str, publication: &str) -> Result<(Frames, Out), ReadError> {
        let command = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names '\"{publication}\"', \
             messages 'true', binary 'true')"
        );
        let asked = async {
            self.send(|out| frontend::query(&command, out)).await?;
            match self.frames.answer().await? {
                (b'W', _) => Ok(()),
                (kind, _) => Err(unexpected(kind)),
            }
        };
        timeout(ANSWER, asked).await.map_err(|_| trouble("no answer in time"))??;
        Ok((self.frames, self.out))
    }

    async fn log_in(&mut self, target: &Target, user: &str, database: &str) -> Result<(), ReadError> {
        let fixed = [
            ("user", user),
            ("database", database),
            ("replication", "database"),
            ("application_name", "tidings"),
            ("client_encoding", "UTF8"),
        ];
        let options = target.get_options().map(|options| ("options", options));
        self.send(|out| frontend::startup_message(fixed.into_iter().chain(options), out)).await?;
        loop {
            let (kind, mut body) = self.frames.answer().await?;
            match (kind, if kind == b'R' { body.try_get_u32().ok() } else { None }) {
                (b'Z', _) => return Ok(()),
                (b'R', Some(0)) => {}
                (b'R', Some(3)) => {
                    let password = password(target)?;
                    self.send(|out| frontend::password_message(password, out)).await?;
                }
                (b'R', Some(5)) if body.len() == 4 => {
                    let salt = [body[0], body[1], body[2], body[3]];
                    let hash = md5_hash(user.as_bytes(), password(target)?, salt);
                    self.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
                }
                (b'R', Some(10)) => self.scram(&body, password(target)?).await?,
                (b'R', _) => {
                    return Err(trouble("the server asks for a kind of authentication that is not known here"));
                }
                (kind, _) => return Err(unexpected(kind)),
            }
        }
    }

    /// SCRAM (RFC 5802), the first of whose messages has come. Not bound to the channel.
    async fn scram(&mut self, mechanisms: &[u8], password: &[u8]) -> Result<(), ReadError> {
        if mechanisms.split(|byte| *byte == 0).all(|mechanism| mechanism != SCRAM_SHA_256.as_bytes()) {
            return Err(trouble("the server does not offer SCRAM-SHA-256"));
        }
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        self.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), out)).await?;
        scram.update(&self.sasl(11).await?).map_err(lost)?;
        self.send(|out| frontend::sasl_response(scram.message(), out)).await?;
        // It proves that the server knows the password too.
        scram.finish(&self.sasl(12).await?).map_err(lost)
    }

    async fn sasl(&mut self, expected: u32) -> Result<Bytes, ReadError> {
        let (kind, mut body) = self.frames.answer().await?;
        if kind == b'R' && body.try_get_u32() == Ok(expected) { Ok(body) } else { Err(unexpected(kind)) }
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<(), ReadError> {
        let mut message = BytesMut::new();
        write(&mut message).map_err(lost)?;
        self.out.write_all(&message).await.map_err(lost)?;
        self.out.flush().await.map_err(lost)
    }
}

/// Tells the server how far its reader is: all before `confirmed` is kept. `ask`: it shall say how far it is itself.
pub(super) async fn confirm(out: &mut Out, confirmed: u64, ask: bool) -> Result<(), ReadError> {
    let mut message = BytesMut::new();
    message.put_u8(b'd');
    message.put_u32(4 + 1 + 4 * 8 + 1);
    message.put_u8(b'r');
    // Written, flushed, applied; and the time here, which the server only shows.
    for value in [confirmed, confirmed, confirmed, 0] {
        message.put_u64(value);
    }
    message.put_u8(u8::from(ask));
    out.write_all(&message).await.map_err(lost)?;
    out.flush().await.map_err(lost)
}

/// A connection to the first server of the list that can be reached, encrypted as `sslmode` says.
async fn secured(config: &Config) -> Result<Box<dyn Socket>, ReadError> {
    let target = &config.config;
    let mut why = trouble("the URL names no host");
    for (index, host) in target.get_hosts().iter().enumerate() {
        let ports = target.get_ports();
        let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(PORT);
        let (reached, name) = match host {
            Host::Tcp(name) => {
                let address = target.get_hostaddrs().get(index).map_or_else(|| name.clone(), ToString::to_string);
                (timeout(CONNECT, tcp(&address, port)).await, Some(name))
            }
            Host::Unix(folder) => (timeout(CONNECT, unix(folder, port)).await, None),
        };
        match reached {
            Ok(Ok(socket)) => return encrypted(config, socket, name.map(String::as_str)).await,
            Ok(Err(error)) => why = lost(error),
            Err(_) => why = trouble("no connection in time"),
        }
    }
    Err(why)
}

async fn tcp(address: &str, port: u16) -> std::io::Result<Box<dyn Socket>> {
    let stream = TcpStream::connect((address, port)).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

async fn unix(folder: &std::path::Path, port: u16) -> std::io::Result<Box<dyn Socket>> {
    Ok(Box::new(UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?))
}

async fn encrypted(
    config: &Config,
    mut socket: Box<dyn Socket>,
    name: Option<&str>,
) -> Result<Box<dyn Socket>, ReadError> {
    let mode = config.config.get_ssl_mode();
    let Some(name) = name.filter(|_| mode != SslMode::Disable) else { return Ok(socket) };
    let mut message = BytesMut::new();
    frontend::ssl_request(&mut message);
    socket.write_all(&message).await.map_err(lost)?;
    if socket.read_u8().await.map_err(lost)? != b'S' {
        return if mode == SslMode::Prefer { Ok(socket) } else { Err(trouble("the server does not support TLS")) };
    }
    let mut tls = config.tls.clone();
    let Ok(connector) = MakeTlsConnect::<Box<dyn Socket>>::make_tls_connect(&mut tls, name);
    Ok(Box::new(connector.connect(socket).await.map_err(lost)?))
}

fn password(target: &Target) -> Result<&[u8], ReadError> {
    target.get_password().ok_or_else(|| trouble("the server asks for a password and none is set"))
}

/// The first column of a row, as text.
fn column(row: &mut Bytes) -> Option<String> {
    let (_, length) = (row.try_get_u16().ok()?, row.try_get_u32().ok()? as usize);
    row.get(..length).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// What a person reads of an error of the server.
pub(super) fn fault(body: &[u8]) -> ReadError {
    let field = |kind: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        fields.find_map(|field| field.strip_prefix(&[kind])).map(|text| String::from_utf8_lossy(text).into_owned())
    };
    let message = field(b'M').unwrap_or_default();
    let way_out = match field(b'C').as_deref() {
        Some("42501") => {
            Some("give the role that Tidings reads as the attribute REPLICATION (ALTER ROLE … REPLICATION)")
        }
        Some("42704") => Some(
            "drop the slot with pg_drop_replication_slot, and make it anew with `tidings outbox install --mode replication`",
        ),
        _ => None,
    };
    let way_out = way_out.map(str::to_owned).or_else(|| field(b'H'));
    ReadError::Trouble(way_out.map_or_else(|| message.clone(), |way_out| format!("{message}: {way_out}")))
}

fn unexpected(kind: u8) -> ReadError {
    ReadError::Trouble(format!("an answer of kind {:?} from the server", char::from(kind)))
}

#[expect(clippy::needless_pass_by_value, reason = "map_err gives it away")]
fn lost(error: std::io::Error) -> ReadError {
    ReadError::Trouble(format!("the connection that tells of replication: {error}"))
}
