//! One sender of the load: plans requests, sends them, repeats those whose outcome it does not know.

use super::answer::{self, Answer};
use super::chance::Chance;
use super::clock;
use super::event::Mark;
use super::http::{Client, Reply};
use super::ledger::{Ack, Naming, Numbers, Request, Shape};
use super::load::{KEYS_OF_A_WORKER, Mix, Mode, Refusal, Shared};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

const BUSY_REPEATS_MAX: u32 = 2_000;

/// One connection, its keys, and what it still has to hear about.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    client: Client,
    chance: Chance,
    keys: Vec<(u32, u32)>,
    mix: Mix,
    planned: u32,
    pending: Option<Request>,
    last: Option<Request>,
    busy_repeats: u32,
    was_unknown: bool,
}

impl Worker {
    /// A worker with the keys from `keys_from` on.
    pub(super) fn new(shared: Arc<Shared>, address: SocketAddr, keys_from: u32, mix: Mix, chance: Chance) -> Self {
        Self {
            shared,
            client: Client::new(address),
            chance,
            keys: (0..KEYS_OF_A_WORKER).map(|key| (keys_from + key, 0)).collect(),
            mix,
            planned: 0,
            pending: None,
            last: None,
            busy_repeats: 0,
            was_unknown: false,
        }
    }

    /// Works until the fleet ends.
    pub(super) fn run(&mut self) {
        while let Some(mode) = self.next_turn() {
            let request = self.pending.take().or_else(|| if mode == Mode::Load { self.plan() } else { None });
            let pause = match request {
                Some(request) => self.turn(request),
                None => Duration::from_millis(2),
            };
            self.shared.lock().busy -= 1;
            self.shared.changed.notify_all();
            thread::sleep(pause);
        }
    }

    /// Waits for leave to work; `None` is the end.
    fn next_turn(&mut self) -> Option<Mode> {
        let mut state = self.shared.lock();
        loop {
            match state.mode {
                Mode::Quit => return None,
                Mode::Idle => {}
                mode => {
                    state.busy += 1;
                    return Some(mode);
                }
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn plan(&mut self) -> Option<Request> {
        let (shape, events) = match self.mix {
            Mix::Everything => match self.chance.below(5) {
                0 => (Shape::Lines, 50),
                1 => (Shape::Array, 2 + self.chance.below(39)),
                _ => (Shape::Single, 1),
            },
            Mix::Paced(_) => (Shape::Single, 1),
            Mix::Bulk { events, .. } if self.planned >= events => return None,
            Mix::Bulk { lines, events } => (Shape::Lines, u64::from(lines.min(events - self.planned))),
        };
        let naming = if self.chance.one_in(2) { Naming::OwnIds } else { Naming::IdempotencyKey };
        let mut marks = Vec::new();
        for _ in 0..events {
            let at = self.chance.index(self.keys.len());
            let (key, n) = &mut self.keys[at];
            *n += 1;
            marks.push(Mark { key: *key, n: *n });
        }
        self.planned = self.planned.saturating_add(u32::try_from(events).unwrap_or(u32::MAX));
        Some(self.shared.lock().ledger.plan(shape, naming, marks))
    }

    /// Sends one request. After a crash it also repeats the one acknowledged before it, and now and then the one just
    /// acknowledged. Returns how long to rest.
    fn turn(&mut self, request: Request) -> Duration {
        let before = self.last.take();
        let rest = self.send(request);
        let after_crash = std::mem::replace(&mut self.was_unknown, self.pending.is_some());
        if self.pending.is_some() {
            self.last = before;
        } else if let Some(before) = before.filter(|_| after_crash) {
            self.echo(&before);
        } else if let Some(last) = self.last.clone().filter(|_| self.chance.one_in(64)) {
            self.echo(&last);
        }
        rest
    }

    fn send(&mut self, request: Request) -> Duration {
        let Ok(reply) = self.post(&request) else {
            self.pending = Some(request);
            return Duration::from_millis(2);
        };
        match answer::read(&request, &reply) {
            Answer::Yes(numbers) => {
                self.busy_repeats = 0;
                self.note_ack(&request, numbers);
                self.last = Some(request);
                if let Mix::Paced(pause) = self.mix { pause } else { Duration::ZERO }
            }
            Answer::NotNow => {
                self.note_refusal(&reply);
                self.busy_repeats += 1;
                if reply.status == 409 && self.busy_repeats > BUSY_REPEATS_MAX {
                    self.violation(&request, &reply, "is still refused as running");
                }
                self.pending = Some(request);
                Duration::from_millis(10)
            }
            Answer::Wrong(why) => {
                self.violation(&request, &reply, &why);
                self.pending = Some(request);
                Duration::from_millis(200)
            }
        }
    }

    /// Repeats an acknowledged request, as after a lost answer: it must be told as a repetition, with the same numbers.
    fn echo(&mut self, request: &Request) {
        let Ok(reply) = self.post(request) else { return };
        match answer::read(request, &reply) {
            Answer::Yes(numbers) => {
                if let Some(why) = answer::not_told_as_repetition(request, &reply) {
                    self.violation(request, &reply, why);
                }
                let ack = Ack { at: clock::wall(), numbers };
                self.shared.lock().ledger.acked(request.no, ack);
            }
            Answer::NotNow => {}
            Answer::Wrong(why) => self.violation(request, &reply, &why),
        }
    }

    fn post(&mut self, request: &Request) -> std::io::Result<Reply> {
        let (body, key) = {
            let state = self.shared.lock();
            (state.ledger.run.clone(), state.ledger.run.idempotency_key(request.no))
        };
        let body = request.body(&body);
        let kind = if request.shape == Shape::Lines { "application/x-ndjson" } else { "application/json" };
        let mut headers = vec![format!("Content-Type: {kind}")];
        if request.naming == Naming::IdempotencyKey {
            headers.push(format!("Idempotency-Key: {key}"));
        }
        self.client.post("/events", &headers, &body)
    }

    fn note_ack(&self, request: &Request, numbers: Vec<Numbers>) {
        let (at, now) = (clock::wall(), clock::now());
        let mut state = self.shared.lock();
        state.acks += 1;
        state.last_ack = Some(now);
        let connected = self.client.connected();
        if let Some(connected) = connected
            && state.first_ack_on.is_none_or(|(earlier, _)| connected > earlier)
        {
            state.first_ack_on = Some((connected, now));
        }
        state.ledger.acked(request.no, Ack { at, numbers });
    }

    fn note_refusal(&self, reply: &Reply) {
        self.shared.lock().refusals.push(Refusal {
            status: reply.status,
            retry_after: reply.header("retry-after").map(str::to_owned),
            content_type: reply.header("content-type").map(str::to_owned),
            excerpt: reply.excerpt(),
        });
    }

    fn violation(&self, request: &Request, reply: &Reply, why: &str) {
        let (no, shape, naming) = (request.no, request.shape, request.naming);
        let what = format!("{shape:?} request {no} ({naming:?}) {why}: {} {}", reply.status, reply.excerpt());
        self.shared.lock().ledger.violations.push(what);
    }
}
