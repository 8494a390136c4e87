//! The connections of one subscriber: requests and their answers, within bounds.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::answer::Response;
use crate::connect::connect;
use crate::connection::{Broken, Connection};
use crate::door::Door;
use crate::error::DoorError;
use crate::lines::Lines;
use crate::target::{Scheme, Target};

/// A connection that was not used for this long is closed at the next look.
const IDLE: Duration = Duration::from_secs(20);
/// Between two looks; so a connection is idle for 30 s at the most.
const LOOK: Duration = Duration::from_secs(10);

/// One subscriber's way through the door: its target, and the connections that wait for their next request.
///
/// They belong to it alone (its owner, scheme, host and port), so nobody rides on another's. There are never more than
/// the most requests that were under way at a time. A line is used within a tokio runtime, best always the same one: the
/// connections live there.
#[derive(Clone)]
pub struct Line(Arc<Inner>);

struct Inner {
    door: Arc<Door>,
    target: Target,
    /// The request up to what differs from one to the next.
    start: Vec<u8>,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The one used last is the last.
    connections: Vec<(Instant, Connection)>,
    /// Of the policy under which they were made.
    version: u64,
    watched: bool,
}

impl Line {
    /// A line without connections; `lines` are sent with each request.
    pub fn new(door: Arc<Door>, target: Target, lines: &Lines) -> Self {
        let mut start = Lines::default();
        start.put("host", target.authority.as_bytes());
        start.put("accept-encoding", b"identity");
        let request = format!("POST {} HTTP/1.1\r\n", target.path);
        let start = [request.as_bytes(), start.as_bytes(), lines.as_bytes()].concat();
        Self(Arc::new(Inner { door, target, start, idle: Mutex::default() }))
    }

    /// Whether requests are encrypted.
    pub fn is_secure(&self) -> bool {
        self.0.target.scheme == Scheme::Https
    }

    /// Posts `body` with `lines` (`content-length` is added). `limit` covers everything, from the look-up to the end of
    /// the answer's body.
    ///
    /// If a connection that was idle turns out to be closed before a byte of the answer came, the same request goes
    /// out once more, on a fresh connection.
    pub async fn post(&self, mut lines: Lines, body: &[u8], limit: Duration) -> Result<Response, DoorError> {
        let mut digits = [0; 20];
        lines.put("content-length", decimal(body.len(), &mut digits));
        lines.end();
        let attempt = self.exchange(lines, body);
        timeout(limit, attempt).await.unwrap_or(Err(DoorError::Timeout))
    }

    async fn exchange(&self, lines: Lines, body: &[u8]) -> Result<Response, DoorError> {
        let pieces = [&self.0.start[..], lines.as_bytes(), body];
        if let Some(mut connection) = self.idle().await {
            match connection.exchange(pieces).await {
                Ok(answer) => return Ok(self.keep(connection, answer, self.0.door.version())),
                Err(Broken { unanswered: true, .. }) => {}
                Err(broken) => return Err(broken.error),
            }
        }
        // The version first: a policy that comes between is noticed.
        let version = self.0.door.version();
        let mut connection = connect(&self.0.door, &self.0.door.policy(), &self.0.target).await?;
        let answer = connection.exchange(pieces).await.map_err(|broken| broken.error)?;
        Ok(self.keep(connection, answer, version))
    }

    /// The connection used last that is still good.
    async fn idle(&self) -> Option<Connection> {
        loop {
            let mut connection = {
                let mut idle = self.0.idle.lock();
                idle.renew(self.0.door.version());
                idle.connections.pop()?.1
            };
            if connection.is_idle().await {
                return Some(connection);
            }
        }
    }

    fn keep(&self, mut connection: Connection, (response, keeps): (Response, bool), version: u64) -> Response {
        if keeps {
            connection.rest();
            let mut idle = self.0.idle.lock();
            idle.renew(self.0.door.version());
            if idle.version == version {
                idle.connections.push((Instant::now(), connection));
            }
            if !idle.watched {
                idle.watched = true;
                tokio::spawn(watch(Arc::downgrade(&self.0)));
            }
        }
        response
    }
}

impl Idle {
    fn renew(&mut self, version: u64) {
        if self.version != version {
            self.version = version;
            self.connections.clear();
        }
    }

    /// Closes what nobody used, and what the peer has closed; answers whether something is left to look at.
    fn look(&mut self, now: Instant) -> bool {
        self.connections.retain(|(since, _)| now.duration_since(*since) < IDLE);
        self.watched = !self.connections.is_empty();
        self.watched
    }
}

/// Looks after idle connections as long as there are any.
async fn watch(line: Weak<Inner>) {
    loop {
        sleep(LOOK).await;
        let Some(line) = line.upgrade() else { return };
        if !line.idle.lock().look(Instant::now()) {
            return;
        }
    }
}

fn decimal(number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut rest = number;
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            return &digits[at..];
        }
    }
}
