//! Tests of the suite for storages: correct ones pass, and it finds each deliberately wrong one.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::thread;
use std::time::Duration;

use sprag::error::OpenError;
use sprag::testing::SimDisk;
use sprag::testing::storage::{Check, Failures, MemorySnapshot, MemoryStorage, Subject, Suite};
use sprag::{
    Durability, PersistentConfig, PersistentStateMachine, ScanEach, Storage, StorageBatch,
    StorageError, StorageSnapshot, Table,
};

#[allow(unreachable_pub, missing_docs, reason = "the example's own")]
#[path = "../../examples/storage.rs"]
mod example;

struct Memory;

impl Subject for Memory {
    type Storage = MemoryStorage;
    type Place = MemoryStorage;

    fn place(&self) -> MemoryStorage {
        MemoryStorage::new()
    }

    fn open(&self, place: &MemoryStorage) -> Result<MemoryStorage, StorageError> {
        Ok(place.clone())
    }

    fn crash(
        &self,
        place: MemoryStorage,
        storage: MemoryStorage,
    ) -> Result<Option<MemoryStorage>, StorageError> {
        drop(storage);
        Ok(Some(place.after_power_cut(place.unsynced() / 2)))
    }
}

/// Proves DUR-28.
#[test]
fn the_storage_in_memory_conforms() {
    Suite::new().logs(1000).entries(16).check(&Memory).unwrap();
}

/// The machine over the engine's own log, in a directory of the simulated disk.
fn over_our_log(disk: &SimDisk) -> Result<PersistentStateMachine, OpenError> {
    let config = PersistentConfig::new("simulated").segment_bytes(64 << 10).expected_keys(16);
    PersistentStateMachine::open_on_disk(disk.open(true)?, config.durability(Durability::Os))
}

#[test]
fn random_logs_over_our_own_log_give_what_a_machine_in_memory_gives() {
    Suite::new().logs(1000).entries(16).check_logged(over_our_log).unwrap();
}

/// The canary: a machine that opens without what was written must be told apart.
#[test]
fn a_machine_that_forgets_the_log_is_told_apart() {
    let forgets = |_: &SimDisk| over_our_log(&SimDisk::new(1));
    let found = Suite::new().logs(3).entries(16).check_logged(forgets).unwrap_err();
    assert_eq!(
        found.failures.iter().map(|failure| failure.check).collect::<Vec<_>>(),
        [Check::Logs]
    );
}

struct Example;

impl Subject for Example {
    type Storage = example::MapStorage;
    type Place = example::MapStorage;

    fn place(&self) -> example::MapStorage {
        example::MapStorage::default()
    }

    fn open(&self, place: &example::MapStorage) -> Result<example::MapStorage, StorageError> {
        Ok(place.clone())
    }
}

#[test]
fn the_example_of_a_storage_conforms() {
    Suite::new().seed(2).check(&Example).unwrap();
}

/// Fault of a storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    CommitsTheHalvesOfABatchOneByOne,
    ForgetsRemovals,
    TakesEmptyValuesForRemovals,
    ScansFromTheEnd,
    IncludesTheBoundThatIsExcluded,
    ScansOnWhenToldToEnd,
    LooksAtTheLastKeysOnlyByTheirFirst255Bytes,
    HasSnapshotsThatMoveOn,
    SharesKeysBetweenTables,
    SaysItSyncedWhatItDidNot,
    EmptiesATableThatIsMadeAgain,
    ForgetsToRemoveTables,
}

/// A storage that is correct except for one fault.
#[derive(Clone)]
struct Broken(MemoryStorage, Wrong);

struct BrokenSnapshot(MemorySnapshot, MemoryStorage, Wrong);

impl Broken {
    fn table(&self, table: Table) -> Table {
        match (self.1, table) {
            (Wrong::SharesKeysBetweenTables, Table::Notes(generation)) => Table::State(generation),
            _ => table,
        }
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        let is_cut = self.1 == Wrong::LooksAtTheLastKeysOnlyByTheirFirst255Bytes;
        key[..if is_cut { key.len().min(255) } else { key.len() }].to_vec()
    }
}

impl Storage for Broken {
    type Snapshot = BrokenSnapshot;

