//! Restore: a new data directory whose state is that of a snapshot file.
//!
//! **What comes after what, and why.** The whole file is verified before anything is created. `META` is made first and
//! left without content, which reads as an empty directory; then the snapshot is written under a temporary name, synced,
//! renamed, and the directory is synced; then `META` is stored, with a log base right after the snapshot's entry. So
//! a crash at any point leaves an empty directory, into which the restore can be done again, or all of it.
//!
//! `META` is stored twice, into both of its slots: a directory that is whole must never look like one whose making was
//! interrupted because one slot does not read back.

use std::path::Path;
use std::sync::Arc;

use crate::config::{CommitMode, Contiguity};
use crate::disk::Disk;
use crate::disk::real::around::refuse_inside;
use crate::disk::real::{OpenMode, RealDisk};
use crate::entry::LogId;
use crate::error::{OpenError, SnapshotError};
use crate::log::format::META_FILE;
use crate::log::meta::{LogBase, Meta, MetaFile};
use crate::log::recovery::files::list_files;
use crate::snapshot::Snapshot;
use crate::snapshot::file::copy_snapshot_file;
use crate::snapshot::format::snapshot_name;

/// What [`restore`] made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The last entry that is in the state; the log goes on after it.
    pub log_id: LogId,
    /// Keys in the state; 0 for a machine of the user's own.
    pub keys: u64,
    /// Length of the snapshot.
    pub bytes: u64,
}

/// Makes a data directory at `directory` whose state is that of the snapshot file at `snapshot`, and which commits as
/// `commit_mode` says. It must not exist, or be empty (but for what file systems put
/// there by themselves), or be what an interrupted restore left; its parent must exist.
///
/// Costs reading the snapshot and writing it once. The whole of it is verified first. A crash on the way leaves a directory
/// that reads as empty.
///
/// There is no hard state in it: to a consensus engine the node is a new one, and must be added as such.
///
/// # Errors
///
/// [`OpenError`]: [`OpenError::Corrupt`] for a damaged file, [`OpenError::NotEmpty`] for a directory that has a log,
/// [`OpenError::InsideDataDirectory`] for one that lies in a data directory,
/// [`OpenError::Snapshot`] for a file that is no snapshot, or one of the state before the first entry,
/// [`OpenError::Config`] for [`Contiguity::Monotone`] without [`CommitMode::ByCommit`].
///
/// # Examples
///
/// ```
/// # use sprag::{ApplyConfig, ApplyManager, Entry, PersistentConfig, PersistentStateMachine};
/// use sprag::{CommitMode, Contiguity, restore};
/// # let temporary = tempfile::tempdir()?;
/// # let (path, copy) = (temporary.path().join("data"), temporary.path().join("copy"));
/// # let timeout = std::time::Duration::from_secs(10);
/// # let machine = PersistentStateMachine::open(PersistentConfig::new(&path))?;
/// # let manager = ApplyManager::new(machine, ApplyConfig::new())?;
/// # manager.apply(&Entry::put(1, 1, b"key", b"value"), timeout)?;
/// # let backup = temporary.path().join("backup.snap");
/// # let mut out = Vec::new();
/// # manager.snapshot_to(&mut out)?;
/// # std::fs::write(&backup, &out)?;
///
/// let report = restore(&backup, &copy, CommitMode::OnAppend, Contiguity::Strict)?;
/// assert_eq!((report.log_id.index, report.keys), (1, 1));
/// let machine = PersistentStateMachine::open(PersistentConfig::new(&copy))?;
/// assert_eq!(machine.get(b"key")?.as_deref(), Some(&b"value"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn restore(
    snapshot: impl AsRef<Path>,
    directory: impl AsRef<Path>,
    commit_mode: CommitMode,
    contiguity: Contiguity,
) -> Result<RestoreReport, OpenError> {
    contiguity.check(commit_mode)?;
    refuse_inside(directory.as_ref())?;
    let snapshot = Snapshot::open(snapshot).map_err(OpenError::of_snapshot)?;
    let log_id = verified(&snapshot)?;
    let disk = RealDisk::open(directory.as_ref(), OpenMode::Write { create: true })?;
    restore_on_disk(&disk, &snapshot, log_id, commit_mode, contiguity)
}

/// Checks all of a snapshot; gives the entry it is of.
pub(crate) fn verified(snapshot: &Snapshot) -> Result<LogId, OpenError> {
    snapshot.verify().map_err(OpenError::of_snapshot)?;
    let what = "restoring the state before the first entry: start with an empty directory";
    snapshot.log_id().ok_or(OpenError::Snapshot(SnapshotError::Unsupported { what }))
}

/// As [`restore`], of a snapshot that was verified and is of `log_id`, on any disk.
pub(crate) fn restore_on_disk(
    disk: &dyn Disk,
    snapshot: &Snapshot,
    log_id: LogId,
    commit_mode: CommitMode,
    contiguity: Contiguity,
) -> Result<RestoreReport, OpenError> {
    if MetaFile::open(disk, false)?.is_some() {
        return Err(OpenError::NotEmpty { path: disk.describe() });
    }
    list_files(disk)?.refuse_taken(disk)?;
    let mut meta_file = MetaFile::begin(disk)?;
    remove_leftovers(disk)?;
    copy_snapshot_file(disk, &snapshot_name(log_id.index), snapshot)
        .map_err(OpenError::of_snapshot)?;
    let fresh = Meta::fresh(disk, commit_mode, None)?;
    let meta = Meta {
        base: LogBase { last: Some(log_id), ..fresh.base },
        committed: Some(log_id.index),
        is_monotone: contiguity == Contiguity::Monotone,
        state: Some(snapshot.kind()),
        is_kept: false,
        ..fresh
    };
    meta_file.store_twice(&meta).map_err(|error| OpenError::io("writing", META_FILE, error))?;
    let (keys, bytes) = (snapshot.len(), snapshot.bytes());
    Ok(RestoreReport { log_id, keys, bytes })
}

/// Removes the snapshots of a directory in which nothing was ever completed; durably, before it is completed.
pub(crate) fn remove_leftovers(disk: &dyn Disk) -> Result<(), OpenError> {
    let files = list_files(disk)?;
    for name in files.snapshots.iter().chain(&files.unfinished) {
        disk.remove(name).map_err(|error| OpenError::io("removing", name, error))?;
    }
    disk.sync_dir().map_err(|error| OpenError::io("syncing", disk.describe(), error))
}

/// A snapshot on a disk, for [`testing`](crate::testing).
pub(crate) fn restore_bytes(
    disk: &Arc<dyn Disk>,
    bytes: &[u8],
    commit_mode: CommitMode,
) -> Result<RestoreReport, OpenError> {
    let mapping = crate::disk::Mapping::Copied(bytes.into());
    let snapshot = Snapshot::of_mapping(mapping, "a snapshot".to_owned(), None)
        .map_err(OpenError::of_snapshot)?;
    let log_id = verified(&snapshot)?;
    restore_on_disk(&**disk, &snapshot, log_id, commit_mode, Contiguity::Strict)
}
