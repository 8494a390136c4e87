//! One process: it opens the disk, runs the lanes, does what is to be done, and ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::event::Defaults;
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_engine::consumers::Queues;
use tidings_engine::dispatcher::{Subscriber, opening};
use tidings_log::memory::MemoryStore;
use tidings_log::store::{Append, Prepared, Written};
use tidings_log::{Store, Tenant, Write};
use tokio::runtime::Builder;
use tokio::sync::Notify;

use crate::chance::Chance;
use crate::clock;
use crate::disk::Disk;
use crate::lanes::{Became, Lanes, Spec};
use crate::left;
use crate::oracle::ms;
use crate::plant::Plant;
use crate::receiver::Receiver;
use crate::run::{CAREFUL, DRAIN_DAYS, End, Life, Note, Outside};
use crate::workers::Worker;
use crate::world::{Act, Order, World};

/// How long the last stop of all waits.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often, at the end, somebody looks whether everything is at rest: at first, and after a while.
const LOOK_MIN: Duration = Duration::from_secs(20);
const LOOK_MAX: Duration = Duration::from_hours(2);
/// How long nothing runs at the most after an event ended the process.
const DOWN_MS_MAX: u64 = 2_000;
/// How often a publisher tries again.
const PUBLISH_AGAIN: Duration = Duration::from_millis(300);

/// What a life was.
pub(crate) struct Lived {
    pub(crate) life: Life,
    pub(crate) down: Duration,
    pub(crate) finished: bool,
}

