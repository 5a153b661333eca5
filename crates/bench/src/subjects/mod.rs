//! What is measured: the bare limit, sprag, and the peers, each behind one small trait.

#[cfg(feature = "logs")]
mod logs;
mod raw;
mod sprag;
mod storages;

use std::fs;
use std::path::Path;

use anyhow::{Result, anyhow};

#[cfg(feature = "logs")]
pub(crate) use self::logs::{RaftEngine, RaftLog};
pub(crate) use self::raw::Raw;
pub(crate) use self::sprag::Sprag;
pub(crate) use self::storages::{Fjall, Lmdb, Redb};
use crate::workload::{Key, Writes};

/// Something that makes groups of writes durable.
pub(crate) trait Store {
    /// Makes these writes durable; returns when a power cut can not take them back.
    fn write(&mut self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()>;

    /// Reads a value and adds up its bytes; `None` if the key has none.
    fn get(&self, key: &[u8]) -> Result<Option<u64>> {
        let _ = key;
        Err(anyhow!("a log has no keys"))
    }

    /// Syncs that the counters of the C library do not see.
    fn own_syncs(&self) -> u64 {
        0
    }
}

/// Touches every byte.
#[inline]
pub(crate) fn sum(value: &[u8]) -> u64 {
    value.iter().map(|byte| u64::from(*byte)).sum()
}

/// Puts every key in, in groups of 1,000.
pub(crate) fn preload(store: &mut dyn Store, writes: &Writes) -> Result<()> {
    let mut pairs = writes.pairs().peekable();
    while pairs.peek().is_some() {
        store.write(&mut pairs.by_ref().take(1_000))?;
    }
    Ok(())
}

fn fresh(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(fs::create_dir_all(dir)?)
}
