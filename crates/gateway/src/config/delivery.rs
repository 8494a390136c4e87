//! Settings of what is told to people: the mail server, the contact, when deliveries count as degraded.

use std::path::PathBuf;

use anyhow::{Result, bail};
use tidings_sinks::mail::Security;

use super::{Values, duration, one_of, optional, text, typed};

/// The operator's mail server.
#[derive(Clone, Debug)]
pub(crate) struct Smtp {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) security: Security,
    /// User name, and the file with the password.
    pub(crate) login: Option<(String, PathBuf)>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) from: String,
}

/// Above these, `/health/events` says `degraded`; `None`: however many.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    pub(crate) queue_depth: Option<u64>,
    pub(crate) dead_letters: Option<u64>,
    pub(crate) lag: Option<u64>,
    pub(crate) latency_ms: Option<u64>,
    pub(crate) outbox_delay_ms: Option<u64>,
    pub(crate) outbox_wal_bytes: Option<u64>,
}

/// The mail server, if one is named.
pub(super) fn smtp(values: &Values) -> Result<Option<Smtp>> {
    let Some(host) = optional(values, "smtp.host") else { return Ok(None) };
    let security = one_of(values, "smtp.security", &["starttls", "tls", "none"])?;
    let Some(from) = optional(values, "smtp.from") else {
        bail!("setting `smtp.from`: name the sender of mails, as in tidings@example.com");
    };
    let login = match (optional(values, "smtp.user"), optional(values, "smtp.password_file")) {
        (None, None) => None,
        (Some(user), Some(file)) => Some((user.to_owned(), PathBuf::from(file))),
        _ => bail!("settings `smtp.user` and `smtp.password_file`: both or none"),
    };
    Ok(Some(Smtp {
        host: host.to_owned(),
        port: typed(values, "smtp.port")?,
        security: [Security::StartTls, Security::Tls, Security::None][security],
        login,
        ca_file: optional(values, "smtp.ca_file").map(PathBuf::from),
        from: from.to_owned(),
    }))
}

pub(super) fn health(values: &Values) -> Result<Health> {
    let number = |key| if text(values, key).is_empty() { Ok(None) } else { typed(values, key).map(Some) };
    let millis = |key| {
        let span = duration(values, key)?;
        anyhow::Ok(span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    };
    Ok(Health {
        queue_depth: number("health.queue_depth")?,
        dead_letters: number("health.dead_letters")?,
        lag: number("health.lag")?,
        latency_ms: millis("health.latency")?,
        outbox_delay_ms: millis("health.outbox_delay")?,
        outbox_wal_bytes: number("health.outbox_wal_bytes")?,
    })
}
