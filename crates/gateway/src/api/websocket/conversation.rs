//! One WebSocket's conversation: what its client asks for is done in order, by a task that is there while there is
//! something to do. The engine reads no more messages than may wait here.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::HashMap;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::json;
use tidings_core::filter::Filter;
use tidings_core::key::Scope;
use tidings_engine::streams::guest::Pass;
use tidings_engine::streams::voice::{Subscription, Voice};
use tidings_log::Tenant;
use tokio::runtime::Handle;

use super::asked::Asked;
use super::asks::{self, About, Ask, Subscribe};
use super::words;
use super::work::{self, Work};
use crate::api::call::Call;
use crate::api::problem::{Problem, internal};
use crate::api::stream::{self, Position};
use crate::api::{body, kinds, publish, tickets};

/// Subscriptions of one connection.
const SUBSCRIPTIONS_MAX: usize = 64;

/// A conversation, as the connection holds it: it ends with this.
pub(super) struct Party(Arc<Conversation>);

pub(super) struct Conversation {
    pub(super) call: Call,
    tenant: Tenant,
    /// Where its operations are done.
    pub(super) runtime: Handle,
    asked: Asked,
    subscriptions: Mutex<Subscriptions>,
    /// Messages of one consumer at a time wait for the socket.
    pub(super) mouth: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Subscriptions {
    by_id: HashMap<Box<str>, Kind>,
    /// The connection has gone.
    over: bool,
}

/// What a subscription is to.
enum Kind {
    Events,
    Work(Arc<Work>),
}

impl Party {
    /// A conversation of whoever made `call`.
    pub(super) fn new(call: Call, tenant: Tenant) -> Self {
        Self(Arc::new(Conversation {
            call,
            tenant,
            runtime: Handle::current(),
            asked: Asked::default(),
            subscriptions: Mutex::default(),
            mouth: tokio::sync::Mutex::default(),
        }))
    }

    /// The client says something.
    pub(super) fn hear(&self, message: Bytes, voice: &Voice) {
        if self.0.asked.take(message) {
            let (conversation, voice) = (Arc::clone(&self.0), voice.clone());
            self.0.runtime.spawn(async move { conversation.answer(&voice).await });
        }
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        self.0.asked.forget();
        let mut subscriptions = self.0.subscriptions.lock();
        subscriptions.over = true;
        for (_, kind) in subscriptions.by_id.drain() {
            if let Kind::Work(work) = kind {
                work.leave(self.0.call.app.phase());
            }
        }
    }
}

impl Conversation {
    /// Does what was asked for until nothing is left.
    async fn answer(self: &Arc<Self>, voice: &Voice) {
        let tell = |message: &Bytes, done: Result<Option<String>, Problem>| {
            let told = done.unwrap_or_else(|problem| Some(words::error(&About::of(message), problem)));
            if let Some(told) = told {
                voice.say(told.as_bytes());
            }
            voice.done();
        };
        self.asked.answer(|message| self.carry_out(message, voice), tell).await;
    }

    async fn carry_out(self: &Arc<Self>, message: Bytes, voice: &Voice) -> Result<Option<String>, Problem> {
        let about = &About::of(&message);
        let ask = asks::read(&message, about, &self.call.app.settings.event.json)?;
        // The connection ends within a second; until then nothing is done for who may not ask for it.
        if let Pass::Over(_) = self.call.app.keys.pass(&self.call.principal.actor) {
            return Err(Problem::unauthorized());
        }
        Ok(Some(match ask {
            Ask::Subscribe(ask) => {
                self.subscribe(ask, about, voice).await?;
                return Ok(None);
            }
            Ask::Unsubscribe(ask) => self.unsubscribe(&ask.id, about, voice)?,
            Ask::Publish(events) => self.publish(events, about).await?,
            Ask::Ack(ask) => work::ack(self, &ask, about).await?,
            Ask::Nack(ask) => work::nack(self, ask, about).await?,
            Ask::Extend(ask) => work::extend(self, &ask, about)?,
            Ask::Ping => words::pong(about),
        }))
    }

