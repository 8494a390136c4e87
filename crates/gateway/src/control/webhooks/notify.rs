//! Whom a webhook notifies: each target is a subscription of its own to what is told of the webhook.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tidings_core::event::AggregateId;
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::lane;
use tidings_core::offset::Offset;
use tidings_egress::Target;
use tidings_engine::dispatcher::{Subscriber, Subscription};
use tidings_log::Tenant;
use tidings_sinks::Sink;
use tidings_sinks::webhook::Format;

use super::means::Means;
use super::record::Record;
use super::sink::{Way, lazily};
use crate::control::Fault;

/// Targets of one webhook.
const NOTIFY_MAX: usize = 5;
/// What is told.
const TYPES: [&str; 4] =
    ["tidings.webhook.failing", "tidings.webhook.deactivated", "tidings.webhook.recovered", "tidings.webhook.gap"];
/// Attempts in flight to one target.
const CONCURRENCY: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(15);
const MAILTO: &str = "mailto:";

/// Whether these can be notified.
pub(super) fn check(targets: &[String], means: &Means) -> Result<(), Fault> {
    if targets.len() > NOTIFY_MAX {
        return Err(("/notify".into(), format!("at most {NOTIFY_MAX}")));
    }
    if targets.iter().collect::<BTreeSet<_>>().len() != targets.len() {
        return Err(("/notify".into(), "each target once".to_owned()));
    }
    for (number, target) in targets.iter().enumerate() {
        check_target(target, means).map_err(|error| (Cow::from(format!("/notify/{number}")), error))?;
    }
    Ok(())
}

/// Whether somebody can be notified; the error says what is accepted.
pub(crate) fn check_target(target: &str, means: &Means) -> Result<(), String> {
    match (target.strip_prefix(MAILTO), &means.smtp) {
        (None, _) => Target::parse(target, &means.policy()).map(drop),
        (Some(_), None) => Err("an https URL: the operator has set no mail server (`smtp.host`)".to_owned()),
        (Some(to), Some(smtp)) => smtp.mail(to).map(drop),
    }
}

/// Whom to notify: those that the webhook names, else the operator's contact.
pub(super) fn targets<'a>(record: &'a Record, means: &'a Means) -> Vec<&'a str> {
    let own: Vec<_> = record.settings.notify.iter().map(String::as_str).collect();
    if own.is_empty() { means.contact.as_deref().into_iter().collect() } else { own }
}

/// The subscription of a webhook's target.
pub(super) fn id(webhook: &str, number: usize) -> Box<str> {
    format!("{webhook}.notify.{number}").into()
}

/// The webhook that a subscription belongs to, and the number of the target if it is one.
pub(crate) fn owner(subscription: &str) -> (&str, Option<usize>) {
    let split = subscription.split_once(".notify.");
    split.map_or((subscription, None), |(webhook, number)| (webhook, number.parse().ok()))
}

/// The subscription to a target; an error if it cannot be reached as the settings are.
pub(super) fn subscription(
    (tenant, start): (Tenant, Offset),
    record: &Arc<Record>,
    means: &Arc<Means>,
    number: usize,
    target: &str,
) -> Result<Subscription> {
    let pattern = |name: &&str| TypePattern::parse(name).map_err(|error| anyhow!(error));
    let filter = Filter {
        types: TYPES.iter().map(pattern).collect::<Result<_>>()?,
        aggregate: Some(AggregateId::parse(&record.id).map_err(|error| anyhow!(error))?),
        ..Filter::default()
    };
    Ok(Subscription {
        id: id(&record.id, number),
        tenant,
        filter: filter.into(),
        start,
        fresh: false,
        settings: lane::Settings { max_concurrency: CONCURRENCY, ..lane::Settings::default() },
        subscriber: Subscriber::Webhook,
        told: false,
        sink: lazily(record, Some(target), means)?,
    })
}

/// The way to a target; an error if what is kept cannot be opened, or the target not be reached as the settings are.
pub(super) fn sink(record: &Record, means: &Means, target: &str) -> Result<Arc<dyn Sink>> {
    if let Some(to) = target.strip_prefix(MAILTO) {
        let smtp = means.smtp.as_ref().ok_or_else(|| anyhow!("`smtp.host` is not set any more"))?;
        return Ok(Arc::new(smtp.mail(to).map_err(|error| anyhow!(error))?));
    }
    let keep_answers = means.keep_answers;
    let way = Way { url: target, format: Format::Envelope, headers: false, timeout: TIMEOUT, keep_answers };
    way.sink(record, means)
}
