//! What is measured: the bare limit, sprag, and the peers, each behind one small trait.

#[cfg(feature = "logs")]
mod logs;
pub(crate) mod maps;
mod raw;
#[cfg(feature = "rocksdb")]
mod rocks;
mod sprag;
mod storages;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use anyhow::{Result, anyhow};

#[cfg(feature = "logs")]
use self::logs::{RaftEngine, RaftLog};
pub(crate) use self::raw::Raw;
pub(crate) use self::sprag::{ASYNC_RANGE, FlatOut, Sprag, submit_all};
pub(crate) use self::storages::Lmdb;
use self::storages::{Fjall, Redb};
use crate::workload::{KEY_BYTES, Key, Writes};

/// Something that makes groups of writes durable.
pub(crate) trait Store: Send + Sync {
    /// Makes these writes durable; returns when a power cut can not take them back.
    fn write(&self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()>;

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

/// A peer with its name.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Reason why the peer gets no ratio; a log keeps no state.
    pub(crate) why: Option<&'static str>,
    pub(crate) store: Box<dyn Store>,
}

/// Opens a peer in a directory, which it makes if there is none.
pub(crate) type Open = fn(&Path) -> Result<Box<dyn Store>>;

/// Storages with keys, by name.
pub(crate) const STORAGES: &[(&str, Open)] = &[
    ("fjall", |dir| Ok(Box::new(Fjall::open(dir)?))),
    ("redb", |dir| Ok(Box::new(Redb::open(dir)?))),
    ("lmdb (heed)", |dir| Ok(Box::new(Lmdb::open(dir)?))),
    #[cfg(feature = "rocksdb")]
    ("rocksdb", |dir| Ok(Box::new(rocks::Rocks::open(dir)?))),
];

/// Logs, by name.
const LOGS: &[(&str, Open)] = &[
    #[cfg(feature = "logs")]
    ("raft-engine", |dir| Ok(Box::new(RaftEngine::open(dir)?))),
    #[cfg(feature = "logs")]
    ("raft-log", |dir| Ok(Box::new(RaftLog::open(dir)?))),
];

const LOG_ONLY: &str = "a log alone: it keeps no state that answers a get";

/// Directory of a subject of a group.
pub(crate) fn place(dir: &Path, group: &str, name: &str) -> PathBuf {
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    dir.join(format!("{group}-{name}"))
}

/// New storages, each in a fresh directory.
pub(crate) fn storages(dir: &Path, group: &str) -> Result<Vec<Peer>> {
    STORAGES.iter().map(|(name, open)| create(dir, group, name, *open, None)).collect()
}

/// New logs, each in a fresh directory; none without the feature `logs`.
pub(crate) fn logs(dir: &Path, group: &str) -> Result<Vec<Peer>> {
    LOGS.iter().map(|(name, open)| create(dir, group, name, *open, Some(LOG_ONLY))).collect()
}

fn create(
    dir: &Path,
    group: &str,
    name: &'static str,
    open: Open,
    why: Option<&'static str>,
) -> Result<Peer> {
    let place = place(dir, group, name);
    fresh(&place)?;
    Ok(Peer { name, why, store: open(&place)? })
}

/// The guard of a lock that one thread at a time takes.
pub(crate) fn locked<T>(lock: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    lock.lock().map_err(|_| anyhow!("a panic under the lock"))
}

/// Touches every byte.
#[inline]
pub(crate) fn sum(value: &[u8]) -> u64 {
    value.iter().map(|byte| u64::from(*byte)).sum()
}

/// Puts every key in, in groups of 4 MiB.
pub(crate) fn preload(store: &dyn Store, writes: &Writes) -> Result<()> {
    const GROUP_BYTES: usize = 4 << 20;
    let of_group = (GROUP_BYTES / (KEY_BYTES + writes.value_bytes())).clamp(1, 20_000);
    let mut pairs = writes.pairs().peekable();
    while pairs.peek().is_some() {
        store.write(&mut pairs.by_ref().take(of_group))?;
    }
    Ok(())
}

/// Makes an empty directory, in place of what is there.
pub(crate) fn fresh(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(fs::create_dir_all(dir)?)
}
