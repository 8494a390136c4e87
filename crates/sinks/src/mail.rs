//! Mail: a notice in plain words to a person, over the operator's SMTP server.
//!
//! The server is the operator's own and stands in the settings, often in a private network. So this way out does not
//! take the guarded door, which is for addresses that others choose.

mod letter;

use std::fmt;
use std::time::Duration;

use letter::{Letter, Mailbox};
use lettre::address::Envelope;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use tidings_core::event::Header;
use tidings_core::time::Timestamp;
use zeroize::Zeroizing;

use crate::{Answer, Outcome, Parcel, Pending, Sink};

/// How much of the payload a mail shows, in bytes.
const DATA_BYTES_MAX: usize = 4 << 10;

/// How the connection to the server is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// By STARTTLS; a server without it is refused (usually port 587).
    #[default]
    StartTls,
    /// From the first byte (usually port 465).
    Tls,
    /// Not at all: for a server on the same machine.
    None,
}

/// Which server sends, and to whom.
pub struct Settings {
    /// Name or address of the SMTP server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub security: Security,
    /// A certificate authority to trust beside this machine's, as PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// User name and password, if it asks for them.
    pub login: Option<(String, Zeroizing<String>)>,
    /// The sender: `ops@example.com`, or `Tidings <ops@example.com>`.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// For the whole attempt.
    pub timeout: Duration,
}

/// A person who is written to.
pub struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Mailbox,
    envelope: Envelope,
    timeout: Duration,
    now: fn() -> Timestamp,
}

impl Mail {
    /// A mailbox behind a server; `now` dates the mails. The error says what is wrong with the settings.
    pub fn new(settings: Settings, now: fn() -> Timestamp) -> Result<Self, String> {
        let (from, to) = (Mailbox::parse(&settings.from)?, Mailbox::parse(&settings.to)?);
        let envelope = Envelope::new(Some(from.address.clone()), vec![to.address.clone()]);
        let envelope = envelope.map_err(|error| error.to_string())?;
        let tls = match settings.security {
            Security::None => Tls::None,
            Security::StartTls => Tls::Required(parameters(&settings)?),
            Security::Tls => Tls::Wrapper(parameters(&settings)?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(settings.host.clone())
            .port(settings.port)
            .timeout(Some(settings.timeout))
            .tls(tls);
        if let Some((user, password)) = settings.login {
            builder = builder.credentials(Credentials::new(user, password.to_string()));
        }
        Ok(Self { transport: builder.build(), from, to, envelope, timeout: settings.timeout, now })
    }

    async fn attempt(&self, parcel: &Parcel<'_>) -> Outcome {
        let Some(letter) = self.letter(parcel) else { return failed("internal error", None) };
        match tokio::time::timeout(self.timeout, self.transport.send_raw(&self.envelope, &letter)).await {
            Ok(Ok(response)) => {
                let text = response.message().collect::<Vec<_>>().join("\n");
                Outcome::Delivered(Answer { status: Some(response.code().into()), text: Some(text.into()) })
            }
            Ok(Err(error)) => judge(&error),
            Err(_) => failed("timeout", None),
        }
    }

    /// The mail about an event, the same at every attempt but for its date; `None` if the event cannot be read.
    fn letter(&self, parcel: &Parcel<'_>) -> Option<Vec<u8>> {
        let header = Header::parse(parcel.header).ok()?;
        let letter = Letter {
            from: &self.from,
            to: &self.to,
            at: (self.now)(),
            // Servers recognise a repeat by it.
            id: &format!("{}@tidings", parcel.id.as_str()),
            subject: &subject(&header),
            text: &body(&header, parcel.data.map(|data| &data[..])),
        };
        letter.encode()
    }
}

impl Sink for Mail {
    fn deliver<'a>(&'a self, parcels: &'a [Parcel<'a>]) -> Pending<'a, Vec<Outcome>> {
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(parcels.len());
            for parcel in parcels {
                outcomes.push(self.attempt(parcel).await);
            }
            outcomes
        })
    }
}

fn parameters(settings: &Settings) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(settings.host.clone());
    if let Some(pem) = &settings.ca_pem {
        let certificate = Certificate::from_pem(pem).map_err(|error| format!("not a PEM file: {error}"))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build_rustls().map_err(|error| error.to_string())
}

fn subject(header: &Header) -> String {
    let about = header.subject.aggregate.as_ref().map_or(String::new(), |aggregate| format!(": {aggregate}"));
    format!("[Tidings] {}{about}", header.subject.event_type)
}

fn body(header: &Header, data: Option<&[u8]>) -> String {
    let Header { subject, timestamp, source, .. } = header;
    let about = subject.aggregate.as_ref().map_or(String::new(), |aggregate| format!("About:  {aggregate}\n"));
    let what = match data {
        None => "The data of this event was erased.".into(),
        Some(data) => String::from_utf8_lossy(&data[..data.len().min(DATA_BYTES_MAX)]),
    };
    let cut = if data.is_some_and(|data| data.len() > DATA_BYTES_MAX) { "\n(cut here)" } else { "" };
    let (event_type, id) = (&subject.event_type, &subject.id);
    format!("{event_type}\n\nWhen:   {timestamp}\nSource: {source}\n{about}Event:  {id}\n\n{what}{cut}\n")
}

/// A refusal of this very mail is final; all else may pass later, a wrong password too.
fn judge(error: &lettre::transport::smtp::Error) -> Outcome {
    let status = error.status().map(u16::from);
    let answer = Answer { status, text: None };
    match status {
        Some(code @ 550..=554) => Outcome::Reject { reason: format!("status {code}").into(), answer },
        Some(code) => failed(&format!("status {code}"), status),
        None if error.is_tls() => failed("tls", None),
        None if error.is_timeout() => failed("timeout", None),
        None if error.is_response() || error.is_client() => failed("protocol", None),
        None => failed("connect", None),
    }
}

fn failed(reason: &str, status: Option<u16>) -> Outcome {
    Outcome::Retry { reason: reason.into(), answer: Answer { status, text: None }, retry_after: None }
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mail({} -> {})", self.from.address, self.to.address)
    }
}

#[cfg(test)]
mod tests;
