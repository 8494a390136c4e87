//! `tidings serve`: puts the parts together, runs them, and stops them in order. The only place that spawns.

mod banner;
mod door;
mod listen;
mod means;
mod outboxes;
mod retention;
mod stop;
mod tickets;
mod tls;
mod traces;

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use ed25519_dalek::SigningKey;
use tidings_core::seal::SealingKey;
use tidings_core::time::Timestamp;
use tidings_engine::dispatcher::{Dispatcher, Env};
use tidings_engine::streams::{self, Streams};
use tidings_log::Store;
use tidings_log::sqlite::{Party, SqliteStore};
use tidings_log::store::{Document, Expect, Kind, Owner, Write};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::api::routes;
use crate::app::{App, Phase};
use crate::clock;
use crate::config::Settings;
use crate::control::audit::Actor;
use crate::control::consumers::Consumers;
use crate::control::keys::{Keys, Principal};
use crate::control::tickets::Tickets;
use crate::control::webhooks::Webhooks;
use crate::control::{sealing, socket, starts};
use crate::telemetry::process;
use crate::telemetry::requests::Requests;

/// Where the key that signs heads of the chain is kept, sealed.
const AUDIT_KEY: &str = "audit-key";

/// Serves until a signal, or until the log is fenced.
pub(crate) fn run(settings: Settings) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = if settings.threads == 0 { cores } else { settings.threads };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(serve(settings, threads))
}

/// Makes the data folder, for this user alone.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the data folder {}", folder.display()))
}

async fn serve(settings: Settings, threads: usize) -> Result<()> {
    make_folder(&settings.data)?;
    process::prepare();
    let listeners = listeners(&settings)?;
    let listening = listeners.iter().map(|(listener, _)| listener.local_addr()).collect::<io::Result<Vec<_>>>()?;
    let address = listening[0];
    let (phase, phase_watch) = watch::channel(Phase::Starting);
    let engine = SqliteStore::open(&settings.data, settings.synchronous)?;
    let watch = engine.watch();
    let of = |party| -> Arc<dyn Store> { Arc::new(engine.for_party(party)) };
    let store = of(Party::Works);
    let sealing = sealing::open(&settings.data, settings.seal_key_file.as_deref(), &*store).await?;
    let audit_key = audit_key(&sealing, &*store).await?;
    let env = Env { now: clock::now, random: clock::fill };
    let export = traces::start(&settings)?;
    let tracer = export.as_ref().map(|export| export.tracer.clone());
    let tickets = Tickets::load(sealing.clone(), &*store).await?;
    let means = means::means(&settings, sealing, listening, tracer.clone())?;
    let lanes = means::Lanes::start(threads)?;
    let dispatcher = Dispatcher::open(Arc::clone(&store), env, lanes.handles(), means::attempts_max());
    let dispatcher = Arc::new(dispatcher.await?);
    let webhooks = Webhooks::new(Arc::clone(&store), Arc::clone(&dispatcher), means);
    let consumers = Consumers::new(Arc::clone(&store), Arc::clone(&dispatcher), env);
    let started = clock::now();
    be_careful(&*store, &dispatcher, started).await?;
    let keys = Keys::load(&*store).await?;
    let (tasks, outboxes) = outboxes::open(&settings, &store).await?;
    let app = Arc::new(App {
        settings,
        store: of(Party::Requests),
        keys,
        tickets,
        webhooks,
        consumers,
        dispatcher: Arc::clone(&dispatcher),
        audit_key,
        phase: phase_watch.clone(),
        streams: start_streams(&of(Party::Streams), threads)?,
        seats: Arc::default(),
        started,
        requests: Requests::default(),
        outboxes,
        watch,
        tracer,
    });
    app.webhooks.load().await?;
    app.consumers.load().await?;
    app.dispatcher.begin();
    let anybody = app.settings.dev.then(|| Principal::operator(Actor::Development));
    let server =
        listen::start(listeners, &routes::router(&app, anybody.as_ref()), &app.settings, threads, &phase_watch)?;
    let operator = Principal::operator(Actor::Operator);
    if let Some(listener) = socket::bind(&app.settings.data) {
        tokio::spawn(socket::serve(listener, routes::router(&app, Some(&operator))));
    }
    tokio::spawn(tickets::sweep(Arc::clone(&app)));
    outboxes::run(tasks, &phase_watch);
    let waited_for = Arc::clone(&app);
    tokio::spawn(async move { waited_for.consumers.run().await });
    tokio::spawn(retention::run(Arc::clone(&store), app.settings.retention));
    phase.send_replace(Phase::Ready);
    banner::print(&app, address);
    let outcome = stop::wait(&app, &phase, server).await;
    socket::remove(&app.settings.data);
    if let Some(export) = export {
        export.stop().await;
    }
    drop(lanes);
    outcome
}

/// Where requests come in: clear text first, TLS if it is set.
fn listeners(settings: &Settings) -> Result<Vec<listen::Listener>> {
    let mut listeners = vec![(listen::bind(settings.listen)?, None)];
    if let Some(tls) = &settings.tls {
        listeners.push((listen::bind(tls.listen)?, Some(tls::acceptor(tls)?)));
    }
    Ok(listeners)
}

/// After starts that follow on unclean ends, an event may be what ends us.
async fn be_careful(store: &dyn Store, dispatcher: &Dispatcher, now: Timestamp) -> Result<()> {
    if starts::begin(store, now).await? {
        tracing::warn!("two starts within a minute after unclean ends: attempts are counted before they are made");
        dispatcher.be_careful(now.plus(starts::CAREFUL));
    }
    Ok(())
}

/// Starts the threads that hold streams, one a core.
fn start_streams(store: &Arc<dyn Store>, threads: usize) -> Result<Streams> {
    let env = streams::Env { now: clock::now, monotonic: clock::monotonic, random: clock::fill };
    let (streams, shards) = Streams::new(store, env, threads).context("cannot make threads for streams")?;
    for (number, shard) in shards.into_iter().enumerate() {
        let work = move || {
            if let Err(error) = shard.run() {
                tracing::error!(%error, "a thread of streams ended");
            }
        };
        std::thread::Builder::new().name(format!("tidings-stream-{number}")).spawn(work)?;
    }
    Ok(streams)
}

/// The key that signs heads of the chain: made once, kept sealed.
async fn audit_key(sealing: &SealingKey, store: &dyn Store) -> Result<SigningKey> {
    if let Some(document) = store.get(Kind::Setting, Owner::Operator, AUDIT_KEY).await? {
        let sealed = String::from_utf8(document.body).context("the audit key is damaged")?;
        let plain = sealing.open(AUDIT_KEY, &sealed).context("the audit key cannot be opened")?;
        let seed = <[u8; 32]>::try_from(&plain[..]).context("the audit key is damaged")?;
        return Ok(SigningKey::from_bytes(&seed));
    }
    let seed = Zeroizing::new(clock::random::<32>());
    let body = sealing.seal(clock::random(), AUDIT_KEY, &*seed).into_bytes();
    let document = Document { kind: Kind::Setting, owner: Owner::Operator, id: AUDIT_KEY.into(), revision: 0, body };
    store.commit(clock::now(), vec![Write::Put(document, Expect::New)]).await?;
    Ok(SigningKey::from_bytes(&seed))
}
