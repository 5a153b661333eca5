//! The seam to other storages: what a store of keys and values does so that a state machine can stand on it.
//!
//! A [`Storage`] knows tables, keys and values, and commits a [`StorageBatch`] as a whole. What a command
//! does, how far the log is applied and what a snapshot looks like is the machine's business.

#[doc(hidden)]
pub mod cache;
#[cfg(test)]
mod cache_tests;
mod config;
mod machine;
mod meta;
mod open;
mod stage;
pub(crate) mod view;
mod views;

use std::fmt;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::time::Duration;

use super::Fatal;
use crate::config::Durability;
use crate::entry::LogId;

pub use config::StorageConfig;
pub use machine::StorageMachine;

/// A table of a storage. Each table has its own keys, in the order of their bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// A few short records: the format, which generation counts, the last applied log id, the membership.
    Meta,
    /// The notes of one generation of the state.
    Notes(u64),
    /// Keys and values of one generation of the state. An installation fills the next generation beside the
    /// one that counts.
    State(u64),
}

impl fmt::Display for Table {
    /// A name that a storage can use for the table: `meta`, `notes-0000000000000001`, `state-0000000000000001`.
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

    /// The table of a name as it displays.
    fn from_str(name: &str) -> Result<Self, ()> {
        let generation = |digits: &str| {
            let number = u64::from_str_radix(digits, 16).map_err(|_| ())?;
            // Only the one name that it displays as.
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
/// Keys are 1 byte to 64 KiB long, values 0 bytes to 16 MiB. One thread commits at a time; reads and snapshots come
/// from any thread, at any time.
pub trait Storage: Send + Sync + 'static {
    /// What [`snapshot`](Storage::snapshot) gives.
    type Snapshot: StorageSnapshot;

    /// What this storage is called in messages and statistics: `fjall`, `redb`.
    fn name(&self) -> &'static str;

    /// The tables that exist, in any order.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn tables(&self) -> Result<Vec<Table>, StorageError>;

    /// Makes a table that is missing; leaves one that exists as it is. A crash right after this may leave the table
    /// or take it back.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn create_table(&self, table: Table) -> Result<(), StorageError>;

    /// Removes a table with everything in it; does nothing if it is missing. Snapshots that are alive keep what they
    /// have. After a crash the table is there as a whole or partly; the machine asks for the removal again.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn remove_table(&self, table: Table) -> Result<(), StorageError>;

    /// Calls `read` once with the value of `key` as last committed, and says whether there is one. A table that is
    /// missing is empty.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError>;

    /// Commits every write of `batch`, or none of them, also across a crash: gets see them when this returns. Batches
    /// become durable in the order in which they were committed. With `sync`, this one and all before it are on stable
    /// storage when this returns.
    ///
    /// Returns whether that is so; it may be without `sync`. Every table that `batch` names exists.
    ///
    /// # Errors
    ///
    /// [`StorageError`]. Whether the batch is in the storage is then unknown. The machine fails and is not used
    /// again; the next open finds out. Only where the batch was of a snapshot being loaded, into tables that do not count yet,
    /// the machine removes these and goes on.
    fn commit(&self, batch: &StorageBatch, sync: bool) -> Result<bool, StorageError>;

    /// Puts everything committed so far on stable storage.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn sync(&self) -> Result<(), StorageError>;

    /// How often the storage syncs by itself what was committed without `sync`: `None` if it does not.
    fn syncs_every(&self) -> Option<Duration> {
        None
    }

    /// Everything as it is committed at this moment, for reading while later batches are committed.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn snapshot(&self) -> Result<Self::Snapshot, StorageError>;

    /// What the storage knows about itself.
    fn stats(&self) -> StorageStats {
        StorageStats::default()
    }
}

/// What a scan calls with each key and its value. The scan ends where it breaks.
pub type ScanEach<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// All tables of a storage as they were at one moment.
pub trait StorageSnapshot: Send + Sync + 'static {
    /// As [`Storage::get`], at that moment.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError>;

    /// Calls `each`, which may take long and may use the storage, with the keys between the bounds and their values, in the order of their bytes, until it breaks. A
    /// table that is missing is empty; so is a range whose bounds exclude each other.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError>;

    /// The same from the last key to the first.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError>;
}

/// What a storage knows about itself; `None` where it does not have the figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageStats {
    /// Bytes it takes on disk.
    pub disk_bytes: Option<u64>,
    /// Bytes of memory its caches and write buffers take.
    pub memory_bytes: Option<u64>,
    /// Compactions that are running.
    pub compactions_running: Option<u64>,
}

