//! `tidings outbox` on a replication slot: what `--mode` makes and takes away, and what `status` shows of it.

use anyhow::Result;
use serde_json::{Value, json};
use tidings_sources::outbox::Slot;
use tidings_sources::outbox::postgres::Config;
use tidings_sources::outbox::postgres::replication::slot;

use super::block_on;
use crate::config::Mode;

/// Prints the SQL of a mode. Its statements are transactions of their own.
pub(super) fn print(mode: Mode) {
    let statements = match mode {
        Mode::Replication => &slot::MAKE[..],
        Mode::Polling => &slot::REMOVE,
    };
    for statement in statements {
        println!("{statement}");
    }
}

/// Makes a database ready for a mode, and says what was done.
pub(super) fn apply(config: &Config, mode: Mode) -> Result<()> {
    if mode == Mode::Polling {
        let gone = block_on(async { Ok(slot::remove(config).await?) })?;
        println!("{}", if gone { "The slot and the publication are gone." } else { "There was no slot." });
        return Ok(());
    }
    let (slot, is_new) = block_on(async { Ok(slot::make(config).await?) })?;
    println!("The slot {} and the publication {}.", slot.name, if is_new { "are made" } else { "were there" });
    if slot.retained_bytes_max.is_none() {
        println!(
            "max_slot_wal_keep_size is unlimited: while nobody reads the slot, the write-ahead log grows until the disk is \
             full. Set it, as with ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'."
        );
    }
    Ok(())
}

pub(super) fn told(slot: &Slot) -> Value {
    json!({
        "name": slot.name,
        "walStatus": slot.wal_status,
        "retainedBytes": slot.retained_bytes,
        "retainedBytesMax": slot.retained_bytes_max,
        "active": slot.active.is_some(),
    })
}

pub(super) fn show(slot: &Slot) {
    let most = slot.retained_bytes_max.map_or_else(
        || "without a bound: set max_slot_wal_keep_size".to_owned(),
        |bytes| format!("lost beyond {bytes} bytes"),
    );
    let read = if slot.active.is_some() { "is read" } else { "is not read now" };
    println!("slot                 {}, {}, {read}", slot.name, slot.wal_status);
    println!("keeps                {} bytes, {most}", slot.retained_bytes);
}
