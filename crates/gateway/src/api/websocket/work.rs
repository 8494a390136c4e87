//! A consumer's side of a WebSocket: its client is a worker, which gets messages as they come, and never has more than it
//! said.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tidings_core::desk::Token;
use tidings_core::key::Scope;
use tidings_core::time::Timestamp;
use tidings_engine::consumers::{Closed, Message, Queue};
use tidings_engine::streams::voice::Voice;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::asked::guarded;
use super::asks::{About, Nack, Named, Subscribe};
use super::conversation::Conversation;
use super::words;
use crate::api::body;
use crate::api::consumers::{self, work};
use crate::api::problem::Problem;
use crate::app::Phase;
use crate::clock;
use crate::control::consumers::Record;

/// Messages that a worker has at a time, unless it says how many.
const MAX_DEFAULT: usize = 16;

/// A subscription to a consumer.
pub(super) struct Work {
    record: Arc<Record>,
    queue: Arc<Queue>,
    /// How many messages its client may have.
    max: usize,
    state: Mutex<State>,
    /// Rings when the client has fewer.
    freed: Notify,
}

#[derive(Default)]
struct State {
    /// What the client has, and until when.
    out: Vec<(Token, Timestamp)>,
    /// Gets it more; none any more when it was ended.
    task: Option<AbortHandle>,
}

impl State {
    /// Messages whose time is over: others have them.
    fn forget(&mut self, now: Timestamp) {
        self.out.retain(|(_, until)| *until > now);
    }
}

impl Work {
    /// Begins to work, once the client is told so.
    pub(super) fn begin(
        conversation: &Arc<Conversation>,
        ask: Subscribe,
        about: &About,
        voice: &Voice,
    ) -> Result<Arc<Self>, Problem> {
        if !ask.types.is_empty() || !ask.channels.is_empty() || ask.aggregate_id.is_some() || !ask.from.is_null() {
            return Err(body::invalid("/consumer: its own settings say which events; leave the filter and `from` out"));
        }
        conversation.may(Scope::ConsumersWork)?;
        let max = ask.max.unwrap_or(MAX_DEFAULT);
        if !(1..=work::FETCH_MAX).contains(&max) {
            return Err(body::invalid(format!("/max: from 1 to {}", work::FETCH_MAX)));
        }
        let name = ask.consumer.unwrap_or_default();
        let (record, queue) = consumers::named(&conversation.call, &name)?;
        let work = Arc::new(Self { record, queue, max, state: Mutex::default(), freed: Notify::new() });
        let told = words::status(about, json!({ "state": "subscribed", "consumer": name, "max": max }));
        voice.say(told.as_bytes());
        let fetching = run(Arc::clone(&work), Arc::clone(conversation), ask.id, voice.clone());
        // Held meanwhile: it may come to its end at once.
        let mut state = work.state.lock();
        state.task = Some(conversation.runtime.spawn(fetching).abort_handle());
        drop(state);
        Ok(work)
    }

    /// How many more the client takes; else when that may change by itself.
    fn room(&self, now: Timestamp) -> Result<usize, Option<Timestamp>> {
        let mut state = self.state.lock();
        state.forget(now);
        match self.max - state.out.len().min(self.max) {
            0 => Err(state.out.iter().map(|(_, until)| *until).min()),
            room => Ok(room),
        }
    }

    /// More messages, once there are some and the client takes them.
    async fn next(&self) -> Result<Vec<Message>, Closed> {
        loop {
            let now = clock::now();
            let messages = match self.room(now) {
                Ok(room) => self.queue.fetch(room, work::WAIT_MAX).await,
                Err(until) => {
                    let wait = until.map_or(work::WAIT_MAX, |until| until.since(now));
                    tokio::select! {
                        () = self.queue.closed() => Err(Closed),
                        _ = tokio::time::timeout(wait, self.freed.notified()) => continue,
                    }
                }
            };
            match messages {
                Ok(messages) if messages.is_empty() => {}
                Ok(messages) => return Ok(messages),
                Err(Closed) => {
                    // Its word on what it has counts no more.
                    self.state.lock().out.clear();
                    return Err(Closed);
                }
            }
        }
    }

    fn gave(&self, messages: &[Message]) {
        self.state.lock().out.extend(messages.iter().map(|message| (message.token, message.until)));
    }

