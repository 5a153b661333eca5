//! A simulated disk with slow syncs of the log, by the system's clock.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sprag::disk::{Access, Completion, Disk, DiskFile, LogWrite, WriteQueue};

#[derive(Debug)]
pub(crate) struct SlowDisk {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) sync: Duration,
}

#[derive(Debug)]
struct SlowQueue {
    queue: Box<dyn WriteQueue>,
    sync: Duration,
    /// The pending writes that have been synced.
    synced: BTreeSet<u64>,
}

impl WriteQueue for SlowQueue {
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
            thread::sleep(self.sync);
        }
        Some(completion)
    }
}

impl Disk for SlowDisk {
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
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.disk.random(bytes)
    }

    fn queue(&self) -> io::Result<Box<dyn WriteQueue>> {
        let queue = self.disk.queue()?;
        Ok(Box::new(SlowQueue { queue, sync: self.sync, synced: BTreeSet::new() }))
    }
}
