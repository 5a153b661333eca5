//! A slow disk and a slow storage, by the clock of the engine or by the system's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sprag::disk::{Access, Disk, DiskFile, Mapping, WriteQueue};
use sprag::testing::HandClock;
use sprag::testing::storage::MemoryStorage;
use sprag::{Storage, StorageBatch, StorageError, Table};

/// Durations of a [`SlowDisk`]'s operations, in nanoseconds of the engine's clock.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    pub(crate) clock: HandClock,
    pub(crate) write_ns: AtomicU64,
    pub(crate) sync_ns: AtomicU64,
    pub(crate) create_ns: AtomicU64,
    /// Duration of a listing, by the system's clock.
    pub(crate) list_ns: AtomicU64,
}

impl Delays {
    pub(crate) fn set(delay_ns: &AtomicU64, delay: Duration) {
        delay_ns.store(u64::try_from(delay.as_nanos()).unwrap(), Ordering::Relaxed);
    }

    fn pass(&self, delay_ns: &AtomicU64) {
        self.clock.advance(Duration::from_nanos(delay_ns.load(Ordering::Relaxed)));
    }
}

/// The slow disk; see the module.
#[derive(Debug)]
pub(crate) struct SlowDisk {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) delays: Arc<Delays>,
}

#[derive(Debug)]
struct SlowFile {
    file: Arc<dyn DiskFile>,
    delays: Arc<Delays>,
}

impl Disk for SlowDisk {
    fn describe(&self) -> String {
        self.disk.describe()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        std::thread::sleep(Duration::from_nanos(self.delays.list_ns.load(Ordering::Relaxed)));
        self.disk.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        if access == Access::Create {
            self.delays.pass(&self.delays.create_ns);
        }
        let file = self.disk.open(name, access)?;
        Ok(Arc::new(SlowFile { file, delays: Arc::clone(&self.delays) }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.disk.random(bytes)
    }

    fn queue(&self) -> io::Result<Box<dyn WriteQueue>> {
        self.disk.queue()
    }
}

impl DiskFile for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.delays.pass(&self.delays.write_ns);
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.delays.pass(&self.delays.sync_ns);
        self.file.sync_data()
    }

    fn map(&self, bytes: usize) -> io::Result<Mapping> {
        self.file.map(bytes)
    }
}

/// A storage whose commits and syncs take time of the engine's clock; a commit with a sync takes
/// both.
pub(crate) struct SlowStorage {
    pub(crate) storage: MemoryStorage,
    pub(crate) delays: Arc<Delays>,
}

impl Storage for SlowStorage {
    type Snapshot = <MemoryStorage as Storage>::Snapshot;

    fn name(&self) -> &'static str {
        "slow"
    }

    fn tables(&self) -> Result<Vec<Table>, StorageError> {
        self.storage.tables()
    }

    fn create_table(&self, table: Table) -> Result<(), StorageError> {
        self.storage.create_table(table)
    }

    fn remove_table(&self, table: Table) -> Result<(), StorageError> {
        self.storage.remove_table(table)
    }

    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        self.storage.get(table, key, read)
    }

    fn commit(&self, batch: &StorageBatch, sync: bool) -> Result<bool, StorageError> {
        self.delays.pass(&self.delays.write_ns);
        if sync {
            self.delays.pass(&self.delays.sync_ns);
        }
        self.storage.commit(batch, sync)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.delays.pass(&self.delays.sync_ns);
        self.storage.sync()
    }

    fn snapshot(&self) -> Result<Self::Snapshot, StorageError> {
        self.storage.snapshot()
    }
}
