//! Tests of the machine over a storage: its commits, its reads, its state after another opening,
//! and its refusals.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod cache;
mod commands;
mod installing;
mod opening;
mod suite;

use std::time::Duration;

use sprag::testing::storage::MemoryStorage;
use sprag::{
    ApplyConfig, ApplyManager, PersistentStateMachine, Storage, StorageConfig, StorageMachine,
    Table,
};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) type Machine = StorageMachine<MemoryStorage>;

/// Opens the machine over a storage.
pub(crate) fn open(storage: &MemoryStorage) -> Machine {
    PersistentStateMachine::with_storage(storage.clone(), StorageConfig::new()).unwrap()
}

/// Opens the machine over a storage, with a manager.
pub(crate) fn manage(storage: &MemoryStorage) -> ApplyManager<Machine> {
    ApplyManager::new(open(storage), ApplyConfig::new()).unwrap()
}

/// The bytes under a key of a table.
pub(crate) fn raw(storage: &MemoryStorage, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    storage.get(table, key, &mut |bytes| found = Some(bytes.to_vec())).unwrap();
    found
}
