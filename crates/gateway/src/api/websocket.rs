//! `GET /events/ws`: the WebSocket (RFC 6455). Here: the handshake. [`conversation`] does what a client [`asked`] for;
//! messages are [`asks`], answers [`words`]; [`work`] is a consumer's side. The frames are the engine's.

mod asked;
mod asks;
mod conversation;
mod words;
mod work;

use std::io::Write as _;
use std::net::TcpStream;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tidings_engine::streams::guest::{Ending, Guest, Wants};
use tidings_engine::streams::websocket::closing;

use self::conversation::Party;
use super::call::Call;
use super::kinds;
use super::problem::{Problem, internal};
use super::routes::Answer;
use super::stream::wire::{self, Peer, Wire};
use super::stream::{pass, spread};

/// The only version that there is.
const VERSION: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// What the server adds to the client's key (RFC 6455, section 1.3).
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of the client's key, before it became a text.
const KEY_BYTES: usize = 16;

pub(crate) async fn open(mut call: Call) -> Answer {
    let accept = accept(&call.parts.headers)?;
    check_origin(&call)?;
    let tenant = call.tenant().await?;
    let address = call.parts.extensions.get::<Peer>().map(|peer| peer.0);
    let seat = call.app.seats.take(call.app.settings.seats, tenant, address);
    let turn = match (&call.ticket, &seat) {
        (Some(grant), Some(_)) => Some(call.app.tickets.open(&*call.app.store, tenant, grant).await?),
        _ => None,
    };
    let answer = switching(accept);
    let wire = call.parts.extensions.get::<Wire>().and_then(Wire::take);
    let (socket, greeting, occupied) = if let Some((socket, occupied)) = wire {
        (socket, wire::head(&answer, None), Some(occupied))
    } else {
        let socket = wire::upgraded(&mut call.parts.extensions).map_err(|error| internal(&error))?;
        let detail = "this connection cannot become a WebSocket: use a connection of its own, with HTTP/1.1";
        (socket.ok_or_else(|| upgrade_required(detail))?, Vec::new(), None)
    };
    let Some(seat) = seat else {
        turn_away(socket, greeting);
        return Ok(answer);
    };
    let pass = pass(&call, turn, (seat, occupied));
    let party = Party::new(call.another(bytes::Bytes::new()), tenant);
    let talk = Wants::Talk(Box::new(move |text, voice| party.hear(text, voice)));
    call.app.streams.admit(Guest { socket, greeting, tenant, wants: talk, pass });
    Ok(answer)
}

/// Lets a client in and sends it away: a browser's script learns the code that closes, but no status of an answer.
fn turn_away(mut socket: TcpStream, greeting: Vec<u8>) {
    let mut words = greeting;
    words.extend_from_slice(&closing(Ending::Overloaded, spread(Ending::Overloaded.stay_away_ms())));
    // A fresh socket takes so little whole; if not, the client comes back all the same.
    let _ = socket.write(&words);
}

fn switching(accept: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, WEBSOCKET);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// What answers a handshake (RFC 6455, section 4.2). Subprotocols and extensions are not taken up.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let names = |name: HeaderName, wanted: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    if !names(UPGRADE, "websocket") || !names(CONNECTION, "upgrade") {
        return Err(upgrade_required(
            "this path speaks WebSocket: send `Upgrade: websocket` and `Connection: Upgrade`",
        ));
    }
    if headers.get(SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(upgrade_required("Sec-WebSocket-Version: send 13"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default();
    if STANDARD.decode(key).map_or(true, |bytes| bytes.len() != KEY_BYTES) {
        let detail = format!("Sec-WebSocket-Key: send {KEY_BYTES} random bytes as base64");
        return Err(Problem::new(&kinds::INVALID_HEADER, detail));
    }
    let digest = sha1_smol::Sha1::from([key, MAGIC].concat()).digest().bytes();
    HeaderValue::from_str(&STANDARD.encode(digest)).map_err(|error| internal(&error))
}

fn upgrade_required(detail: &str) -> Problem {
    let problem = Problem::new(&kinds::UPGRADE_REQUIRED, detail);
    problem.header(SEC_WEBSOCKET_VERSION, VERSION).header(UPGRADE, WEBSOCKET)
}

/// A browser lets any page open a WebSocket, so the server looks whose page that is: its own, or of an origin that the
/// settings name.
fn check_origin(call: &Call) -> Result<(), Problem> {
    let Err(origin) = call.app.settings.origins.check(&call.parts.headers) else { return Ok(()) };
    let detail = "pages of this origin may not open a WebSocket here: the setting `cors.origins` names those that may";
    Err(Problem::new(&kinds::FORBIDDEN, detail).with("origin", String::from_utf8_lossy(origin.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard_is_answered_as_it_says() {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, VERSION);
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
