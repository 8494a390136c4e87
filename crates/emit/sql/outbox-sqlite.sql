-- The outbox of a SQLite database. An application inserts in the transaction of the change that it tells of; Tidings moves
-- the rows to its log and deletes them. AUTOINCREMENT: an id is never given twice, so that a reader cannot miss a row.
CREATE TABLE IF NOT EXISTS tidings_outbox (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  event_id     TEXT    NOT NULL DEFAULT (lower(hex(randomblob(16)))),
  event_type   TEXT    NOT NULL,
  version      INTEGER,
  occurred_at  TEXT,                                                        -- RFC 3339
  source       TEXT,
  aggregate_id TEXT,
  channels     TEXT CHECK (json_type(channels) = 'array'),                  -- ["user:u_17"]
  metadata     TEXT CHECK (json_type(metadata) = 'object'),                 -- {"actor":"u_17"}
  data         TEXT    NOT NULL CHECK (json_valid(data) AND length(data) <= 16777216),
  created_at   TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) STRICT;
