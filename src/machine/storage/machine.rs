//! The key-value state machine with its keys and values in another storage.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::cache::ReadCache;
use super::meta::{Membership, StateRecord};
use super::open::{Opened, open};
use super::stage::{Stage, failed};
use super::views::TokenReached;
use super::{Storage, StorageConfig, StorageStats, Table};
use crate::bytes::to_usize;
use crate::codec::{KEY_BYTES_MAX, PayloadRef};
use crate::config::Durability;
use crate::contract::machine::{StateMachine, StateMachineStats};
use crate::contract::staging::Staging;
use crate::contract::value::Value;
use crate::contract::view::{View, Views};
use crate::entry::LogId;
use crate::error::{Fatal, OpenError, ReadError, SnapshotError, StorageError};
use crate::hook::Hook;
use crate::log::{Journal, MemoryJournal};
use crate::machine::PersistentStateMachine;
use crate::ranges::partition::{Footprint, Partition};
use crate::ranges::range::{EntryRange, Replies};
use crate::snapshot::{Snapshot, SnapshotSink, SnapshotSource};
use crate::sync::{Mutex, Rank};

/// Entries of a frame in memory; this and its bytes equal those of a
/// [`MemoryStateMachine`](crate::MemoryStateMachine).
const FRAME_ENTRIES_MAX: u32 = 128;
const FRAME_BYTES_MAX: usize = 256 << 10;

/// A key-value state machine over a [`Storage`]; [`Command`](crate::Command) lists its commands.
/// [`PersistentStateMachine::with_storage`] makes it.
///
/// An entry is applied when the storage has committed a batch with it, together with its log id.
/// From then on reads see it, and its reply is there. Any thread may read at any time. A read
/// returns its key's value as of the last committed batch, and never goes back for a key.
///
/// There is one partition, so an engine needs only one worker for it.
pub struct StorageMachine<S: Storage> {
    pub(super) storage: S,
    config: StorageConfig,
    /// The worker's stage: only a thread in the worker's post, or in all workers' posts, locks
    /// it.
    pub(super) stage: Mutex<Stage>,
    pub(super) committed: Mutex<Committed>,
    /// Cache of the keys and values of the current generation.
    pub(super) cache: Option<Arc<ReadCache>>,
    /// The generation in `committed`. It moves, with Release, after the storage has committed the
    /// switch, and before a table of the earlier generation is removed. So a read that misses a
    /// removed table sees the move.
    pub(super) generation: AtomicU64,
    /// The last entry known to be on stable storage.
    pub(super) durable: Mutex<Option<LogId>>,
    applied_count: AtomicU64,
    /// Whether the engine calls `commit`.
    engine_commits: AtomicBool,
    /// Whether our log syncs, so that commits need not.
    log_syncs: AtomicBool,
    /// The view token; one view is taken at a time.
    pub(super) token: TokenReached<S::Snapshot>,
    pub(super) journal: Journal,
}

/// The content of the storage's records.
pub(super) struct Committed {
    pub(super) record: StateRecord,
    pub(super) membership: Option<Membership>,
}

