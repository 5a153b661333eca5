//! Directories of other storages than our log: recognising them by their content, and opening them.
//!
//! A directory of fjall belongs to fjall alone. A directory of redb holds redb's file. Both
//! storages lock what they open, also for reading, so no command reads them beside a writer.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use sprag::machine::storage::{Storage, StorageMachine};
use sprag::{
    ApplyConfig, ApplyManager, Command, LogId, PersistentStateMachine, Reply, Snapshot,
    SnapshotReport, StateMachine, StorageConfig, View,
};
use sprag_fjall::{FjallConfig, FjallStorage};
use sprag_redb::{RedbConfig, RedbStorage};

use crate::args::Kept;
use crate::disk::bytes_on_disk;
use crate::edit;
use crate::error::{Failure, Outcome, about, opening};
use crate::text::{Maybe, line, size};

/// Time that a command waits for another process that has the directory open: as long as a command
/// or a read of `watch` takes.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(10);
/// Name of redb's file in its directory.
const REDB_FILE: &str = "state.redb";
/// Timeout, long enough for a slow disk.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The storage that keeps the state of a directory. A directory that is missing, or holds neither
/// storage, counts as our log's.
pub(crate) fn kept_in(dir: &Path) -> Outcome<Kept> {
    if dir.join(REDB_FILE).is_file() {
        return Ok(Kept::Redb);
    }
    let is_fjall = sprag_fjall::is_fjall(dir).map_err(about(dir.display()))?;
    Ok(if is_fjall { Kept::Fjall } else { Kept::Log })
}

/// Refuses a directory of another storage, for a command that works on our log only.
pub(crate) fn log_only(command: &str, dir: &Path) -> Outcome {
    let kept = kept_in(dir)?;
    if kept == Kept::Log {
        return Ok(());
    }
    let storage = kept.name();
    Err(format!(
        "{}: its state is in {storage}, which has no log of sprag: `{command}` is for directories with one; `stats`, \
         `get`, `keys`, `export`, `snapshot --out` and the commands that change keys work here",
        dir.display()
    )
    .into())
}

/// Opens the machine over fjall in `dir`, and makes a missing directory.
pub(crate) fn open_fjall(
    dir: &Path,
    config: StorageConfig,
) -> Outcome<StorageMachine<FjallStorage>> {
    let is_locked =
        |error: &sprag_fjall::OpenError| matches!(error, sprag_fjall::OpenError::Locked { .. });
    let open = || FjallStorage::open(dir, FjallConfig::new());
    let storage = when_unlocked(open, is_locked).map_err(failed)?;
    if storage.cut_bytes() > 0 {
        let cut = storage.cut_bytes();
        // The command continues even if standard error is closed.
        let _unread = writeln!(
            io::stderr(),
            "sprag: {}: fjall's journal had a torn end, which was cut: {cut} bytes",
            dir.display()
        );
    }
    PersistentStateMachine::with_storage(storage, config).map_err(opening(dir))
}

/// Opens the machine over redb in `dir`, and makes a missing directory.
pub(crate) fn open_redb(dir: &Path, config: StorageConfig) -> Outcome<StorageMachine<RedbStorage>> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(about(dir.display())(error));
        }
        Err(_) => {}
        Ok(()) => {
            let parent = crate::output::parent_of(dir);
            fs::File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(about(parent.display()))?;
        }
    }
    let is_locked =
        |error: &sprag_redb::OpenError| matches!(error, sprag_redb::OpenError::Locked { .. });
    let open = || RedbStorage::open(dir.join(REDB_FILE), RedbConfig::new());
    let storage = when_unlocked(open, is_locked).map_err(failed)?;
    PersistentStateMachine::with_storage(storage, config).map_err(opening(dir))
}

/// Calls `open`, and retries for a short time while another command has the directory open.
pub(crate) fn when_unlocked<T, E>(
    open: impl Fn() -> Result<T, E>,
    is_locked: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let began = Instant::now();
    loop {
        match open() {
            Err(error) if is_locked(&error) && began.elapsed() < LOCK_WAIT_MAX => {
                thread::sleep(LOCK_LOOK_EVERY);
            }
            opened => return opened,
        }
    }
}

/// A failure of a storage to open. Its text names the file or directory.
fn failed<E: Error + 'static>(error: E) -> Box<dyn Error> {
    Failure::about(crate::error::one_line(&error), &error)
}

