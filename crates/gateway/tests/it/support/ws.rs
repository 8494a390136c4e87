//! A WebSocket client: the frames are a library's, the handshake is what the test wrote.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::Duration;

use serde_json::Value;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use super::http::{Answer, Client, Connection};
use super::instant;

/// Longer than it is waited for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a handshake has to say.
pub(crate) const HANDSHAKE: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// An open one, and events that came while an answer was waited for.
pub(crate) struct Socket<C = Connection>(pub(crate) WebSocket<C>, VecDeque<Value>);

impl Read for Connection {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.reader().read(room)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reader().get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    pub(crate) fn open(client: &Client) -> Self {
        Self::open_at(client, "/events/ws")
    }

    pub(crate) fn open_at(client: &Client, path: &str) -> Self {
        Self::try_open(client, path).unwrap()
    }

    /// An error if the connection fails or breaks.
    pub(crate) fn try_open(client: &Client, path: &str) -> io::Result<Self> {
        let mut connection = client.connect()?;
        let answer = Self::shake(client, &mut connection, path)?;
        let status = answer.status;
        assert!(status == 101, "{}", connection.rest_of(answer)?);
        Ok(Self::over(connection))
    }

    /// Sends a handshake; the head of the answer.
    pub(crate) fn shake(client: &Client, connection: &mut Connection, path: &str) -> io::Result<Answer> {
        connection.write(&client.request("GET", path, &HANDSHAKE, None, b""))?;
        connection.head()
    }
}

impl<C: Read + Write> Socket<C> {
    /// Over a connection whose handshake is done.
    pub(crate) fn over(connection: C) -> Self {
        Self(WebSocket::from_raw_socket(connection, Role::Client, None), VecDeque::new())
    }

    pub(crate) fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    /// The next text message; an error if the connection ends before.
    pub(crate) fn try_hear(&mut self) -> Result<Value, Error> {
        match self.1.pop_front() {
            Some(kept) => Ok(kept),
            None => self.read(),
        }
    }

    fn read(&mut self) -> Result<Value, Error> {
        let begun = instant();
        loop {
            match self.0.read()? {
                Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
            assert!(begun.elapsed() < PATIENCE, "nothing is said");
        }
    }

    #[track_caller]
    pub(crate) fn hear(&mut self) -> Value {
        self.try_hear().unwrap()
    }

    /// The answer to a message; events that come before it are heard later.
    #[track_caller]
    pub(crate) fn ask(&mut self, message: &Value) -> Value {
        self.say(message);
        loop {
            let told = self.read().unwrap();
            if told["type"] != "event" {
                return told;
            }
            self.1.push_back(told);
        }
    }

    /// The next message that is an event.
    #[track_caller]
    pub(crate) fn event(&mut self) -> Value {
        loop {
            let told = self.hear();
            if told["type"] == "event" {
                return told;
            }
            assert_eq!(told["type"], "status", "{told}");
        }
    }

    /// The kinds of what is refused.
    #[track_caller]
    pub(crate) fn refused(&mut self, message: &Value) -> (u64, String) {
        let told = self.ask(message);
        assert_eq!(told["type"], "error", "{told}");
        let slug = told["problem"]["type"].as_str().unwrap().strip_prefix("/errors/").unwrap();
        (told["problem"]["status"].as_u64().unwrap(), slug.to_owned())
    }

    /// How the server closes it, and what it said before.
    #[track_caller]
    pub(crate) fn closed(&mut self) -> (CloseCode, String, Vec<Value>) {
        let mut told = Vec::new();
        let begun = instant();
        loop {
            assert!(begun.elapsed() < PATIENCE, "it is not closed");
            match self.0.read().unwrap() {
                Message::Close(Some(frame)) => {
                    // And the connection ends cleanly.
                    loop {
                        match self.0.read() {
                            Ok(_) => {}
                            Err(Error::ConnectionClosed) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    return (frame.code, frame.reason.to_string(), told);
                }
                Message::Text(text) => told.push(serde_json::from_str(&text).unwrap()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