impl PersistentStateMachine {
    /// Makes a key-value state machine with its keys and values in `storage`, instead of a log of
    /// this library. It continues where the storage is ([`StateMachine::applied`]).
    ///
    /// The call costs a few reads and a sync, whatever the number of keys. After an interrupted
    /// installation of a snapshot, it also removes what that left. `storage` then belongs to the
    /// machine: nothing else may write to its tables.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError::Config`] for an option out of its range, and [`OpenError::Storage`] if
    /// the storage fails. Returns [`OpenError::UnknownVersion`] for a storage that a later release
    /// has written. Returns [`OpenError::Corrupt`] for records that cannot be read back, or keys
    /// without a record of ours. Nothing was changed then.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sprag::testing::storage::MemoryStorage;
    /// use sprag::{ApplyConfig, ApplyManager, Command, PersistentStateMachine, StorageConfig};
    ///
    /// let timeout = Duration::from_secs(10);
    /// let storage = MemoryStorage::new();
    /// let machine =
    ///     PersistentStateMachine::with_storage(storage.clone(), StorageConfig::new())?;
    /// let manager = ApplyManager::new(machine, ApplyConfig::new())?;
    /// manager.propose(Command::put(b"color", b"green"), timeout)?;
    /// manager.close(timeout)?;
    ///
    /// let machine = PersistentStateMachine::with_storage(storage, StorageConfig::new())?;
    /// assert_eq!(machine.get(b"color")?.as_deref(), Some(&b"green"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_storage<S: Storage>(
        storage: S,
        config: StorageConfig,
    ) -> Result<StorageMachine<S>, OpenError> {
        config.check()?;
        let Opened { record, membership, last_generation } = open(&storage)?;
        let cache = config.enable_cache.then(|| Arc::new(ReadCache::new(config.cache_limits)));
        let journal = Journal::memory_with(MemoryJournal {
            limits: config.limits,
            frame_entries_max: FRAME_ENTRIES_MAX,
            frame_bytes_max: FRAME_BYTES_MAX,
            poison: Arc::default(),
        });
        Ok(StorageMachine {
            storage,
            config,
            stage: Mutex::new(
                Rank::StorageStage,
                Stage::new(record, last_generation, cache.clone()),
            ),
            cache,
            committed: Mutex::new(Rank::StorageCommitted, Committed { record, membership }),
            generation: AtomicU64::new(record.generation),
            durable: Mutex::new(Rank::StorageDurable, record.applied),
            applied_count: AtomicU64::new(0),
            engine_commits: AtomicBool::new(false),
            log_syncs: AtomicBool::new(false),
            token: TokenReached::new(),
            journal,
        })
    }
}

/// The read calls.
impl<S: Storage> StorageMachine<S> {
    /// Refuses reads after a failure: the content of the storage is unknown until it is opened
    /// again.
    #[inline]
    fn check(&self) -> Result<(), ReadError> {
        Ok(self.journal.poison().check()?)
    }