/// Makes a directory of this storage with the state of a snapshot. Returns its last entry, the
/// number of keys, and the bytes of the snapshot. Returns `None` for our log, which another
/// function restores.
pub(crate) fn restore(
    storage: Kept,
    snapshot: &Snapshot,
    file: &Path,
    dir: &Path,
) -> Outcome<Option<(LogId, u64, u64)>> {
    if storage == Kept::Log {
        log_only("restore without --storage", dir)?;
        return Ok(None);
    }
    snapshot.verify()?;
    let Some(log_id) = snapshot.log_id() else {
        return Err(format!("{}: it is a snapshot of nothing", file.display()).into());
    };
    let found = kept_in(dir)?;
    let is_empty = !fs::read_dir(dir).is_ok_and(|mut names| names.next().is_some());
    if found != storage && !is_empty {
        let message = format!("{}: it is not empty; name a directory to be made", dir.display());
        return Err(message.into());
    }
    let Some(machine) = open_as(storage, dir)? else { return Ok(None) };
    if let Some(last) = machine.applied() {
        let message = format!("{}: it has a state already, at {last}", dir.display());
        return Err(message.into());
    }
    machine.restore(dir, snapshot)?;
    Ok(Some((log_id, snapshot.len(), snapshot.bytes())))
}

/// A machine over any storage.
pub(crate) trait Stored {
    /// The last entry in the state.
    fn applied(&self) -> Option<LogId>;
    /// The value of a key.
    fn get(&self, dir: &Path, key: &[u8]) -> Outcome<Option<Vec<u8>>>;
    /// The current state, sorted.
    fn view(&self, dir: &Path) -> Outcome<View>;
    /// Applies one command durably, after the last entry.
    fn apply(self: Box<Self>, dir: &Path, command: Command<'_>) -> Outcome<(u64, Reply)>;
    /// Replaces the state by that of a snapshot.
    fn restore(self: Box<Self>, dir: &Path, snapshot: &Snapshot) -> Outcome<SnapshotReport>;
    /// Prints the output of `stats`.
    fn show(&self, dir: &Path, json: bool, out: &mut dyn Write) -> Outcome;
}

/// Opens a directory of another storage; `None` for a directory of our log.
pub(crate) fn open(dir: &Path) -> Outcome<Option<Box<dyn Stored>>> {
    let kept = kept_in(dir)?;
    open_as(kept, dir)
}

/// Opens a directory as one of this storage; `None` for our log.
pub(crate) fn open_as(kept: Kept, dir: &Path) -> Outcome<Option<Box<dyn Stored>>> {
    let config = StorageConfig::new();
    Ok(match kept {
        Kept::Log => None,
        Kept::Fjall => Some(Box::new(open_fjall(dir, config)?)),
        Kept::Redb => Some(Box::new(open_redb(dir, config)?)),
    })
}

impl<S: Storage> Stored for StorageMachine<S> {
    fn applied(&self) -> Option<LogId> {
        StateMachine::applied(self)
    }

    fn get(&self, dir: &Path, key: &[u8]) -> Outcome<Option<Vec<u8>>> {
        let value = StorageMachine::get(self, key).map_err(about(dir.display()))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn view(&self, dir: &Path) -> Outcome<View> {
        StorageMachine::view(self).map_err(about(dir.display()))
    }

    fn apply(self: Box<Self>, dir: &Path, command: Command<'_>) -> Outcome<(u64, Reply)> {
        let last = StateMachine::applied(&*self);
        edit::apply_to(*self, last, dir, command)
    }

    fn restore(self: Box<Self>, dir: &Path, snapshot: &Snapshot) -> Outcome<SnapshotReport> {
        let manager = ApplyManager::new(*self, ApplyConfig::new()).map_err(opening(dir))?;
        let report =
            manager.snapshots().restore(snapshot, TIMEOUT).map_err(about(dir.display()))?;
        manager.close(TIMEOUT).map_err(about(dir.display()))?;
        Ok(report)
    }

    fn show(&self, dir: &Path, json: bool, out: &mut dyn Write) -> Outcome {
        let storage = self.storage().name();
        let keys = self.len().map_err(about(dir.display()))?;
        let applied = StateMachine::applied(self);
        let disk_bytes = bytes_on_disk(dir);
        let memory_bytes = self.storage_stats().memory_bytes;
        if json {
            let dir = &dir.display().to_string();
            let (applied_index, applied_term) =
                (applied.map(|log_id| log_id.index), applied.map(|log_id| log_id.term));
            return line(
                out,
                &StoredJson {
                    dir,
                    storage,
                    applied_index,
                    applied_term,
                    keys,
                    disk_bytes,
                    memory_bytes,
                },
            );
        }
        writeln!(out, "directory      {}", dir.display())?;
        writeln!(out, "storage        {storage}")?;
        writeln!(out, "state at       {}", Maybe(applied))?;
        writeln!(out, "keys           {keys}")?;
        writeln!(out, "disk           {}", size(disk_bytes))?;
        if let Some(bytes) = memory_bytes {
            writeln!(out, "memory         {}", size(bytes))?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct StoredJson<'a> {
    dir: &'a str,
    storage: &'static str,
    applied_index: Option<u64>,
    applied_term: Option<u64>,
    keys: usize,
    disk_bytes: u64,
    memory_bytes: Option<u64>,
}
