//! The outboxes that are read: a list of tables in the file, JSON in the variable.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;
use serde::Deserialize;
use tidings_core::tenant::TenantName;

use super::{Values, source, text};

/// Longest name of an outbox, in bytes.
const NAME_BYTES_MAX: usize = 32;
/// Most outboxes.
const OUTBOXES_MAX: usize = 64;

/// How an outbox of PostgreSQL is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// It is asked.
    #[default]
    Polling,
    /// It tells, through a replication slot.
    Replication,
}

/// One outbox.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    /// Unique; names its position and its quarantine.
    pub(crate) name: String,
    /// Where the database is, without the password.
    pub(crate) url: String,
    pub(crate) password_file: Option<PathBuf>,
    /// PEM file of the authorities that the database's certificate is of.
    pub(crate) ca_file: Option<PathBuf>,
    /// Whose events its rows are.
    pub(crate) tenant: TenantName,
    /// `source` of events whose row names none.
    pub(crate) source: Option<String>,
    pub(crate) mode: Mode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    url: String,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    tenant: Option<String>,
    source: Option<String>,
    #[serde(default)]
    mode: Mode,
}

pub(super) fn outboxes(values: &Values) -> Result<Vec<Outbox>> {
    let listed = text(values, "outbox");
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    let entries: Vec<Entry> = serde_json::from_str(listed).map_err(|error| anyhow!("setting `outbox`: {error}"))?;
    if entries.len() > OUTBOXES_MAX {
        bail!("setting `outbox`: at most {OUTBOXES_MAX}");
    }
    let names: BTreeSet<_> = entries.iter().map(|entry| &entry.name).collect();
    if names.len() != entries.len() {
        bail!("setting `outbox`: each `name` once");
    }
    entries.into_iter().map(outbox).collect()
}

fn outbox(entry: Entry) -> Result<Outbox> {
    let Entry { name, url, password_file, ca_file, tenant, source: named, mode } = entry;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(fits) {
        bail!("setting `outbox`: `name` = {name:?}: 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -");
    }
    let parsed = url::Url::parse(&url).with_context(|| format!("setting `outbox`: `url` of {name}"))?;
    if parsed.password().is_some() || parsed.query_pairs().any(|(key, _)| key == "password") {
        // Settings are printed, so they hold no secrets.
        bail!("setting `outbox`: `url` of {name}: leave the password out and name a file with it in `password_file`");
    }
    let tenant = match tenant {
        Some(tenant) => TenantName::parse(&tenant).map_err(|error| anyhow!("setting `outbox`: `tenant`: {error}"))?,
        None => TenantName::default_tenant(),
    };
    let named = named.map(|named| source(&named).with_context(|| format!("`outbox` {name}"))).transpose()?;
    Ok(Outbox { name, url, password_file, ca_file, tenant, source: named, mode })
}