    /// The value of `key`; `None` if it has none. The value is copied, or shared with the [read
    /// cache](StorageConfig::enable_cache).
    ///
    /// # Errors
    ///
    /// Returns [`ReadError::Poisoned`] after the engine has failed, and [`ReadError::Storage`] if
    /// the storage fails.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, ReadError> {
        match &self.cache {
            Some(cache) => self.get_cached(cache, key),
            None => self.read(Table::State, key, Value::copied),
        }
    }

    /// Gets through the cache. The read and its choice of the generation come after the lookup: the
    /// cache relies on it.
    fn get_cached(&self, cache: &ReadCache, key: &[u8]) -> Result<Option<Value>, ReadError> {
        self.check()?;
        match cache.look_up(key) {
            Ok(value) => Ok(Some(value)),
            Err(fill) => {
                let value = self.read(Table::State, key, Value::copied)?;
                if let Some(value) = &value {
                    fill.keep(key, value);
                }
                Ok(value)
            }
        }
    }

    /// The result of `read` over the value of `key`; `None`, without a call of `read`, if it has
    /// none. No lock is held meanwhile.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](StorageMachine::get).
    pub fn get_with<R>(
        &self,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, ReadError> {
        Ok(self.get(key)?.map(|value| read(&value)))
    }

    /// Replaces the content of `out` by the value of `key` (by nothing if it has none). Returns
    /// whether it has one.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](StorageMachine::get).
    pub fn get_into(&self, key: &[u8], out: &mut Vec<u8>) -> Result<bool, ReadError> {
        out.clear();
        let mut copy = |value: &[u8]| {
            out.clear();
            out.extend_from_slice(value);
        };
        let found = match &self.cache {
            Some(cache) => self.get_cached(cache, key)?.map(|value| copy(&value)),
            None => self.read(Table::State, key, copy)?,
        };
        if found.is_none() {
            out.clear();
        }
        Ok(found.is_some())
    }

    /// Whether `key` has a value.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](StorageMachine::get).
    pub fn contains(&self, key: &[u8]) -> Result<bool, ReadError> {
        match &self.cache {
            Some(cache) => Ok(self.get_cached(cache, key)?.is_some()),
            None => Ok(self.read(Table::State, key, |_| ())?.is_some()),
        }
    }

    /// Number of keys with a value. The machine counts it, and does not read the storage.
    ///
    /// # Errors
    ///
    /// Returns [`ReadError::Poisoned`] after the engine has failed.
    pub fn len(&self) -> Result<usize, ReadError> {
        self.check()?;
        Ok(to_usize(self.committed.lock().record.keys))
    }

    /// Whether no key has a value.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`len`](StorageMachine::len).
    pub fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.len()? == 0)
    }

    /// The value of the note `name`, which a batch has set.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](StorageMachine::get).
    pub fn note(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.read(Table::Notes, name, <[u8]>::to_vec)
    }

    /// The newest membership applied, and the log id of its entry.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`len`](StorageMachine::len).
    pub fn membership(&self) -> Result<Option<(LogId, Vec<u8>)>, ReadError> {
        self.check()?;
        Ok(self.committed_membership())
    }

    /// All keys and their values, sorted by key, as of the last batch committed: for exports and
    /// digests of a state that fits into memory.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](StorageMachine::get).
    #[allow(clippy::type_complexity, reason = "as the call of the built-in machines")]
    pub fn scan_sorted(&self) -> Result<Vec<(Box<[u8]>, Value)>, ReadError> {
        self.check()?;
        let snapshot = self.storage.snapshot().map_err(|source| self.read_error(source))?;
        let mut entries = Vec::new();
        View::new(self.stored(snapshot)?, None).try_for_each(|key, value| {
            entries.push((key.into(), Value::copied(value)));
            Ok::<(), ReadError>(())
        })?;
        Ok(entries)
    }

    /// The storage.
    #[must_use]
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// The storage's own figures.
    #[must_use]
    pub fn storage_stats(&self) -> StorageStats {
        self.storage.stats()
    }

    /// Runs `read` over a value of the current generation. `read` may run more than once; the last
    /// result counts.
    fn read<R>(
        &self,
        table: fn(u64) -> Table,
        key: &[u8],
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, ReadError> {
        self.check()?;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        let mut generation = self.generation.load(Ordering::Acquire);
        loop {
            let mut found = None;
            let got =
                self.storage.get(table(generation), key, &mut |value| found = Some(read(value)));
            let before = generation;
            generation = self.generation.load(Ordering::Acquire);
            if generation == before {
                return got.map(|_| found).map_err(|source| self.read_error(source));
            }
            // A snapshot was installed meanwhile, and the table may be in removal.
        }
    }

    fn read_error(&self, source: StorageError) -> ReadError {
        ReadError::Storage { storage: self.storage.name(), source: Arc::new(source) }
    }

    fn committed_membership(&self) -> Option<(LogId, Vec<u8>)> {
        let committed = self.committed.lock();
        committed.membership.as_ref().map(|(log_id, bytes)| (*log_id, bytes.to_vec()))
    }
}

/// The commit calls.
impl<S: Storage> StorageMachine<S> {
    /// Commits the staged changes. Returns whether everything committed is durable.
    pub(super) fn commit_staged(&self, stage: &mut Stage) -> Result<bool, Fatal> {
        if stage.has_failed {
            return Err(Fatal::new("the storage failed before; open it again"));
        }
        if !stage.is_dirty() {
            let committed = self.committed.lock().record.applied;
            return Ok(*self.durable.lock() == committed);
        }
        stage.has_failed = true;
        let sync = self.config.sync_writes && !self.log_syncs.load(Ordering::Relaxed);
        let table = Table::State(stage.record().generation);
        let batch = stage.finished();
        let commit = || self.storage.commit(batch, sync);
        let committed = match &self.cache {
            Some(cache) => cache.during_commit(batch, table, commit),
            None => commit(),
        };
        let is_durable = committed.map_err(|error| failed(&self.storage, &error))?;
        let record = stage.record();
        {
            let mut committed = self.committed.lock();
            committed.record = record;
            if let Some((log_id, bytes)) = stage.membership() {
                committed.membership = Some((log_id, bytes.into()));
            }
        }
        if is_durable {
            *self.durable.lock() = record.applied;
        }
        stage.clear(record);
        stage.has_failed = false;
        Ok(is_durable)
    }
}

