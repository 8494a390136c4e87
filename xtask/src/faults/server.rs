//! The server under test as a child process: started on a folder, plainly or under `strace`, killed or stopped by its
//! process id, never by name. What it prints goes to files beside the data folder.

use super::clock;
use super::http::Client;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(2);

/// The program under test.
#[derive(Debug, Clone)]
pub(super) struct Binary {
    path: PathBuf,
}

impl Binary {
    /// The program at `path`, or the newest build in `target`.
    pub(super) fn find(path: Option<&Path>) -> Result<Self> {
        let built = ["target/release/tidings", "target/debug/tidings"].map(PathBuf::from);
        let changed = |path: &&PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let newest = built.iter().filter(|path| path.exists()).max_by_key(changed);
        let path = path.or(newest.map(PathBuf::as_path)).context("no build of tidings; name one by --tidings")?;
        let path = path.canonicalize().with_context(|| format!("no program at {}", path.display()))?;
        Ok(Self { path })
    }

    /// Whether it is a debug build, to which no bound on time is held.
    pub(super) fn is_debug(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "debug")
    }

    /// A new folder on the disk the build is on: temporary folders of the system may be in memory, where a sync is
    /// nothing.
    pub(super) fn workbench(&self, fault: &str) -> Result<tempfile::TempDir> {
        let build = self.path.parent().context("the program has no folder")?;
        let base = build.parent().unwrap_or(build).join("faults");
        fs::create_dir_all(&base)?;
        Ok(tempfile::Builder::new().prefix(&format!("{fault}-")).tempdir_in(base)?)
    }

    /// Runs a command of it to its end; an error if it fails.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(&self.path).args(arguments).stdin(Stdio::null()).output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tidings {}: {} {words}", arguments.join(" "), output.status);
        Ok(())
    }

    /// `tidings audit verify` on a folder that no server has open.
    pub(super) fn audit_verify(&self, data: &Path) -> Result<Output> {
        let mut command = Command::new(&self.path);
        command.args(["audit", "verify", "--json", "--data"]).arg(data).stdin(Stdio::null());
        command.output().context("tidings audit verify")
    }

    /// What is wrong with the folder according to `tidings audit verify`; `None` if it is whole.
    pub(super) fn audit_complaint(&self, data: &Path) -> Result<Option<String>> {
        let output = self.audit_verify(data)?;
        if output.status.success() {
            return Ok(None);
        }
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(Some(format!("audit verify: {} {} {}", output.status, out.trim(), err.trim())))
    }
}

/// How to start the server.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    /// The program.
    pub binary: &'a Binary,
    /// The data folder.
    pub data: &'a Path,
    /// Where output goes, with `.out` and `.err` behind it; beside the data folder if `None`.
    pub output: Option<&'a Path>,
    /// Where to listen.
    pub address: SocketAddr,
    /// A settings file.
    pub config: Option<&'a Path>,
    /// `strace` and its arguments, to stand before the program.
    pub tracer: Vec<String>,
}

impl<'a> Launch<'a> {
    /// A plain start.
    pub(super) fn plain(binary: &'a Binary, data: &'a Path, address: SocketAddr) -> Self {
        Self { binary, data, output: None, address, config: None, tracer: Vec::new() }
    }

    /// Starts it, and returns without waiting for it to be ready.
    pub(super) fn start(&self) -> Result<Server> {
        let output = self.output.unwrap_or(self.data);
        let (out, err) = (output.with_extension("out"), output.with_extension("err"));
        let append = |path: &Path| File::options().create(true).append(true).open(path);
        let mut command = match self.tracer.split_first() {
            None => Command::new(&self.binary.path),
            Some((tracer, arguments)) => {
                let mut command = Command::new(tracer);
                command.args(arguments).arg("--").arg(&self.binary.path);
                command
            }
        };
        command.args(["serve", "--dev", "--listen"]).arg(self.address.to_string());
        command.arg("--data").arg(self.data);
        if let Some(config) = self.config {
            command.arg("--config").arg(config);
        }
        command.stdin(Stdio::null()).stdout(append(&out)?).stderr(append(&err)?);
        let started = clock::now();
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Server { child, traced: !self.tracer.is_empty(), address: self.address, started, errors: err })
    }

    /// Starts it and waits until it is ready.
    pub(super) fn start_ready(&self) -> Result<Server> {
        let mut server = self.start()?;
        server.wait_ready(Duration::from_secs(30))?;
        Ok(server)
    }
}

/// A free port of the loopback interface.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A running server. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    traced: bool,
    /// Where it listens.
    pub address: SocketAddr,
    /// When its process was started.
    pub started: Instant,
    errors: PathBuf,
}

impl Server {
    /// Waits until `GET /health/ready` is 200. An error if the process ends before or time runs out.
    pub(super) fn wait_ready(&mut self, within: Duration) -> Result<()> {
        let until = clock::now() + within;
        loop {
            if let Ok(reply) = Client::new(self.address).get("/health/ready")
                && reply.status == 200
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended before it was ready: {status}; {}", self.last_words());
            }
            ensure!(clock::now() < until, "the server was not ready within {within:?}; {}", self.last_words());
            std::thread::sleep(POLL);
        }
    }

    /// Waits until the process ends by itself.
    pub(super) fn wait_exit(&mut self, within: Duration) -> Result<Option<ExitStatus>> {
        let until = clock::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if clock::now() >= until {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }

    /// `kill -9`, and waits for the end.
    pub(super) fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL);
        self.child.wait()?;
        Ok(())
    }

    /// `SIGTERM`, and waits for the end, which the contract bounds to 25 s.
    pub(super) fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let status = self.wait_exit(Duration::from_secs(27))?;
        let status = status.with_context(|| format!("no stop within 25 s of SIGTERM; {}", self.last_words()))?;
        ensure!(status.success(), "SIGTERM was answered by {status}; {}", self.last_words());
        Ok(())
    }

    /// Everything it wrote to stderr.
    pub(super) fn errors(&self) -> String {
        fs::read(&self.errors).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines it wrote to stderr.
    pub(super) fn last_words(&self) -> String {
        let errors = self.errors();
        let lines: Vec<&str> = errors.lines().collect();
        format!("its last words: {}", lines[lines.len().saturating_sub(5)..].join(" | "))
    }

    /// Signals the server itself: under `strace`, the child of our child; `strace` then ends as it ended.
    fn signal(&self, signal: Signal) {
        let own = self.child.id();
        let targets = if self.traced { children_of(own) } else { vec![own] };
        for target in targets {
            if let Some(pid) = i32::try_from(target).ok().and_then(Pid::from_raw) {
                // An error means that it is gone already.
                let _ = kill_process(pid, signal);
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn children_of(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
