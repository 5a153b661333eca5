//! A disk that acts before a sync of the log is reported, and before a file is removed.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "tests; each file uses its own part of this"
)]

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;

use sprag::disk::{Access, Completion, Disk, DiskFile, LogWrite, WriteQueue};

type Act = Arc<dyn Fn() + Send + Sync>;

pub struct ActingDisk {
    disk: Arc<dyn Disk>,
    at_sync: Act,
    at_removal: Act,
}

impl ActingDisk {
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, at_sync: Arc::new(|| {}), at_removal: Arc::new(|| {}) }
    }

    /// The disk's log writer runs `act` after a sync, before it hears of it.
    pub fn at_sync(mut self, act: impl Fn() + Send + Sync + 'static) -> Self {
        self.at_sync = Arc::new(act);
        self
    }

    pub fn at_removal(mut self, act: impl Fn() + Send + Sync + 'static) -> Self {
        self.at_removal = Arc::new(act);
        self
    }
}

impl fmt::Debug for ActingDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActingDisk").field("disk", &self.disk).finish_non_exhaustive()
    }
}

struct ActingQueue {
    queue: Box<dyn WriteQueue>,
    at_sync: Act,
    /// The pending writes that are synced.
    synced: BTreeSet<u64>,
}

impl fmt::Debug for ActingQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActingQueue").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl WriteQueue for ActingQueue {
    fn backend(&self) -> &'static str {
        self.queue.backend()
    }

    fn depth(&self) -> usize {
        self.queue.depth()
    }

    fn submit(&mut self, write: LogWrite) {
        if write.sync {
            self.synced.insert(write.token);
        }
        self.queue.submit(write);
    }

    fn complete(&mut self, wait: bool) -> Option<Completion> {
        let completion = self.queue.complete(wait)?;
        if self.synced.remove(&completion.token) {
            (self.at_sync)();
        }
        Some(completion)
    }
}

impl Disk for ActingDisk {
    fn describe(&self) -> String {
        self.disk.describe()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name, access)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        (self.at_removal)();
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.disk.random(bytes)
    }

    fn queue(&self) -> io::Result<Box<dyn WriteQueue>> {
        let (queue, at_sync) = (self.disk.queue()?, Arc::clone(&self.at_sync));
        Ok(Box::new(ActingQueue { queue, at_sync, synced: BTreeSet::new() }))
    }
}
