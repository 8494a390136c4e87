//! The databases whose outbox is written while everything is killed.

use clap::ValueEnum;
use std::process::Command;
use std::time::Duration;
use tidings_rigs::{MariaDb, Postgres};

const NAME: &str = "shop";

/// What kind of database.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Kind {
    Postgres,
    /// By logical replication.
    Replication,
    Mariadb,
}

/// One that runs.
pub(super) enum Database {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

/// What a transaction does, whatever its dialect.
#[derive(Debug)]
pub(super) struct Change {
    /// Unique.
    pub(super) name: String,
    /// Which aggregate.
    pub(super) thing: u64,
    /// From the change to the end.
    pub(super) pause: Duration,
    /// Looks at something else first, so that it is older than its change.
    pub(super) looks: bool,
    pub(super) rolled_back: bool,
}

impl Kind {
    /// How it is read.
    pub(super) fn mode(self) -> &'static str {
        if matches!(self, Self::Replication) { "replication" } else { "polling" }
    }

    /// Begins, changes, tells, ends.
    pub(super) fn transaction(self, change: &Change) -> String {
        let Change { name, thing, pause, looks, rolled_back } = change;
        let (pause, end) = (pause.as_secs_f64(), if *rolled_back { "ROLLBACK" } else { "COMMIT" });
        match self {
            Self::Postgres | Self::Replication => {
                let look = if *looks { "SELECT pg_current_xact_id();" } else { "" };
                format!("BEGIN;{look}SELECT change('{name}', {thing});SELECT pg_sleep({pause});{end};\n")
            }
            Self::Mariadb => {
                let look = if *looks { "SELECT count(*) FROM thing;" } else { "" };
                format!(
                    "BEGIN;{look}UPDATE thing SET version = last_insert_id(version + 1) WHERE id = {thing};\
                     SET @v = last_insert_id();INSERT INTO book VALUES ('{name}', {thing}, @v);\
                     INSERT INTO tidings_outbox (event_type, aggregate_id, data) VALUES ('thing.changed', \
                     'thing_{thing}', json_object('name', '{name}', 'v', CAST(@v AS UNSIGNED)));DO sleep({pause});{end};\n"
                )
            }
        }
    }

    /// The tables; with things up to a number.
    pub(super) fn tables(self, last: u64) -> String {
        match self {
            Self::Postgres | Self::Replication => format!(
                "CREATE TABLE thing (id integer PRIMARY KEY, version bigint NOT NULL DEFAULT 0);
                 CREATE TABLE book (name text PRIMARY KEY, thing integer NOT NULL, version bigint NOT NULL);
                 CREATE FUNCTION change(name text, thing integer) RETURNS void LANGUAGE plpgsql AS $$
                 DECLARE v bigint;
                 BEGIN
                   UPDATE thing t SET version = version + 1 WHERE t.id = thing RETURNING version INTO v;
                   INSERT INTO book VALUES (name, thing, v);
                   PERFORM tidings.emit('thing.changed', json_build_object('name', name, 'v', v),
                                        aggregate_id => 'thing_' || thing);
                 END $$;
                 INSERT INTO thing SELECT generate_series(0, {last})"
            ),
            Self::Mariadb => format!(
                "CREATE TABLE thing (id INT PRIMARY KEY, version BIGINT NOT NULL DEFAULT 0);
                 CREATE TABLE book (name VARCHAR(64) PRIMARY KEY, thing INT NOT NULL, version BIGINT NOT NULL);
                 INSERT INTO thing (id) SELECT seq FROM seq_0_to_{last}"
            ),
        }
    }
}

impl Database {
    pub(super) fn start(kind: Kind) -> Self {
        match kind {
            Kind::Postgres | Kind::Replication => {
                let postgres = Postgres::with(&["max_connections=100", "wal_level=logical"]);
                postgres.sql("postgres", &format!("CREATE DATABASE {NAME}"));
                Self::Postgres(postgres)
            }
            Kind::Mariadb => Self::MariaDb(MariaDb::start()),
        }
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Postgres(postgres) => postgres.url(NAME),
            Self::MariaDb(mariadb) => mariadb.url(),
        }
    }

    /// Kills it as a crash would, and starts it again.
    pub(super) fn crash(&mut self) {
        match self {
            Self::Postgres(postgres) => {
                postgres.kill();
                postgres.run();
            }
            Self::MariaDb(mariadb) => {
                mariadb.kill();
                mariadb.run();
            }
        }
    }

    /// Runs SQL, and returns what it prints: columns separated by `|`.
    pub(super) fn sql(&self, sql: &str) -> String {
        match self {
            Self::Postgres(postgres) => postgres.sql(NAME, sql),
            Self::MariaDb(mariadb) => mariadb.sql(sql),
        }
    }

    /// A client that runs what comes over its standard input.
    pub(super) fn client(&self) -> Command {
        match self {
            Self::Postgres(postgres) => {
                let mut command = Command::new(postgres.program("psql"));
                command.args(["--no-psqlrc", "--quiet", &postgres.url(NAME)]);
                command
            }
            Self::MariaDb(mariadb) => mariadb.client(),
        }
    }
}
