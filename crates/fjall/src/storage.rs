//! The storage type.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use fjall::{AbstractTree, Database, Error, Keyspace, OwnedWriteBatch, PersistMode};
use sprag::machine::storage::{
    Storage, StorageBatch, StorageError, StorageSnapshot, StorageStats, Table,
};

use crate::config::FjallConfig;
use crate::error::{OpenError, storage_error};
use crate::journal::UNSYNCED;
use crate::long::{KEY_LEN_MAX, LONG, Writes};
use crate::open::{self, KEYSPACES};
use crate::snapshot::{FjallSnapshot, Place, Places, place};
use crate::syncer::Syncer;

/// First part of the name of a table's second keyspace; see `long`.
const LONGER: &str = "long-";
/// Number of full write buffers at which this storage waits. A commit of the crate fjall waits
/// while a table has 4 full write buffers or 30 files that no compaction has seen. It waits forever
/// if fjall's threads have failed. This storage waits earlier, and checks for failures.
const FULL_BUFFERS_MAX: usize = 3;
const NEW_FILES_MAX: usize = 26;
const WAIT: Duration = Duration::from_millis(2);
/// Free bytes on the disk below which a failure of fjall's threads counts as a full disk.
const FULL_BELOW_BYTES: u64 = 8 << 20;

/// A fjall database as the storage of a state machine; see the [crate](crate).
///
/// The storage closes when it is dropped. Batches that were not synced then are lost only if the
/// system fails.
pub struct FjallStorage {
    // Dropped first, because its thread uses the other fields.
    _syncer: Option<Syncer>,
    shared: Arc<Shared>,
    sync_every: Option<Duration>,
    cut_bytes: u64,
}

struct Shared {
    database: Database,
    path: PathBuf,
    config: FjallConfig,
    /// The snapshot that reads use: everything up to the last whole batch. A snapshot of the crate
    /// fjall may show half of a batch that is being written. The reason is that its threads raise
    /// the sequence number of snapshots. So this snapshot is replaced after each batch, and
    /// snapshots are its clones.
    current: ArcSwap<FjallSnapshot>,
    /// Lock that admits one commit, creation or removal at a time.
    writer: Mutex<()>,
    /// Whether something was committed and not synced since the last sync began.
    is_unsynced: AtomicBool,
    /// Whether the marker file for unsynced batches exists.
    is_marked: AtomicBool,
    /// The error that stopped the syncing thread; fjall reports it only once.
    sync_failure: OnceLock<(io::ErrorKind, String)>,
}

impl std::fmt::Debug for FjallStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shared = &self.shared;
        f.debug_struct("FjallStorage")
            .field("path", &shared.path)
            .field("config", &shared.config)
            .finish_non_exhaustive()
    }
}

impl FjallStorage {
    /// Opens the database in a directory, and makes both if they are missing. The directory's
    /// parent must exist. The directory is made for its owner only (mode 0700).
    ///
    /// Opening cuts off what a crash has torn at the end of the journal; see
    /// [`cut_bytes`](Self::cut_bytes). Opening reads the journals, which have
    /// [`journal_bytes`](FjallConfig::journal_bytes) at most.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. The directory stays as it was, except for a torn end.
    pub fn open(path: impl AsRef<Path>, config: FjallConfig) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let opened = open::open(path, config)?;
        let database = opened.database;
        let places = places_of(path, &database)?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            config,
            current: ArcSwap::from_pointee(FjallSnapshot {
                snapshot: database.snapshot(),
                places: Arc::new(places),
            }),
            database,
            writer: Mutex::new(()),
            is_unsynced: AtomicBool::new(false),
            is_marked: AtomicBool::new(false),
            sync_failure: OnceLock::new(),
        });
        let syncer = match config.sync_every {
            None => None,
            Some(interval) => {
                let shared = Arc::clone(&shared);
                let started = Syncer::start(interval, move || shared.sync_in_time());
                let failed = |source| {
                    let path = path.to_owned();
                    OpenError::Io { what: "starting the thread that syncs", path, source }
                };
                Some(started.map_err(failed)?)
            }
        };
        let (sync_every, cut_bytes) = (config.sync_every, opened.cut_bytes);
        Ok(Self { _syncer: syncer, shared, sync_every, cut_bytes })
    }

    /// Bytes that opening cut off the journal: batches that a crash left half written, none of them
    /// durable.
    #[must_use]
    pub fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }
}

