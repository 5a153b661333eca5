//! The storage: write transactions of redb, one a batch.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use redb::{Database, Durability, ReadableDatabase, StorageBackend, TableHandle, WriteTransaction};
use sprag::machine::storage::{Storage, StorageBatch, StorageError, StorageStats, Table};

use crate::config::RedbConfig;
use crate::error::{OpenError, failed};
use crate::open::{self, Opened};
use crate::snapshot::{Bytes, Moment, RedbSnapshot, definition, name};
use crate::syncer::{Syncer, Unsynced};

/// A [`Storage`] in one file of redb. The [crate's page](crate) says what a crash takes back.
///
/// Dropping the storage syncs it. The file stays open, and locked, until the last snapshot is
/// dropped too.
#[derive(Debug)]
pub struct RedbStorage {
    /// Dropped before the last sync, which ends its thread.
    syncer: Option<Syncer>,
    core: Arc<Core>,
}

impl RedbStorage {
    /// Opens the file at `path`, readable by its owner only, and makes it if it is missing. Its
    /// directory must exist.
    ///
    /// After a crash redb repairs the file first; the [crate's page](crate) says when that reads
    /// all of it.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(path: impl AsRef<Path>, config: RedbConfig) -> Result<Self, OpenError> {
        let path = path.as_ref();
        Self::over(open::file(path, config)?, &path.display().to_string(), config)
    }

    /// Opens the content of `backend`, and makes a new database in an empty one. It serves tests,
    /// and other places than a file.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn with_backend(
        backend: impl StorageBackend,
        config: RedbConfig,
    ) -> Result<Self, OpenError> {
        let name = "the backend";
        Self::over(open::backend(Arc::new(backend), name, config)?, name, config)
    }

    fn over(opened: Opened, name: &str, config: RedbConfig) -> Result<Self, OpenError> {
        let current = Moment::now(&opened.database).map_err(|error| OpenError::Failed {
            name: name.to_owned(),
            message: error.to_string(),
        })?;
        let core = Arc::new(Core {
            current: ArcSwap::from_pointee(current),
            opened,
            config,
            writer: Mutex::default(),
            unsynced: Arc::default(),
        });
        let start = |interval| {
            let shared = Arc::clone(&core);
            Syncer::start(Arc::clone(&core.unsynced), interval, move || shared.sync_by_time())
        };
        let syncer = config.sync_every.map(start).transpose().map_err(|source| OpenError::Io {
            what: "starting the syncing thread of",
            name: name.to_owned(),
            source,
        })?;
        Ok(Self { syncer, core })
    }

    /// Whether this open repaired the file because a crash had left it open.
    #[must_use]
    pub fn was_repaired(&self) -> bool {
        self.core.opened.was_repaired
    }
}

impl Drop for RedbStorage {
    fn drop(&mut self) {
        self.syncer = None;
        // redb also syncs when the last snapshot is dropped, which may never happen.
        if let Err(error) = self.core.sync() {
            tracing::warn!(%error, "what redb had not synced is lost if the process ends");
        }
    }
}

struct Core {
    /// The moment that reads use. It is replaced after every write transaction, before the
    /// transaction's caller returns.
    current: ArcSwap<Moment>,
    opened: Opened,
    config: RedbConfig,
    /// Lock that is held during a write transaction.
    writer: Mutex<Writer>,
    unsynced: Arc<Unsynced>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("path", &self.opened.path).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Writer {
    /// Whether something is committed and not durable.
    is_behind: bool,
    /// Bytes of keys and values in the batches since the last durable transaction.
    unsynced_bytes: u64,
    /// Failure of the syncing thread; the next caller gets it.
    failure: Option<StorageError>,
}

/// The ways in which a write transaction ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The transaction stays in the memory of the process.
    Unsynced,
    /// The transaction is on stable storage.
    Synced { quick_repair: bool },
}

impl Core {
    fn database(&self) -> &Arc<Database> {
        &self.opened.database
    }