    /// Whether another subscription can be called so.
    fn check_room(&self, id: &str) -> Result<(), Problem> {
        let subscriptions = &self.subscriptions.lock().by_id;
        match subscriptions.get(id) {
            Some(Kind::Work(work)) if work.is_over() => {}
            Some(_) => {
                let detail = "/id: it is in use on this connection: unsubscribe first, or choose another";
                return Err(Problem::new(&kinds::CONFLICT, detail));
            }
            None => {}
        }
        if subscriptions.len() >= SUBSCRIPTIONS_MAX {
            let detail = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions: unsubscribe one");
            return Err(Problem::new(&kinds::CONFLICT, detail));
        }
        Ok(())
    }

    async fn subscribe(self: &Arc<Self>, ask: Subscribe, about: &About, voice: &Voice) -> Result<(), Problem> {
        if ask.consumer.is_some() {
            return self.employ(ask, about, voice);
        }
        if ask.max.is_some() {
            return Err(body::invalid("/max: it belongs to the subscription of a consumer"));
        }
        self.check_room(&ask.id)?;
        let Subscribe { id, types, channels, aggregate_id, from, .. } = ask;
        let filter = self.filter(Filter { types, channels, aggregate: aggregate_id, confined: None })?;
        let (cursor, resumed) = stream::start(&self.call, self.tenant, Position::read(&from)?).await?;
        for told in words::subscribed(about, cursor, resumed) {
            voice.say(told.as_bytes());
        }
        self.subscriptions.lock().by_id.insert(id.clone(), Kind::Events);
        voice.subscribe(Subscription { id, filter, cursor, replays: resumed.is_some() });
        Ok(())
    }

    /// What is asked for, within the walls of the key; a ticket says it all itself.
    fn filter(&self, asked: Filter) -> Result<Filter, Problem> {
        if let Some(ticket) = &self.call.ticket {
            if asked != Filter::default() {
                let detail = "the ticket says which events: leave `types`, `channels` and `aggregateId` out";
                return Err(body::invalid(detail));
            }
            return Ok(ticket.filter());
        }
        self.call.check_types(&asked.types)?;
        let walls = self.call.principal.channels.clone();
        tickets::foreign(walls.as_deref(), &asked.channels, false)?;
        Ok(Filter { confined: walls, ..asked })
    }

    /// Subscribes to a consumer.
    fn employ(self: &Arc<Self>, ask: Subscribe, about: &About, voice: &Voice) -> Result<(), Problem> {
        self.check_room(&ask.id)?;
        let id = ask.id.clone();
        let work = Work::begin(self, ask, about, voice)?;
        let mut subscriptions = self.subscriptions.lock();
        if subscriptions.over {
            work.leave(self.call.app.phase());
        }
        subscriptions.by_id.insert(id, Kind::Work(work));
        Ok(())
    }

    /// A subscription to a consumer; also one that was ended, for messages that the client still has.
    pub(super) fn work(&self, subscription: &str) -> Result<Arc<Work>, Problem> {
        match self.subscriptions.lock().by_id.get(subscription) {
            Some(Kind::Work(work)) => Ok(Arc::clone(work)),
            _ => Err(body::invalid("/subscription: there is no such subscription to a consumer on this connection")),
        }
    }

    fn unsubscribe(&self, id: &str, about: &About, voice: &Voice) -> Result<String, Problem> {
        let subscriptions = &mut self.subscriptions.lock().by_id;
        match subscriptions.get(id) {
            Some(Kind::Work(work)) if !work.has_ended() => {
                // What the client has it may still acknowledge.
                work.end();
                if work.is_over() {
                    subscriptions.remove(id);
                }
            }
            Some(Kind::Events) => {
                subscriptions.remove(id);
                voice.unsubscribe(id);
            }
            _ => return Err(body::invalid("/id: there is no such subscription on this connection")),
        }
        Ok(words::status(about, json!({ "state": "unsubscribed" })))
    }

    async fn publish(&self, events: Bytes, about: &About) -> Result<String, Problem> {
        self.may(Scope::EventsWrite)?;
        let answer = publish::publish(self.call.another(events)).await?;
        let answer = answer.into_body().collect().await.map_err(|error| internal(&error))?;
        Ok(words::published(about, &answer.to_bytes()))
    }

    /// Refuses what the key does not allow.
    pub(super) fn may(&self, scope: Scope) -> Result<(), Problem> {
        if self.call.principal.may(scope) { Ok(()) } else { Err(Problem::lacks(scope)) }
    }
}
