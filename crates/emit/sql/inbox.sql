-- What a subscriber has processed, beside what it made of it. SQLite and PostgreSQL.
CREATE TABLE IF NOT EXISTS tidings_inbox (
  subscriber   VARCHAR(64) NOT NULL,
  event_id     VARCHAR(64) NOT NULL,
  processed_ms BIGINT      NOT NULL,                                         -- since 1970
  PRIMARY KEY (subscriber, event_id)
);
CREATE INDEX IF NOT EXISTS tidings_inbox_by_age ON tidings_inbox (subscriber, processed_ms);
-- The newest sequence number of each aggregate that a subscriber has processed.
CREATE TABLE IF NOT EXISTS tidings_sequence (
  subscriber   VARCHAR(64)  NOT NULL,
  aggregate_id VARCHAR(256) NOT NULL,
  sequence     BIGINT       NOT NULL,
  PRIMARY KEY (subscriber, aggregate_id)
);
