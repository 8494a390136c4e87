//! The outboxes of the settings, each with its reader and its relay.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tidings_log::Store;
use tidings_log::store::{Document, Expect, Kind, Owner, Write};
use tidings_sources::outbox::{self, Alarm, Env, Reader, Relay, mysql, postgres, sqlite};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::app::{Outbox, Phase};
use crate::clock;
use crate::config::{self, Mode, Settings};

/// Where it is kept what this installation is called in outboxes.
const READER: &str = "outbox-reader";

/// What runs for the outboxes.
#[derive(Default)]
pub(super) struct Tasks {
    relays: Vec<Relay>,
    alarms: Vec<Alarm>,
}

/// What will run, and what the rest of the server sees of it.
pub(super) async fn open(settings: &Settings, store: &Arc<dyn Store>) -> Result<(Tasks, Vec<Outbox>)> {
    let (mut tasks, mut outboxes) = (Tasks::default(), Vec::new());
    if settings.outboxes.is_empty() {
        return Ok((tasks, outboxes));
    }
    let name = reader_name(&**store).await?;
    for of in &settings.outboxes {
        let reader = reader(of, &name).with_context(|| format!("setting `outbox`: {}", of.name))?;
        let terms = outbox::Settings {
            name: of.name.as_str().into(),
            tenant: of.tenant.clone(),
            limits: settings.event,
            source: of.source.as_deref().unwrap_or(&settings.source).into(),
        };
        let env = Env { now: clock::now, random: clock::fill };
        let (relay, meter, orders) = Relay::new(Arc::clone(store), env, terms.clone(), reader);
        tasks.relays.push(relay);
        let bound = settings.health.outbox_delay_ms.map(Duration::from_millis);
        tasks.alarms.extend(bound.map(|bound| Alarm::new(Arc::clone(store), env, terms, Arc::clone(&meter), bound)));
        outboxes.push(Outbox { name: of.name.clone(), tenant: of.tenant.clone(), meter, orders });
    }
    Ok((tasks, outboxes))
}

/// Runs them until the server stops: what is under way then is read again after the next start.
pub(super) fn run(tasks: Tasks, phase: &watch::Receiver<Phase>) {
    for relay in tasks.relays {
        until_stopping(relay.run(), phase);
    }
    for alarm in tasks.alarms {
        until_stopping(alarm.run(), phase);
    }
}

fn until_stopping(task: impl Future<Output = ()> + Send + 'static, phase: &watch::Receiver<Phase>) {
    let mut phase = phase.clone();
    tokio::spawn(async move {
        tokio::select! {
            // An error says that the server is gone.
            _ = phase.wait_for(|phase| *phase >= Phase::Stopping) => {}
            () = task => {}
        }
    });
}

fn reader(of: &config::Outbox, name: &str) -> Result<Reader> {
    let password = of.password_file.as_deref().map(password).transpose()?;
    let password = password.as_deref().map(String::as_str);
    let (scheme, _) = of.url.split_once(':').unwrap_or_default();
    match scheme {
        "postgres" | "postgresql" => {
            let authorities = of.ca_file.as_deref().map(authorities).transpose()?;
            let config = postgres::config(&of.url, password, authorities.as_deref());
            let config = config.map_err(|error| anyhow!("`url`: {error}"))?;
            let reader = postgres::Reader::new(config, name);
            Ok(match of.mode {
                Mode::Polling => Reader::Postgres(Box::new(reader)),
                Mode::Replication => Reader::Replication(Box::new(postgres::replication::Reader::new(reader))),
            })
        }
        _ if of.mode == Mode::Replication => bail!("`mode`: replication is only for postgres://; leave it out"),
        _ if of.ca_file.is_some() => bail!("`ca_file`: only for postgres://; leave it out"),
        "sqlite" if password.is_some() => bail!("`password_file`: a file of SQLite has no password; leave it out"),
        "sqlite" => {
            let reader = sqlite::Reader::new(&of.url, name).map_err(|error| anyhow!("`url`: {error}"))?;
            Ok(Reader::Sqlite(Box::new(reader)))
        }
        "mysql" | "mariadb" => {
            let reader = mysql::Reader::new(&of.url, password, name).map_err(|error| anyhow!("`url`: {error}"))?;
            Ok(Reader::MySql(Box::new(reader)))
        }
        other => bail!("`url`: {other}: no such kind of outbox; there are postgres://, mysql:// and sqlite://"),
    }
}

fn password(file: &Path) -> Result<Zeroizing<String>> {
    let text = Zeroizing::new(
        std::fs::read_to_string(file).with_context(|| format!("`password_file`: cannot read {}", file.display()))?,
    );
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn authorities(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("`ca_file`: cannot read {}", file.display()))
}

/// What this installation is called in outboxes: made once, so that two that read the same one notice each other.
async fn reader_name(store: &dyn Store) -> Result<String> {
    if let Some(document) = store.get(Kind::Setting, Owner::Operator, READER).await? {
        return String::from_utf8(document.body).context("the name in outboxes is damaged");
    }
    let name = format!("{:016x}", u64::from_ne_bytes(clock::random()));
    let body = name.clone().into_bytes();
    let document = Document { kind: Kind::Setting, owner: Owner::Operator, id: READER.into(), revision: 0, body };
    store.commit(clock::now(), vec![Write::Put(document, Expect::New)]).await?;
    Ok(name)
}
