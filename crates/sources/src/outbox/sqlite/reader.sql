-- Which Tidings reads the outbox, and how far it was when it last cleared rows away.
CREATE TABLE IF NOT EXISTS tidings_outbox_reader (
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  name    TEXT    NOT NULL,
  relayed INTEGER NOT NULL
) STRICT;
