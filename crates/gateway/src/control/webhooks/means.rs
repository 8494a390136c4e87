//! What webhooks are delivered with: the door, the operator's mail server, the key that seals secrets.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tidings_core::seal::{SealError, SealingKey};
use tidings_egress::{Door, Policy};
use tidings_sinks::mail::{self, Mail, Security};
use zeroize::Zeroizing;

use crate::clock;

/// For a mail to be handed over.
const MAIL_TIMEOUT: Duration = Duration::from_secs(20);

/// What webhooks are delivered with.
pub(crate) struct Means {
    pub(crate) door: Arc<Door>,
    pub(crate) sealing: SealingKey,
    pub(crate) smtp: Option<Smtp>,
    /// Whom to tell of webhooks that name nobody.
    pub(crate) contact: Option<String>,
    /// Whether the text that endpoints answer is kept.
    pub(crate) keep_answers: bool,
}

/// The operator's mail server.
pub(crate) struct Smtp {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) security: Security,
    pub(crate) ca_pem: Option<Vec<u8>>,
    pub(crate) login: Option<(String, Zeroizing<String>)>,
    pub(crate) from: String,
}

impl Smtp {
    /// A way to a mailbox; the error says what is wrong with it.
    pub(crate) fn mail(&self, to: &str) -> Result<Mail, String> {
        let settings = mail::Settings {
            host: self.host.clone(),
            port: self.port,
            security: self.security,
            ca_pem: self.ca_pem.clone(),
            login: self.login.clone(),
            from: self.from.clone(),
            to: to.to_owned(),
            timeout: MAIL_TIMEOUT,
        };
        Mail::new(settings, clock::now)
    }
}

impl Means {
    /// Where webhooks may go.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.door.policy()
    }

    /// Seals something of a webhook; it opens in its place only.
    pub(super) fn seal(&self, webhook: &str, what: &str, plain: &str) -> String {
        self.sealing.seal(clock::random(), &place(webhook, what), plain.as_bytes())
    }

    pub(super) fn open(&self, webhook: &str, what: &str, sealed: &str) -> Result<Zeroizing<String>, SealError> {
        let plain = self.sealing.open(&place(webhook, what), sealed)?;
        String::from_utf8(plain.to_vec()).map(Zeroizing::new).map_err(|_| SealError::Malformed)
    }
}

fn place(webhook: &str, what: &str) -> String {
    format!("webhook/{webhook}/{what}")
}
