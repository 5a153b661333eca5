//! A storage in memory that fails, fills up and loses unsynced changes on demand.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::error::StorageError;
use crate::machine::storage::{
    ScanEach, Storage, StorageBatch, StorageSnapshot, StorageStats, Table,
};
use crate::sync::{Mutex, Rank};

/// A [`Storage`] in memory. Clones share the storage: keep one to open the machine again, or to
/// make it fail.
///
/// Batches that are committed without a sync are kept separately until the next sync.
/// [`after_power_cut`](MemoryStorage::after_power_cut) returns the storage that a power cut at this
/// moment leaves.
///
/// ```
/// use sprag::testing::storage::MemoryStorage;
/// use sprag::{Storage, StorageBatch, Table};
///
/// let storage = MemoryStorage::new();
/// storage.create_table(Table::State(1))?;
/// storage.sync()?;
/// let mut batch = StorageBatch::new();
/// batch.put(Table::State(1), b"key", b"value");
/// storage.commit(&batch, false)?;
///
/// let has_key = |storage: &MemoryStorage| storage.get(Table::State(1), b"key", &mut |_| ());
/// assert!(has_key(&storage)?);
/// assert!(!has_key(&storage.after_power_cut(0))?);
/// assert!(has_key(&storage.after_power_cut(1))?);
/// # Ok::<(), sprag::StorageError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStorage(Arc<Mutex<State>>);

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::of(State::default())
    }
}

type Keys = BTreeMap<Box<[u8]>, Arc<[u8]>>;
/// The tables. Snapshots share them until a batch changes them.
type Tables = BTreeMap<Table, Arc<Keys>>;

#[derive(Debug, Default)]
struct State {
    current: Tables,
    /// The content that every power cut leaves.
    durable: Tables,
    /// Changes since the last sync.
    unsynced: Vec<Change>,
    /// Number of changes and syncs that were requested.
    operations: u64,
    batches: u64,
    syncs: u64,
    faults: Faults,
    syncs_every: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// The first operation that fails, and whether all later ones do.
    from: Option<(u64, Lasts)>,
    reads: bool,
    /// Limit of the bytes of keys and values.
    capacity: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lasts {
    Once,
    /// All later ones fail, as without power: the change may be among those that a power cut
    /// leaves.
    Forever,
}

/// A key of a table and its new value.
type Write = (Table, Box<[u8]>, Option<Arc<[u8]>>);

/// One change.
#[derive(Debug)]
enum Change {
    Create(Table),
    Remove(Table),
    Batch(Vec<Write>),
}

impl Change {
    fn apply(&self, tables: &mut Tables) {
        match self {
            Self::Create(table) => {
                tables.entry(*table).or_default();
            }
            Self::Remove(table) => {
                tables.remove(table);
            }
            Self::Batch(writes) => {
                for (table, key, value) in writes {
                    let Some(keys) = tables.get_mut(table) else { continue };
                    let keys = Arc::make_mut(keys);
                    match value {
                        Some(value) => keys.insert(key.clone(), Arc::clone(value)),
                        None => keys.remove(key),
                    };
                }
            }
        }
    }
}

/// Controls of failures.
impl MemoryStorage {
    /// Makes a storage without tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the next `operations` changes (tables made and removed, batches, syncs) succeed, and
    /// makes all later ones fail, until [`heal`](MemoryStorage::heal). A power cut may leave any of
    /// the failed ones.
    pub fn fail_after(&self, operations: u64) {
        let mut state = self.0.lock();
        state.faults.from = Some((state.operations + operations, Lasts::Forever));
    }

    /// Lets the next `operations` changes succeed, makes the one after them fail without an effect,
    /// and lets later ones succeed.
    pub fn fail_once_after(&self, operations: u64) {
        let mut state = self.0.lock();
        state.faults.from = Some((state.operations + operations, Lasts::Once));
    }

    /// Sets whether reads and snapshots fail.
    pub fn fail_reads(&self, fail: bool) {
        self.0.lock().faults.reads = fail;
    }

    /// Sets the limit of the bytes of keys and values in all tables: a batch that needs more fails,
    /// as on a full disk.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.0.lock().faults.capacity = bytes;
    }

    /// Ends all failures.
    pub fn heal(&self) {
        self.0.lock().faults = Faults::default();
    }

    /// Makes the storage report that it syncs on its own at this interval. It does not sync.
    pub fn set_syncs_every(&self, interval: Option<Duration>) {
        self.0.lock().syncs_every = interval;
    }

    /// The storage that a power cut at this moment leaves: everything synced, and the first `keep`
    /// of the later changes.
    #[must_use]
    pub fn after_power_cut(&self, keep: usize) -> Self {
        let state = self.0.lock();
        let mut current = state.durable.clone();
        state.unsynced.iter().take(keep).for_each(|change| change.apply(&mut current));
        let durable = current.clone();
        Self::of(State { current, durable, ..State::default() })
    }
}

/// Counts.
impl MemoryStorage {
    /// Number of changes since the last sync.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.0.lock().unsynced.len()
    }

    /// Number of changes and syncs that were requested.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Number of batches that were committed.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.0.lock().batches
    }

    /// Number of syncs, including those of batches.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    fn of(state: State) -> Self {
        Self(Arc::new(Mutex::new(Rank::MemoryStorage, state)))
    }
}

