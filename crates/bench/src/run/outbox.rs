//! Rows about the outbox on PostgreSQL: how fast rows come over, how soon, what emitting costs the application, and what
//! asking costs while nothing happens.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tidings_rigs::Postgres;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Bench;
use super::folder::settle_disk;
use super::process::{Server, time_on_processor};
use super::report::{Goal, Line, Side, Unit};
use crate::clock;
use crate::latency::Latencies;

/// Of the speed of `COPY` out of a table and into another.
const RATIO_MIN: f64 = 0.4;
/// From commit to log and stream at [`RATE`], of 99 in 100.
const P99_MS_MAX: f64 = 20.0;
/// Transactions a second of the latency row.
const RATE: u32 = 500;
/// Connections that emit them.
const EMITTERS: u32 = 4;
/// Time on a processor while nothing happens, each of Tidings and the database: a second of a minute is 1.7 % of a core.
const IDLE_SECONDS_MAX: f64 = 1.0;
/// Questions meanwhile: one each 100 ms.
const IDLE_POLLS_MAX: f64 = 11.0;
/// Between the last that happened and what is measured: pauses have grown by then.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Of the transactions a second of an application whose database wakes nobody.
const WAKE_RATIO_MIN: f64 = 0.95;
/// Transactions a second that find the reader asleep.
const SELDOM: u32 = 4;
/// Connections of the row about the producer's cost.
const PRODUCERS: &str = "16";
const ARRIVE_WITHIN: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(2);
const DATABASE: &str = "bench";
const TABLES: &str = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text NOT NULL)";
/// A transaction that changes something, and the same that tells of it.
const PLAIN: &str = "INSERT INTO orders (note) VALUES (repeat('x', 200));\n";
const EMITTING: &str = "WITH made AS (INSERT INTO orders (note) VALUES (repeat('x', 200)) RETURNING id)
SELECT tidings.emit('order.created', json_build_object('pad', repeat('x', 400)), aggregate_id => 'order_' || id) FROM made;\n";

/// A cluster that syncs, with a database and its outbox.
async fn database(bench: &Bench) -> anyhow::Result<Postgres> {
    let postgres = Postgres::with(&["max_connections=60", "max_wal_size=4GB"]);
    postgres.sql("postgres", &format!("CREATE DATABASE {DATABASE}"));
    bench.programs.run_tidings(&["outbox", "install", "--url", &postgres.url(DATABASE)]).await?;
    postgres.sql(DATABASE, TABLES);
    Ok(postgres)
}

/// A fresh Tidings that reads the outbox.
async fn reader(bench: &Bench, postgres: &Postgres, data: &Path) -> anyhow::Result<Server> {
    let config = data.with_extension("toml");
    std::fs::write(&config, format!("[[outbox]]\nname = \"bench\"\nurl = \"{}\"\n", postgres.url(DATABASE)))?;
    bench.programs.tidings_with(data, &config).await
}

/// A backlog of rows into the log, against `COPY` of the same rows out of their table and into another.
pub(crate) async fn backlog(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let rows = bench.sizes.outbox_rows;
    let title = format!("{rows} rows of an outbox on PostgreSQL into the log, against COPY out and in");
    let mut line = Line::new("outbox", &title, Unit::EventsPerSecond, Goal::RatioAtLeast(RATIO_MIN));
    let postgres = database(bench).await?;
    let fill = format!(
        "SELECT count(tidings.emit('order.created', json_build_object('n', n, 'pad', repeat('x', 400)), \
         aggregate_id => 'order_' || n % 5000)) FROM generate_series(1, {rows}) n"
    );
    postgres.sql(DATABASE, &fill);
    for sql in ["CREATE TABLE copied (LIKE tidings.outbox INCLUDING INDEXES)", "VACUUM ANALYZE", "CHECKPOINT"] {
        postgres.sql(DATABASE, sql);
    }
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            let folder = bench.work.folder()?;
            settle_disk();
            let took = match side {
                Side::Baseline => copy(&postgres).await?,
                Side::Tidings => relay(bench, &postgres, folder.path(), rows).await?,
            };
            line.add(side, f64::from(rows) / took.as_secs_f64());
        }
        line.tell(pair);
    }
    Ok(vec![line])
}

/// `COPY` to a pipe and from it, by two `psql`.
async fn copy(postgres: &Postgres) -> anyhow::Result<Duration> {
    postgres.sql(DATABASE, "TRUNCATE copied");
    let began = clock::now();
    let script = "\"$1\" -XqAt -v ON_ERROR_STOP=1 \"$2\" -c 'COPY (SELECT * FROM tidings.outbox ORDER BY id) TO STDOUT (FORMAT binary)' \
                  | \"$1\" -XqAt -v ON_ERROR_STOP=1 \"$2\" -c 'COPY copied FROM STDIN (FORMAT binary)'";
    let mut command = Command::new("sh");
    command.args(["-c", script, "copy"]).arg(postgres.program("psql")).arg(postgres.url(DATABASE));
    ensure!(command.stdin(Stdio::null()).status().await?.success(), "COPY failed");
    Ok(began.elapsed())
}

