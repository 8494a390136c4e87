-- The log. An append touches two B-trees, both at their right edge: `event` and `event_by_offset`.
CREATE TABLE event (
  position    INTEGER PRIMARY KEY,   -- order of all commits, private to the engine
  tenant      INTEGER NOT NULL,
  offset      INTEGER NOT NULL,      -- dense within the tenant
  recorded_ms INTEGER NOT NULL,
  supplied    INTEGER NOT NULL,      -- bit set: which fields the producer gave
  checksum    INTEGER NOT NULL,      -- CRC-32C of header and data
  salt        BLOB NOT NULL,         -- 16 bytes; the 32 bytes of SHA-256(salt || data) once data is erased
  header      BLOB NOT NULL,         -- the JSON envelope without data
  data        BLOB                   -- as sent; NULL once erased
) STRICT;
CREATE UNIQUE INDEX event_by_offset ON event (tenant, offset);

CREATE TABLE tenant (
  number      INTEGER PRIMARY KEY,
  name        TEXT NOT NULL UNIQUE,
  first       INTEGER NOT NULL,      -- the oldest offset that is kept
  recorded_ms INTEGER NOT NULL       -- not before this: what retention took may have been the newest
) STRICT;

CREATE TABLE era (
  tenant   INTEGER NOT NULL,
  first    INTEGER NOT NULL,         -- the first offset of the era
  previous INTEGER NOT NULL,         -- the last offset before it
  began_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, first)
) STRICT, WITHOUT ROWID;

-- The index, derived from the events through the mark `indexed_through`; the rest is replayed at start. It is made of sorted
-- runs. A run is there once it has a row here; rows of `run_block` without one are what a crash left, and are removed.
CREATE TABLE run (
  number  INTEGER PRIMARY KEY,
  age     INTEGER NOT NULL,          -- the number of the newest flush in it: runs are asked in this order
  level   INTEGER NOT NULL,          -- how often its entries were merged
  keys    INTEGER NOT NULL,          -- postings in it
  offsets INTEGER NOT NULL,          -- offsets under them; 0: nothing but the last sequence numbers of aggregates
  covers  BLOB NOT NULL              -- for each tenant its number, first and last offset: 4, 8 and 8 bytes
) STRICT;

-- The rows of runs, each about a page: sorted entries of postings, and pieces of the run's filter after the last of them.
CREATE TABLE run_block (
  number  INTEGER PRIMARY KEY,
  run     INTEGER NOT NULL,
  place   BLOB NOT NULL,             -- scope, key, tag and offset of the first entry, 8 bytes each
  entries BLOB NOT NULL              -- see `sqlite/block.rs`
) STRICT;
CREATE UNIQUE INDEX run_block_by_place ON run_block (run, place);

