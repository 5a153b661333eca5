//! Tests of a machine over a storage that keeps its state in a directory. The crates of storages
//! include these files.

pub mod kill;
pub mod memory;

use std::path::Path;
use std::time::Duration;

use sprag::machine::storage::{Storage, StorageMachine};
use sprag::{ApplyConfig, ApplyManager, Entry, PersistentStateMachine, StorageConfig};

pub const PATIENT: Duration = Duration::from_secs(60);

pub type Manager<S> = ApplyManager<StorageMachine<S>>;

/// A function that opens a storage in an existing directory.
pub type Open<S> = fn(&Path) -> S;

/// The engine over a storage; `None` where a machine over it does not open.
pub fn manage<S: Storage>(storage: S, config: StorageConfig) -> Option<Manager<S>> {
    let machine = PersistentStateMachine::with_storage(storage, config).ok()?;
    Some(ApplyManager::new(machine, ApplyConfig::new()).unwrap())
}

/// An entry that adds one to a key, so that the key's value is the number of applied entries.
pub fn entry(index: u64) -> Entry<'static> {
    Entry::increment(index, 1, b"count", 1)
}

/// Number of applied entries, by the log id of the storage and by their effects.
pub fn applied<S: Storage>(manager: &Manager<S>) -> u64 {
    let by_log_id = manager.applied().map_or(0, |last| last.index);
    let value = manager.machine().get(b"count").unwrap();
    let by_state = value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap());
    assert_eq!(by_log_id, by_state, "an entry is applied once");
    by_log_id
}
