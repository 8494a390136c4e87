//! Runs the server under `strace` and reads the record back: every change to the files of the data folder, with its
//! bytes, and every sync, in the order the kernel saw them.

use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Calls that change files or make changes last; then calls that change files in ways the record cannot show, which
/// are traced only to be refused.
const CALLS: &str = "openat,close,write,pwrite64,writev,pwritev,pwritev2,lseek,fsync,fdatasync,ftruncate,fallocate,\
                     rename,renameat,renameat2,unlink,unlinkat,mmap,msync,sync_file_range,copy_file_range,sendfile,\
                     splice,link,linkat,truncate,io_uring_setup";
const STRING_BYTES_MAX: usize = 16 << 20;

/// The command that records into `record`, with `inject` (an `-e inject=` expression) if given.
pub(super) fn recorder(record: &Path, inject: Option<&str>) -> Vec<String> {
    let mut command: Vec<String> =
        ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-ttt", "-xx", "-s"].map(String::from).into();
    command.push(STRING_BYTES_MAX.to_string());
    command.extend(["-e".to_owned(), format!("trace={CALLS}"), "-o".to_owned(), record.display().to_string()]);
    if let Some(inject) = inject {
        command.extend(["-e".to_owned(), format!("inject={inject}")]);
    }
    command
}

/// Says what is missing if there is no `strace`.
pub(super) fn ensure_installed() -> Result<()> {
    let version = Command::new("strace").arg("--version").output();
    ensure!(version.is_ok_and(|output| output.status.success()), "this fault needs strace: apt-get install strace");
    Ok(())
}

/// A change to the data folder, or a sync.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A descriptor was opened.
    Open {
        /// The descriptor.
        fd: u32,
        /// The file or folder.
        path: PathBuf,
        /// The flags, as `strace` writes them.
        flags: String,
    },
    /// A descriptor was closed.
    Close(u32),
    /// The place of a descriptor was set.
    Seek(u32, u64),
    /// Bytes were written: at an offset, or where the descriptor stands.
    Write(u32, Option<u64>, Vec<u8>),
    /// The length was set.
    Truncate(u32, u64),
    /// The file was made at least this long.
    Allocate(u32, u64),
    /// A sync of the descriptor by this thread began.
    SyncBegin(u32, u32),
    /// The sync of this thread ended.
    SyncEnd(u32, Synced),
    /// A name was given to another's file.
    Rename(PathBuf, PathBuf),
    /// A name was taken away.
    Unlink(PathBuf),
}

/// How a sync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Synced {
    /// The kernel did it.
    Yes,
    /// It was told as done, but never was.
    Pretended,
    /// It was told as failed.
    Failed,
}

/// A step and the wall-clock time when its line was begun.
#[derive(Debug)]
pub(super) struct Stamped {
    /// When.
    pub at: Duration,
    /// What.
    pub step: Step,
}

/// Reads a record; only steps on files under `root` are kept.
pub(super) fn read(record: &Path, root: &Path) -> Result<Vec<Stamped>> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(record).context("strace left no record")?);
    let mut parser =
        Parser { root: root.to_owned(), unfinished: HashMap::new(), open: HashMap::new(), steps: Vec::new() };
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(parser.steps);
        }
        let text = std::str::from_utf8(&line).context("strace wrote something that is not text")?.trim_end();
        if let Err(error) = parser.line(text) {
            let shown: String = text.chars().take(200).collect();
            return Err(error.context(format!("in the record: {shown}")));
        }
    }
}

struct Parser {
    root: PathBuf,
    unfinished: HashMap<u32, String>,
    open: HashMap<u32, PathBuf>,
    steps: Vec<Stamped>,
}

