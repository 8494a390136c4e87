//! What the system says of this process. Looks at files: not for a thread that serves others.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Memory that is in use, in bytes; `None` where the system does not tell.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Open file descriptors; `None` where the system does not tell.
pub(crate) fn open_files() -> Option<usize> {
    // One is that of the look itself.
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

/// Asks the system for what a server needs.
pub(crate) fn prepare() {
    raise_files();
    take_small_pages();
}

/// Has as many files open at once as the system lets this process ask for: each connection is one.
fn raise_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        // What it began with will have to do then.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// Has the system give memory in small pages: a fault that clears one of 2 MiB held a thread for up to 5 ms, and the events
/// that waited for it with it.
fn take_small_pages() {
    #[cfg(target_os = "linux")]
    // Where the system refuses, it serves with these pauses.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// How many may be open.
pub(crate) fn files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}
