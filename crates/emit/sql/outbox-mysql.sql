-- The outbox of a MySQL (8.0.16 or newer) or MariaDB (10.2 or newer) database. An application inserts in the transaction
-- of the change that it tells of; Tidings moves the rows to its log and deletes them. Times are UTC. LONGTEXT, not JSON:
-- MySQL would write numbers and members anew.
CREATE TABLE IF NOT EXISTS tidings_outbox (
  id           BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
  event_id     VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT (uuid()),
  event_type   VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  version      INT,
  occurred_at  DATETIME(3),
  source       VARCHAR(512),
  aggregate_id VARCHAR(256),
  channels     TEXT         CHECK (json_type(channels) = 'ARRAY'),          -- ["user:u_17"]
  metadata     LONGTEXT     CHECK (json_type(metadata) = 'OBJECT'),         -- {"actor":"u_17"}
  data         LONGTEXT     NOT NULL CHECK (json_valid(data) AND octet_length(data) <= 16777216),
  created_at   DATETIME(6)  NOT NULL DEFAULT (utc_timestamp(6))
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
