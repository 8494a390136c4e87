-- Tidings: the outbox of this database. Made by `tidings outbox install`, taken away by `tidings outbox uninstall`.
--
-- An application calls tidings.emit(…) in the transaction of the change that it tells of. The row is committed with the
-- change or not at all. Tidings reads rows whose transaction has become visible since it last looked, so that no row is
-- skipped whatever the order of commits, and rows of one aggregate come in the order in which their transactions took
-- the aggregate's lock.

CREATE SCHEMA tidings;

-- One row: which half of the outbox is written to, and who reads it.
CREATE TABLE tidings.state (
  only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
  layout     integer     NOT NULL DEFAULT 1,
  install    text        NOT NULL DEFAULT gen_random_uuid()::text,  -- another one: another outbox
  half       smallint    NOT NULL DEFAULT 0,
  since      timestamptz NOT NULL DEFAULT clock_timestamp(),
  reader     text,                                                  -- the Tidings that reads
  mark       bigint      NOT NULL DEFAULT 0,                        -- only ever grows; smaller: restored from a backup
  relayed    pg_snapshot NOT NULL DEFAULT '1:1:'                    -- what it shows was relayed; behind by some seconds
);
INSERT INTO tidings.state DEFAULT VALUES;

-- Empty after a crash, and on another node, as unlogged tables are. Ids of transactions whose records never reached the
-- disk are given out again then, so that what the reader had seen no longer says which rows it has.
CREATE UNLOGGED TABLE tidings.witness (
  only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
  era        bigint      NOT NULL
);

CREATE FUNCTION tidings.half() RETURNS smallint LANGUAGE sql STABLE AS 'SELECT half FROM tidings.state';

CREATE SEQUENCE tidings.outbox_id;

CREATE TABLE tidings.outbox (
  txid         xid8        NOT NULL DEFAULT pg_current_xact_id(),   -- of the whole transaction, never of a savepoint
  id           bigint      NOT NULL DEFAULT nextval('tidings.outbox_id'),
  half         smallint    NOT NULL DEFAULT tidings.half(),
  event_id     text        NOT NULL DEFAULT gen_random_uuid()::text,
  event_type   text        NOT NULL,
  version      integer,
  occurred_at  timestamptz,
  source       text,
  aggregate_id text,
  channels     text[],
  metadata     json,
  data         json        NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (id, half),
  CONSTRAINT data_at_most_16_mib CHECK (octet_length(data::text) <= 16777216)
) PARTITION BY LIST (half);
CREATE INDEX outbox_by_transaction ON tidings.outbox (txid);

-- Relayed rows go by TRUNCATE of the half that is not written to: no dead rows, no vacuum.
CREATE TABLE tidings.outbox_0 PARTITION OF tidings.outbox FOR VALUES IN (0);
CREATE TABLE tidings.outbox_1 PARTITION OF tidings.outbox FOR VALUES IN (1);

-- Tells of an event, if and only if the transaction commits. Returns the event's id.
CREATE FUNCTION tidings.emit(
  event_type   text,
  data         json,
  aggregate_id text        DEFAULT NULL,
  channels     text[]      DEFAULT NULL,
  version      integer     DEFAULT NULL,
  metadata     json        DEFAULT NULL,
  source       text        DEFAULT NULL,
  occurred_at  timestamptz DEFAULT NULL,
  event_id     text        DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $emit$
#variable_conflict use_variable
BEGIN
  IF event_type IS NULL OR event_type !~ '^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$' OR event_type LIKE 'tidings.%' THEN
    RAISE EXCEPTION 'tidings.emit: % is not an event type', quote_nullable(event_type)
      USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Two or more lower snake case parts joined by dots, as in order.created; tidings.* is reserved.';
  END IF;
  event_id := coalesce(event_id, gen_random_uuid()::text);
  INSERT INTO tidings.outbox (half, event_id, event_type, version, occurred_at, source, aggregate_id, channels, metadata, data)
    VALUES ((SELECT s.half FROM tidings.state s), event_id, event_type, version, occurred_at, source, aggregate_id,
            channels, metadata, coalesce(data, 'null'));
  RETURN event_id;
END
$emit$;

-- Says who reads, how far it is and since which era, and counts: the mark, or null if another one reads. `take`: whoever
-- read before. Rows that a dump of another cluster brought may be of transactions that this one has yet to begin: whoever
-- reads from the beginning finds them as its own.
CREATE FUNCTION tidings.mark(reader text, take boolean, relayed pg_snapshot, era bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $mark$
#variable_conflict use_variable
DECLARE
  marked bigint;
BEGIN
  UPDATE tidings.state s SET mark = s.mark + 1, reader = reader, relayed = relayed
    WHERE take OR s.reader = reader RETURNING s.mark INTO marked;
  IF marked IS NOT NULL AND pg_snapshot_xmax(relayed) = '1' THEN
    UPDATE tidings.outbox SET txid = DEFAULT WHERE txid >= pg_snapshot_xmax(pg_current_snapshot());
  END IF;
  IF marked IS NOT NULL THEN
    INSERT INTO tidings.witness AS w (era) VALUES (era) ON CONFLICT (only_row) DO UPDATE SET era = excluded.era;
  END IF;
  RETURN marked;
END
$mark$;

-- Turns to the other half once this one is old or large enough, and empties that first: only if every row in it was
-- relayed, that is, is not beyond the snapshot. Waits for nobody: a half that somebody looks at stays for now.
CREATE FUNCTION tidings.turn(relayed pg_snapshot, age interval, bytes bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $turn$
DECLARE
  now_written tidings.state;
  other       smallint;
  size        bigint;
  left_over   boolean;
BEGIN
  SELECT * INTO now_written FROM tidings.state FOR UPDATE;
  other := 1 - now_written.half;
  size := pg_relation_size(format('tidings.outbox_%s', now_written.half));
  IF size = 0 OR (size < bytes AND clock_timestamp() < now_written.since + age) THEN
    RETURN false;
  END IF;
  BEGIN
    EXECUTE format('LOCK TABLE tidings.outbox_%s IN ACCESS EXCLUSIVE MODE NOWAIT', other);
  EXCEPTION WHEN lock_not_available THEN
    RETURN false;
  END;
  EXECUTE format('SELECT EXISTS (SELECT FROM tidings.outbox_%s WHERE txid >= pg_snapshot_xmax($1)
                  OR txid = ANY (ARRAY(SELECT pg_snapshot_xip($1))))', other) INTO left_over USING relayed;
  IF left_over THEN
    RETURN false;
  END IF;
  EXECUTE format('TRUNCATE tidings.outbox_%s', other);
  UPDATE tidings.state SET half = other, since = clock_timestamp();
  RETURN true;
END
$turn$;

REVOKE ALL ON SCHEMA tidings FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tidings FROM PUBLIC;
