//! WebSockets: what they say is handed on, what they are told is said between frames, and who is silent is asked.

use std::sync::Arc;

use tidings_core::time::Timestamp;

use super::Shard;
use super::rounds::{ROUNDS, WARNING};
use crate::streams::framing::Framing;
use crate::streams::group::{Wish, number};
use crate::streams::line::Gone;
use crate::streams::open::{Kind, Member, find};
use crate::streams::talk::{Heard, Talk};
use crate::streams::voice::{Subscription, Word};
use crate::streams::websocket::{self, Close};

/// After so long without a word of a client it is pinged,
const PING_AFTER: u32 = 20 * ROUNDS;
/// and has so long to answer.
const PONG_WITHIN: u32 = 25 * ROUNDS;
/// How often subscriptions that get only a part of the log are told their cursors.
const BEAT: u32 = 15 * ROUNDS;
/// Reads of one WebSocket before others have their turn.
const READS_MAX: usize = 16;
/// What a client that is to leave may still say.
const IGNORED_READS_MAX: usize = 1_024;

impl Shard {
    fn talk(&mut self, token: u32) -> Option<&mut Talk> {
        match &mut self.streams.get_mut(token as usize)?.kind {
            Kind::Talk(talk) => Some(talk),
            Kind::Stream { .. } => None,
        }
    }

    /// WebSockets that had more to say than fitted into their turn.
    pub(super) fn hear_more(&mut self) {
        for _ in 0..self.talkers.len() {
            if let Some(token) = self.talkers.pop_front() {
                self.hear(token);
            }
        }
    }

    /// Takes what a client says, as far as there is room for it.
    pub(super) fn hear(&mut self, token: u32) {
        for _ in 0..READS_MAX {
            let Some(open) = self.streams.get_mut(token as usize) else { return };
            let Kind::Talk(talk) = &mut open.kind else { return };
            if open.line.leaving {
                return self.ignore(token);
            }
            let mut said = Vec::new();
            let heard = talk.understand(&mut said);
            if !said.is_empty() && open.line.say(&said, self.round).is_err() {
                return self.gone.push(token);
            }
            if let Heard::End(close) = heard {
                return self.close(token, close);
            }
            talk.waits = !talk.has_room(open.line.unsaid());
            if talk.waits {
                return;
            }
            match open.line.read(&mut self.room) {
                Ok(Some(bytes)) => talk.take(bytes, self.round),
                Ok(None) => return,
                Err(Gone) => return self.gone.push(token),
            }
        }
        self.talkers.push_back(token);
    }

    /// Takes what a client that is to leave still says, up to its end.
    fn ignore(&mut self, token: u32) {
        let Some(open) = self.streams.get_mut(token as usize) else { return };
        for _ in 0..IGNORED_READS_MAX {
            match open.line.read(&mut self.room) {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(Gone) => break,
            }
        }
        self.gone.push(token);
    }

    /// Closes a WebSocket; without a reason its client closed it, and has its answer.
    fn close(&mut self, token: u32, close: Option<Close>) {
        let mut words = Vec::new();
        if let Some(close) = close {
            close.write(&mut words);
        }
        self.leave(token, &[], &words);
    }

    /// All words of a WebSocket were taken.
    pub(super) fn all_said(&mut self, token: u32) {
        let Some(talk) = self.talk(token) else { return };
        for taken in talk.taken.drain(..) {
            // Who waited may have gone.
            let _ = taken.send(());
        }
        if talk.waits {
            self.hear(token);
        }
    }

    /// Another thread tells a WebSocket something.
    pub(super) fn tell(&mut self, token: u32, serial: u64, word: Word) {
        let Some(open) = self.streams.get_mut(token as usize).filter(|open| !open.line.leaving) else { return };
        let Kind::Talk(talk) = &mut open.kind else { return };
        if talk.serial() != serial {
            return;
        }
        match word {
            Word::Say(frames, waits) => {
                if open.line.say(&frames, self.round).is_err() {
                    return self.gone.push(token);
                }
                talk.taken.extend(waits);
                if open.line.is_clear() {
                    self.all_said(token);
                }
            }
            Word::Subscribe(subscription) => self.subscribe(token, *subscription),
            Word::Unsubscribe(id) => self.unsubscribe(token, &id),
            Word::Done => {
                talk.done();
                if talk.waits {
                    self.hear(token);
                }
            }
        }
    }

    fn subscribe(&mut self, token: u32, subscription: Subscription) {
        let Some(tenant) = self.talk(token).map(|talk| talk.tenant) else { return };
        let Subscription { id, filter, cursor, replays } = subscription;
        let reader = self.reader(Wish { tenant, framing: Framing::messages(&id), filter }, cursor, replays);
        let group = reader.group;
        let Some(talk) = self.talk(token) else { return };
        let member = Member { stream: token, reader: number(talk.readers.insert(reader)) };
        self.groups.join(group, member);
        self.behind.push_back(member);
    }

    fn unsubscribe(&mut self, token: u32, id: &str) {
        let framing = Framing::messages(id);
        let members = self.talk(token).map(|talk| talk.members(token)).unwrap_or_default();
        let found = members
            .into_iter()
            .find(|(_, group)| self.groups.get(*group).is_some_and(|group| group.wish.framing == framing));
        let Some((member, group)) = found else { return };
        if let Some(talk) = self.talk(token) {
            talk.readers.try_remove(member.reader as usize);
        }
        self.part(member, group);
    }

    /// What time does to a WebSocket whose socket takes words: it is asked whether it is there, told when it expires and
    /// where its subscriptions stand.
    pub(super) fn look_at_talk(&mut self, token: u32, now: Timestamp, until: Option<Timestamp>) {
        let round = self.round;
        let Some(open) = self.streams.get_mut(token as usize) else { return };
        let Kind::Talk(talk) = &mut open.kind else { return };
        let mut words = Vec::new();
        match talk.pinged {
            // What was not read may be the answer.
            Some(pinged) if round - pinged >= PONG_WITHIN && !talk.waits => {
                return self.close(token, Some(Close::SILENT));
            }
            None if round - talk.heard >= PING_AFTER => {
                words.extend_from_slice(&websocket::PING);
                talk.pinged = Some(round);
            }
            _ => {}
        }
        if let Some(until) = until.filter(|until| !open.warned && *until <= now.plus(WARNING)) {
            open.warned = true;
            words.extend_from_slice(&websocket::expiring(until));
        }
        let beats = round - talk.beat >= BEAT;
        if beats {
            talk.beat = round;
        }
        for (member, number) in talk.members(token) {
            let Some(group) = self.groups.get(number) else { continue };
            if group.is_first(member) && !group.fresh {
                group.tidy(number, &mut self.streams);
            }
            if beats {
                words.extend_from_slice(&self.beat(member, number));
            }
        }
        if let Some(open) = self.streams.get_mut(token as usize)
            && open.line.say(&words, round).is_err()
        {
            self.gone.push(token);
        }
    }

    /// The cursor of a subscription, if it has everything and that was more than it got.
    fn beat(&mut self, member: Member, number: u32) -> Vec<u8> {
        let Some(group) = self.groups.get(number).filter(|group| !group.wish.is_whole()) else { return Vec::new() };
        let wish = Arc::clone(&group.wish);
        let end = group.frames.end();
        let seen = self.seen(wish.tenant);
        let Some((_, reader)) = find(&mut self.streams, member) else { return Vec::new() };
        let Framing::Messages(id) = &wish.framing else { return Vec::new() };
        if !reader.has_all(end) || reader.told >= seen {
            return Vec::new();
        }
        reader.told = seen;
        websocket::cursor(id, seen)
    }
}