/// A finished call: name, arguments, result.
struct Call<'a> {
    name: &'a str,
    arguments: &'a str,
    result: &'a str,
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<()> {
        let (thread, rest) = line.split_once(' ').context("no thread")?;
        let thread: u32 = thread.parse().context("no thread")?;
        let (at, text) = rest.trim_start().split_once(' ').context("no time")?;
        let at = parse_time(at)?;
        // A thread that another one's exit ends in the middle of a call is `detached`.
        if text.starts_with("+++") || text.starts_with("---") || text.ends_with("<detached ...>") {
            return Ok(());
        }
        if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
            if begun.starts_with("fsync(") || begun.starts_with("fdatasync(") {
                self.sync_begins(at, thread, begun)?;
            } else if begun.starts_with("close(") {
                // The number is free, and may be another thread's, before the call returns.
                self.close(at, begun)?;
            }
            self.unfinished.insert(thread, begun.to_owned());
            return Ok(());
        }
        if text.starts_with("<... ") {
            let (_, rest) = text.split_once(" resumed>").context("not a resumed call")?;
            let begun = self.unfinished.remove(&thread).context("resumed without a beginning")?;
            return self.call(at, thread, &format!("{begun}{rest}"), true);
        }
        self.call(at, thread, text, false)
    }

    fn call(&mut self, at: Duration, thread: u32, text: &str, resumed: bool) -> Result<()> {
        let (head, result) = text.rsplit_once(" = ").context("a call without result")?;
        let (name, arguments) = head.split_once('(').context("not a call")?;
        let call = Call { name, arguments: arguments.trim_end().strip_suffix(')').unwrap_or(arguments), result };
        if name == "fsync" || name == "fdatasync" {
            if !resumed {
                self.sync_begins(at, thread, head)?;
            }
            if result.starts_with('?') {
                return Ok(());
            }
            let ended = match (result.starts_with('0'), result.contains("(INJECTED)")) {
                (true, false) => Synced::Yes,
                (true, true) => Synced::Pretended,
                (false, _) => Synced::Failed,
            };
            self.push(at, Step::SyncEnd(thread, ended));
            return Ok(());
        }
        if name == "close" {
            return if resumed { Ok(()) } else { self.close(at, head) };
        }
        if result.starts_with('-') || result.starts_with('?') {
            return Ok(());
        }
        if let Some(step) = self.step(&call)? {
            self.push(at, step);
        }
        Ok(())
    }

    fn sync_begins(&mut self, at: Duration, thread: u32, head: &str) -> Result<()> {
        let (_, arguments) = head.split_once('(').context("not a call")?;
        let (fd, path) = descriptor(arguments)?;
        ensure!(self.open.contains_key(&fd) || !path.starts_with(&self.root), "a sync of a descriptor nobody opened");
        self.push(at, Step::SyncBegin(thread, fd));
        Ok(())
    }

    fn close(&mut self, at: Duration, head: &str) -> Result<()> {
        let (_, arguments) = head.split_once('(').context("not a call")?;
        if let Ok((fd, _)) = descriptor(arguments)
            && self.open.remove(&fd).is_some()
        {
            self.push(at, Step::Close(fd));
        }
        Ok(())
    }

    fn step(&mut self, call: &Call<'_>) -> Result<Option<Step>> {
        let result = || -> Result<u64> {
            let digits = call.result.split([' ', '<']).next().unwrap_or_default();
            digits.parse().with_context(|| format!("result {}", call.result))
        };
        match call.name {
            "openat" => {
                let (fd, path) = descriptor(call.result)?;
                if !path.starts_with(&self.root) {
                    self.open.remove(&fd);
                    return Ok(None);
                }
                self.open.insert(fd, path.clone());
                let flags = call.arguments.rsplit('"').next().unwrap_or_default().to_owned();
                Ok(Some(Step::Open { fd, path, flags }))
            }
            "rename" | "renameat" | "renameat2" | "unlink" | "unlinkat" => Ok(self.name_step(call)?),
            "io_uring_setup" => bail!("the server uses io_uring, which strace cannot see into"),
            "link" | "linkat" | "truncate" => {
                let ours = strings(call.arguments)?.iter().any(|path| path_of(path).starts_with(&self.root));
                ensure!(!ours, "{} on the data folder is not modelled", call.name);
                Ok(None)
            }
            "mmap" => {
                let shared = call.arguments.contains("MAP_SHARED") && call.arguments.contains("PROT_WRITE");
                let index = call.arguments.split(", ").nth(4).and_then(|fd| descriptor(fd).ok());
                let ours = index.is_some_and(|(_, path)| path.starts_with(&self.root) && !is_index(&path));
                ensure!(!(shared && ours), "a file of the data folder is mapped for writing, which is not modelled");
                Ok(None)
            }
            _ => {
                let Ok((fd, path)) = descriptor(call.arguments) else { return Ok(None) };
                if !self.open.contains_key(&fd) {
                    ensure!(!path.starts_with(&self.root), "{} on a descriptor nobody opened", call.name);
                    return Ok(None);
                }
                Self::descriptor_step(call, fd, result()?)
            }
        }
    }

    fn descriptor_step(call: &Call<'_>, fd: u32, result: u64) -> Result<Option<Step>> {
        let number = |from_end: usize| -> Result<u64> {
            let argument = call.arguments.rsplit(", ").nth(from_end).context("too few arguments")?;
            argument.parse().with_context(|| format!("argument {argument}"))
        };
        let bytes = || -> Result<Vec<u8>> {
            let mut bytes = strings(call.arguments)?.concat();
            let written = usize::try_from(result)?;
            ensure!(bytes.len() >= written, "strace cut a write short");
            bytes.truncate(written);
            Ok(bytes)
        };
        Ok(Some(match call.name {
            "lseek" => Step::Seek(fd, result),
            "write" | "writev" => Step::Write(fd, None, bytes()?),
            "pwrite64" | "pwritev" => Step::Write(fd, Some(number(0)?), bytes()?),
            "pwritev2" => Step::Write(fd, Some(number(1)?), bytes()?),
            "ftruncate" => Step::Truncate(fd, number(0)?),
            "fallocate" if number(2).is_err() || !call.arguments.contains(", 0, ") => {
                bail!("fallocate in this mode is not modelled")
            }
            "fallocate" => Step::Allocate(fd, number(1)? + number(0)?),
            other => bail!("{other} on the data folder is not modelled"),
        }))
    }

    fn name_step(&self, call: &Call<'_>) -> Result<Option<Step>> {
        let names = strings(call.arguments)?;
        let folders: Vec<PathBuf> =
            call.arguments.split(", ").filter_map(|part| descriptor(part).ok().map(|d| d.1)).collect();
        let whole = |index: usize| -> Option<PathBuf> {
            let name = path_of(names.get(index)?);
            Some(folders.get(index).map_or_else(|| name.clone(), |folder| folder.join(&name)))
        };
        let (Some(first), second) = (whole(0), whole(1)) else { return Ok(None) };
        let ours = |path: &PathBuf| path.starts_with(&self.root);
        Ok(match second {
            Some(second) if ours(&first) || ours(&second) => Some(Step::Rename(first, second)),
            None if ours(&first) => Some(Step::Unlink(first)),
            _ => None,
        })
    }

    fn push(&mut self, at: Duration, step: Step) {
        self.steps.push(Stamped { at, step });
    }
}

