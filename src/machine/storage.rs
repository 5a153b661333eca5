//! The seam to other storages: the operations of a store of keys and values that a state machine
//! can stand on.
//!
//! A [`Storage`] has tables, keys and values, and commits a [`StorageBatch`] as a whole. The
//! machine knows the meaning of commands, the applied position of the log, and the form of
//! snapshots.

pub(crate) mod cache;
#[cfg(test)]
mod cache_tests;
mod machine;
mod meta;
mod open;
mod stage;
pub(crate) mod view;
mod views;

use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::time::Duration;

pub use crate::config::storage::StorageConfig;
pub use crate::error::StorageError;
pub use machine::StorageMachine;

/// A table of a storage. Each table has its own keys, in the order of their bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// A few short records: the format, the current generation, the last applied log id, the
    /// membership.
    Meta,
    /// The notes of one generation of the state.
    Notes(u64),
    /// Keys and values of one generation of the state. An installation fills the next generation
    /// beside the current one.
    State(u64),
}

impl fmt::Display for Table {
    /// Writes the table's name for a storage: `meta`, `notes-0000000000000001`,
    /// `state-0000000000000001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => f.write_str("meta"),
            Self::Notes(generation) => write!(f, "notes-{generation:016x}"),
            Self::State(generation) => write!(f, "state-{generation:016x}"),
        }
    }
}

impl std::str::FromStr for Table {
    type Err = ();

    /// Parses a name that the table displays as.
    fn from_str(name: &str) -> Result<Self, ()> {
        let generation = |digits: &str| {
            let number = u64::from_str_radix(digits, 16).map_err(|_| ())?;
            // Accept only the one name that the table displays as.
            if digits == format!("{number:016x}") { Ok(number) } else { Err(()) }
        };
        match name.split_once('-') {
            None if name == "meta" => Ok(Self::Meta),
            Some(("notes", digits)) => generation(digits).map(Self::Notes),
            Some(("state", digits)) => generation(digits).map(Self::State),
            _ => Err(()),
        }
    }
}

/// A store of keys and values that a state machine can stand on.
///
/// Keys are 1 byte to 64 KiB long, values 0 bytes to 16 MiB. One thread commits at a time; any
/// thread may read and take snapshots at any time.
pub trait Storage: Send + Sync + 'static {
    /// The type of [`snapshot`](Storage::snapshot).
    type Snapshot: StorageSnapshot;

    /// The name of this storage in messages and statistics, such as `fjall` or `redb`.
    fn name(&self) -> &'static str;

    /// The tables that exist, in any order.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError`] if the storage fails.
    fn tables(&self) -> Result<Vec<Table>, StorageError>;

    /// Makes a missing table; leaves an existing one unchanged. A crash right after the call may
    /// leave the table or take it back.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError`] if the storage fails.
    fn create_table(&self, table: Table) -> Result<(), StorageError>;

    /// Removes a table with its content; does nothing if it is missing. Live snapshots keep their
    /// content. After a crash the table exists as a whole or partly; the machine asks for the
    /// removal again.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError`] if the storage fails.
    fn remove_table(&self, table: Table) -> Result<(), StorageError>;

    /// Calls `read` once with the last committed value of `key`, if there is one. Returns whether
    /// there is. A missing table counts as empty.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError`] if the storage fails.
    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError>;

    /// Commits every write of `batch`, or none of them, also across a crash. Gets see the writes
    /// when this returns. Batches become durable in the order of their commits. With `sync`, this
    /// one and all before it are on stable storage when this returns.
    ///
    /// Returns whether this batch and all before it are on stable storage, which may be true
    /// without `sync`. The caller makes sure that every table in `batch` exists.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError`] if the storage fails. Then it is unknown whether the storage has
    /// the batch. The machine fails and is not used again; the next open finds out. A batch of a
    /// snapshot that is being loaded, into tables that are not current yet, is an exception. The
    /// machine removes these tables and continues.
    fn commit(&self, batch: &StorageBatch, sync: bool) -> Result<bool, StorageError>;

    /// Puts everything committed so far on stable storage.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError`] if the storage fails.
    fn sync(&self) -> Result<(), StorageError>;

    /// Interval at which the storage itself syncs batches committed without `sync`; `None` if it
    /// does not.
    fn syncs_every(&self) -> Option<Duration> {
        None
    }

    /// A snapshot of everything committed at this moment, for reads while later batches are
    /// committed.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError`] if the storage fails.
    fn snapshot(&self) -> Result<Self::Snapshot, StorageError>;

    /// The storage's own figures.
    fn stats(&self) -> StorageStats {
        StorageStats::default()
    }
}

