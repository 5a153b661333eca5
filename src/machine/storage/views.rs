//! Views of a running machine, and the installation of another node's snapshot in place of its
//! state.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::machine::{Committed, StorageMachine};
use super::meta::{StateRecord, put_membership};
use super::stage::Stage;
use super::view::Stored;
use super::{Storage, StorageBatch, Table};
use crate::contract::view::{View, Views};
use crate::entry::LogId;
use crate::error::{Poison, ReadError, SnapshotError, StorageError, ViewError};
use crate::numbers::SegmentNumber;
use crate::places::table::SegmentHold;
use crate::ranges::partition::Partition;
use crate::snapshot::{Snapshot, SnapshotKind};
use crate::sync::{Mutex, Rank, tell_under_locks};

/// Bytes of the batches in which a snapshot is loaded; the next constant is their entries.
const LOAD_BYTES: usize = 4 << 20;
const LOAD_ENTRIES: usize = 8192;

/// The view token, and the snapshot that the worker took at it.
pub(super) struct TokenReached<P> {
    came: AtomicUsize,
    taken: Mutex<Option<Result<P, SnapshotError>>>,
}

impl<P> TokenReached<P> {
    pub(super) fn new() -> Self {
        Self { came: AtomicUsize::new(0), taken: Mutex::new(Rank::StorageView, None) }
    }
}

impl<S: Storage> StorageMachine<S> {
    /// A view of the state as of the last committed batch, which does not change. The call costs
    /// the storage's own snapshot, and memory for the notes.
    ///
    /// # Errors
    ///
    /// Returns [`ViewError::Read`] if the storage fails, and [`ViewError::Poisoned`] after the
    /// engine has failed.
    pub fn view(&self) -> Result<View, ViewError> {
        self.journal.poison().check()?;
        let snapshot = self.storage.snapshot().map_err(|source| self.snapshot_error(source))?;
        let stored = self.stored(snapshot).map_err(SnapshotError::from)?;
        Ok(View::new(stored, None))
    }

    pub(super) fn stored(&self, snapshot: S::Snapshot) -> Result<Stored, ReadError> {
        Stored::new(snapshot, self.storage.name(), Arc::clone(self.journal.poison()))
    }

    fn snapshot_error(&self, source: StorageError) -> SnapshotError {
        let storage = self.storage.name();
        ReadError::Storage { storage, source: Arc::new(source) }.into()
    }

    /// A snapshot of the storage with everything applied so far. The caller is in the worker's
    /// place.
    fn take_at_token(&self) -> Result<S::Snapshot, SnapshotError> {
        self.commit_or_fail(&mut self.stage.lock())?;
        self.storage.snapshot().map_err(|source| self.snapshot_error(source))
    }

    /// Commits the stage, where the engine would not see a failure.
    fn commit_or_fail(&self, stage: &mut Stage) -> Result<(), SnapshotError> {
        if !stage.is_dirty() && !stage.has_failed {
            return Ok(());
        }
        let committed = self.commit_staged(stage);
        committed.map(|_| ()).map_err(|fatal| self.end(fatal.to_string()))
    }

    /// Fails for good: the content of the storage is unknown.
    fn end(&self, message: String) -> SnapshotError {
        let poison = Poison::Snapshot { message };
        self.journal.poison().set(poison.clone());
        self.journal.poison().get().cloned().unwrap_or(poison).into()
    }

    /// Replaces the state by that of a verified snapshot. Nothing is applied meanwhile.
    ///
    /// The snapshot is loaded into tables of a new generation, beside the current ones. One batch,
    /// with a sync, then makes these current. Batches become durable in their order, so a storage
    /// with that batch has everything loaded before.
    pub(super) fn load_snapshot(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        snapshot.check_kind(SnapshotKind::KeyValue)?;
        let mut stage = self.stage.lock();
        self.commit_or_fail(&mut stage)?;
        let generation = stage.next_generation();
        let before = stage.record().generation;
        if let Err(error) = self.fill(generation, snapshot) {
            self.remove_tables(generation);
            return Err(error);
        }
        let record = StateRecord { generation, applied: snapshot.log_id(), keys: snapshot.len() };
        self.switch(&mut stage, record, snapshot.membership())?;
        self.remove_tables(before);
        Ok(())
    }

