//! The calls on snapshots and views: the facet [`Snapshots`].

use std::time::Duration;

use crate::apply::desks::views::take_view;
use crate::apply::engine::Engine;
use crate::apply::manager::ApplyManager;
use crate::contract::machine::StateMachine;
use crate::contract::view::View;
use crate::entry::LogId;
use crate::error::{SnapshotError, ViewError};
use crate::snapshot::{Snapshot, SnapshotReceiver, SnapshotSink};

/// Report of [`Snapshots::write`].
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotReport {
    /// The snapshot's entry: everything up to it is in the snapshot, and nothing after it. `None`:
    /// there is no entry yet, and no snapshot was written to a directory.
    #[cfg_attr(feature = "serde", serde(flatten, serialize_with = "crate::serial::entry"))]
    pub log_id: Option<LogId>,
    /// Number of keys; 0 for an embedder's machine.
    pub keys: u64,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Duration of the snapshot.
    #[cfg_attr(feature = "serde", serde(rename = "ms", serialize_with = "crate::serial::millis"))]
    pub elapsed: Duration,
}

/// Report of [`Snapshots::compact`].
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionReport {
    /// The snapshot that was written for it.
    #[cfg_attr(feature = "serde", serde(flatten, serialize_with = "crate::serial::snapshot"))]
    pub snapshot: SnapshotReport,
    /// The last entry that was purged from the log.
    #[cfg_attr(feature = "serde", serde(rename = "purged_index"))]
    pub purged: Option<u64>,
    /// Number of segments that the log gave up. Their files are kept for reuse or removed.
    pub segments: u64,
    /// Duration of the whole compaction.
    #[cfg_attr(feature = "serde", serde(rename = "ms", serialize_with = "crate::serial::millis"))]
    pub elapsed: Duration,
}

/// Snapshots and views of an [`ApplyManager`], and giving up the log that a snapshot covers; made
/// by [`ApplyManager::snapshots`].
///
/// It borrows the manager and is free to copy. Its calls may be made from any thread.
///
/// Calls without a timeout take long for a large state or a slow disk. A timeout could not tell a
/// slow call from a stuck one. A snapshot that is being written into the directory ends when the
/// manager is closed.
#[derive(Debug)]
pub struct Snapshots<'m, M: StateMachine> {
    engine: &'m Engine<M>,
}

impl<M: StateMachine> Clone for Snapshots<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: StateMachine> Copy for Snapshots<'_, M> {}

impl<M: StateMachine> ApplyManager<M> {
    /// Snapshots and views of the state. A machine without a log has no directory for snapshots:
    /// calls that need one say so.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots<'_, M> {
        Snapshots { engine: &self.engine }
    }
}

