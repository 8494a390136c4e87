-- Wakes the reader of the outbox, if that is asleep: while it is awake it holds this lock, and finds rows by asking. Of
-- transactions that commit at the same time one wakes it and the others need not: NOTIFY has commits wait for each other.
CREATE OR REPLACE FUNCTION tidings.wake() RETURNS trigger LANGUAGE plpgsql AS $wake$
BEGIN
  IF pg_catalog.pg_try_advisory_xact_lock(32766977284925299) THEN
    PERFORM pg_catalog.pg_notify('tidings', '');
  END IF;
  RETURN NULL;
END
$wake$;
REVOKE ALL ON FUNCTION tidings.wake() FROM PUBLIC;
DROP TRIGGER IF EXISTS wake ON tidings.outbox;
CREATE TRIGGER wake AFTER INSERT ON tidings.outbox FOR EACH STATEMENT EXECUTE FUNCTION tidings.wake();