/// The tenants' numbers: their places and one.
pub(crate) fn tenant(place: usize) -> Tenant {
    Tenant(u32::try_from(place).unwrap_or(u32::MAX) + 1)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

/// Makes the tenants and the webhooks.
pub(crate) fn prepare(outside: &Outside, world: &World) {
    let store = MemoryStore::open(&outside.disk);
    runtime().block_on(async {
        for place in 0..world.tenants {
            let name = TenantName::parse(&format!("tenant-{place}")).expect("a name");
            let written = store.commit(clock::START, vec![Write::Tenant(name)]).await;
            assert_eq!(written, Ok(vec![Written::Tenant(tenant(place))]));
        }
        for hook in &world.hooks {
            let opening = opening(&hook.name, tenant(hook.tenant), Offset(0));
            let written = store.commit(clock::START, vec![opening]).await;
            assert_eq!(written, Ok(vec![Written::Done]));
        }
    });
}

/// Lets a process live until the next act that ends it, or until nothing is left to do.
pub(crate) fn live(
    outside: &Outside,
    world: &World,
    acts: &mut VecDeque<(Timestamp, Act)>,
    began: Timestamp,
    (number, careful): (u32, bool),
) -> Lived {
    let runtime = runtime();
    let killed = Arc::new(Notify::new());
    outside.record.lock().killed = Arc::clone(&killed);
    let (end, down, finished) = runtime.block_on(async {
        clock::begin(world.seed, number, began);
        let lived = async {
            let process = Arc::new(Process::start(outside, world, (number, careful)).await);
            process.live(outside, world, acts).await
        };
        tokio::select! {
            biased;
            () = killed.notified() => {
                let down = Chance::about(world.seed, &["killed", &number.to_string()]).millis(0..=DOWN_MS_MAX);
                (End::Crashed, down, true)
            }
            lived = lived => lived,
        }
    });
    let ended = runtime.block_on(async { clock::now() });
    drop(runtime);
    outside.record.lock().stopping = false;
    let told = left::told(outside, world);
    Lived { life: Life { began, ended, end, careful, told }, down, finished }
}

struct Process {
    lanes: Arc<Lanes>,
    queues: Arc<Queues>,
    store: Arc<dyn Store>,
    number: u32,
}

impl Process {
    async fn start(outside: &Outside, world: &World, (number, careful): (u32, bool)) -> Self {
        let disk = Disk::open(&outside.disk, world.disk.clone(), world.seed, number, outside.plant);
        let store: Arc<dyn Store> = Arc::new(disk);
        let lanes = Lanes::open(Arc::clone(&store), careful.then_some(CAREFUL)).await;
        let process = Self { lanes: Arc::new(lanes), queues: Arc::new(Queues::new(clock::ENV)), store, number };
        for hook in 0..world.hooks.len() {
            process.start_hook(outside, world, hook);
        }
        process.lanes.begin();
        process
    }

    fn start_hook(&self, outside: &Outside, world: &World, hook: usize) {
        let mut spec = self.spec(outside, world, hook);
        if outside.plant == Some(Plant::TenantFilterMissing) && world.tenants > 1 {
            let other = (world.hooks[hook].tenant + 1) % world.tenants;
            let name = format!("{}-other", spec.name).into();
            self.lanes.start(Spec { name, tenant: tenant(other), ..spec.clone() });
        }
        match outside.plant {
            Some(Plant::OrderLostOnRetry) => spec.settings.ordering = tidings_core::lane::Ordering::None,
            Some(Plant::ConcurrencyIgnored) => spec.settings.max_concurrency += 1,
            Some(Plant::RetryTooEarly) => {
                let half =
                    spec.settings.schedule.steps().iter().map(|step| (*step / 2).max(Duration::from_millis(100)));
                let half = tidings_core::retry::Schedule::new(half.collect());
                spec.settings.schedule = half.unwrap_or_default();
            }
            _ => {}
        }
        self.lanes.start(spec);
    }

    fn spec(&self, outside: &Outside, world: &World, hook: usize) -> Spec {
        let wanted = &world.hooks[hook];
        let (name, tenant) = (wanted.name.clone(), tenant(wanted.tenant));
        let (filter, settings) = (wanted.filter.clone(), wanted.settings.clone());
        if let Some(workers) = wanted.workers {
            let (subscriber, sink) = (Subscriber::Consumer(name.clone()), self.queues.open(&name, workers.ack_wait));
            return Spec { name, tenant, filter, settings, subscriber, sink };
        }
        let receiver = Receiver {
            hook,
            name: name.clone(),
            seed: world.seed,
            moods: wanted.moods.clone(),
            poison: wanted.poison,
            plant: outside.plant,
            record: Arc::clone(&outside.record),
        };
        Spec { name, tenant, filter, settings, subscriber: Subscriber::Webhook, sink: Arc::new(receiver) }
    }

    /// Has all workers begin.
    fn work(&self, outside: &Outside, world: &World) {
        let queues = Arc::clone(&self.queues);
        tokio::spawn(async move { queues.run().await });
        for (hook, wanted) in world.hooks.iter().enumerate() {
            let (Some(workers), Some(queue)) = (wanted.workers, self.queues.get(&wanted.name)) else { continue };
            queue.pause(!self.lanes.status(&wanted.name).unwrap_or_default().active);
            for number in 0..workers.count {
                let worker = Worker {
                    hook,
                    name: wanted.name.clone(),
                    seed: world.seed,
                    number,
                    life: self.number,
                    workers,
                    fails: wanted.poison.fails,
                    queue: Arc::clone(&queue),
                    lanes: Arc::clone(&self.lanes),
                    record: Arc::clone(&outside.record),
                };
                tokio::spawn(worker.run());
            }
        }
    }

    async fn live(
        self: &Arc<Self>,
        outside: &Outside,
        world: &World,
        acts: &mut VecDeque<(Timestamp, Act)>,
    ) -> (End, Duration, bool) {
        self.work(outside, world);
        for place in 0..world.tenants {
            tokio::spawn(publish(Arc::clone(&self.store), outside, place, world.seed));
        }
        while let Some((at, _)) = acts.front() {
            tokio::time::sleep(at.since(clock::now())).await;
            // Not before: who is killed meanwhile leaves it to the next one.
            let Some((_, act)) = acts.pop_front() else { break };
            if outside.verbose && !matches!(act, Act::Publish(..) | Act::Order(..)) {
                println!("{:>12} ms  {act:?}", ms(clock::now()));
            }
            match act {
                Act::Publish(tenant, batch) => {
                    outside.unacked[tenant].batches.lock().push_back(batch);
                    outside.unacked[tenant].bell.notify_one();
                }
                Act::Order(hook, order @ Order::Restart) => {
                    let (asked, done) = (clock::now(), Some(clock::now()));
                    outside.notes.lock().push(Note { hook, order, life: self.number, asked, done, pointless: false });
                    self.start_hook(outside, world, hook);
                }
                Act::Order(hook, order) => drop(tokio::spawn(self.order(outside, world, hook, order))),
                Act::Crash(down) => return (End::Crashed, down, true),
                Act::Stop { patience, down } => {
                    outside.record.lock().stopping = true;
                    let settled = self.lanes.shutdown(patience).await;
                    return (if settled { End::Stopped } else { End::Cancelled }, down, true);
                }
            }
        }
        let finished = !world.drains || self.drain(outside, world).await;
        let settled = self.lanes.shutdown(PATIENCE).await;
        (if settled { End::Drained } else { End::Cancelled }, Duration::ZERO, finished)
    }

    /// Does something to a webhook and notes when.
    fn order(
        self: &Arc<Self>,
        outside: &Outside,
        world: &World,
        hook: usize,
        order: Order,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (process, notes, name) = (Arc::clone(self), Arc::clone(&outside.notes), world.hooks[hook].name.clone());
        let (tenant, verbose) = (tenant(world.hooks[hook].tenant), outside.verbose);
        let place = {
            let mut notes = notes.lock();
            notes.push(Note { hook, order, life: self.number, asked: clock::now(), done: None, pointless: false });
            notes.len() - 1
        };
        async move {
            if verbose {
                println!("{:>12} ms  {name} {order:?}", ms(clock::now()));
            }
            let became = process.lanes.order(&name, tenant, order).await;
            if let Some(queue) = process.queues.get(&name) {
                queue.pause(!process.lanes.status(&name).unwrap_or_default().active);
            }
            if verbose {
                println!("{:>12} ms  {name} {order:?}: {became:?}", ms(clock::now()));
            }
            let note = &mut notes.lock()[place];
            note.done = (became == Became::Done).then(clock::now);
            note.pointless = became == Became::Pointless;
        }
    }

    /// Heals everybody and waits until all is delivered. Dead letters that park an aggregate are sent again once, then
    /// given up.
    async fn drain(self: &Arc<Self>, outside: &Outside, world: &World) -> bool {
        outside.record.lock().healed = true;
        let until = clock::now().plus(Duration::from_hours(24 * DRAIN_DAYS));
        let mut every = LOOK_MIN;
        while clock::now() < until {
            tokio::time::sleep(every).await;
            every = (every + every / 8).min(LOOK_MAX);
            let mut at_rest = outside.unacked.iter().all(|unacked| unacked.batches.lock().is_empty());
            for (hook, spec) in world.hooks.iter().enumerate() {
                let status = self.lanes.status(&spec.name).unwrap_or_default();
                at_rest &= status.rest && status.active;

                if !status.active {
                    self.order(outside, world, hook, Order::Activate).await;
                } else if status.parked > 0 {
                    at_rest = false;
                    let again = std::mem::replace(&mut outside.decided.lock()[hook], true);
                    let order = if again { Order::Discard } else { Order::ReplayDead };
                    self.order(outside, world, hook, order).await;
                }
            }
            if at_rest {
                return true;
            }
        }
        false
    }
}

/// Publishes to a tenant what there is, one batch after the other, until each is acknowledged.
fn publish(
    store: Arc<dyn Store>,
    outside: &Outside,
    place: usize,
    seed: u64,
) -> impl Future<Output = ()> + Send + 'static {
    let (unacked, acked) = (Arc::clone(&outside.unacked[place]), Arc::clone(&outside.acked));
    let mut chance = Chance::about(seed, &["publisher", &place.to_string()]);
    async move {
        loop {
            let Some(batch) = unacked.batches.lock().front().cloned() else {
                unacked.bell.notified().await;
                continue;
            };
            let events = batch.into_iter().map(|draft| {
                let mut random = [0; 26];
                chance.fill(&mut random);
                Prepared::new(tenant(place), draft.encode(&Defaults { now: clock::now(), source: "/sim", random }))
            });
            let append = Append { tenant: tenant(place), events: events.collect(), request: None };
            match store.commit(clock::now(), vec![Write::Append(append)]).await.map(|mut written| written.pop()) {
                Ok(Some(Written::Appended { results, .. })) => {
                    acked
                        .lock()
                        .extend(results.into_iter().map(|result| (place, result.id.as_str().into(), result.offset)));
                    unacked.batches.lock().pop_front();
                }
                _ => tokio::time::sleep(PUBLISH_AGAIN).await,
            }
        }
    }
}