impl<S: Storage> Staging for StorageMachine<S> {
    fn begin(&self) {
        self.engine_commits.store(true, Ordering::Relaxed);
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn batch_interval(&self) -> Duration {
        self.config.batch_interval
    }

    fn durability(&self) -> Durability {
        match (self.config.sync_writes, self.storage.syncs_every()) {
            (true, _) => Durability::Sync,
            (false, Some(interval)) => Durability::Periodic(interval),
            (false, None) => Durability::Os,
        }
    }

    fn leave_syncs_to_log(&self) {
        self.log_syncs.store(true, Ordering::Relaxed);
    }

    fn commit(&self) -> Result<bool, Fatal> {
        self.commit_staged(&mut self.stage.lock())
    }

    fn sync(&self) -> Result<(), Fatal> {
        let committed = self.committed.lock().record.applied;
        self.storage.sync().map_err(|error| failed(&self.storage, &error))?;
        let mut durable = self.durable.lock();
        let index = |log_id: Option<LogId>| log_id.map(|log_id| log_id.index);
        if index(*durable) < index(committed) {
            *durable = committed;
        }
        Ok(())
    }

    fn durable(&self) -> Option<LogId> {
        *self.durable.lock()
    }
}

impl<S: Storage> StateMachine for StorageMachine<S> {
    /// Every entry has one footprint, and none is a barrier: a batch of entries is committed as a
    /// whole.
    #[inline]
    fn footprint(&self, _payload: &PayloadRef<'_>) -> Footprint {
        Footprint::Key(0)
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        if !partition.owns(0) {
            return Ok(());
        }
        let mut stage = self.stage.lock();
        if stage.has_failed {
            return Err(Fatal::new("the storage failed before; open it again"));
        }
        let mut applied = 0;
        for entry in range.entries(partition) {
            let entry = entry?;
            // Set this first, for the case that the storage panics.
            stage.has_failed = true;
            let reply = stage.apply(&self.storage, &entry)?;
            stage.has_failed = false;
            replies.set(&entry, reply);
            applied += 1;
            if stage.is_full() {
                self.commit_staged(&mut stage)?;
            }
        }
        self.applied_count.fetch_add(applied, Ordering::Relaxed);
        if !self.engine_commits.load(Ordering::Relaxed) {
            self.commit_staged(&mut stage)?;
        }
        Ok(())
    }

    fn last_membership(&self) -> Option<(LogId, Vec<u8>)> {
        self.committed_membership()
    }

    fn applied(&self) -> Option<LogId> {
        self.committed.lock().record.applied
    }

    fn stats(&self) -> StateMachineStats {
        let record = self.committed.lock().record;
        let cache = self.cache.as_ref().map(|cache| cache.stats());
        let storage = self.storage.stats();
        StateMachineStats {
            memory_bytes: storage.memory_bytes,
            disk_bytes: storage.disk_bytes,
            cache_size: cache.map(|stats| stats.entries),
            cache_bytes: cache.map(|stats| stats.bytes),
            cache_hits: cache.map(|stats| stats.hits),
            cache_misses: cache.map(|stats| stats.misses),
            cache_hit_rate: cache.map(|stats| stats.hit_rate()),
            cache_evictions: cache.map(|stats| stats.evictions),
            applied_count: self.applied_count.load(Ordering::Relaxed),
            last_applied: record.applied.map(|log_id| log_id.index),
            keys: record.keys,
            ..StateMachineStats::default()
        }
    }

    fn staging(&self, _: Hook) -> Option<&dyn Staging> {
        Some(self)
    }

    fn views(&self, _: Hook) -> Option<&dyn Views> {
        Some(self)
    }

    /// Writes the bytes of a key-value snapshot file, as
    /// [`Snapshots::write_to`](crate::Snapshots::write_to) does.
    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        self.view()?.snapshot_to(out).map(|_report| ())
    }

    /// Restores from the bytes of a key-value snapshot file, and takes as much memory while it
    /// reads them. The machine then continues after the snapshot's entry. The storage needs room
    /// for the old state and the new one.
    fn restore(&self, source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        self.load_snapshot(&Snapshot::of_source(source)?)
    }

    fn journal(&self) -> Journal {
        self.journal.clone()
    }
}

impl<S: Storage> fmt::Debug for StorageMachine<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageMachine")
            .field("storage", &self.storage.name())
            .field("record", &self.committed.lock().record)
            .finish_non_exhaustive()
    }
}