CREATE TABLE mark (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO mark VALUES ('indexed_through', 0);

-- Kept answers to requests with an Idempotency-Key. `number` ascends with time.
CREATE TABLE request (
  number INTEGER PRIMARY KEY,
  key    BLOB NOT NULL UNIQUE,
  body   BLOB NOT NULL,
  at_ms  INTEGER NOT NULL,
  answer BLOB NOT NULL
) STRICT;

CREATE TABLE seal (
  number   INTEGER PRIMARY KEY,
  tenant   INTEGER NOT NULL,
  first    INTEGER NOT NULL,
  last     INTEGER NOT NULL,
  previous BLOB NOT NULL,
  hash     BLOB NOT NULL,
  leaves   BLOB NOT NULL             -- 32 bytes an event; empty once retention took the events
) STRICT;
CREATE UNIQUE INDEX seal_by_offset ON seal (tenant, last);

CREATE TABLE document (
  kind     TEXT NOT NULL,
  owner    INTEGER NOT NULL,         -- a tenant's number; 0 is the operator
  id       TEXT NOT NULL,
  revision INTEGER NOT NULL,
  body     BLOB NOT NULL,
  PRIMARY KEY (kind, owner, id)
) STRICT, WITHOUT ROWID;

-- What subscriptions have of their own; those that have nothing here are as far as their slot (`swept`).
CREATE TABLE progress (
  subscription TEXT PRIMARY KEY,
  tenant       INTEGER NOT NULL,
  cursor       INTEGER NOT NULL,
  acked        BLOB NOT NULL         -- bit n, the lowest of a byte first: cursor + 1 + n is settled
) STRICT, WITHOUT ROWID;

CREATE TABLE swept (
  tenant  INTEGER NOT NULL,
  slot    INTEGER NOT NULL,
  through INTEGER NOT NULL,
  PRIMARY KEY (tenant, slot)
) STRICT, WITHOUT ROWID;

-- Deliveries that are not settled although the cursor may be past them.
CREATE TABLE pending_row (
  subscription TEXT NOT NULL,
  offset       INTEGER NOT NULL,
  tenant       INTEGER NOT NULL,
  attempts     INTEGER NOT NULL,
  due_ms       INTEGER NOT NULL,
  reason       TEXT NOT NULL,
  state        INTEGER NOT NULL,     -- 0 waiting, 1 parked, 2 settled
  followers    INTEGER,              -- events of its aggregate after this offset wait for it
  replay       TEXT,
  PRIMARY KEY (subscription, offset)
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_row_by_event ON pending_row (tenant, offset) WHERE state < 2;

-- `id` ascends with time.
CREATE TABLE dead_letter (
  id            TEXT PRIMARY KEY,
  subscription  TEXT NOT NULL,
  tenant        INTEGER NOT NULL,
  offset        INTEGER NOT NULL,
  event_type    TEXT NOT NULL,
  attempts      INTEGER NOT NULL,
  reason        TEXT NOT NULL,
  at_ms         INTEGER NOT NULL,
  state         INTEGER NOT NULL,    -- 0 open, 1 replayed, 2 discarded
  closed_ms     INTEGER,
  closed_reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_letter_by_tenant ON dead_letter (tenant, id);
CREATE INDEX dead_letter_by_subscription ON dead_letter (subscription, id);
CREATE INDEX open_letter_by_tenant ON dead_letter (tenant, id) WHERE state = 0;
CREATE INDEX open_letter_by_event ON dead_letter (tenant, offset) WHERE state = 0;
CREATE INDEX closed_letter_by_event ON dead_letter (tenant, offset) WHERE state > 0;
CREATE UNIQUE INDEX open_letter_by_delivery ON dead_letter (subscription, offset) WHERE state = 0;

-- Copies of events that retention took while an open dead letter or a row needed them.
CREATE TABLE kept_event (
  number      INTEGER PRIMARY KEY,
  tenant      INTEGER NOT NULL,
  offset      INTEGER NOT NULL,
  id          TEXT NOT NULL,         -- so that an erasure finds it
  recorded_ms INTEGER NOT NULL,
  supplied    INTEGER NOT NULL,
  checksum    INTEGER NOT NULL,
  salt        BLOB NOT NULL,
  header      BLOB NOT NULL,
  data        BLOB
) STRICT;
CREATE UNIQUE INDEX kept_event_by_offset ON kept_event (tenant, offset);
CREATE INDEX kept_event_by_id ON kept_event (tenant, id);

-- Attempts of deliveries, many in a row: one for each commit that settles some, and each 4,096 offsets it speaks of.
CREATE TABLE attempt (
  number       INTEGER PRIMARY KEY,
  subscription TEXT NOT NULL,
  tenant       INTEGER NOT NULL,
  span         INTEGER NOT NULL,     -- offset >> 12
  first        INTEGER NOT NULL,     -- the smallest offset it speaks of
  last         INTEGER NOT NULL,     -- the largest one
  attempts     BLOB NOT NULL         -- see src/attempts.rs
) STRICT;
CREATE INDEX attempt_by_event ON attempt (tenant, span, first, last);
CREATE INDEX attempt_by_subscription ON attempt (subscription);
