//! A storage for the key-value machine: sorted maps in memory. Run it with `cargo run --example
//! storage`.
//!
//! A storage of yours replaces the maps. `sprag::testing::storage::Suite` checks whether it does
//! what the machine relies on.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sprag::{
    ApplyConfig, ApplyManager, Command, PersistentStateMachine, ScanEach, Storage, StorageBatch,
    StorageConfig, StorageError, StorageSnapshot, Table,
};

type Keys = BTreeMap<Vec<u8>, Vec<u8>>;
/// The tables. A snapshot shares the maps; a batch copies a shared map before it changes it.
type Tables = BTreeMap<Table, Arc<Keys>>;

/// A storage in memory; clones are the same storage.
#[derive(Clone, Default)]
pub struct MapStorage(Arc<RwLock<Tables>>);

impl MapStorage {
    fn change<R>(&self, change: impl FnOnce(&mut Tables) -> R) -> Result<R, StorageError> {
        Ok(change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Storage for MapStorage {
    type Snapshot = MapSnapshot;

    fn name(&self) -> &'static str {
        "map"
    }

    fn tables(&self) -> Result<Vec<Table>, StorageError> {
        Ok(self.snapshot()?.0.into_keys().collect())
    }

    fn create_table(&self, table: Table) -> Result<(), StorageError> {
        self.change(|tables| {
            tables.entry(table).or_default();
        })
    }

    fn remove_table(&self, table: Table) -> Result<(), StorageError> {
        self.change(|tables| drop(tables.remove(&table)))
    }

    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        self.snapshot()?.get(table, key, read)
    }

    /// Commits a batch. Memory is the only storage here, so a committed batch counts as durable.
    fn commit(&self, batch: &StorageBatch, _sync: bool) -> Result<bool, StorageError> {
        self.change(|tables| {
            for (table, key, value) in batch.writes() {
                let keys = Arc::make_mut(tables.entry(table).or_default());
                match value {
                    Some(value) => drop(keys.insert(key.to_vec(), value.to_vec())),
                    None => drop(keys.remove(key)),
                }
            }
            true
        })
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn snapshot(&self) -> Result<MapSnapshot, StorageError> {
        Ok(MapSnapshot(self.0.read().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}

/// The maps at one moment.
pub struct MapSnapshot(Tables);

impl MapSnapshot {
    /// The pairs between two bounds. `BTreeMap::range` panics where the bounds exclude each other,
    /// so they are compared first.
    fn range<'a>(
        &'a self,
        table: Table,
        from: Bound<&'a [u8]>,
        to: Bound<&'a [u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)> {
        use Bound::{Excluded, Included};
        let is_empty = match (from, to) {
            (Included(from), Included(to)) => from > to,
            (Included(from) | Excluded(from), Included(to) | Excluded(to)) => from >= to,
            _ => false,
        };
        let keys = self.0.get(&table).filter(|_| !is_empty).into_iter();
        keys.flat_map(move |keys| keys.range::<[u8], _>((from, to)))
    }
}

impl StorageSnapshot for MapSnapshot {
    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        let value = self.0.get(&table).and_then(|keys| keys.get(key));
        Ok(value.map(|value| read(value)).is_some())
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError> {
        let _broken = self.range(table, from, to).try_for_each(|(key, value)| each(key, value));
        Ok(())
    }

    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError> {
        let mut back = self.range(table, from, to).rev();
        let _broken = back.try_for_each(|(key, value)| each(key, value));
        Ok(())
    }
}

#[allow(dead_code, reason = "a test includes this file for the storage")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let timeout = Duration::from_secs(10);
    let storage = MapStorage::default();
    let machine = PersistentStateMachine::with_storage(storage.clone(), StorageConfig::new())?;
    let manager = ApplyManager::new(machine, ApplyConfig::new())?;
    manager.propose(Command::put(b"color", b"green"), timeout)?;
    manager.propose(Command::increment(b"visits", 1), timeout)?;
    for entry in &manager.snapshots().view()? {
        let (key, value) = entry?;
        println!("{} = {}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
    }
    manager.close(timeout)?;
    Ok(())
}
