//! `POST /stream-tickets`: tickets for browsers.

use std::time::Duration;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tidings_core::event::{AggregateId, Channel};
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::time::{format_duration, parse_duration};

use super::body::{self, answer};
use super::call::Call;
use super::kinds;
use super::problem::Problem;
use super::routes::Answer;
use crate::clock;
use crate::control::tickets::{Refused, TEXT_BYTES_MAX};

const TTL_DEFAULT: Duration = Duration::from_mins(1);
const TTL_MAX: Duration = Duration::from_mins(10);
/// Patterns or channels of a ticket.
const VALUES_MAX: usize = 100;
/// A longer cookie is dropped by browsers without a word (RFC 6265 §6.1: name, value and attributes, 4,096 bytes).
const COOKIE_BYTES_MAX: usize = 3_900;
/// The parameter and the cookie that bring a ticket.
pub(crate) const PARAMETER: &str = "ticket";
const COOKIE: &str = "tidings-ticket";

/// What a ticket is to open.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewTicket {
    #[serde(default)]
    types: Vec<TypePattern>,
    #[serde(default)]
    channels: Vec<Channel>,
    #[serde(default)]
    aggregate_id: Option<AggregateId>,
    #[serde(default)]
    ttl: Option<String>,
    #[serde(default)]
    cookie: bool,
}

pub(crate) async fn create(mut call: Call) -> Answer {
    let new: NewTicket = body::json(&mut call).await?;
    if new.types.len() > VALUES_MAX || new.channels.len() > VALUES_MAX {
        return Err(body::invalid(format!("/types, /channels: at most {VALUES_MAX} each")));
    }
    call.check_types(&new.types)?;
    foreign(call.principal.channels.as_deref(), &new.channels, true)?;
    let ttl = match new.ttl.as_deref().map(parse_duration) {
        None => TTL_DEFAULT,
        Some(Ok(ttl)) if (Duration::from_secs(1)..=TTL_MAX).contains(&ttl) => ttl,
        Some(_) => return Err(body::invalid(format!("/ttl: a duration from 1s to {}", format_duration(TTL_MAX)))),
    };
    let confined = call.principal.channels.clone();
    let filter = Filter { types: new.types, channels: new.channels, aggregate: new.aggregate_id, confined };
    let now = clock::now();
    let bytes_max = if new.cookie { COOKIE_BYTES_MAX } else { TEXT_BYTES_MAX };
    let made = call.app.tickets.make(call.tenant.clone(), &call.principal, filter, ttl, now, bytes_max);
    let (ticket, expires_at) = made.ok_or_else(|| {
        let detail =
            "/types, /channels: these are too many for one ticket, which holds them all: name fewer, or `order.*`";
        body::invalid(format!("{detail} (at most {bytes_max} bytes, sealed)"))
    })?;
    let shown = json!({
        "ticket": ticket,
        "url": format!("/events/stream?{PARAMETER}={ticket}"),
        "socketUrl": format!("/events/ws?{PARAMETER}={ticket}"),
        "firstUseBy": now.plus(ttl),
        "expiresAt": expires_at,
    });
    let mut response = answer(StatusCode::CREATED, shown.to_string());
    if new.cookie {
        let secure = if call.app.settings.dev { "" } else { "; Secure" };
        let seconds = expires_at.since(now).as_secs();
        let cookie = format!("{COOKIE}={ticket}; Path=/events; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
    }
    Ok(response)
}

/// Refuses channels beyond the walls of a key: any of them, or when there is no other.
pub(crate) fn foreign(walls: Option<&[Channel]>, asked: &[Channel], any: bool) -> Result<(), Problem> {
    let Some(walls) = walls else { return Ok(()) };
    let outside = |channel: &&Channel| !walls.contains(channel);
    let first = asked.iter().find(outside);
    match first {
        Some(channel) if any || asked.iter().all(|channel| outside(&channel)) => {
            let detail = "the key is confined to other channels: ask for some of its own";
            Err(Problem::new(&kinds::FORBIDDEN, detail).with("channel", channel.as_str()))
        }
        _ => Ok(()),
    }
}

/// The ticket that a request brings: in the query, or as a cookie.
pub(crate) fn presented(query: &str, headers: &HeaderMap) -> Option<String> {
    let asked =
        url::form_urlencoded::parse(query.as_bytes()).find(|(name, value)| name == PARAMETER && !value.is_empty());
    if let Some((_, ticket)) = asked {
        return Some(ticket.into_owned());
    }
    let cookies = headers.get_all(http::header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, ticket)| ticket.to_owned())
}

/// The refusal of a ticket.
pub(crate) fn refused(refused: Refused) -> Problem {
    let detail = match refused {
        Refused::Unknown => "this ticket opens nothing: get a new one by `POST /stream-tickets`",
        Refused::Late => "this ticket was not used within its `ttl`: get a new one and use it at once",
        Refused::Expired => "this ticket has expired: get a new one by `POST /stream-tickets`",
    };
    Problem::new(&kinds::INVALID_TICKET, detail)
}
