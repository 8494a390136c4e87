//! A PostgreSQL cluster of a test's own.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// It does not run as root, so then it runs as nobody.
const NOBODY: u32 = 65_534;
/// Where Debian keeps the programs, by version.
const DEBIAN: &str = "/usr/lib/postgresql";
const START: Duration = Duration::from_mins(1);
/// Between two looks at whether it is there.
const LOOK: Duration = Duration::from_millis(10);
/// Runs the server until the standard input ends, which it does with the test, however that ends: then the folder goes
/// too. A line on it says that the folder is to stay.
const KEEPER: &str = "folder=$1; shift; \"$@\" & server=$!; read -r stay || stay=; \
                      kill -QUIT $server 2>/dev/null; wait $server; [ -n \"$stay\" ] || rm -rf \"$folder\"";

/// A running cluster with a superuser `postgres` that needs no password. It listens on loopback and on a socket.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    /// What its configuration says beyond the defaults.
    settings: Vec<String>,
    keeper: Option<Child>,
}

impl Postgres {
    /// Makes and starts a cluster that does not sync: for tests that do not cut its power.
    pub fn start() -> Self {
        Self::with(&["fsync=off", "full_page_writes=off"])
    }

    /// Makes and starts a cluster with settings, each as `name=value`.
    pub fn with(settings: &[&str]) -> Self {
        let mut cluster = Self::make(settings);
        cluster.run();
        cluster
    }

    /// Makes and starts a cluster that does not sync and speaks TLS with a certificate and its key, both in PEM.
    pub fn with_tls(certificate: &str, key: &str) -> Self {
        let mut cluster = Self::make(&["fsync=off", "full_page_writes=off", "ssl=on"]);
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = cluster.data().join(name);
            fs::write(&path, text).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("for nobody else");
            if root() {
                chown(&path, Some(NOBODY), Some(NOBODY)).expect("the file given away");
            }
        }
        cluster.run();
        cluster
    }

    fn make(settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("tidings-postgres-").tempdir().expect("a temporary folder");
        if root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("the folder given away");
        }
        let programs = programs().expect("PostgreSQL's programs: initdb, postgres (Debian's package `postgresql`)");
        let data = folder.path().join("data");
        let made = unprivileged(&programs.join("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { folder, programs, port: free_port(), settings, keeper: None }
    }

    /// Starts it, or starts it again with the same data and port; returns when it takes connections.
    pub fn run(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.expect("a log file");
        let mut command = unprivileged(Path::new("sh"));
        command
            .args(["-c", KEEPER, "keeper"])
            .arg(self.folder.path())
            .arg(self.programs.join("postgres"))
            .arg("-D")
            .arg(self.data());
        command.args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        command.arg("-c").arg(format!("unix_socket_directories={}", self.folder.path().display()));
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let log_too = log.try_clone().expect("a log file");
        let keeper = command.stdin(Stdio::piped()).stdout(log_too).stderr(log).spawn();
        self.keeper = Some(keeper.expect("PostgreSQL starts"));
        let tries = START.as_millis() / LOOK.as_millis();
        for _ in 0..tries {
            if self.ready() {
                return;
            }
            std::thread::sleep(LOOK);
        }
        panic!("PostgreSQL is not ready within {START:?}: {}", self.log());
    }

    /// The fourth line of the file with its process says so.
    fn ready(&self) -> bool {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        text.lines().nth(7).is_some_and(|state| state.trim() == "ready")
    }

    /// The URL of a database, as the superuser.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// The URL of a database, as a role.
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs SQL in a database with `psql`, as the superuser, and returns what it prints: columns separated by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        let output = command.arg(self.url(database)).output().expect("psql runs");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Kills all of its processes at once, as a crash would, and returns when they are gone.
    pub fn kill(&mut self) {
        let all = self.processes();
        for pid in &all {
            // It may have ended by itself.
            Pid::from_raw(pid.cast_signed()).map(|pid| kill_process(pid, Signal::KILL));
        }
        while all.iter().any(|pid| alive(*pid)) {
            std::thread::sleep(LOOK);
        }
        self.ended();
        // It says that the server is ready.
        fs::remove_file(self.data().join("postmaster.pid")).expect("the file of the killed server");
    }

    /// Stops it in order, and returns when it is gone.
    pub fn stop(&mut self) {
        let postmaster = self.postmaster();
        let pid = Pid::from_raw(postmaster.cast_signed()).expect("a process id");
        kill_process(pid, Signal::INT).expect("PostgreSQL gets the signal");
        while alive(postmaster) {
            std::thread::sleep(LOOK);
        }
        self.ended();
    }

    /// Copies its data. It must not run.
    pub fn back_up(&self) {
        copy(&self.data(), &self.folder.path().join("copy"));
    }

    /// Takes its data back to what was copied. It must not run.
    pub fn restore(&self) {
        copy(&self.folder.path().join("copy"), &self.data());
    }

    /// Its processes, by their ids.
    pub fn processes(&self) -> Vec<u32> {
        let postmaster = self.postmaster();
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        std::iter::once(postmaster).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    fn postmaster(&self) -> u32 {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).expect("a running PostgreSQL");
        text.lines().next().and_then(|pid| pid.trim().parse().ok()).expect("a process id")
    }

    fn ended(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            if let Some(mut stdin) = keeper.stdin.take() {
                // It may have been killed.
                let _ = stdin.write_all(b"stay\n");
            }
            keeper.wait().expect("the keeper ends");
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.ended();
    }
}

fn copy(from: &Path, to: &Path) {
    // It may not be there yet.
    let _ = fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "cp {} {}", from.display(), to.display());
}

fn alive(pid: u32) -> bool {
    // A process that nobody has waited for yet is a zombie: it holds nothing any more.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that does not run as root.
fn unprivileged(program: &Path) -> Command {
    if !root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
    command.arg(program);
    command
}

/// The folder with the programs: that of the newest version that Debian installed, or one of the search path.
pub fn programs() -> io::Result<PathBuf> {
    let mut versions: Vec<PathBuf> =
        fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = versions.into_iter().rev().chain(std::env::split_paths(&path));
    places.find(|place| place.join("initdb").exists()).ok_or_else(|| io::Error::other("no initdb on this machine"))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}