    /// The client does not have these any more.
    fn has_not(&self, tokens: &[Token]) {
        self.state.lock().out.retain(|(token, _)| !tokens.contains(token));
        self.freed.notify_one();
    }

    /// It gets no more.
    pub(super) fn end(&self) {
        if let Some(task) = self.state.lock().task.take() {
            task.abort();
        }
    }

    /// Whether it was ended.
    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().task.is_none()
    }

    /// Whether it was ended and the client has nothing of it.
    pub(super) fn is_over(&self) -> bool {
        let mut state = self.state.lock();
        state.forget(clock::now());
        state.task.is_none() && state.out.is_empty()
    }

    /// The connection has gone: what the client has comes back at once, and counts. Of a server that stops it keeps it: it
    /// can acknowledge it by the next connection.
    pub(super) fn leave(&self, phase: Phase) {
        self.end();
        let out = std::mem::take(&mut self.state.lock().out);
        if phase < Phase::Draining {
            for (token, _) in out {
                self.queue.failed(token, "the worker's connection ended".into(), Some(Duration::ZERO));
            }
        }
    }
}

/// Gets messages for a client until it is to get no more; it is told why, unless it wanted that.
async fn run(work: Arc<Work>, conversation: Arc<Conversation>, id: Box<str>, voice: Voice) {
    let Err(problem) = guarded(fetch(&work, &conversation, &id, &voice)).await;
    voice.say(words::error(&About::subscription_of(&id), problem).as_bytes());
    work.end();
}

/// Gets messages for a client as long as it takes them and there is a consumer.
async fn fetch(work: &Work, conversation: &Conversation, id: &str, voice: &Voice) -> Result<Infallible, Problem> {
    loop {
        let messages = work.next().await.map_err(|Closed| consumers::missing())?;
        work.gave(&messages);
        let mut frames = Vec::new();
        for message in &messages {
            words::delivery(&mut frames, id, message);
        }
        drop(messages);
        // One after the other, and no more before the socket has taken them: a client that does not read costs no more.
        let _turn = conversation.mouth.lock().await;
        voice.say_all(frames).await;
    }
}

/// Answers once it is durable.
pub(super) async fn ack(conversation: &Conversation, ask: &Named, about: &About) -> Result<String, Problem> {
    let work = conversation.work(&ask.subscription)?;
    let tokens = work::parsed(&work.queue, &ask.tokens)?;
    let done = conversation.call.app.consumers.done(&work.record, &work.queue, &tokens).await?;
    let done = done.ok_or_else(|| Problem::not_found("consumer"))?;
    work.has_not(&tokens);
    let stale: Vec<_> = tokens.iter().filter(|token| !done.contains(&token.offset)).collect();
    Ok(answered(about, "acked", &tokens, &stale))
}

pub(super) async fn nack(conversation: &Conversation, ask: Nack, about: &About) -> Result<String, Problem> {
    let work = conversation.work(&ask.subscription)?;
    let (token, delay, reason) = work::refusal(&work.queue, &ask.token, ask.delay.as_deref(), ask.reason)?;
    let failed = work.queue.failed(token, reason, delay);
    work.has_not(&[token]);
    if failed {
        conversation.call.app.consumers.committed(&work.record).await?;
    }
    let stale: Vec<_> = [&token].into_iter().filter(|_| !failed).collect();
    Ok(answered(about, "nacked", &[token], &stale))
}

pub(super) fn extend(conversation: &Conversation, ask: &Named, about: &About) -> Result<String, Problem> {
    let work = conversation.work(&ask.subscription)?;
    let tokens = work::parsed(&work.queue, &ask.tokens)?;
    let wait = work::more_time(ask.wait.as_deref())?;
    let mut stale = Vec::new();
    for token in &tokens {
        let Some(until) = work.queue.extend(*token, wait) else {
            stale.push(token);
            continue;
        };
        let out = &mut work.state.lock().out;
        out.iter_mut().filter(|(other, _)| other == token).for_each(|(_, old)| *old = until);
    }
    Ok(answered(about, "extended", &tokens, &stale))
}

/// Of how many tokens the word counts, and of which it does not.
fn answered(about: &About, what: &str, tokens: &[Token], stale: &[&Token]) -> String {
    let texts: Vec<_> = stale.iter().map(|token| token.to_text()).collect();
    words::status(about, json!({ what: tokens.len() - stale.len(), "stale": texts }))
}