impl State {
    fn change(&mut self, what: &'static str, change: Change) -> Result<(), StorageError> {
        match self.next_operation(what) {
            Err((error, Lasts::Once)) => Err(error),
            Err((error, Lasts::Forever)) => {
                self.unsynced.push(change);
                Err(error)
            }
            Ok(()) => {
                change.apply(&mut self.current);
                self.unsynced.push(change);
                Ok(())
            }
        }
    }

    fn next_operation(&mut self, what: &'static str) -> Result<(), (StorageError, Lasts)> {
        let number = self.operations;
        self.operations += 1;
        match self.faults.from {
            Some((from, lasts)) if number == from || number > from && lasts == Lasts::Forever => {
                let source = io::Error::other("it was told to fail");
                Err((StorageError::Io { what, source }, lasts))
            }
            _ => Ok(()),
        }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.next_operation("syncing").map_err(|(error, _)| error)?;
        self.settle();
        Ok(())
    }

    fn settle(&mut self) {
        self.syncs += 1;
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    fn bytes(&self) -> usize {
        let values = self.current.values().flat_map(|keys| keys.iter());
        values.map(|(key, value)| key.len() + value.len()).sum()
    }

    fn check_room(&self, batch: &StorageBatch) -> Result<(), StorageError> {
        let Some(capacity) = self.faults.capacity else { return Ok(()) };
        let added =
            batch.writes().map(|(_, key, value)| value.map_or(0, |value| key.len() + value.len()));
        if self.bytes() + added.sum::<usize>() <= capacity {
            return Ok(());
        }
        let source = io::ErrorKind::StorageFull.into();
        Err(StorageError::Io { what: "committing a batch", source })
    }

    fn check_read(&self) -> Result<(), StorageError> {
        if !self.faults.reads {
            return Ok(());
        }
        let source = io::Error::other("it was told to fail");
        Err(StorageError::Io { what: "reading", source })
    }
}

impl Storage for MemoryStorage {
    type Snapshot = MemorySnapshot;

    fn name(&self) -> &'static str {
        "memory"
    }

    fn tables(&self) -> Result<Vec<Table>, StorageError> {
        let state = self.0.lock();
        state.check_read()?;
        Ok(state.current.keys().copied().collect())
    }

    fn create_table(&self, table: Table) -> Result<(), StorageError> {
        self.0.lock().change("making a table", Change::Create(table))
    }

    fn remove_table(&self, table: Table) -> Result<(), StorageError> {
        self.0.lock().change("removing a table", Change::Remove(table))
    }

    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        let state = self.0.lock();
        state.check_read()?;
        let found = state.current.get(&table).and_then(|keys| keys.get(key)).cloned();
        drop(state);
        if let Some(value) = &found {
            read(value);
        }
        Ok(found.is_some())
    }

    fn commit(&self, batch: &StorageBatch, sync: bool) -> Result<bool, StorageError> {
        let mut state = self.0.lock();
        if batch.writes().any(|(table, _, _)| !state.current.contains_key(&table)) {
            let message = "a batch names a table that does not exist".to_owned();
            return Err(StorageError::Failed { what: "committing a batch", message });
        }
        state.check_room(batch)?;
        let owned = |(table, key, value): (Table, &[u8], Option<&[u8]>)| {
            (table, Box::from(key), value.map(Arc::from))
        };
        let writes = batch.writes().map(owned).collect();
        state.change("committing a batch", Change::Batch(writes))?;
        state.batches += 1;
        if sync {
            state.settle();
        }
        Ok(sync)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.0.lock().sync()
    }

    fn syncs_every(&self) -> Option<Duration> {
        self.0.lock().syncs_every
    }

    fn snapshot(&self) -> Result<MemorySnapshot, StorageError> {
        let state = self.0.lock();
        state.check_read()?;
        Ok(MemorySnapshot(state.current.clone()))
    }

    fn stats(&self) -> StorageStats {
        StorageStats::new(None, Some(self.0.lock().bytes() as u64))
    }
}

/// The tables of a [`MemoryStorage`] at one moment.
#[derive(Clone, Debug)]
pub struct MemorySnapshot(Tables);

impl MemorySnapshot {
    fn range(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&Box<[u8]>, &Arc<[u8]>)> {
        let is_empty = match (from, to) {
            (Bound::Excluded(from), Bound::Excluded(to)) => from >= to,
            (
                Bound::Included(from) | Bound::Excluded(from),
                Bound::Included(to) | Bound::Excluded(to),
            ) => from > to,
            _ => false,
        };
        let keys = self.0.get(&table).filter(|_| !is_empty);
        keys.into_iter().flat_map(move |keys| keys.range::<[u8], _>((from, to)))
    }
}

impl StorageSnapshot for MemorySnapshot {
    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        let found = self.0.get(&table).and_then(|keys| keys.get(key));
        if let Some(value) = found {
            read(value);
        }
        Ok(found.is_some())
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError> {
        let mut range = self.range(table, from, to);
        let _broken = range.try_for_each(|(key, value)| each(key, value));
        Ok(())
    }

    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError> {
        let mut range = self.range(table, from, to).rev();
        let _broken = range.try_for_each(|(key, value)| each(key, value));
        Ok(())
    }
}