impl<M: StateMachine> Snapshots<'_, M> {
    /// Writes the state at one exact index into the data directory, and makes it durable. The index
    /// is that of the last entry given to the workers at a moment after the call began: see
    /// [`view`](Snapshots::view). Apply continues meanwhile. (An embedder's machine stops applying
    /// while its [`snapshot`](StateMachine::snapshot) runs.) The next open starts from the
    /// snapshot.
    ///
    /// The log stays as it is: see [`compact`](Snapshots::compact). The snapshot before this one
    /// stays too, and older ones are removed. The call costs a view, and writing every key and
    /// value once.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError`]; the engine continues, and the directory has no partial snapshot.
    /// It is [`SnapshotError::Corrupt`] if values are in a snapshot that can no longer be read
    /// back: see [`compact`](Snapshots::compact).
    pub fn write(&self) -> Result<SnapshotReport, SnapshotError> {
        let _tasks = self.engine.pipeline().wakes_tasks();
        self.engine.snapshot_work().snapshot()
    }

    /// Writes the bytes of a snapshot file, with the state at one exact index, to `out`.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError`]; the engine continues.
    pub fn write_to(&self, out: &mut dyn SnapshotSink) -> Result<SnapshotReport, SnapshotError> {
        let _tasks = self.engine.pipeline().wakes_tasks();
        self.engine.snapshot_work().snapshot_to(out)
    }

    /// A view of the state at one exact index. It is that of the last entry given to the workers
    /// when the view's token was put into their rings. That is after the call began. Apply
    /// continues meanwhile; a worker stops only to copy one shard (some 500 keys) before it writes
    /// to it.
    ///
    /// One view is taken at a time; another call waits for its turn. The call costs a copy of every
    /// key's slot, and a sort. After an opening from a snapshot, it first puts the rest of that
    /// into the store.
    ///
    /// # Errors
    ///
    /// Returns [`ViewError::Unsupported`] for a machine that is not one of the built-in key-value
    /// machines. Returns [`ViewError::Snapshot`] if a part of that snapshot cannot be read back,
    /// [`ViewError::Read`] if the machine's storage fails, or [`ViewError::Poisoned`].
    pub fn view(&self) -> Result<View, ViewError> {
        let _tasks = self.engine.pipeline().wakes_tasks();
        take_view(self.engine.pipeline())
    }

    /// Writes a snapshot as [`write`](Snapshots::write) does, from a
    /// [`view`](Snapshots::view) of this engine that was taken before. It serves callers that
    /// fix the index in one place and write in another.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`write`](Snapshots::write), and [`SnapshotError::Stale`] if
    /// there is a newer snapshot.
    pub fn write_view(&self, view: View) -> Result<SnapshotReport, SnapshotError> {
        let _tasks = self.engine.pipeline().wakes_tasks();
        self.engine.snapshot_work().snapshot_of(view)
    }

    /// Takes a snapshot and gives up the part of the log that it covers: whole segments, without
    /// the last [`retain_entries`](crate::PersistentConfig::retain_entries) entries. Apply
    /// continues meanwhile.
    ///
    /// A machine over a storage writes no snapshot: the storage syncs, and the log is given up as
    /// far as the storage has it.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError`]. If the snapshot cannot be written, the log stays as it is. A
    /// failure to move the log's beginning poisons the engine. [`SnapshotError::Corrupt`] names
    /// damage of the part to be given up: a segment of the log, or the snapshot before. Then
    /// everything stays, and opening finds the damage too. The engine continues, and each
    /// compaction fails. The check reads once more everything that is given up.
    pub fn compact(&self) -> Result<CompactionReport, SnapshotError> {
        let _tasks = self.engine.pipeline().wakes_tasks();
        self.engine.snapshot_work().compact()
    }

    /// The newest snapshot in the data directory, for reading in place or sending; `None` before
    /// the first.
    ///
    /// The call does not wait for a snapshot that is being written. The result stays readable after
    /// a newer snapshot has replaced it, and keeps the directory locked.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError`] if the snapshot cannot be read back, and
    /// [`SnapshotError::Unsupported`] for a machine without a log.
    pub fn newest(&self) -> Result<Option<Snapshot>, SnapshotError> {
        self.engine.snapshot_work().newest_snapshot()
    }

    /// Begins to receive a snapshot of another node, in pieces ([`Snapshot::pieces`]), for
    /// [`install`](Snapshots::install). There is one receiver at a time; a dropped one leaves
    /// nothing.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::Busy`] while there is another receiver, and
    /// [`SnapshotError::Unsupported`] for a machine without a log: give it a snapshot by
    /// [`restore`](Snapshots::restore).
    pub fn receive(&self) -> Result<SnapshotReceiver, SnapshotError> {
        self.engine.snapshot_work().receive_snapshot()
    }

    /// Verifies all of a received snapshot, and replaces state and log by it: the next entry is the
    /// one after it.
    ///
    /// Uncommitted entries of the log are removed, and their waiters get
    /// [`WaitError::Truncated`](crate::error::WaitError::Truncated). If the log has the snapshot's
    /// last entry under the same log id, no entry is removed. Entries up to there are committed and
    /// applied instead.
    ///
    /// Reads continue meanwhile, and find the old value of a key or the new one. Submissions and
    /// commits wait. `timeout` limits the wait for committed entries to be applied and for the log
    /// to be written. Verifying and loading the snapshot have no limit.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError`]; with every error the received snapshot is dropped, and must be
    /// received again. It is [`SnapshotError::Io`] when `timeout` is over, and
    /// [`SnapshotError::Stale`] if the snapshot goes no further than the committed entries. It is
    /// [`SnapshotError::OtherKind`] for a snapshot of another kind of machine, and
    /// [`SnapshotError::OtherDirectory`] for one that another manager received. If the snapshot
    /// fails verification, cannot be written, or there is no room for the new log, nothing has
    /// changed. A later failure poisons the engine, and the next open has the old state or the new
    /// one.
    pub fn install(
        &self,
        received: SnapshotReceiver,
        timeout: Duration,
    ) -> Result<SnapshotReport, SnapshotError> {
        let _tasks = self.engine.pipeline().wakes_tasks();
        self.engine.snapshot_work().install(received, timeout)
    }

    /// Installs as [`install`](Snapshots::install) does, from a snapshot that is open here. If
    /// there is a directory, the snapshot is copied into it first.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`install`](Snapshots::install).
    pub fn restore(
        &self,
        snapshot: &Snapshot,
        timeout: Duration,
    ) -> Result<SnapshotReport, SnapshotError> {
        let _tasks = self.engine.pipeline().wakes_tasks();
        self.engine.snapshot_work().restore(snapshot, timeout)
    }
}