/// The shared-memory index of SQLite: rebuilt at every start, so it never matters what is left of it.
pub(super) fn is_index(path: &Path) -> bool {
    path.to_string_lossy().ends_with("-shm")
}

fn parse_time(text: &str) -> Result<Duration> {
    let (seconds, micros) = text.split_once('.').context("no time")?;
    Ok(Duration::from_secs(seconds.parse()?) + Duration::from_micros(micros.parse()?))
}

/// Reads `5</path>` at the start of `text`.
fn descriptor(text: &str) -> Result<(u32, PathBuf)> {
    let (fd, rest) = text.split_once('<').context("no descriptor")?;
    let (path, _) = rest.split_once('>').context("no path of a descriptor")?;
    // `AT_FDCWD` stands for a folder, too; its number is never used.
    let fd = if fd == "AT_FDCWD" { u32::MAX } else { fd.parse().context("no descriptor")? };
    Ok((fd, path_of(&unescape(path)?)))
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// The quoted strings of an argument list, in order.
fn strings(arguments: &str) -> Result<Vec<Vec<u8>>> {
    let mut parts = arguments.split('"');
    let mut found = Vec::new();
    parts.next();
    while let (Some(inside), Some(after)) = (parts.next(), parts.next()) {
        ensure!(!after.starts_with("..."), "strace cut a string short");
        found.push(unescape(inside)?);
    }
    Ok(found)
}

/// Turns `\x2f\x74` into bytes; text without escapes is taken as it is.
fn unescape(text: &str) -> Result<Vec<u8>> {
    if !text.contains('\\') {
        return Ok(text.as_bytes().to_vec());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (escapes, rest) = text.as_bytes().as_chunks::<4>();
    ensure!(rest.is_empty(), "an escape strace does not write with -xx");
    let byte = |escape: &[u8; 4]| match escape {
        [b'\\', b'x', high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    escapes.iter().map(byte).collect::<Option<_>>().context("an escape strace does not write with -xx")
}

#[cfg(test)]
#[path = "strace_tests.rs"]
mod tests;