impl StorageStats {
    /// The figures that a storage knows.
    #[must_use]
    pub fn new(disk_bytes: Option<u64>, memory_bytes: Option<u64>) -> Self {
        Self { disk_bytes, memory_bytes, compactions_running: None }
    }
}

/// Writes that a storage commits as a whole. Each key of a table is in it at most once.
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
    /// `None`: the key is removed.
    value_len: Option<usize>,
}

impl StorageBatch {
    /// A batch with no writes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `key` gets `value`.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.push(table, key, Some(value));
    }

    /// `key` has no value any more, whether or not it had one.
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

    /// Every write, in the order in which it was added: table, key, and the new value or `None` for a removal.
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

    /// Replaces what write number `at` does to its key. The bytes of the value before stay until the batch is cleared.
    pub(crate) fn replace(&mut self, at: usize, value: Option<&[u8]>) {
        let value_start = self.push_value(value);
        if let Some(write) = self.writes.get_mut(at) {
            (write.value_start, write.value_len) = (value_start, value.map(<[u8]>::len));
        }
    }

    /// Bytes of all keys and values, replaced ones included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Gives back memory beyond `bytes` bytes of keys and values.
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
        self.bytes.get(start..start + len).unwrap_or_default()
    }

    /// How many writes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there are none.
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

/// A storage failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The disk refused; a full disk is among these.
    #[error("{what} failed: {source}")]
    Io {
        /// What was being done, as "committing a batch".
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// What was read is not what was written.
    #[error("the storage is damaged: {message}")]
    Corrupt {
        /// What the storage said. No key or value is in it.
        message: String,
    },
    /// Anything else that the storage said.
    #[error("{what} failed: {message}")]
    Failed {
        /// What was being done.
        what: &'static str,
        /// What the storage said. No key or value is in it.
        message: String,
    },
}

impl StorageError {
    /// Whether there is no room on the disk.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), FileTooLarge | QuotaExceeded | StorageFull)
            }
            _ => false,
        }
    }
}

/// How an engine has a machine commit many applied entries at once: of machines over a [`Storage`] only.
///
/// Such a machine has one partition. The engine calls `apply` with ranges, and then `commit`; marks and replies move
/// after the commit. All calls but `sync` and `durable` are made by the thread that holds the worker's place.
#[doc(hidden)]
pub trait Staging: Send + Sync {
    /// The engine calls `commit` from now on. Until then, as for a caller that knows only `apply`, each `apply` commits.
    fn begin(&self) {}
    /// Most entries that are applied before they are committed.
    fn batch_size(&self) -> usize;
    /// How long fewer entries than that wait for more.
    fn batch_interval(&self) -> Duration;
    /// When an acknowledgement is given where the engine has no log.
    fn durability(&self) -> Durability;
    /// The engine has a log of ours, by which entries are durable: commits need no sync. Called once, at open.
    fn leave_syncs_to_log(&self);
    /// Commits what was applied since the last call. Whether everything committed so far is durable.
    #[allow(clippy::missing_errors_doc, reason = "not called from outside")]
    fn commit(&self) -> Result<bool, Fatal>;
    /// Makes everything committed durable.
    #[allow(clippy::missing_errors_doc, reason = "not called from outside")]
    fn sync(&self) -> Result<(), Fatal>;
    /// The last entry that is durable in the storage.
    fn durable(&self) -> Option<LogId>;
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

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = |kind: io::ErrorKind| StorageError::Io {
            what: "committing a batch",
            source: kind.into(),
        };
        assert!(full(io::ErrorKind::StorageFull).is_disk_full());
        assert!(!full(io::ErrorKind::PermissionDenied).is_disk_full());
        assert!(!StorageError::Corrupt { message: String::new() }.is_disk_full());
    }
}
