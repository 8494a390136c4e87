//! Reads a whole log over `GET /events`, page by page, and lets the oracle judge it.

use super::http::Client;
use super::ledger::Ledger;
use super::oracle::{Findings, Oracle, Stored};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

const PAGE: usize = 250;

#[derive(Debug, Deserialize)]
struct Page {
    data: Vec<Stored>,
}

#[derive(Debug, Deserialize)]
struct OffsetsPage {
    data: Vec<OffsetOnly>,
}

#[derive(Debug, Deserialize)]
struct OffsetOnly {
    offset: u64,
}

/// Judges the log that the server at `address` shows. See [`Oracle::new`] for the cutoff.
pub(super) fn judge(address: SocketAddr, ledger: &Ledger, cutoff: Option<Duration>) -> Result<Findings> {
    let mut client = Client::new(address);
    let mut oracle = Oracle::new(ledger, cutoff, operational_offsets(&mut client)?);
    let mut after = 0;
    loop {
        let page: Page = get(&mut client, &format!("/events?after={after}&limit={PAGE}&order=asc"))?;
        ensure!(page.data.len() <= PAGE, "a page of {} events where {PAGE} were asked for", page.data.len());
        let Some(last) = page.data.last() else { break };
        ensure!(last.offset > after, "a page after {after} that ends at {}", last.offset);
        after = last.offset;
        page.data.iter().for_each(|event| oracle.see(event));
    }
    Ok(oracle.finish())
}

/// Where operational events stand: they take offsets, but are shown only to those who name them.
fn operational_offsets(client: &mut Client) -> Result<BTreeSet<u64>> {
    let mut offsets = BTreeSet::new();
    let mut after = 0;
    loop {
        let path = format!("/events?types=tidings.*&after={after}&limit={PAGE}&order=asc");
        let page: OffsetsPage = get(client, &path)?;
        let Some(last) = page.data.last() else { return Ok(offsets) };
        ensure!(last.offset > after, "a page after {after} that ends at {}", last.offset);
        after = last.offset;
        offsets.extend(page.data.iter().map(|event| event.offset));
    }
}

fn get<T: serde::de::DeserializeOwned>(client: &mut Client, path: &str) -> Result<T> {
    let reply = client.get(path).or_else(|_| client.get(path)).with_context(|| format!("GET {path}"))?;
    if reply.status != 200 {
        bail!("GET {path}: {} {}", reply.status, reply.excerpt());
    }
    serde_json::from_slice(&reply.body).with_context(|| format!("GET {path}: {}", reply.excerpt()))
}
