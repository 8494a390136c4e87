//! A disk that forgets: replays the record of a run and says what would be left of the data folder had the power gone
//! at any step.
//!
//! What a file's sync covered stays; the rest goes; which names stay is a choice ([`Names`]). A sync that failed loses what it should have covered, whatever a later
//! one says, as Linux marks the pages clean.

use super::chance::Chance;
use super::strace::{Step, Synced, is_index};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

const SECTOR: u64 = 512;

/// What survives beside what was synced.
#[derive(Debug)]
pub(super) enum Luck {
    /// Nothing.
    None,
    /// A random choice of the unsynced sectors.
    Torn(Chance),
}

/// Which names stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Names {
    /// Those whose folder or whose own file was synced since: what POSIX lets a program count on, and a little.
    #[default]
    Strict,
    /// All that were given before any sync: as on ext4 and XFS, which keep the order of names.
    Ordered,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
    Allocate(u64),
}

#[derive(Debug, Default)]
struct Inode {
    synced: Vec<u8>,
    unsynced: VecDeque<(u64, Change)>,
    /// The length a reader sees, for appends.
    length: u64,
}

#[derive(Debug)]
struct Descriptor {
    path: PathBuf,
    inode: Option<usize>,
    position: u64,
    append: bool,
}

#[derive(Debug)]
struct Sync {
    fd: u32,
    before: u64,
}

/// The disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    rule: Names,
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    lasting_names: BTreeMap<PathBuf, usize>,
    open: HashMap<u32, Descriptor>,
    syncs: HashMap<u32, Sync>,
    clock: u64,
}

impl Disk {
    /// An empty disk.
    pub(super) fn new(rule: Names) -> Self {
        Self { rule, ..Self::default() }
    }

    /// Follows one step of the record.
    pub(super) fn follow(&mut self, step: &Step) {
        self.clock += 1;
        match step {
            Step::Open { fd, path, flags } => self.open(*fd, path, flags),
            Step::Close(fd) => drop(self.open.remove(fd)),
            Step::Seek(fd, to) => {
                if let Some(open) = self.open.get_mut(fd) {
                    open.position = *to;
                }
            }
            Step::Write(fd, at, bytes) => self.write(*fd, *at, bytes),
            Step::Truncate(fd, length) => self.change(*fd, Change::Truncate(*length)),
            Step::Allocate(fd, length) => self.change(*fd, Change::Allocate(*length)),
            Step::SyncBegin(thread, fd) => {
                self.syncs.insert(*thread, Sync { fd: *fd, before: self.clock });
            }
            Step::SyncEnd(thread, ended) => {
                if let Some(sync) = self.syncs.remove(thread) {
                    self.sync(&sync, *ended);
                }
            }
            Step::Rename(from, to) => {
                if let Some(inode) = self.names.remove(from) {
                    self.names.insert(to.clone(), inode);
                }
            }
            Step::Unlink(path) => drop(self.names.remove(path)),
        }
    }

    /// The process has ended and another is to follow: descriptors are gone; what it wrote stays in the page cache.
    pub(super) fn process_ended(&mut self) {
        self.open.clear();
        self.syncs.clear();
    }

    fn open(&mut self, fd: u32, path: &Path, flags: &str) {
        let has = |flag: &str| flags.contains(flag);
        let mut inode = self.names.get(path).copied();
        if inode.is_none() && has("O_CREAT") {
            self.inodes.push(Inode::default());
            inode = Some(self.inodes.len() - 1);
            self.names.insert(path.to_owned(), self.inodes.len() - 1);
        }
        let descriptor = Descriptor { path: path.to_owned(), inode, position: 0, append: has("O_APPEND") };
        self.open.insert(fd, descriptor);
        if has("O_TRUNC") {
            self.change(fd, Change::Truncate(0));
        }
    }

    fn write(&mut self, fd: u32, at: Option<u64>, bytes: &[u8]) {
        let Some(open) = self.open.get_mut(&fd) else { return };
        let length = open.inode.map_or(0, |inode| self.inodes[inode].length);
        let start = at.unwrap_or(if open.append { length } else { open.position });
        if at.is_none() {
            open.position = start + bytes.len() as u64;
        }
        self.change(fd, Change::Write(start, bytes.to_vec()));
    }