/// From the start of the process until the last row is in the log.
async fn relay(bench: &Bench, postgres: &Postgres, data: &Path, rows: u32) -> anyhow::Result<Duration> {
    let server = reader(bench, postgres, data).await?;
    let wanted = format!("tidings_outbox_rows_total{{outbox=\"bench\"}} {rows}\n");
    loop {
        let (_, metrics) = server.ask("GET", "/metrics", "").await?;
        if String::from_utf8_lossy(&metrics).contains(&wanted) {
            break;
        }
        ensure!(server.age() < ARRIVE_WITHIN, "the rows did not arrive within {ARRIVE_WITHIN:?}");
        tokio::time::sleep(LOOK).await;
    }
    let took = server.age();
    server.stop().await?;
    Ok(took)
}

/// From just before the commit until a stream shows the event, at a steady rate.
pub(crate) async fn delay(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let title = |of: &str| format!("outbox: commit → stream at {RATE}/s, {of}");
    let mut p50 = Line::new("outbox-delay", &title("p50"), Unit::Milliseconds, Goal::RatioOnly);
    let mut p99 = Line::new("outbox-delay", &title("p99"), Unit::Milliseconds, Goal::AtMost(P99_MS_MAX));
    for pair in 0..bench.sizes.pairs {
        let (postgres, folder) = (database(bench).await?, bench.work.folder()?);
        settle_disk();
        let server = reader(bench, &postgres, folder.path()).await?;
        let until = clock::now() + Duration::from_secs_f64(bench.sizes.seconds);
        let mut delays = timeout(ARRIVE_WITHIN, arrivals(&server, &postgres, (EMITTERS, RATE), until)).await??;
        server.stop().await?;
        let found = delays.percentiles();
        p50.add(Side::Tidings, f64::from(found.p50) / 1_000.0);
        p99.add(Side::Tidings, f64::from(found.p99) / 1_000.0);
        p99.note(Side::Tidings, json!({"events": delays.len(), "micros": found}));
        p50.tell(pair);
        p99.tell(pair);
    }
    Ok(vec![p50, p99])
}

/// How long each event took that arrived until then, of so many connections that emit so many a second together.
async fn arrivals(
    server: &Server,
    postgres: &Postgres,
    (emitters, rate): (u32, u32),
    until: Instant,
) -> anyhow::Result<Latencies> {
    let mut stream = BufReader::new(TcpStream::connect(server.addr()).await?).lines();
    let request = "GET /events/stream?types=bench.told HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.get_mut().write_all(request.as_bytes()).await?;
    while stream.next_line().await?.context("the stream ended")?.trim() != "id: 0" {}
    for _ in 0..emitters {
        let mut child = Command::new(postgres.program("psql"))
            .args(["-Xq", &postgres.url(DATABASE)])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // It complains when its database goes.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().context("psql has an input")?;
        tokio::spawn(async move {
            let _child = child;
            let mut ticks = interval(Duration::from_secs(1) * emitters / rate);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let sql = "SELECT tidings.emit('bench.told', json_build_object('t', \
                       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint));\n";
            // It ends when nobody reads any more.
            while stdin.write_all(sql.as_bytes()).await.is_ok() {
                ticks.tick().await;
            }
        });
    }
    let mut delays = Latencies::default();
    while clock::now() < until {
        let line = stream.next_line().await?.context("the stream ended")?;
        let now = clock::wall_ns() / 1_000;
        let Some((_, rest)) = line.split_once("{\"t\" : ") else { continue };
        let emitted: u64 = rest.trim_end_matches('}').parse().context("a time")?;
        delays.push(Duration::from_micros(now.saturating_sub(emitted)));
    }
    Ok(delays)
}

/// Transactions a second of an application that emits, against one that does not; a relay reads meanwhile.
pub(crate) async fn producer(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let title = format!("outbox: transactions of {PRODUCERS} connections that emit, against the plain insert");
    let mut line = Line::new("outbox-producer", &title, Unit::EventsPerSecond, Goal::RatioOnly);
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            // A fresh Tidings would first read what the side before has left.
            let (postgres, folder) = (database(bench).await?, bench.work.folder()?);
            settle_disk();
            let server = reader(bench, &postgres, folder.path()).await?;
            let sql = if side == Side::Tidings { EMITTING } else { PLAIN };
            line.add(side, pgbench(&postgres, folder.path(), sql, bench.sizes.seconds).await?);
            server.stop().await?;
        }
        line.tell(pair);
    }
    Ok(vec![line])
}