/// Callback of a scan for each key and its value. The scan ends where the callback breaks.
pub type ScanEach<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// All tables of a storage as they were at one moment.
pub trait StorageSnapshot: Send + Sync + 'static {
    /// Reads as [`Storage::get`] does, at that moment.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError`] if the storage fails.
    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError>;

    /// Calls `each` with the keys between the bounds and their values, in the order of their bytes,
    /// until it breaks. `each` may take long and may use the storage. A missing table is empty, and
    /// so is a range whose bounds exclude each other.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError`] if the storage fails.
    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError>;

    /// Scans the same range from the last key to the first.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError`] if the storage fails.
    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError>;
}

/// Figures of a storage; `None` where it does not have the figure.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageStats {
    /// Bytes on disk.
    pub disk_bytes: Option<u64>,
    /// Bytes of memory of its caches and write buffers.
    pub memory_bytes: Option<u64>,
    /// Number of compactions that are running.
    pub compactions_running: Option<u64>,
}

impl StorageStats {
    /// Makes the figures that every storage can know.
    #[must_use]
    pub fn new(disk_bytes: Option<u64>, memory_bytes: Option<u64>) -> Self {
        Self { disk_bytes, memory_bytes, compactions_running: None }
    }
}

/// Writes that a storage commits as a whole. Each key of a table is in the batch at most once.
#[derive(Debug, Default)]
pub struct StorageBatch {
    bytes: Vec<u8>,
    writes: Vec<Write>,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    table: Table,
    key_start: usize,
    key_len: usize,
    value_start: usize,
    /// Length of the value; `None`: the key is removed.
    value_len: Option<usize>,
}

impl StorageBatch {
    /// Makes a batch without writes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a write that sets `key` to `value`.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.push(table, key, Some(value));
    }

    /// Adds a write that removes the value of `key`, if it has one.
    pub fn remove(&mut self, table: Table, key: &[u8]) {
        self.push(table, key, None);
    }

    fn push(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let key_start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let value_start = self.push_value(value);
        let value_len = value.map(<[u8]>::len);
        self.writes.push(Write { table, key_start, key_len: key.len(), value_start, value_len });
    }

    fn push_value(&mut self, value: Option<&[u8]>) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value.unwrap_or_default());
        start
    }

    /// Every write, in the order in which it was added: table, key, and the new value or `None` for
    /// a removal.
    pub fn writes(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        self.writes.iter().map(|write| (write.table, self.key_of(write), self.value_of(write)))
    }

    /// Table and key of write number `at`.
    pub(crate) fn key(&self, at: usize) -> Option<(Table, &[u8])> {
        self.writes.get(at).map(|write| (write.table, self.key_of(write)))
    }

    /// The value of write number `at`; `None` for a removal.
    pub(crate) fn value(&self, at: usize) -> Option<&[u8]> {
        self.value_of(self.writes.get(at)?)
    }

    /// Replaces the effect of write number `at` on its key. The bytes of the earlier value stay
    /// until the batch is cleared.
    pub(crate) fn replace(&mut self, at: usize, value: Option<&[u8]>) {
        let value_start = self.push_value(value);
        if let Some(write) = self.writes.get_mut(at) {
            (write.value_start, write.value_len) = (value_start, value.map(<[u8]>::len));
        }
    }

    /// Bytes of all keys and values, including replaced ones.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Frees memory beyond `bytes` bytes of keys and values.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        self.bytes.shrink_to(bytes);
    }

    fn key_of(&self, write: &Write) -> &[u8] {
        self.part(write.key_start, write.key_len)
    }

    fn value_of(&self, write: &Write) -> Option<&[u8]> {
        write.value_len.map(|len| self.part(write.value_start, len))
    }

    fn part(&self, start: usize, len: usize) -> &[u8] {
        // A write names bytes that the batch has.
        self.bytes.get(start..start + len).unwrap_or_default()
    }

    /// Number of writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there are no writes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Removes all writes and keeps the memory for the next ones.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.writes.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_table_has_one_name_and_comes_back_from_it() {
        for table in [Table::Meta, Table::Notes(0), Table::State(u64::MAX), Table::State(26)] {
            assert_eq!(table.to_string().parse(), Ok(table));
        }
        for other in
            ["", "meta-1", "state", "state-1a", "state-000000000000001A", "notes-+000000000000001"]
        {
            assert_eq!(other.parse::<Table>(), Err(()), "{other}");
        }
    }

    #[test]
    fn a_batch_gives_its_writes_back_in_order_and_is_empty_when_cleared() {
        let mut batch = StorageBatch::new();
        batch.put(Table::State(1), b"key", b"value");
        batch.put(Table::State(1), b"empty", b"");
        batch.remove(Table::Meta, b"gone");
        let writes: Vec<_> = batch.writes().collect();
        assert_eq!(writes.len(), 3);
        assert_eq!(writes[0], (Table::State(1), &b"key"[..], Some(&b"value"[..])));
        assert_eq!(writes[1], (Table::State(1), &b"empty"[..], Some(&b""[..])));
        assert_eq!(writes[2], (Table::Meta, &b"gone"[..], None));
        batch.clear();
        assert!(batch.is_empty() && batch.writes().next().is_none());
    }
}
