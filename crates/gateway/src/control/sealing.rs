//! The sealing key: made once in the data folder, or given as a file; never in a backup.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidings_core::seal::SealingKey;
use tidings_log::store::{Document, Expect, Kind, Owner, Store, Write};
use zeroize::Zeroizing;

use crate::clock;

const KEY_FILE: &str = "seal.key";
/// A known text, sealed when the folder was made: a wrong key is noticed at start.
const PROOF: &str = "seal-proof";
const PROOF_TEXT: &[u8] = b"tidings";

/// Reads the key, or makes it for a new folder, and checks it against the log.
pub(crate) async fn open(folder: &Path, file: Option<&Path>, store: &dyn Store) -> Result<SealingKey> {
    let path = file.map_or_else(|| folder.join(KEY_FILE), Path::to_path_buf);
    let proof = store.get(Kind::Setting, Owner::Operator, PROOF).await?;
    if !path.exists() {
        if file.is_some() {
            bail!("the sealing key file {} does not exist", path.display());
        }
        if proof.is_some() {
            bail!("the sealing key {} is missing: put it back, secrets cannot be opened without it", path.display());
        }
        make(&path)?;
    }
    let key = read(&path)?;
    match proof {
        Some(proof) => {
            let sealed = String::from_utf8(proof.body).context("the proof of the sealing key is damaged")?;
            if key.open(PROOF, &sealed).is_err() {
                bail!("{} is not the sealing key of this data folder", path.display());
            }
        }
        None => prove(&key, store).await?,
    }
    Ok(key)
}

fn make(path: &PathBuf) -> Result<()> {
    let key = Zeroizing::new(clock::random::<32>());
    // Whole or not there: a crash in between must not leave half a key.
    let draft = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        writeln!(file, "{}", *Zeroizing::new(STANDARD.encode(*key)))?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot make {}", path.display()))
}

fn read(path: &Path) -> Result<SealingKey> {
    let mode = std::fs::metadata(path).map(|file| file.permissions().mode()).unwrap_or_default();
    if mode & 0o077 != 0 {
        bail!("the sealing key {} may be read by others: `chmod 600` it, and think of who has seen it", path.display());
    }
    let text = Zeroizing::new(
        std::fs::read_to_string(path).with_context(|| format!("cannot read the sealing key {}", path.display()))?,
    );
    let bytes = STANDARD.decode(text.trim()).ok().map(Zeroizing::new);
    let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(&bytes[..]).ok());
    let key = key.with_context(|| format!("{} is not a sealing key: 32 bytes in base64", path.display()))?;
    Ok(SealingKey::from_bytes(key))
}

async fn prove(key: &SealingKey, store: &dyn Store) -> Result<()> {
    let body = key.seal(clock::random(), PROOF, PROOF_TEXT).into_bytes();
    let document = Document { kind: Kind::Setting, owner: Owner::Operator, id: PROOF.into(), revision: 0, body };
    store.commit(clock::now(), vec![Write::Put(document, Expect::New)]).await?;
    Ok(())
}
