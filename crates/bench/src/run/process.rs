//! Processes of a run: started on a free port, awaited, measured, killed by their handle whatever happens.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::machine;
use crate::clock;
use crate::http1::Connection;
use crate::load;

/// A server that takes longer to be ready is broken.
const READY_TIME_MAX: Duration = Duration::from_mins(1);
/// Pause between two questions whether a server is there.
const ASK_AGAIN: Duration = Duration::from_millis(1);
/// How much of a server's last words an error shows.
const LAST_WORDS_BYTES: usize = 2000;

/// The binaries of a run.
pub(crate) struct Programs {
    tidings: PathBuf,
    bench: PathBuf,
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    addr: SocketAddr,
    log: PathBuf,
    spawned: Instant,
}

/// What a server has used so far.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Usage {
    /// Memory of its own, without what maps files.
    pub(crate) rss_anon_mib: f64,
    /// User and system time.
    pub(crate) cpu_seconds: f64,
}

impl Programs {
    pub(crate) fn new(tidings: &Path) -> anyhow::Result<Self> {
        ensure!(tidings.is_file(), "there is no binary at {}", tidings.display());
        Ok(Self { tidings: fs::canonicalize(tidings)?, bench: std::env::current_exe()? })
    }

    /// Starts Tidings on `data` without waiting for it.
    pub(crate) fn start_tidings(&self, data: &Path) -> anyhow::Result<Server> {
        let addr = free_address()?;
        let mut command = Command::new(&self.tidings);
        command.args(["serve", "--dev", "--listen", &addr.to_string(), "--data"]);
        command.arg(data);
        Server::spawn(command, addr, &data.with_extension("log"))
    }

    /// Starts Tidings on `data` and waits until it is ready.
    pub(crate) async fn tidings(&self, data: &Path) -> anyhow::Result<Server> {
        self.start_tidings(data)?.ready().await
    }

    /// Starts Tidings on `data` with a settings file and waits until it is ready.
    pub(crate) async fn tidings_with(&self, data: &Path, config: &Path) -> anyhow::Result<Server> {
        let addr = free_address()?;
        let mut command = Command::new(&self.tidings);
        command.args(["serve", "--dev", "--listen", &addr.to_string(), "--data"]);
        command.arg(data).arg("--config").arg(config);
        Server::spawn(command, addr, &data.with_extension("log"))?.ready().await
    }

    /// Runs a command of Tidings to its end.
    pub(crate) async fn run_tidings(&self, args: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(&self.tidings).args(args).stdin(Stdio::null()).output().await?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`tidings {}` failed: {complaint}", args.join(" "));
        Ok(())
    }

    /// Starts the raw server, which appends to a file in `data`, and waits until it is ready.
    pub(crate) async fn baseline(&self, data: &Path, forward: Option<&Server>) -> anyhow::Result<Server> {
        let addr = free_address()?;
        let mut command = Command::new(&self.bench);
        command.args(["baseline", "serve", "--listen", &addr.to_string(), "--file"]);
        command.arg(baseline_file(data));
        if let Some(receiver) = forward {
            command.args(["--forward", &receiver.url("/hooks")]);
        }
        Server::spawn(command, addr, &data.with_extension("log"))?.ready().await
    }

    /// Starts the raw streamer, which sends `file` if there is one, and waits until it is ready.
    pub(crate) async fn streamer(&self, data: &Path, file: Option<&Path>, websocket: bool) -> anyhow::Result<Server> {
        let addr = free_address()?;
        let mut command = Command::new(&self.bench);
        command.args(["baseline", "stream", "--listen", &addr.to_string()]);
        if let Some(file) = file {
            command.arg("--file").arg(file);
        }
        command.args(websocket.then_some("--websocket"));
        Server::spawn(command, addr, &data.with_extension("log"))?.ready().await
    }

    /// Starts a receiver of webhooks; `log` is where its lines go, `more` are its further arguments.
    pub(crate) async fn receiver(&self, log: &Path, more: &[&str]) -> anyhow::Result<Server> {
        let addr = free_address()?;
        let mut command = Command::new(&self.bench);
        command.args(["receiver", "--listen", &addr.to_string()]).args(more);
        Server::spawn(command, addr, log)?.ready().await
    }

