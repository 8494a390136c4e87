//! A MariaDB of a test's own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::keeper::{Kept, place};

/// Where Debian keeps the statements that make the system tables.
const SHARE: &str = "/usr/share/mysql";
const SYSTEM: [&str; 3] = ["mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql"];
const SMALL: [&str; 3] = ["--no-defaults", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M"];

/// Where Debian keeps the program: not on everybody's search path.
const PROGRAM: &str = "/usr/sbin/mariadbd";

/// A running server with a database `shop` and a user `root` that needs no password. It does not sync: what is committed
/// outlives its process, but not the machine.
#[derive(Debug)]
pub struct MariaDb(Kept);

impl MariaDb {
    /// Makes and starts one. Needs Debian's package `mariadb-server-core`.
    pub fn start() -> Self {
        let (folder, port) = place("mariadb");
        let mut arguments: Vec<String> = SMALL.map(str::to_owned).to_vec();
        // A server that starts removes the temporary tables it finds: they are not to be those of another one.
        for (option, name) in [("datadir", "data"), ("tmpdir", "tmp")] {
            let own = folder.path().join(name);
            fs::create_dir(&own).expect("a folder of its own");
            arguments.push(format!("--{option}={}", own.display()));
        }
        if rustix::process::geteuid().is_root() {
            arguments.push("--user=root".to_owned());
        }
        let script = folder.path().join("system.sql");
        let mut sql =
            "CREATE DATABASE mysql;\nCREATE DATABASE shop;\nUSE mysql;\nSET @auth_root_socket=NULL;\n".to_owned();
        for name in SYSTEM {
            sql += &fs::read_to_string(format!("{SHARE}/{name}")).expect("MariaDB's statements for its tables");
        }
        fs::write(&script, sql).expect("a script");
        let program = if Path::new(PROGRAM).exists() { PROGRAM } else { "mariadbd" };
        let made = Command::new(program)
            .args(&arguments)
            .arg("--bootstrap")
            .stdin(fs::File::open(&script).expect("the script"))
            .stdout(Stdio::null())
            .output()
            .expect("mariadbd (Debian's package mariadb-server-core)");
        assert!(made.status.success(), "mariadbd --bootstrap: {}", String::from_utf8_lossy(&made.stderr));
        arguments.push(format!("--socket={}", folder.path().join("socket").display()));
        arguments.push(format!("--port={port}"));
        arguments.extend(["--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=2"].map(str::to_owned));
        Self(Kept::start(folder, port, program, &arguments))
    }

    /// The URL of its database.
    pub fn url(&self) -> String {
        self.url_of("root", "shop")
    }

    /// The URL of a database, as a user.
    pub fn url_of(&self, user: &str, database: &str) -> String {
        format!("mysql://{user}@127.0.0.1:{}/{database}", self.0.port)
    }

    /// Debian's command line client (package `mariadb-client-core`), which runs what comes over its standard input.
    pub fn client(&self) -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--host=127.0.0.1", "--user=root", "--batch", "--skip-column-names"]);
        command.arg(format!("--port={}", self.0.port)).arg("shop");
        command
    }

    /// Runs SQL in its database, and returns what it prints: columns separated by `|`.
    pub fn sql(&self, sql: &str) -> String {
        let output = self.client().args(["-e", sql]).output().expect("mariadb runs");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().replace('\t', "|")
    }

    /// Kills it, as a crash would, and returns when it is gone.
    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// Starts it again with the same data and port; returns when it takes connections.
    pub fn run(&mut self) {
        self.0.run();
    }
}
