//! A storage together with its place: closing the storage frees the space of the place.

use std::time::Duration;

use super::{Subject, doing};
use crate::error::StorageError;
use crate::machine::storage::{Storage, StorageBatch, StorageStats, Table};

/// A storage and its place; the storage is dropped first.
pub(super) struct Placed<S, P> {
    storage: S,
    _place: P,
}

/// Opens the storage at a new place.
pub(super) fn open_new<S: Subject>(subject: &S) -> Result<Placed<S::Storage, S::Place>, String> {
    open_at(subject, subject.place())
}

/// Opens the storage at a place.
pub(super) fn open_at<S: Subject>(
    subject: &S,
    place: S::Place,
) -> Result<Placed<S::Storage, S::Place>, String> {
    let storage = doing("opening", subject.open(&place))?;
    Ok(Placed { storage, _place: place })
}

impl<S: Storage, P: Send + Sync + 'static> Storage for Placed<S, P> {
    type Snapshot = S::Snapshot;

    fn name(&self) -> &'static str {
        self.storage.name()
    }

    fn tables(&self) -> Result<Vec<Table>, StorageError> {
        self.storage.tables()
    }

    fn create_table(&self, table: Table) -> Result<(), StorageError> {
        self.storage.create_table(table)
    }

    fn remove_table(&self, table: Table) -> Result<(), StorageError> {
        self.storage.remove_table(table)
    }

    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        self.storage.get(table, key, read)
    }

    fn commit(&self, batch: &StorageBatch, sync: bool) -> Result<bool, StorageError> {
        self.storage.commit(batch, sync)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.storage.sync()
    }

    fn syncs_every(&self) -> Option<Duration> {
        self.storage.syncs_every()
    }

    fn snapshot(&self) -> Result<S::Snapshot, StorageError> {
        self.storage.snapshot()
    }

    fn stats(&self) -> StorageStats {
        self.storage.stats()
    }
}