/// The tables of the database. Removes the rest of a table whose removal a crash interrupted.
fn places_of(path: &Path, database: &Database) -> Result<Places, OpenError> {
    let of = |error| OpenError::of(path.into(), error);
    let mut places = Places::new();
    let (mut names, mut longer) = (database.list_keyspace_names(), Vec::new());
    names.sort();
    for name in &names {
        let is_longer = name.strip_prefix(LONGER);
        let Ok(table) = is_longer.unwrap_or(name).parse() else {
            let keyspace = name.to_string();
            return Err(OpenError::ForeignTable { path: path.into(), keyspace });
        };
        // The keyspace exists, so the options have no effect.
        let keyspace = database.keyspace(name, Default::default).map_err(of)?;
        match is_longer {
            None => places.push(Place { table, keyspace, longer: None }),
            Some(_) => longer.push((table, keyspace)),
        }
    }
    for (table, keyspace) in longer {
        match places.iter_mut().find(|place| place.table == table) {
            Some(place) => place.longer = Some(keyspace),
            None => database.delete_keyspace(keyspace).map_err(of)?,
        }
    }
    Ok(places)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes everything in the tables visible to reads. The caller holds the writer's lock, so no
    /// batch is being written.
    fn show(&self, places: Arc<Places>) {
        let snapshot = self.database.snapshot();
        self.current.store(Arc::new(FjallSnapshot { snapshot, places }));
    }

    /// The error for a failure of fjall. fjall reports the cause of an earlier failure only once,
    /// so this function looks for one.
    fn failed(&self, what: &'static str, error: Error) -> StorageError {
        if !matches!(error, Error::Poisoned) {
            return storage_error(what, error);
        }
        if let Some((kind, message)) = self.sync_failure.get() {
            return StorageError::Io { what, source: io::Error::new(*kind, message.clone()) };
        }
        let room = rustix::fs::statvfs(&self.path).map(|found| found.f_bavail * found.f_frsize);
        match room {
            Ok(room) if room < FULL_BELOW_BYTES => {
                let message =
                    format!("a thread of fjall failed, and the disk has {room} bytes left");
                let source = io::Error::new(io::ErrorKind::StorageFull, message);
                StorageError::Io { what, source }
            }
            _ => storage_error(what, error),
        }
    }

    /// Syncs if anything is unsynced. Returns false if the sync failed; the storage then takes no
    /// more batches.
    fn sync_in_time(&self) -> bool {
        if !self.is_unsynced.swap(false, Ordering::AcqRel) {
            return true;
        }
        let Err(error) = self.database.persist(PersistMode::SyncData) else { return true };
        let error = self.failed("syncing", error);
        tracing::error!(%error, "the storage could not sync in time");
        let kind = match &error {
            StorageError::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        let _ = self.sync_failure.set((kind, error.to_string()));
        false
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.is_unsynced.store(false, Ordering::Release);
        // The journal was made with its full length, so syncing data is enough. Where it has grown,
        // the system syncs the length with the data.
        let synced = self.database.persist(PersistMode::SyncData);
        synced.map_err(|error| self.failed("syncing", error))
    }

    /// Marks the directory for the next open: several batches may be torn. Called before the first
    /// unsynced batch.
    fn mark_unsynced(&self) -> Result<(), StorageError> {
        if self.is_marked.load(Ordering::Acquire) {
            return Ok(());
        }
        let mark = || {
            let path = self.path.join(UNSYNCED);
            OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            open::sync_directory(&self.path)
        };
        let what = "marking the directory as unsynced";
        mark().map_err(|source| StorageError::Io { what, source })?;
        self.is_marked.store(true, Ordering::Release);
        Ok(())
    }

    /// Waits until fjall's threads have made room for a batch.
    fn wait_for_room(&self, places: &Places) -> Result<(), StorageError> {
        let failed = |error| self.failed("committing a batch", error);
        let keyspaces =
            places.iter().flat_map(|place| [Some(&place.keyspace), place.longer.as_ref()]);
        for keyspace in keyspaces.flatten() {
            // A thread closes a full buffer some time later. Until then the buffer grows.
            if keyspace.tree.active_memtable().size() / 2 > self.config.write_buffer_bytes {
                keyspace.rotate_memtable().map_err(failed)?;
            }
            while keyspace.sealed_memtable_count() >= FULL_BUFFERS_MAX
                || keyspace.tree.l0_run_count() >= NEW_FILES_MAX
            {
                // This call writes nothing; it returns an error if a thread of fjall has failed.
                self.database.persist(PersistMode::Buffer).map_err(failed)?;
                thread::sleep(WAIT);
            }
        }
        Ok(())
    }

    /// Makes a keyspace, durably. At open, fjall ignores a journal's writes to a missing keyspace.
    fn create(&self, name: &str) -> Result<Keyspace, StorageError> {
        let what = "making a table";
        let made = self.database.keyspace(name, || self.config.table());
        let keyspace = made.map_err(|error| self.failed(what, error))?;
        // fjall syncs the keyspace's directory, but not the parent of that.
        let synced = File::open(self.path.join(KEYSPACES)).and_then(|folder| folder.sync_all());
        synced.map_err(|source| StorageError::Io { what, source })?;
        Ok(keyspace)
    }

    /// The second keyspace of a table, made if it is missing.
    fn longer(&self, table: Table) -> Result<Keyspace, StorageError> {
        let current = self.current.load();
        let found = place(&current.places, table).and_then(|place| place.longer.clone());
        if let Some(found) = found {
            return Ok(found);
        }
        let made = self.create(&format!("{LONGER}{table}"))?;
        let mut places = current.places.to_vec();
        for place in places.iter_mut().filter(|place| place.table == table) {
            place.longer = Some(made.clone());
        }
        self.show(Arc::new(places));
        Ok(made)
    }

    /// The writes in the form that fjall takes.
    fn batch(&self, batch: &StorageBatch) -> Result<OwnedWriteBatch, StorageError> {
        let current = self.current.load();
        let mut writes = OwnedWriteBatch::with_capacity(self.database.clone(), batch.len());
        let (mut long, mut last): (Option<Writes>, Option<&Place>) = (None, None);
        for (table, key, value) in batch.writes() {
            let place = match last {
                Some(place) if place.table == table => place,
                _ => place(&current.places, table).ok_or_else(|| no_table(table))?,
            };
            last = Some(place);
            match value {
                _ if key.is_empty() || key.len() > KEY_LEN_MAX => return Err(no_key(key.len())),
                _ if key.len() >= LONG => long.get_or_insert_default().add(
                    table,
                    &place.keyspace,
                    &mut || self.longer(table),
                    (key, value),
                    &mut writes,
                )?,
                Some(value) => writes.insert(&place.keyspace, key, value),
                None => writes.remove(&place.keyspace, key),
            }
        }
        if let Some(long) = long {
            long.finish(&mut writes);
        }
        Ok(writes)
    }
}

fn no_table(table: Table) -> StorageError {
    let message = format!("the table {table} does not exist; make it first");
    StorageError::Failed { what: "committing a batch", message }
}

fn no_key(len: usize) -> StorageError {
    let message = format!("a key has {len} bytes; it must have 1 to {KEY_LEN_MAX}");
    StorageError::Failed { what: "committing a batch", message }
}

impl Storage for FjallStorage {
    type Snapshot = FjallSnapshot;

    fn name(&self) -> &'static str {
        "fjall"
    }

    fn tables(&self) -> Result<Vec<Table>, StorageError> {
        Ok(self.shared.current.load().places.iter().map(|place| place.table).collect())
    }

    fn create_table(&self, table: Table) -> Result<(), StorageError> {
        let shared = &*self.shared;
        let _writer = shared.lock();
        let current = shared.current.load();
        if place(&current.places, table).is_some() {
            return Ok(());
        }
        let keyspace = shared.create(&table.to_string())?;
        let mut places = current.places.to_vec();
        places.push(Place { table, keyspace, longer: None });
        shared.show(Arc::new(places));
        Ok(())
    }

    fn remove_table(&self, table: Table) -> Result<(), StorageError> {
        let shared = &*self.shared;
        let _writer = shared.lock();
        let current = shared.current.load();
        let Some(place) = place(&current.places, table) else { return Ok(()) };
        // fjall makes the removal durable at once, so earlier batches must be durable before.
        shared.sync()?;
        for keyspace in [Some(&place.keyspace), place.longer.as_ref()].into_iter().flatten() {
            let removed = shared.database.delete_keyspace(keyspace.clone());
            removed.map_err(|error| shared.failed("removing a table", error))?;
        }
        let left = current.places.iter().filter(|place| place.table != table).cloned();
        shared.show(Arc::new(left.collect()));
        Ok(())
    }

    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        self.shared.current.load().get(table, key, read)
    }

    fn commit(&self, batch: &StorageBatch, sync: bool) -> Result<bool, StorageError> {
        let shared = &*self.shared;
        let _writer = shared.lock();
        if batch.is_empty() {
            if sync {
                shared.sync()?;
            }
            return Ok(sync);
        }
        shared.wait_for_room(&shared.current.load().places)?;
        if !sync {
            shared.mark_unsynced()?;
        }
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let writes = shared.batch(batch)?.durability(Some(mode));
        writes.commit().map_err(|error| shared.failed("committing a batch", error))?;
        shared.show(Arc::clone(&shared.current.load().places));
        if !sync {
            shared.is_unsynced.store(true, Ordering::Release);
        }
        Ok(sync)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.shared.sync()
    }

    fn syncs_every(&self) -> Option<Duration> {
        self.sync_every
    }

    fn snapshot(&self) -> Result<FjallSnapshot, StorageError> {
        Ok(FjallSnapshot::clone(&self.shared.current.load()))
    }

    fn stats(&self) -> StorageStats {
        let database = &self.shared.database;
        let current = self.shared.current.load();
        let keyspaces =
            current.places.iter().flat_map(|place| [Some(&place.keyspace), place.longer.as_ref()]);
        let pinned = keyspaces.flatten().map(|keyspace| {
            keyspace.tree.pinned_filter_size() + keyspace.tree.pinned_block_index_size()
        });
        let pinned: usize = pinned.sum();
        let memory = database.cache_size() + database.write_buffer_size() + pinned as u64;
        // A directory that cannot be measured has no figure.
        let mut stats = StorageStats::new(open::disk_bytes(&self.shared.path).ok(), Some(memory));
        stats.compactions_running = Some(database.active_compactions() as u64);
        stats
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_thread_syncs_in_time_what_was_committed_without_sync() {
        let scratch = tempfile::tempdir().unwrap();
        let config = FjallConfig::new().sync_every(Some(Duration::from_millis(5)));
        let storage = FjallStorage::open(scratch.path().join("state"), config).unwrap();
        storage.create_table(Table::Meta).unwrap();
        let mut batch = StorageBatch::new();
        batch.put(Table::Meta, b"key", b"value");
        storage.commit(&batch, false).unwrap();
        let is_unsynced = || storage.shared.is_unsynced.load(Ordering::Acquire);
        // The sync may take long on a busy machine; without the thread it never happens.
        while is_unsynced() {
            thread::sleep(Duration::from_millis(1));
        }
        storage.commit(&batch, true).unwrap();
        assert!(!is_unsynced(), "a batch that is synced leaves nothing to sync");
    }

    #[test]
    fn the_cause_of_a_failure_that_fjall_keeps_to_itself_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let config = FjallConfig::new().sync_every(None);
        let storage = FjallStorage::open(scratch.path().join("state"), config).unwrap();
        let error = storage.shared.failed("committing a batch", Error::Poisoned);
        assert!(error.to_string().contains("an earlier write of fjall failed"), "{error}");
        let full = (io::ErrorKind::StorageFull, "no space left".to_owned());
        storage.shared.sync_failure.set(full).unwrap();
        let error = storage.shared.failed("committing a batch", Error::Poisoned);
        assert!(error.is_disk_full(), "{error}");
    }
}