    /// Runs the load against `server`; refusals are an error here.
    pub(crate) async fn load(&self, server: &Server, args: &[&str]) -> anyhow::Result<load::Report> {
        let mut words = vec!["load", "--url"];
        let url = server.url("/");
        words.push(&url);
        words.extend_from_slice(args);
        let text = self.run_bench(&words).await?;
        let report: load::Report = serde_json::from_slice(&text)?;
        ensure!(
            report.errors.is_empty(),
            "not everything was acked: {:?}, first: {}\n{}",
            report.errors,
            report.first_refusal.unwrap_or_default(),
            server.last_words()
        );
        ensure!(report.acked > 0, "nothing was acked");
        Ok(report)
    }

    /// Runs one of our own subcommands to its end and returns what it printed.
    pub(crate) async fn run_bench(&self, args: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = Command::new(&self.bench).args(args).stdin(Stdio::null()).kill_on_drop(true).output().await?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{}` failed: {complaint}", args.join(" "));
        Ok(output.stdout)
    }
}

/// The file of the raw server within its folder.
pub(crate) fn baseline_file(data: &Path) -> PathBuf {
    data.join("events")
}

impl Server {
    fn spawn(mut command: Command, addr: SocketAddr, log: &Path) -> anyhow::Result<Self> {
        let output = File::create(log)?;
        let spawned = clock::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, addr, log: log.to_owned(), spawned })
    }

    async fn ready(mut self) -> anyhow::Result<Self> {
        self.ask_until("GET", "/health/ready", "", 200).await?;
        Ok(self)
    }

    /// Time from the start of the process until it acked `event`, and the answer.
    pub(crate) async fn first_ack(&mut self, event: &str) -> anyhow::Result<(Duration, Value)> {
        let answer = self.ask_until("POST", "/events", event, 201).await?;
        let took = self.spawned.elapsed();
        Ok((took, serde_json::from_slice(&answer)?))
    }

    async fn ask_until(&mut self, method: &str, path: &str, body: &str, status: u16) -> anyhow::Result<Vec<u8>> {
        loop {
            let last = match self.ask(method, path, body).await {
                Ok((found, answer)) if found == status => return Ok(answer),
                Ok((found, answer)) => format!("{found} {}", String::from_utf8_lossy(&answer)),
                Err(error) => error.to_string(),
            };
            if let Some(exit) = self.child.try_wait()? {
                bail!("the server ended with {exit}: {}", self.last_words());
            }
            ensure!(
                self.spawned.elapsed() < READY_TIME_MAX,
                "no {status} for {method} {path} in {READY_TIME_MAX:?}, at last {last}: {}",
                self.last_words()
            );
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Sends one request on a connection of its own; returns status and body.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut connection = Connection::open(self.addr).await?;
        let answer = tokio::time::timeout(READY_TIME_MAX, connection.request(method, path, body)).await??;
        Ok((answer.status, answer.body.to_vec()))
    }

    /// How long ago it was started.
    pub(crate) fn age(&self) -> Duration {
        self.spawned.elapsed()
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The server's URL with `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Memory and processor time so far, as `/proc` tells them.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let pid = self.child.id().context("the server has ended")?;
        let rss = machine::field(&format!("/proc/{pid}/status"), "RssAnon").context("no RssAnon")?;
        let kib: f64 = rss.trim_end_matches("kB").trim().parse()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // proc(5): the name, field 2, ends with the last parenthesis; utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let ticks: u32 = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>).sum::<Result<_, _>>()?;
        let ticks_per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
        Ok(Usage { rss_anon_mib: kib / 1024.0, cpu_seconds: f64::from(ticks) / f64::from(ticks_per_second) })
    }

    /// Time that it has been on a processor.
    pub(crate) fn time_on_processor(&self) -> anyhow::Result<Duration> {
        time_on_processor(self.child.id().context("the server has ended")?)
    }

    /// Kills the process, as a power cut would, and waits until it is gone.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(exit) = self.child.try_wait()? {
            bail!("the server had ended with {exit}: {}", self.last_words());
        }
        Ok(self.child.kill().await?)
    }

    /// Asks the process to end.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("the server has ended")?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits until a process that was asked to end has ended, in order.
    pub(crate) async fn finished(mut self) -> anyhow::Result<()> {
        let exit =
            tokio::time::timeout(READY_TIME_MAX, self.child.wait()).await.context("the server does not end")??;
        ensure!(exit.success(), "the server ended with {exit}: {}", self.last_words());
        Ok(())
    }

    fn last_words(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let start = bytes.len().saturating_sub(LAST_WORDS_BYTES);
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }
}

/// Time that the threads of a process have been on a processor, without those that have ended.
pub(crate) fn time_on_processor(pid: u32) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // The first of three numbers; the thread may be gone by now.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// An address on loopback that nobody listens on right now.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
