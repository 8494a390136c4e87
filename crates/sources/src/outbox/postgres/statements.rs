//! The SQL that reads an outbox.

/// Rows in one batch, at most.
pub(super) const BATCH_ROWS_MAX: i64 = 2_000;
/// Bytes of data in one batch, but for its last row.
pub(super) const BATCH_BYTES_MAX: i64 = 4 * 1024 * 1024;

/// Who and what the database is. On a standby the snapshot does not say which transactions run.
pub(super) const IDENTITY: &str = "
SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
       (SELECT system_identifier::text FROM pg_control_system()), pg_current_snapshot()::text,
       to_regclass('tidings.state') IS NOT NULL";

pub(super) const STATE: &str =
    "SELECT layout, install, reader, mark, (SELECT era FROM tidings.witness) FROM tidings.state";

pub(super) const MARK: &str = "SELECT tidings.mark($1, $2, $3::text::pg_snapshot, $4)";

pub(super) const TURN: &str = "SELECT tidings.turn($1::text::pg_snapshot, make_interval(secs => $2), $3)";

pub(super) const HORIZON: &str = "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()";

/// All that the snapshot of now shows and the one before did not, if that is not too much; the first row is the head:
/// the snapshot, the largest number, how many there are. Parameters: `xmax` and the running ones of the snapshot before,
/// most rows, most bytes.
///
/// `ORDER BY txid LIMIT` keeps the planner on the index by transaction, whatever it believes of the table.
pub(super) const TAIL: &str = "
WITH fresh AS MATERIALIZED (
  (SELECT id, event_id, event_type, version, occurred_at, source, aggregate_id, channels, metadata, data, created_at
   FROM tidings.outbox WHERE txid >= $1::text::xid8 ORDER BY txid LIMIT $3)
  UNION ALL
  (SELECT id, event_id, event_type, version, occurred_at, source, aggregate_id, channels, metadata, data, created_at
   FROM tidings.outbox WHERE txid = ANY ($2::text[]::xid8[]) LIMIT $3)
), counted AS (
  SELECT fresh.*, coalesce(sum(octet_length(data::text)) OVER (
           ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
  FROM fresh WHERE (SELECT count(*) FROM fresh) < $3
)
SELECT NULL::bigint AS id, pg_current_snapshot()::text AS event_id, (SELECT max(f.id)::text FROM fresh f) AS event_type,
       (SELECT count(*)::integer FROM fresh) AS version, NULL::timestamptz AS occurred_at, NULL::text AS source,
       NULL::text AS aggregate_id, NULL::text[] AS channels, NULL::json AS metadata, NULL::json AS data,
       NULL::timestamptz AS created_at
UNION ALL
SELECT id, event_id, event_type, version, occurred_at, source, aggregate_id, channels, metadata, data, created_at
FROM counted WHERE before < $4
ORDER BY id NULLS FIRST";

/// The first and last number in the difference of two snapshots. Parameters: as in `PAGE`, from the third.
pub(super) const SPAN: &str = "
SELECT min(id), max(id) FROM tidings.outbox
WHERE (txid >= $1::text::xid8 OR txid = ANY ($2::text[]::xid8[])) AND pg_visible_in_snapshot(txid, $3::text::pg_snapshot)";

/// The rows of a range of numbers that lie in the difference of two snapshots; the first row is the head: how many there
/// are. Parameters: the number before the first, the last one, `xmax` and the running ones of the snapshot before, the
/// snapshot behind, most bytes.
pub(super) const PAGE: &str = "
WITH fresh AS MATERIALIZED (
  SELECT id, event_id, event_type, version, occurred_at, source, aggregate_id, channels, metadata, data, created_at
  FROM tidings.outbox
  WHERE id > $1 AND id <= $2 AND (txid >= $3::text::xid8 OR txid = ANY ($4::text[]::xid8[]))
    AND pg_visible_in_snapshot(txid, $5::text::pg_snapshot)
), counted AS (
  SELECT fresh.*, coalesce(sum(octet_length(data::text)) OVER (
           ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
  FROM fresh
)
SELECT NULL::bigint AS id, NULL::text AS event_id, NULL::text AS event_type, (SELECT count(*)::integer FROM fresh) AS version,
       NULL::timestamptz AS occurred_at, NULL::text AS source, NULL::text AS aggregate_id, NULL::text[] AS channels,
       NULL::json AS metadata, NULL::json AS data, NULL::timestamptz AS created_at
UNION ALL
SELECT id, event_id, event_type, version, occurred_at, source, aggregate_id, channels, metadata, data, created_at
FROM counted WHERE before < $6
ORDER BY id NULLS FIRST";
