//! Limits of a storage, and the times at which it syncs.

use std::time::Duration;

/// The options of a [`RedbStorage`](crate::RedbStorage): memory, and when it syncs on its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct RedbConfig {
    pub(crate) cache_bytes: usize,
    pub(crate) unsynced_bytes: u64,
    pub(crate) sync_every: Option<Duration>,
    pub(crate) quick_repair: bool,
    pub(crate) verify_on_open: bool,
}

impl Default for RedbConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            unsynced_bytes: 64 << 20,
            sync_every: Some(Duration::from_secs(1)),
            quick_repair: false,
            verify_on_open: false,
        }
    }
}

impl RedbConfig {
    /// Makes the defaults: 64 MiB of cache; a sync after 64 MiB of batches without one, and 1
    /// second after the first.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of pages that redb keeps in memory, at most half of them not written yet. Default:
    /// 64 MiB. A read of a page that is not in the cache reads the file.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets the bytes of keys and values that batches without `sync` may have together. The batch
    /// that exceeds them is synced all the same. Default: 64 MiB. Zero syncs every batch.
    pub fn unsynced_bytes(mut self, bytes: u64) -> Self {
        self.unsynced_bytes = bytes;
        self
    }

    /// Sets the time after the first batch without `sync` after which a thread of the storage
    /// syncs. Default: 1 second. `None` starts no thread; then only
    /// [`unsynced_bytes`](Self::unsynced_bytes) and the caller sync.
    pub fn sync_every(mut self, interval: Option<Duration>) -> Self {
        self.sync_every = interval;
        self
    }

    /// Sets whether a batch with `sync` records the free pages of the file. Default: no. With the
    /// record, opening after a crash takes the same time whatever the size of the file; each such
    /// batch costs a second sync.
    pub fn quick_repair(mut self, is_on: bool) -> Self {
        self.quick_repair = is_on;
        self
    }

    /// Sets whether opening checks the checksum of every page. Default: no. The check reads the
    /// whole file.
    pub fn verify_on_open(mut self, is_on: bool) -> Self {
        self.verify_on_open = is_on;
        self
    }
}