    fn writer(&self, what: &'static str) -> Result<MutexGuard<'_, Writer>, StorageError> {
        let mut writer = self.writer.lock().map_err(|_| StorageError::Failed {
            what,
            message: "an earlier write panicked; open the file again".to_owned(),
        })?;
        writer.failure.take().map_or(Ok(writer), Err)
    }

    /// Runs `change` in a write transaction, and ends it in the way that `change` returns. Returns
    /// whether everything is durable then.
    fn write(
        &self,
        writer: &mut Writer,
        what: &'static str,
        change: impl FnOnce(&mut Writer, &WriteTransaction) -> Result<Ending, redb::Error>,
    ) -> Result<bool, StorageError> {
        let mut transaction = self.database().begin_write().map_err(failed(what))?;
        let ending = change(writer, &transaction).map_err(failed(what))?;
        let durability = match ending {
            Ending::Unsynced => Durability::None,
            Ending::Synced { quick_repair } => {
                transaction.set_quick_repair(quick_repair);
                Durability::Immediate
            }
        };
        transaction.set_durability(durability).map_err(failed(what))?;
        transaction.commit().map_err(failed(what))?;
        self.current.store(Arc::new(Moment::now(self.database())?));
        let is_durable = ending != Ending::Unsynced;
        if is_durable {
            writer.unsynced_bytes = 0;
        }
        if writer.is_behind == is_durable {
            writer.is_behind = !is_durable;
            if is_durable { self.unsynced.end() } else { self.unsynced.begin() }
        }
        Ok(is_durable)
    }

    fn commit(&self, batch: &StorageBatch, sync: bool) -> Result<bool, StorageError> {
        let what = "committing a batch";
        let mut writer = self.writer(what)?;
        self.write(&mut writer, what, |writer, transaction| {
            writer.unsynced_bytes += put_all(transaction, batch)?;
            Ok(if sync {
                Ending::Synced { quick_repair: self.config.quick_repair }
            } else if writer.unsynced_bytes >= self.config.unsynced_bytes {
                Ending::Synced { quick_repair: true }
            } else {
                Ending::Unsynced
            })
        })
    }

    fn sync(&self) -> Result<(), StorageError> {
        let what = "syncing";
        let mut writer = self.writer(what)?;
        if writer.is_behind {
            self.write(&mut writer, what, |_, _| Ok(Ending::Synced { quick_repair: true }))?;
        }
        Ok(())
    }

    /// Syncs, for the syncing thread. Returns whether the thread should continue.
    fn sync_by_time(&self) -> bool {
        let Err(error) = self.sync() else { return true };
        tracing::error!(%error, "redb could not sync");
        if let Ok(mut writer) = self.writer.lock() {
            writer.failure = Some(error);
        }
        false
    }
}

/// Writes all of `batch`, and returns the bytes of its keys and values.
fn put_all(transaction: &WriteTransaction, batch: &StorageBatch) -> Result<u64, redb::Error> {
    let mut bytes = 0;
    // A batch names few tables.
    let mut open: Vec<(Table, redb::Table<'_, Bytes, Bytes>)> = Vec::with_capacity(4);
    for (table, key, value) in batch.writes() {
        let place = match open.iter().position(|(found, _)| *found == table) {
            Some(place) => place,
            None => {
                open.push((table, transaction.open_table(definition(&name(table)))?));
                open.len() - 1
            }
        };
        let Some((_, table)) = open.get_mut(place) else { continue };
        match value {
            Some(value) => drop(table.insert(key, value)?),
            None => drop(table.remove(key)?),
        }
        bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
    }
    Ok(bytes)
}

impl Storage for RedbStorage {
    type Snapshot = RedbSnapshot;

    fn name(&self) -> &'static str {
        "redb"
    }

    fn tables(&self) -> Result<Vec<Table>, StorageError> {
        let what = "listing the tables";
        let transaction = self.core.database().begin_read().map_err(failed(what))?;
        let tables = transaction.list_tables().map_err(failed(what))?;
        // Opening has refused every other name.
        Ok(tables.filter_map(|table| table.name().parse().ok()).collect())
    }

    fn create_table(&self, table: Table) -> Result<(), StorageError> {
        let what = "making a table";
        let mut writer = self.core.writer(what)?;
        self.core.write(&mut writer, what, |_, transaction| {
            transaction.open_table(definition(&name(table)))?;
            Ok(Ending::Unsynced)
        })?;
        Ok(())
    }

    /// Removes a table. It reads all pages of the table to find them, in one write transaction;
    /// batches wait meanwhile.
    fn remove_table(&self, table: Table) -> Result<(), StorageError> {
        let what = "removing a table";
        let mut writer = self.core.writer(what)?;
        self.core.write(&mut writer, what, |_, transaction| {
            transaction.delete_table(definition(&name(table)))?;
            Ok(Ending::Unsynced)
        })?;
        Ok(())
    }

    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        self.core.current.load().get(table, key, read)
    }

    fn commit(&self, batch: &StorageBatch, sync: bool) -> Result<bool, StorageError> {
        self.core.commit(batch, sync)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.core.sync()
    }

    fn syncs_every(&self) -> Option<Duration> {
        self.core.config.sync_every
    }

    fn snapshot(&self) -> Result<RedbSnapshot, StorageError> {
        Ok(RedbSnapshot(self.core.current.load_full()))
    }

    fn stats(&self) -> StorageStats {
        let memory_bytes = self.core.database().cache_stats().used_bytes() as u64;
        StorageStats::new(self.core.opened.disk_bytes(), Some(memory_bytes))
    }
}

impl Opened {
    /// Bytes that the file takes on disk; its length for a backend without a file.
    fn disk_bytes(&self) -> Option<u64> {
        match &self.path {
            Some(path) => blocks(path),
            // A backend that cannot be measured has no figure.
            None => self.backend.len().ok(),
        }
    }
}

fn blocks(path: &PathBuf) -> Option<u64> {
    // `blocks` counts 512 bytes each, on every file system.
    Some(fs::metadata(path).ok()?.blocks() * 512)
}