    fn name(&self) -> &'static str {
        "broken"
    }

    fn tables(&self) -> Result<Vec<Table>, StorageError> {
        self.0.tables()
    }

    fn create_table(&self, table: Table) -> Result<(), StorageError> {
        if self.1 == Wrong::EmptiesATableThatIsMadeAgain {
            self.0.remove_table(table)?;
        }
        self.0.create_table(table)
    }

    fn remove_table(&self, table: Table) -> Result<(), StorageError> {
        if self.1 == Wrong::ForgetsToRemoveTables { Ok(()) } else { self.0.remove_table(table) }
    }

    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        self.0.get(self.table(table), &self.key(key), read)
    }

    fn commit(&self, batch: &StorageBatch, sync: bool) -> Result<bool, StorageError> {
        let mut parts = vec![StorageBatch::new()];
        for (at, (table, key, value)) in batch.writes().enumerate() {
            if self.1 == Wrong::CommitsTheHalvesOfABatchOneByOne && at == batch.len() / 2 {
                parts.push(StorageBatch::new());
            }
            let part = parts.last_mut().unwrap();
            match value {
                Some(b"") if self.1 == Wrong::TakesEmptyValuesForRemovals => {
                    part.remove(table, key)
                }
                Some(value) => part.put(self.table(table), &self.key(key), value),
                None if self.1 == Wrong::ForgetsRemovals => {}
                None => part.remove(self.table(table), &self.key(key)),
            }
        }
        let count = parts.len();
        for (at, part) in parts.iter().enumerate() {
            let is_last = at + 1 == count;
            let sync = sync && is_last && self.1 != Wrong::SaysItSyncedWhatItDidNot;
            self.0.commit(part, sync)?;
            if !is_last {
                thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(sync)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.0.sync()
    }

    fn snapshot(&self) -> Result<BrokenSnapshot, StorageError> {
        Ok(BrokenSnapshot(self.0.snapshot()?, self.0.clone(), self.1))
    }
}

impl BrokenSnapshot {
    fn now(&self) -> MemorySnapshot {
        let moves_on = self.2 == Wrong::HasSnapshotsThatMoveOn;
        if moves_on { self.1.snapshot().unwrap() } else { self.0.clone() }
    }

    fn bound<'a>(&self, bound: Bound<&'a [u8]>) -> Bound<&'a [u8]> {
        match bound {
            Bound::Excluded(key) if self.2 == Wrong::IncludesTheBoundThatIsExcluded => {
                Bound::Included(key)
            }
            bound => bound,
        }
    }

    fn each(&self, each: ScanEach<'_>, key: &[u8], value: &[u8]) -> std::ops::ControlFlow<()> {
        match each(key, value) {
            _ if self.2 == Wrong::ScansOnWhenToldToEnd => std::ops::ControlFlow::Continue(()),
            flow => flow,
        }
    }
}

impl StorageSnapshot for BrokenSnapshot {
    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        self.now().get(table, key, read)
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError> {
        let (from, to) = (self.bound(from), self.bound(to));
        let mut step = |key: &[u8], value: &[u8]| self.each(each, key, value);
        match self.2 {
            Wrong::ScansFromTheEnd => self.now().scan_back(table, from, to, &mut step),
            _ => self.now().scan(table, from, to, &mut step),
        }
    }

    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError> {
        let (from, to) = (self.bound(from), self.bound(to));
        self.now().scan_back(table, from, to, &mut |key, value| self.each(each, key, value))
    }
}

struct Canary(Wrong);

impl Subject for Canary {
    type Storage = Broken;
    type Place = MemoryStorage;

    fn place(&self) -> MemoryStorage {
        MemoryStorage::new()
    }

    fn open(&self, place: &MemoryStorage) -> Result<Broken, StorageError> {
        Ok(Broken(place.clone(), self.0))
    }

    fn crash(
        &self,
        place: MemoryStorage,
        _storage: Broken,
    ) -> Result<Option<MemoryStorage>, StorageError> {
        Ok(Some(place.after_power_cut(place.unsynced() / 2)))
    }
}

#[test]
fn each_storage_that_is_wrong_is_found_by_the_check_that_is_there_for_it() {
    let canaries = [
        (Wrong::CommitsTheHalvesOfABatchOneByOne, Check::Atomicity),
        (Wrong::CommitsTheHalvesOfABatchOneByOne, Check::Crashes),
        (Wrong::ForgetsRemovals, Check::Batches),
        (Wrong::TakesEmptyValuesForRemovals, Check::Batches),
        (Wrong::ScansFromTheEnd, Check::Scans),
        (Wrong::IncludesTheBoundThatIsExcluded, Check::Scans),
        (Wrong::ScansOnWhenToldToEnd, Check::Scans),
        (Wrong::LooksAtTheLastKeysOnlyByTheirFirst255Bytes, Check::Sizes),
        (Wrong::HasSnapshotsThatMoveOn, Check::Snapshots),
        (Wrong::SharesKeysBetweenTables, Check::Tables),
        (Wrong::SaysItSyncedWhatItDidNot, Check::Crashes),
        (Wrong::EmptiesATableThatIsMadeAgain, Check::Tables),
        (Wrong::ForgetsToRemoveTables, Check::Tables),
    ];
    let mut found: BTreeMap<String, Failures> = BTreeMap::new();
    for (wrong, check) in canaries {
        let failures = found
            .entry(format!("{wrong:?}"))
            .or_insert_with(|| Suite::new().check_storage(&Canary(wrong)).unwrap_err());
        let is_found = failures.failures.iter().any(|failure| failure.check == check);
        assert!(is_found, "{wrong:?} is not found by {check}: {failures}");
    }
}

#[test]
fn the_machine_over_a_storage_that_moves_on_is_found_by_its_checks() {
    let failures = Suite::new().logs(4).check_machine(&Canary(Wrong::ForgetsRemovals)).unwrap_err();
    assert!(failures.failures.iter().any(|failure| failure.check == Check::Logs), "{failures}");
}
