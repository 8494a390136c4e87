//! The binary under test: started on a folder of its own, killed with the test.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::http::Client;
use super::{instant, until};

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
const START: Duration = Duration::from_secs(20);

/// A server, running or stopped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    root: TempDir,
    data: PathBuf,
    dev: bool,
    env: Vec<(&'static str, &'static str)>,
    child: Option<Child>,
}

impl Server {
    /// A development server.
    pub(crate) fn dev() -> Self {
        Self::with(true, "")
    }

    /// A server that asks for keys.
    pub(crate) fn guarded() -> Self {
        Self::with(false, "")
    }

    /// A server with a settings file.
    pub(crate) fn with(dev: bool, settings: &str) -> Self {
        let mut server = Self::prepared(dev, settings);
        server.start();
        server
    }

    /// A server that is not started yet.
    pub(crate) fn prepared(dev: bool, settings: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let server =
            Self { address: free_address(), data: root.path().join("data"), root, dev, env: Vec::new(), child: None };
        server.set(settings);
        server
    }

    /// The data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// Has it keep its data elsewhere.
    pub(crate) fn keep_in(&mut self, folder: PathBuf) {
        self.data = folder;
    }

    /// Other settings, from the next start on.
    pub(crate) fn set(&self, settings: &str) {
        fs::write(self.root.path().join("tidings.toml"), settings).unwrap();
    }

    /// A variable, from the next start on.
    pub(crate) fn env(&mut self, name: &'static str, value: &'static str) {
        self.env.push((name, value));
    }

    /// What all runs wrote to standard output.
    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(self.root.path().join("stdout")).unwrap_or_default()
    }

    /// What all runs wrote to standard error.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.root.path().join("stderr")).unwrap_or_default()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Starts it, or starts it again on the same folder and port; returns when it is ready.
    pub(crate) fn start(&mut self) {
        let stderr = File::options().create(true).append(true).open(self.root.path().join("stderr")).unwrap();
        let stdout = File::options().create(true).append(true).open(self.root.path().join("stdout")).unwrap();
        let mut command = self.command(&["serve"]);
        command.envs(self.env.iter().copied());
        command.arg("--listen").arg(self.address.to_string());
        command.arg("--config").arg(self.root.path().join("tidings.toml"));
        command.args(self.dev.then_some("--dev"));
        self.child = Some(command.arg("--data").arg(self.data()).stderr(stderr).stdout(stdout).spawn().unwrap());
        let client = self.client();
        until("ready", START, || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "the server ended: {}", self.stderr());
            client.try_send("GET", "/health/ready", &[], b"").ok().filter(|answer| answer.status == 200)
        });
    }

    /// A command of the binary under test, with the variables of this machine out of the way.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(TIDINGS);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDINGS_") || name == "RUST_LOG") {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(self.root.path());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command with `input` on its standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that refuses early does not read all of it.
        child.stdin.take().unwrap().write_all(input).ok();
        child.wait_with_output().unwrap()
    }

    /// Makes a key beside the server, or on the folder if it does not run.
    pub(crate) fn make_key(&self, arguments: &[&str]) -> Key {
        let data = self.data();
        let mut all = vec!["keys", "create", "--json", "--data", data.to_str().unwrap()];
        all.extend(arguments);
        let output = self.run(&all);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        Key { id: shown["id"].as_str().unwrap().to_owned(), text: shown["key"].as_str().unwrap().to_owned() }
    }

    /// A client with an operator's key.
    pub(crate) fn operator(&self) -> Client {
        self.client().key(&self.make_key(&["--admin"]).text)
    }

    /// Kills it at once, as a power cut would as far as the process goes.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end; how it ended, and how long that took.
    pub(crate) fn ended(&mut self, within: Duration) -> (ExitStatus, Duration) {
        let begun = instant();
        let mut child = self.child.take().unwrap();
        let status = until("the end of the server", within, || child.try_wait().unwrap());
        (status, begun.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let text = self.stderr();
            eprintln!("--- standard error of the server ---\n{}", &text[text.len().saturating_sub(4_000)..]);
        }
    }
}

/// A key as it was shown once.
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) text: String,
}

/// An address that nobody listens on, below the ports that the system gives to outgoing connections: a server that
/// is started again finds its port free.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = std::process::id() % 1_000 * 20;
    loop {
        let next = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(10_000 + (base + next) % 20_000).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
