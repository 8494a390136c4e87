//! The outboxes of the settings, each with its reader and its relay.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use tidings_log::Store;
use tidings_log::store::{Document, Expect, Kind, Owner, Write};
use tidings_sources::outbox::{self, Env, Reader, Relay, postgres, sqlite};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::app::{Outbox, Phase};
use crate::clock;
use crate::config::{self, Settings};

/// Where it is kept what this installation is called in outboxes.
const READER: &str = "outbox-reader";

/// The relays, not running yet, and what the rest of the server sees of them.
pub(super) async fn open(settings: &Settings, store: &Arc<dyn Store>) -> Result<(Vec<Relay>, Vec<Outbox>)> {
    let (mut relays, mut outboxes) = (Vec::new(), Vec::new());
    if settings.outboxes.is_empty() {
        return Ok((relays, outboxes));
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
        let (relay, meter, orders) = Relay::new(Arc::clone(store), env, terms, reader);
        relays.push(relay);
        outboxes.push(Outbox { name: of.name.clone(), tenant: of.tenant.clone(), meter, orders });
    }
    Ok((relays, outboxes))
}

/// Runs them until the server stops: what is under way then is read again after the next start.
pub(super) fn run(relays: Vec<Relay>, phase: &watch::Receiver<Phase>) {
    for relay in relays {
        let mut phase = phase.clone();
        tokio::spawn(async move {
            tokio::select! {
                // An error says that the server is gone.
                _ = phase.wait_for(|phase| *phase >= Phase::Stopping) => {}
                () = relay.run() => {}
            }
        });
    }
}

fn reader(of: &config::Outbox, name: &str) -> Result<Reader> {
    let password = of.password_file.as_deref().map(password).transpose()?;
    let password = password.as_deref().map(String::as_str);
    let (scheme, _) = of.url.split_once(':').unwrap_or_default();
    match scheme {
        "postgres" | "postgresql" => {
            let reader = postgres::Reader::new(&of.url, password, name).map_err(|error| anyhow!("`url`: {error}"))?;
            Ok(Reader::Postgres(Box::new(reader)))
        }
        "sqlite" if password.is_some() => bail!("`password_file`: a file of SQLite has no password; leave it out"),
        "sqlite" => {
            let reader = sqlite::Reader::new(&of.url, name).map_err(|error| anyhow!("`url`: {error}"))?;
            Ok(Reader::Sqlite(Box::new(reader)))
        }
        other => bail!("`url`: {other}: no such kind of outbox; there are postgres:// and sqlite://"),
    }
}

fn password(file: &Path) -> Result<Zeroizing<String>> {
    let text = Zeroizing::new(
        std::fs::read_to_string(file).with_context(|| format!("`password_file`: cannot read {}", file.display()))?,
    );
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
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
