//! Restore: makes a new data directory with the state of a snapshot file.
//!
//! **The order of the steps, and why.** The whole file is verified before anything is created.
//! Restore first makes `META` without content, which reads as an empty directory. It writes the
//! snapshot under a temporary name, syncs and renames it, and syncs the directory. At last it
//! stores `META`, with a log base right after the snapshot's entry. So a crash leaves a complete
//! restore, or an empty directory into which the restore can be repeated.
//!
//! Restore stores `META` twice, into both of its slots. Otherwise one unreadable slot would make a
//! whole directory look like one that was never completed.

use std::path::Path;
#[cfg(any(test, feature = "testing"))]
use std::sync::Arc;

use crate::config::{CommitMode, Contiguity};
use crate::disk::Disk;
use crate::disk::names::{META_FILE, snapshot_name};
use crate::disk::real::around::refuse_inside;
use crate::disk::real::{OpenMode, RealDisk};
use crate::entry::LogId;
use crate::error::{OpenError, SnapshotError};
use crate::log::meta::{LogBase, Meta, MetaFile};
use crate::log::recovery::files::{list_files, remove_leftovers};
use crate::snapshot::Snapshot;
use crate::snapshot::file::copy_snapshot_file;

/// Result of [`restore`].
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The last entry in the state; the log continues after it.
    #[cfg_attr(feature = "serde", serde(flatten, serialize_with = "crate::serial::of"))]
    pub log_id: LogId,
    /// Number of keys in the state; 0 for an embedder's machine.
    pub keys: u64,
    /// Length of the snapshot in bytes.
    pub bytes: u64,
}

/// Makes a data directory at `directory` with the state of the snapshot file at `snapshot`, and
/// with the given `commit_mode`. The directory must not exist, or be empty (except for what file
/// systems put there), or be the rest of an interrupted restore. Its parent must exist.
///
/// The call reads the snapshot and writes it once. It verifies the whole snapshot first. A crash on
/// the way leaves a directory that reads as empty.
///
/// The directory has no hard state: to a consensus engine the node is a new one, and must be added
/// as such.
///
/// # Errors
///
/// Returns [`OpenError::Corrupt`] for a damaged file, [`OpenError::NotEmpty`] for a directory that
/// has a log, and [`OpenError::InsideDataDirectory`] for a path in a data directory. Returns
/// [`OpenError::Snapshot`] for a file that is no snapshot, or the snapshot of the state before the
/// first entry. Returns [`OpenError::Config`] for [`Contiguity::Monotone`] without
/// [`CommitMode::ByCommit`].
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
/// # manager.snapshots().write_to(&mut out)?;
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

/// Checks all of a snapshot, and returns its entry.
pub(crate) fn verified(snapshot: &Snapshot) -> Result<LogId, OpenError> {
    snapshot.verify().map_err(OpenError::of_snapshot)?;
    let what = "restoring the state before the first entry: start with an empty directory";
    snapshot.log_id().ok_or(OpenError::Snapshot(SnapshotError::Unsupported { what }))
}

/// Restores as [`restore`] does, from a verified snapshot of `log_id`, on any disk.
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
        contiguity,
        state: Some(snapshot.kind()),
        is_kept: false,
        ..fresh
    };
    meta_file.store_twice(&meta).map_err(|error| OpenError::io("writing", META_FILE, error))?;
    let (keys, bytes) = (snapshot.len(), snapshot.bytes());
    Ok(RestoreReport { log_id, keys, bytes })
}

/// Restores a snapshot's bytes on a disk, for [`testing`](crate::testing).
#[cfg(any(test, feature = "testing"))]
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
