-- What a subscriber has processed, beside what it made of it. MySQL and MariaDB.
CREATE TABLE IF NOT EXISTS tidings_inbox (
  subscriber   VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  event_id     VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  processed_ms BIGINT      NOT NULL,                                         -- since 1970
  PRIMARY KEY (subscriber, event_id),
  KEY tidings_inbox_by_age (subscriber, processed_ms)
) ENGINE = InnoDB;
-- The newest sequence number of each aggregate that a subscriber has processed.
CREATE TABLE IF NOT EXISTS tidings_sequence (
  subscriber   VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  aggregate_id VARCHAR(256) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  sequence     BIGINT       NOT NULL,
  PRIMARY KEY (subscriber, aggregate_id)
) ENGINE = InnoDB;
