//! Segment files: made ready before they are needed, so that neither opening nor a commit waits for it.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::format::segment_name;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::Poison;

/// Creates the files of a log, the next one ahead of time.
#[derive(Debug)]
pub(crate) struct SegmentFiles {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    /// The number that should be made ready; 0 for none.
    wanted: AtomicU32,
    /// The last number that was asked for.
    asked: AtomicU32,
    ready: Mutex<Option<(u32, Arc<dyn DiskFile>)>>,
}

impl SegmentFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, segment_bytes: u64) -> Self {
        Self {
            disk,
            segment_bytes,
            wanted: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            ready: Mutex::new(None),
        }
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The file of segment `number`, durable with its directory entry and all of its space.
    pub(crate) fn take(&self, number: u32) -> Result<Arc<dyn DiskFile>, Poison> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        match ready.take() {
            Some((prepared, file)) if prepared == number => Ok(file),
            _ => {
                let file = self.reserve(number);
                let file = file.map_err(|source| io_poison("creating", number, source))?;
                self.settle(number, file)
            }
        }
    }

    /// Asks, once, for segment `number` to be made ready by [`SegmentFiles::prepare`].
    pub(crate) fn want(&self, number: u32) {
        if self.asked.swap(number, Ordering::Relaxed) != number {
            self.wanted.store(number, Ordering::Release);
        }
    }

    /// Length of a segment file.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Whether [`SegmentFiles::prepare`] has something to do.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire) != 0
    }

    /// Makes ready what was asked for. A file that cannot be made yet is left to the log writer, which will meet the
    /// reason when it gets there; a failed sync is the engine's end, as trying it again would prove nothing.
    pub(crate) fn prepare(&self) -> Result<(), Poison> {
        let number = self.wanted.swap(0, Ordering::AcqRel);
        if number == 0 {
            return Ok(());
        }
        // Held while the file is made: if the log writer needs it meanwhile, it waits for it rather than making it too.
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        match self.reserve(number) {
            Ok(file) => *ready = Some((number, self.settle(number, file)?)),
            Err(error) => tracing::warn!(%error, "the next segment could not be made ready"),
        }
        Ok(())
    }

    /// Space is reserved, not written: zero-filling the next segment beside the log writer cost half of the throughput
    /// and gained nothing measurable on a single sync (`docs/benchmarks.md`).
    fn reserve(&self, number: u32) -> io::Result<Arc<dyn DiskFile>> {
        let name = segment_name(u64::from(number));
        let file = match self.disk.open(&name, Access::Create) {
            // Made ready before, and not used.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.open(&name, Access::Write)?
            }
            other => other?,
        };
        file.allocate(self.segment_bytes)?;
        Ok(file)
    }

    /// Makes a file durable, with its directory entry.
    fn settle(&self, number: u32, file: Arc<dyn DiskFile>) -> Result<Arc<dyn DiskFile>, Poison> {
        let synced = file.sync_data().and_then(|()| self.disk.sync_dir());
        synced.map_err(|source| io_poison("syncing", number, source))?;
        Ok(file)
    }
}

/// A failure on a segment's file, as the engine's end.
pub(crate) fn io_poison(action: &'static str, segment: u32, source: io::Error) -> Poison {
    Poison::Io { action, file: segment_name(u64::from(segment)), source: Arc::new(source) }
}