async fn pgbench(postgres: &Postgres, folder: &Path, sql: &str, seconds: f64) -> anyhow::Result<f64> {
    let file = folder.join("transaction.sql");
    std::fs::write(&file, sql)?;
    let seconds = seconds.ceil().to_string();
    let mut command = Command::new(postgres.program("pgbench"));
    command.args(["-n", "-M", "prepared", "-c", PRODUCERS, "-j", "2", "-T", &seconds, "-f"]).arg(&file);
    let output = command.arg(postgres.url(DATABASE)).stdin(Stdio::null()).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
    let figure = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    figure.with_context(|| format!("pgbench told no rate: {text}"))
}

/// What asking costs while nothing happens.
pub(crate) async fn idle(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let line = |of: &str, unit, most| {
        Line::new("outbox-idle", &format!("outbox while nothing happens: {of}"), unit, Goal::AtMost(most))
    };
    let mut asked = line("questions", Unit::TimesPerSecond, IDLE_POLLS_MAX);
    let mut ours = line("time of Tidings on a processor, a minute", Unit::Seconds, IDLE_SECONDS_MAX);
    let mut theirs = line("time of PostgreSQL on a processor, a minute", Unit::Seconds, IDLE_SECONDS_MAX);
    let (postgres, folder) = (database(bench).await?, bench.work.folder()?);
    let server = reader(bench, &postgres, folder.path()).await?;
    tokio::time::sleep(IDLE_AFTER).await;
    for pair in 0..bench.sizes.pairs {
        let before = spent(&server, &postgres).await?;
        let began = clock::now();
        // Not a wait for something: that nothing happens meanwhile is what is measured.
        tokio::time::sleep(bench.sizes.idle).await;
        let (seconds, after) = (began.elapsed().as_secs_f64(), spent(&server, &postgres).await?);
        asked.add(Side::Tidings, (after.0 - before.0) / seconds);
        let minute = |after: Duration, before| after.saturating_sub(before).as_secs_f64() * 60.0 / seconds;
        ours.add(Side::Tidings, minute(after.1, before.1));
        theirs.add(Side::Tidings, minute(after.2, before.2));
        for line in [&asked, &ours, &theirs] {
            line.tell(pair);
        }
    }
    server.stop().await?;
    Ok(vec![asked, ours, theirs])
}

/// Questions so far, and time on a processor of Tidings and of all processes of the database.
async fn spent(server: &Server, postgres: &Postgres) -> anyhow::Result<(f64, Duration, Duration)> {
    let (_, metrics) = server.ask("GET", "/metrics", "").await?;
    let text = String::from_utf8_lossy(&metrics);
    let polls = text.lines().find_map(|line| line.strip_prefix("tidings_outbox_polls_total{outbox=\"bench\"} "));
    let polls = polls.context("no count of polls")?.parse()?;
    let theirs = postgres.processes().into_iter().filter_map(|pid| time_on_processor(pid).ok()).sum();
    Ok((polls, server.time_on_processor()?, theirs))
}

/// What it costs and gives that the database wakes its reader.
pub(crate) async fn wake(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let title = format!("outbox: transactions of {PRODUCERS} connections that emit, waking the reader, against not");
    let mut cost = Line::new("outbox-wake", &title, Unit::EventsPerSecond, Goal::RatioAtLeast(WAKE_RATIO_MIN));
    let title = format!("outbox: commit → stream at {SELDOM}/s, p50, waking the reader, against not");
    let mut delay = Line::new("outbox-wake", &title, Unit::Milliseconds, Goal::RatioOnly);
    for pair in 0..bench.sizes.pairs {
        for side in Side::both(pair) {
            // A fresh Tidings would first read what the side before has left.
            let (postgres, folder) = (database(bench).await?, bench.work.folder()?);
            if side == Side::Tidings {
                let url = postgres.url(DATABASE);
                bench.programs.run_tidings(&["outbox", "install", "--wake", "--url", &url]).await?;
            }
            settle_disk();
            let server = reader(bench, &postgres, folder.path()).await?;
            let until = clock::now() + Duration::from_secs_f64(bench.sizes.seconds);
            let mut seldom = timeout(ARRIVE_WITHIN, arrivals(&server, &postgres, (1, SELDOM), until)).await??;
            delay.add(side, f64::from(seldom.percentiles().p50) / 1_000.0);
            cost.add(side, pgbench(&postgres, folder.path(), EMITTING, bench.sizes.seconds).await?);
            server.stop().await?;
        }
        cost.tell(pair);
        delay.tell(pair);
    }
    Ok(vec![cost, delay])
}
