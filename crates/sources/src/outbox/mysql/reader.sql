-- Which Tidings reads the outbox.
CREATE TABLE IF NOT EXISTS tidings_outbox_reader (
  one  TINYINT     NOT NULL PRIMARY KEY CHECK (one = 1),
  name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
) ENGINE = InnoDB;
