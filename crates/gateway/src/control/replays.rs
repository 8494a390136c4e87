//! Replays of webhooks: what is asked for becomes a job of the dispatcher.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;
use tidings_engine::dispatcher::{Job, Only};
use tidings_log::store::{DeadQuery, Kind, Owner};
use tidings_log::{Query, Store, Tenant, Unavailable};

use super::webhooks::{Record, Webhooks};

/// Replays of one webhook, and one more.
const PAGE: usize = 32;
/// Dead letters read at once.
const LETTERS_PAGE: usize = 1_000;
/// Open dead letters that a replay may hold.
pub(crate) const LETTERS_MAX: usize = 10_000;
/// Events that a dry run looks at.
const LOOKED_AT_MAX: usize = 100_000;
const EVENTS_PAGE: usize = 1_000;

impl Webhooks {
    /// The replays of a webhook that are under way, by id.
    pub(crate) async fn replays(&self, tenant: Tenant, webhook: &str) -> Result<Vec<Job>, Unavailable> {
        let prefix = format!("{webhook}/");
        let documents = self.store.list(Kind::Replay, Some(Owner::Tenant(tenant)), &prefix, PAGE).await?;
        let own = documents.iter().filter(|document| document.id.starts_with(&prefix));
        Ok(own.filter_map(|document| serde_json::from_slice(&document.body).ok()).collect())
    }
}

/// The open dead letters of a webhook between two offsets, by offset; `None`: more than a replay may hold.
pub(crate) async fn letters(
    store: &dyn Store,
    tenant: Tenant,
    webhook: &str,
    (after, through): (Offset, Offset),
) -> Result<Option<Vec<(Offset, Box<str>)>>, Unavailable> {
    let mut found = Vec::new();
    let mut before = None;
    loop {
        let query = DeadQuery {
            tenant,
            subscription: Some(webhook.into()),
            event_type: None,
            since: None,
            open: true,
            before: before.clone(),
            limit: LETTERS_PAGE,
        };
        let page = store.dead_letters(query).await?;
        before = page.last().map(|letter| letter.id.clone());
        let full = page.len() == LETTERS_PAGE;
        let fits = page.into_iter().filter(|letter| letter.offset > after && letter.offset <= through);
        found.extend(fits.map(|letter| (letter.offset, letter.id)));
        if found.len() > LETTERS_MAX {
            return Ok(None);
        }
        if !full {
            found.sort();
            return Ok(Some(found));
        }
    }
}

/// How many events a replay would send; false if there are so many that not all were looked at.
pub(crate) async fn count(
    webhooks: &Webhooks,
    tenant: Tenant,
    record: &Record,
    job: &Job,
) -> Result<(u64, bool), Unavailable> {
    let lane = webhooks.status(&record.id).unwrap_or_default();
    let to = job.to.min(lane.cursor);
    let given_up: BTreeSet<_> = job.letters.iter().map(|(offset, _)| *offset).collect();
    let wanted = |offset: Offset| {
        (job.offsets.is_empty() || job.offsets.binary_search(&offset).is_ok())
            && (job.only == Only::All || given_up.contains(&offset) || lane.standing.has_skipped(offset))
    };
    let (mut events, mut looked_at, mut after) = (0, 0, job.position);
    while after < to {
        let query = Query::after(tenant, after, EVENTS_PAGE);
        let page = webhooks.store.read(Query { filter: record.filter(), through: Some(to), ..query }).await?;
        looked_at += page.events.len();
        let of_types = page.events.iter().filter(|event| {
            job.event_types.is_empty()
                || job.event_types.iter().any(|pattern| pattern.matches(&event.subject.event_type))
        });
        events += of_types.filter(|event| wanted(event.offset)).count() as u64;
        if !page.more {
            break;
        }
        after = page.reached;
        if looked_at >= LOOKED_AT_MAX {
            return Ok((events, false));
        }
    }
    Ok((events, true))
}

/// What is shown of a replay.
pub(crate) fn listing(job: &Job) -> Value {
    json!({
        "id": job.id,
        "webhook": job.subscription,
        "createdAt": job.created_at,
        "position": job.position,
        "to": job.to,
        "eventTypes": job.event_types,
        "only": job.only,
        "rate": job.rate,
        "deadLetters": job.letters.len(),
        "sent": job.sent,
    })
}

/// The id of a new replay.
pub(crate) fn id(now: Timestamp, random: [u8; 10]) -> Box<str> {
    format!("rp_{}", tidings_core::id::uuid_v7(now, random).simple()).into()
}
