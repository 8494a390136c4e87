//! A server that ends with the test that started it, however that ends.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// Runs the server until the standard input ends, which it does with the test.
const KEEPER: &str = "\"$@\" & server=$!; read -r _; kill -KILL $server; wait $server";
const START: Duration = Duration::from_mins(1);
/// Between two looks at whether it is there.
const LOOK: Duration = Duration::from_millis(10);

/// A running server with a folder of its own, on a port of loopback.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The program and its arguments.
    command: Vec<String>,
    keeper: Option<Child>,
    pub(crate) port: u16,
    folder: TempDir,
}

impl Kept {
    /// Starts `program` with `arguments`; returns when it listens.
    pub(crate) fn start(folder: TempDir, port: u16, program: &str, arguments: &[String]) -> Self {
        let command = std::iter::once(program).chain(arguments.iter().map(String::as_str)).map(str::to_owned).collect();
        let mut kept = Self { command, keeper: None, port, folder };
        kept.run();
        kept
    }

    /// Starts it, or starts it again in the same folder; returns when it listens.
    pub(crate) fn run(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log file");
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).args(&self.command);
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a log file")).stderr(log);
        self.keeper = Some(command.spawn().expect("a shell"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        for _ in 0..START.as_millis() / LOOK.as_millis() {
            if TcpStream::connect(address).is_ok() {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("{} does not listen within {START:?}: {log}", self.command[0]);
    }

    /// Kills it, and returns when it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A temporary folder named after the server, and a free port.
pub(crate) fn place(name: &str) -> (TempDir, u16) {
    let folder = tempfile::Builder::new().prefix(&format!("tidings-{name}-")).tempdir().expect("a temporary folder");
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    (folder, socket.local_addr().expect("an address").port())
}