    fn fill(&self, generation: u64, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let storage = self.storage.name();
        let failed = |source| SnapshotError::Storage { storage, source };
        let (state, notes) = (Table::State(generation), Table::Notes(generation));
        for table in [state, notes] {
            self.storage.create_table(table).map_err(failed)?;
        }
        let mut batch = StorageBatch::new();
        let keys = snapshot.iter().map(|entry| entry.map(|(key, value)| (state, key, value)));
        let beside = snapshot.notes().map(|(name, value)| Ok((notes, name, value)));
        for write in keys.chain(beside) {
            let (table, key, value) = write?;
            batch.put(table, key, value);
            if batch.len() >= LOAD_ENTRIES || batch.bytes() >= LOAD_BYTES {
                self.storage.commit(&batch, false).map_err(failed)?;
                batch.clear();
            }
        }
        if !batch.is_empty() {
            self.storage.commit(&batch, false).map_err(failed)?;
        }
        Ok(())
    }

    /// Makes the tables of another generation current, also after a crash.
    fn switch(
        &self,
        stage: &mut Stage,
        record: StateRecord,
        membership: Option<(LogId, &[u8])>,
    ) -> Result<(), SnapshotError> {
        let mut batch = StorageBatch::new();
        record.put(&mut batch);
        put_membership(&mut batch, membership);
        stage.has_failed = true;
        let switch = || {
            self.storage.commit(&batch, true)?;
            self.generation.store(record.generation, Ordering::Release);
            Ok(())
        };
        let switched = match &self.cache {
            Some(cache) => cache.during_switch(switch),
            None => switch(),
        };
        if let Err(error) = switched {
            let error: StorageError = error;
            let name = self.storage.name();
            let what = "whether the snapshot took the place of the state is not known";
            return Err(self.end(format!("the storage {name} failed, {what}: {error}")));
        }
        let membership = membership.map(|(log_id, bytes)| (log_id, bytes.into()));
        *self.committed.lock() = Committed { record, membership };
        *self.durable.lock() = record.applied;
        stage.clear(record);
        stage.has_failed = false;
        Ok(())
    }

    /// Removes tables that are not current. The next open removes tables that cannot be removed
    /// now.
    fn remove_tables(&self, generation: u64) {
        for table in [Table::State(generation), Table::Notes(generation)] {
            if let Err(error) = self.storage.remove_table(table) {
                let storage = self.storage.name();
                tell_under_locks(|| {
                    tracing::warn!(
                        %error,
                        %table,
                        storage,
                        "a table that is of no use was not removed"
                    );
                });
            }
        }
    }
}

impl<S: Storage> Views for StorageMachine<S> {
    fn begin_view(&self) -> Result<(), SnapshotError> {
        // A storage's snapshot is foreign code: it is dropped without the lock.
        let before = self.token.taken.lock().take();
        drop(before);
        self.token.came.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn reach_view_token(&self, partition: Partition) {
        if partition.owns(0) {
            let taken = self.take_at_token();
            let before = self.token.taken.lock().replace(taken);
            drop(before);
        }
        // Release: a caller that sees this count also sees the snapshot.
        self.token.came.fetch_add(1, Ordering::Release);
    }

    fn partitions_reached(&self) -> usize {
        self.token.came.load(Ordering::Acquire)
    }

    fn finish_view(&self, hold: SegmentHold) -> Result<View, SnapshotError> {
        let taken = self.token.taken.lock().take();
        let taken = taken.ok_or(Poison::Internal("a view has no token"))??;
        Ok(View::new(self.stored(taken)?, Some(hold)))
    }

    fn fill_some(&self) -> Result<bool, SnapshotError> {
        Ok(false)
    }

    fn load(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.load_snapshot(snapshot)
    }

    /// Values are in the storage, which verifies them itself.
    fn check_sources(&self, _stopping: &dyn Fn() -> bool) -> Result<bool, SnapshotError> {
        Ok(false)
    }

    /// Nothing refers to the log.
    fn let_go(&self, _snapshot: &Snapshot, _below: SegmentNumber) -> Result<(), SnapshotError> {
        Ok(())
    }
}