    fn change(&mut self, fd: u32, change: Change) {
        let Some(inode) = self.open.get(&fd).and_then(|open| open.inode) else { return };
        let inode = &mut self.inodes[inode];
        inode.length = match &change {
            Change::Write(at, bytes) => inode.length.max(at + bytes.len() as u64),
            Change::Truncate(length) => *length,
            Change::Allocate(length) => inode.length.max(*length),
        };
        inode.unsynced.push_back((self.clock, change));
    }

    fn sync(&mut self, sync: &Sync, ended: Synced) {
        let Some(open) = self.open.get(&sync.fd) else { return };
        let Some(number) = open.inode else {
            if ended == Synced::Yes {
                self.sync_folder(&open.path.clone());
            }
            return;
        };
        if ended == Synced::Pretended {
            return;
        }
        let inode = &mut self.inodes[number];
        while inode.unsynced.front().is_some_and(|(at, _)| *at < sync.before) {
            if let Some((_, change)) = inode.unsynced.pop_front()
                && ended == Synced::Yes
            {
                apply(&mut inode.synced, &change, |_| true);
            }
        }
        if ended == Synced::Yes && self.rule == Names::Ordered {
            self.lasting_names.clone_from(&self.names);
        } else if ended == Synced::Yes {
            self.lasting_names.retain(|_, inode| *inode != number);
            let names = self.names.iter().filter(|(_, inode)| **inode == number);
            self.lasting_names.extend(names.map(|(name, inode)| (name.clone(), *inode)));
        }
    }

    fn sync_folder(&mut self, folder: &Path) {
        let inside = |path: &PathBuf| path.parent() == Some(folder);
        self.lasting_names.retain(|path, _| !inside(path));
        let names = self.names.iter().filter(|(path, _)| inside(path));
        self.lasting_names.extend(names.map(|(path, inode)| (path.clone(), *inode)));
    }

    /// Writes what is left of `root` into the new folder `image`, without the index that SQLite keeps in shared memory.
    pub(super) fn leave(&self, root: &Path, image: &Path, luck: &mut Luck) -> Result<()> {
        fs::create_dir_all(image)?;
        let mut names = self.lasting_names.clone();
        if let Luck::Torn(chance) = luck
            && chance.one_in(2)
        {
            names.clone_from(&self.names);
        }
        for (path, &inode) in names.iter().filter(|(path, _)| !is_index(path)) {
            let target = image.join(path.strip_prefix(root).context("a file outside the data folder")?);
            fs::create_dir_all(target.parent().context("a file without a folder")?)?;
            fs::write(&target, self.inodes[inode].left(luck))?;
            restrict(&target)?;
        }
        Ok(())
    }
}

impl Inode {
    fn left(&self, luck: &mut Luck) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        if let Luck::Torn(chance) = luck {
            // From almost nothing to almost everything.
            let odds = 1 + chance.below(9);
            for (_, change) in &self.unsynced {
                apply(&mut bytes, change, |_| chance.below(10) < odds);
            }
        }
        bytes
    }
}

/// Applies those sectors of a change that `keep` keeps; a change of the length is one.
fn apply(bytes: &mut Vec<u8>, change: &Change, mut keep: impl FnMut(u64) -> bool) {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    match change {
        Change::Write(at, data) => {
            let end = at + data.len() as u64;
            let mut from = *at;
            while from < end {
                let to = end.min((from / SECTOR + 1) * SECTOR);
                if keep(from / SECTOR) {
                    if bytes.len() < size(to) {
                        bytes.resize(size(to), 0);
                    }
                    bytes[size(from)..size(to)].copy_from_slice(&data[size(from - at)..size(to - at)]);
                }
                from = to;
            }
        }
        Change::Truncate(length) if keep(0) => bytes.resize(size(*length), 0),
        Change::Allocate(length) if keep(0) && bytes.len() < size(*length) => bytes.resize(size(*length), 0),
        Change::Truncate(_) | Change::Allocate(_) => {}
    }
}

/// Key files must be the owner's alone, or the server refuses them.
fn restrict(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o600))?)
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
