//! What the figures were taken on, for whoever compares them later.

use std::fs;
use std::process::Command;
use std::thread;

use serde::Serialize;

/// Facts that a table without is worth little; `None` where the system does not tell.
#[derive(Serialize)]
pub(crate) struct Machine {
    date: Option<String>,
    commit: Option<String>,
    cores: Option<usize>,
    cpu: Option<String>,
    memory_kib: Option<u64>,
    kernel: Option<String>,
    /// Of the minute before the run: on a busy machine the figures are noise.
    load_before: Option<f64>,
}

/// Asks the system and the repository around the current folder.
pub(crate) fn facts(date: Option<String>) -> Machine {
    Machine {
        date,
        commit: commit(),
        cores: thread::available_parallelism().ok().map(usize::from),
        cpu: field("/proc/cpuinfo", "model name"),
        memory_kib: field("/proc/meminfo", "MemTotal").and_then(|value| value.split_whitespace().next()?.parse().ok()),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned()),
        load_before: fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse().ok()),
    }
}

impl Machine {
    /// One line for under the table.
    pub(crate) fn sentence(&self) -> String {
        let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
        format!(
            "{} cores of {}, Linux {}, commit {}, {}, load average before {:.2}",
            self.cores.unwrap_or_default(),
            known(&self.cpu),
            known(&self.kernel),
            known(&self.commit),
            self.date.as_deref().unwrap_or("no date given"),
            self.load_before.unwrap_or(f64::NAN)
        )
    }
}

/// The commit, marked when the working tree differs from it.
fn commit() -> Option<String> {
    let output =
        Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success()).then(|| text.trim().to_owned())
}

/// The value of `name: value` in a file of `/proc`.
pub(crate) fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}
