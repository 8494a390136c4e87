//! Proof that a log is whole: nothing in it was changed, removed or reordered, or the first place where it was.
//!
//! Reads the file beside whoever has it open, in short transactions, so that the WAL is not held back for long. What it
//! cannot see: events removed from the very end before they were sealed, and their salts.

mod walk;

use std::path::Path;

use rusqlite::{Connection, ErrorCode};
use serde::Serialize;
use tidings_core::tenant::TenantName;

use crate::event::Tenant;
use crate::sqlite::connection::{OpenError, open_reader};
use crate::sqlite::{log_path, run};
use walk::Walk;

/// Most findings of a report. The first of each tenant is always in it.
pub const FINDINGS_MAX: usize = 100;
/// Page cache: the file is read once, in order.
const CACHE_KIB: i32 = 16 * 1024;

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Events checked.
    pub checked: u64,
    /// Events to check, about.
    pub total: u64,
}

/// What a verification found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Each tenant's log, by number.
    pub tenants: Vec<TenantReport>,
    /// What is wrong, by tenant, in the order of its log.
    pub findings: Vec<Finding>,
}

/// What there is of a tenant's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantReport {
    /// Its name.
    pub name: String,
    /// Events that are kept.
    pub events: u64,
    /// How many of them have lost their payload to an erasure.
    pub erased: u64,
    /// The oldest offset that is kept, or the one that comes next.
    pub first: u64,
    /// The newest offset, or the one before the first.
    pub head: u64,
    /// The last offset that the chain covers.
    pub sealed_through: u64,
    /// The newest seal, hexadecimal. Whoever keeps it can prove later that nothing before it was changed.
    pub head_hash: String,
    /// Events after the newest seal: guarded by their checksums only.
    pub unsealed: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// In whose log; none: in the file itself.
    pub tenant: Option<String>,
    /// Where.
    pub offset: Option<u64>,
    /// The event there, if its id can still be read.
    pub event_id: Option<String>,
    /// What sort of thing it is.
    pub kind: FindingKind,
    /// What it is, for a person.
    pub message: String,
}

/// What sort of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FindingKind {
    /// A page of the file cannot be read, or does not fit the others.
    Page,
    /// An event's bytes do not match their checksum.
    Checksum,
    /// An event's header cannot be read.
    Header,
    /// An event stands in another place than its own.
    Place,
    /// Events are missing.
    Missing,
    /// An event is not what was sealed.
    Changed,
    /// The time of recording goes back.
    Time,
    /// An aggregate's numbers are not dense.
    Sequence,
    /// A seal is damaged, or does not follow the one before.
    Seal,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }

    fn note(&mut self, finding: Finding) {
        let first_of_tenant = self.findings.last().is_none_or(|last| last.tenant != finding.tenant);
        if first_of_tenant || self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    fn note_page(&mut self, message: impl Into<String>) {
        let kind = FindingKind::Page;
        self.note(Finding { tenant: None, offset: None, event_id: None, kind, message: message.into() });
    }
}

/// Why a log could not be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is none.
    #[error("there is no log in {0}: name the data folder with --data")]
    Absent(String),
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Verifies the log in `folder`; `progress` is called every few thousand events.
///
/// Errors: only if there is nothing that could be read. Whatever is damaged is a finding.
pub fn verify(folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Report, VerifyError> {
    let path = log_path(folder);
    if !path.exists() {
        return Err(VerifyError::Absent(folder.display().to_string()));
    }
    let mut report = Report::default();
    let connection = match open_reader(&path) {
        Ok(connection) => connection,
        Err(OpenError::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            report.note_page(format!("the list of tables cannot be read: {error}"));
            return Ok(report);
        }
        Err(error) => return Err(error.into()),
    };
    connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(OpenError::from)?;
    check_pages(&connection, &mut report);
    check_index(&connection, &mut report);
    let total = total(&connection);
    let mut checked = 0;
    for (tenant, name) in tenants(&connection, &mut report) {
        let told = |events: u64| progress(Progress { checked: checked + events, total: total.max(checked + events) });
        let found = Walk::new(&connection, tenant, name, &mut report).run(told);
        checked += found.events;
        report.tenants.push(found);
    }
    check_owners(&connection, &mut report);
    Ok(report)
}

/// Asks SQLite about its pages, a table at a time.
fn check_pages(connection: &Connection, report: &mut Report) {
    let tables = || {
        let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
        tables.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
    };
    let tables = tables().unwrap_or_else(|error| {
        report.note_page(format!("the list of tables cannot be read: {error}"));
        Vec::new()
    });
    for table in tables {
        let check = || {
            let mut check = connection.prepare(&format!("PRAGMA quick_check({table})"))?;
            check.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
        };
        match check() {
            Ok(lines) => lines.into_iter().filter(|line| line != "ok").for_each(|line| {
                report.note_page(format!("table `{table}`: {}", line.trim_start_matches("*** in database main ***\n")));
            }),
            Err(error) => report.note_page(format!("table `{table}` cannot be read: {error}")),
        }
    }
}

/// Whether the blocks of the index are what was written.
fn check_index(connection: &Connection, report: &mut Report) {
    let mut check = || -> rusqlite::Result<()> {
        for run in run::runs(connection)? {
            if let Err(error) = run::check(connection, &run) {
                report.note_page(format!("run {} of the index: {error}", run.number));
            }
        }
        Ok(())
    };
    if let Err(error) = check() {
        report.note_page(format!("the index cannot be read: {error}"));
    }
}

/// How many events there are, about: positions are dense but for what retention took.
fn total(connection: &Connection) -> u64 {
    let sql = "SELECT (SELECT max(position) FROM event) - (SELECT min(position) FROM event) + 1";
    let total = connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
    total.ok().flatten().map_or(0, i64::cast_unsigned)
}

/// Whether every event and every seal is of a tenant that the file names. Reads one row of the index for each owner.
fn check_owners(connection: &Connection, report: &mut Report) {
    for (table, what) in [("event", "events"), ("seal", "seals")] {
        let sql = format!("SELECT min(tenant) FROM {table} WHERE tenant > ?");
        let known = "SELECT EXISTS (SELECT 1 FROM tenant WHERE number = ?)";
        let mut check = || -> rusqlite::Result<()> {
            let mut owner = i64::MIN;
            while let Some(next) = connection.query_row(&sql, [owner], |row| row.get::<_, Option<i64>>(0))? {
                if !connection.query_row(known, [next], |row| row.get(0))? {
                    report.note_page(format!("there are {what} of tenant number {next}, and no such tenant"));
                }
                owner = next;
            }
            Ok(())
        };
        if let Err(error) = check() {
            report.note_page(format!("table `{table}` cannot be read: {error}"));
        }
    }
}

fn tenants(connection: &Connection, report: &mut Report) -> Vec<(Tenant, String)> {
    let read = || {
        let mut tenants = connection.prepare("SELECT number, name FROM tenant ORDER BY number")?;
        let rows = tenants.query_map([], |row| Ok((Tenant(row.get(0)?), row.get::<_, String>(1)?)))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let tenants = read().unwrap_or_else(|error| {
        report.note_page(format!("the list of tenants cannot be read: {error}"));
        Vec::new()
    });
    for (_, name) in &tenants {
        if TenantName::parse(name).is_err() {
            report.note_page(format!("`{name}` cannot be the name of a tenant"));
        }
    }
    tenants
}
