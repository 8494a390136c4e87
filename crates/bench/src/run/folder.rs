//! Folders of a run: on a real disk, one for each measurement, gone afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

/// What `statfs` says of a filesystem in memory, where a sync costs nothing (`linux/magic.h`).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The folder that holds all others of a run.
pub(crate) struct WorkFolder(TempDir);

/// The data of one measurement; removed when dropped.
pub(crate) struct Folder(TempDir);

impl WorkFolder {
    /// A new folder within `parent`.
    pub(crate) fn new(parent: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(parent)
            .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        let kind = rustix::fs::statfs(folder.path())?.f_type;
        ensure!(
            u64::try_from(kind).ok() != Some(TMPFS_MAGIC),
            "{} is in memory: syncs would cost nothing",
            parent.display()
        );
        Ok(Self(folder))
    }

    /// An empty folder.
    pub(crate) fn folder(&self) -> anyhow::Result<Folder> {
        Ok(Folder(tempfile::tempdir_in(self.0.path())?))
    }

    /// A folder with all that `other` has.
    pub(crate) fn copy_of(&self, other: &Folder) -> anyhow::Result<Folder> {
        let copy = self.folder()?;
        copy_all(other.path(), copy.path())?;
        Ok(copy)
    }

    /// A file that lives as long as the run.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Waits until the disk has nothing left of what came before.
pub(crate) fn settle_disk() {
    rustix::fs::sync();
}

fn copy_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy_all(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
