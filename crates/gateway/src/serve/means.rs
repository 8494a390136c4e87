//! What deliveries go out with, made from the settings: the door, the mail server; and the threads that they run on.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use tidings_core::seal::SealingKey;
use tidings_egress::{Door, Resolver, Trust};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::config::{self, Settings};
use crate::control::webhooks::{Means, Smtp, check_target};
use crate::telemetry::process;
use crate::telemetry::trace::Tracer;

/// Everything that webhooks are delivered with.
pub(super) fn means(
    settings: &Settings,
    sealing: SealingKey,
    listening: Vec<SocketAddr>,
    tracer: Option<Tracer>,
) -> Result<Means> {
    let means = Means {
        door: Arc::new(door(settings, listening)?),
        sealing,
        smtp: settings.smtp.as_ref().map(smtp).transpose()?,
        contact: settings.contact.clone(),
        keep_answers: settings.egress.keep_answers,
        tracer,
    };
    if let Some(contact) = &means.contact {
        check_target(contact, &means).map_err(|error| anyhow!("setting `delivery.contact`: {error}"))?;
    }
    Ok(means)
}

/// The way out, as the settings allow; this server itself is never reached through it.
fn door(settings: &Settings, listening: Vec<SocketAddr>) -> Result<Door> {
    let mut policy = settings.egress.policy.clone();
    policy.listeners = listening;
    let resolver = Resolver::system().map_err(|error| anyhow!("cannot look names up: {error}"))?;
    Ok(Door::new(policy, resolver, trust(settings)?))
}

/// The authorities that answers from outside are believed by.
pub(super) fn trust(settings: &Settings) -> Result<Trust> {
    let pem = settings.egress.ca_file.as_deref().map(read).transpose()?;
    Trust::new(pem.as_deref()).map_err(|error| anyhow!("setting `egress.ca_file`: {error}"))
}

fn smtp(settings: &config::Smtp) -> Result<Smtp> {
    let login = match &settings.login {
        None => None,
        Some((user, file)) => {
            let password = Zeroizing::new(String::from_utf8(read(file)?).context("the mail password is not UTF-8")?);
            Some((user.clone(), Zeroizing::new(password.trim_end_matches(['\r', '\n']).to_owned())))
        }
    };
    let smtp = Smtp {
        host: settings.host.clone(),
        port: settings.port,
        security: settings.security,
        ca_pem: settings.ca_file.as_deref().map(read).transpose()?,
        login,
        from: settings.from.clone(),
    };
    // Told now, not with the first mail.
    if let Err(error) = smtp.mail(&smtp.from) {
        bail!("settings `smtp.*`: {error}");
    }
    Ok(smtp)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// How many attempts may be in flight: three quarters of the files that may be open, the others are for who comes to us.
pub(super) fn attempts_max() -> usize {
    process::files_max().and_then(|files| usize::try_from(files / 4 * 3).ok()).unwrap_or(usize::MAX)
}

/// The threads that deliver: a runtime each, so that a lane and its connections never change threads. They end with this.
pub(super) struct Lanes {
    handles: Vec<Handle>,
    /// A thread ends when its end of this goes.
    stops: Vec<oneshot::Sender<()>>,
}

impl Lanes {
    /// Starts `count` threads.
    pub(super) fn start(count: usize) -> Result<Self> {
        let mut lanes = Self { handles: Vec::new(), stops: Vec::new() };
        for number in 0..count {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (stop, stopped) = oneshot::channel::<()>();
            lanes.handles.push(runtime.handle().clone());
            lanes.stops.push(stop);
            let work = move || {
                runtime.block_on(async {
                    let answers = tokio::spawn(tidings_log::answers::serve());
                    // An error says that nobody is left to say more.
                    let _ = stopped.await;
                    answers.abort();
                });
            };
            std::thread::Builder::new().name(format!("tidings-lane-{number}")).spawn(work)?;
        }
        Ok(lanes)
    }

    pub(super) fn handles(&self) -> Vec<Handle> {
        self.handles.clone()
    }
}
