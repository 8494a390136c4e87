//! What time does to streams: heartbeats, passes that end, peers that take nothing.
//!
//! Each round looks at an eighth of them, each stream once a second: so it costs the same whether all came at once or
//! not, and no timer has to be set or taken back for an event.

use std::time::Duration;

use tidings_core::time::Timestamp;

use super::Shard;
use crate::streams::group::number;
use crate::streams::guest::{Ending, Pass};
use crate::streams::open::{Kind, Member};
use crate::streams::{RETRY_SPREAD_MS, sse};

/// Rounds of a second.
pub(super) const ROUNDS: u32 = 8;
const ROUND: Duration = Duration::from_millis(125);
/// After so long without a word comes a heartbeat.
const HEARTBEAT: u32 = 15 * ROUNDS;
/// A client that takes nothing for so long is gone.
const STALL: u32 = 30 * ROUNDS;
/// And one that is to leave, but does not take its last words.
const LEAVE: u32 = 2 * ROUNDS;
/// How long before a stream expires its client is told.
pub(super) const WARNING: Duration = Duration::from_mins(1);
/// Pages are kept so long for others.
const PAGE_KEPT: u32 = 2 * ROUNDS;

impl Shard {
    /// Runs the round that is due, if one is.
    pub(super) fn rounds(&mut self) {
        let now = (self.env.monotonic)();
        if self.streams.is_empty() {
            // Nobody waits: the next round counts from whoever comes.
            self.next_round = now;
        }
        if now < self.next_round {
            return;
        }
        self.next_round = now + ROUND;
        self.round += 1;
        self.groups.drop_pages_before(self.round.saturating_sub(PAGE_KEPT));
        let now = (self.env.now)();
        for token in ((self.round % ROUNDS)..number(self.streams.capacity())).step_by(ROUNDS as usize) {
            self.look_at(token, now);
        }
    }

    fn look_at(&mut self, token: u32, now: Timestamp) {
        let Some(open) = self.streams.get_mut(token as usize) else { return };
        let quiet = self.round.saturating_sub(open.line.wrote);
        if open.line.leaving {
            if quiet >= LEAVE {
                self.gone.push(token);
            }
            return;
        }
        if open.line.blocked && quiet >= STALL {
            return self.gone.push(token);
        }
        let until = match open.pass(now) {
            Pass::Good(until) => until,
            Pass::Over(ending) => return self.end(token, ending, RETRY_SPREAD_MS),
        };
        if until.is_some_and(|until| until <= now) {
            return self.end(token, Ending::Expired, RETRY_SPREAD_MS);
        }
        if open.line.blocked {
            return;
        }
        let Kind::Stream { reader, .. } = &open.kind else { return self.look_at_talk(token, now, until) };
        let number = reader.group;
        let Some(group) = self.groups.get(number) else { return };
        if group.is_first(Member::only(token)) && !group.fresh {
            group.tidy(number, &mut self.streams);
        }
        let words = self.words(token, quiet, until.filter(|until| *until <= now.plus(WARNING)));
        if let Some(open) = self.streams.get_mut(token as usize)
            && !words.is_empty()
            && open.line.say(words.as_bytes(), self.round).is_err()
        {
            self.gone.push(token);
        }
    }

    /// What is to be said to a stream that is live and has all there is.
    fn words(&mut self, token: u32, quiet: u32, expires: Option<Timestamp>) -> String {
        let Some(open) = self.streams.get_mut(token as usize) else { return String::new() };
        let Kind::Stream { reader, ping } = &open.kind else { return String::new() };
        let Some(group) = self.groups.get(reader.group) else { return String::new() };
        if !open.line.is_clear() || !reader.has_all(group.frames.end()) {
            return String::new();
        }
        if let Some(at) = expires.filter(|_| !open.warned) {
            open.warned = true;
            return sse::expiring(at);
        }
        if quiet < HEARTBEAT {
            return String::new();
        }
        let ping = if *ping { sse::PING } else { "" };
        let (whole, tenant) = (group.wish.is_whole(), group.wish.tenant);
        sse::keepalive((!whole).then(|| self.seen(tenant))) + ping
    }
}
