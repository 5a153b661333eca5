//! Options of a machine over a storage.

use std::time::Duration;

use crate::bytes::to_usize;
use crate::codec::Limits;
use crate::config::{BATCH_SIZE_MAX, EXPECTED_KEYS_MAX, within};
use crate::error::OpenError;

/// The longest [`StorageConfig::batch_interval`].
const BATCH_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// The least value of [`StorageConfig::max_cache_bytes`].
const CACHE_BYTES_MIN: usize = 1 << 20;
const CACHE_BYTES_MAX: usize = 1 << 40;

/// The limits of a [`ReadCache`](crate::machine::storage::cache::ReadCache). Both hold at every
/// moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct CacheLimits {
    pub(crate) entries: usize,
    pub(crate) bytes: u64,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { entries: 10_000, bytes: 64 << 20 }
    }
}

// Production makes them from `StorageConfig`.
#[cfg(any(test, feature = "testing"))]
impl CacheLimits {
    /// Makes the default limits: 10,000 entries and 64 MiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the most entries. Default: 10,000.
    pub fn entries(mut self, entries: usize) -> Self {
        self.entries = entries;
        self
    }

    /// Sets the most bytes: keys, values, and 192 bytes for each entry. Default: 64 MiB.
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }
}

/// Options of a [`StorageMachine`](crate::machine::storage::StorageMachine).
///
/// ```
/// use std::time::Duration;
/// use sprag::StorageConfig;
///
/// let config = StorageConfig::new()
///     .batch_size(1000)
///     .batch_interval(Duration::from_millis(2))
///     .sync_writes(true);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct StorageConfig {
    pub(crate) batch_size: usize,
    pub(crate) batch_interval: Duration,
    pub(crate) sync_writes: bool,
    pub(crate) limits: Limits,
    pub(crate) enable_cache: bool,
    pub(crate) cache_limits: CacheLimits,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            batch_size: 128,
            batch_interval: Duration::ZERO,
            sync_writes: true,
            limits: Limits::new(),
            enable_cache: false,
            cache_limits: CacheLimits::default(),
        }
    }
}

impl StorageConfig {
    /// Makes the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the most entries that the storage commits as one batch, default 128. A batch also ends
    /// at 16 MiB.
    pub fn batch_size(mut self, entries: usize) -> Self {
        self.batch_size = entries;
        self
    }

    /// Sets how long fewer entries than [`batch_size`](StorageConfig::batch_size) wait for more
    /// before they are committed. Default: 0, not at all. At most 60 seconds.
    ///
    /// Synchronous callers, flushes, views, snapshots and closes do not wait for it.
    pub fn batch_interval(mut self, interval: Duration) -> Self {
        self.batch_interval = interval;
        self
    }

    /// Sets whether each batch is on stable storage before its entries are acknowledged. Default:
    /// true.
    ///
    /// With false, a power cut may lose acknowledged entries: as many as the storage had not synced
    /// itself, never out of order. A storage that keeps unsynced batches in the memory of the
    /// process, as redb does, also loses them to a kill.
    /// [`flush_pending`](crate::ApplyManager::flush_pending) and
    /// [`close`](crate::ApplyManager::close) sync all the same. The option has no meaning for a
    /// machine under [`Journaled`](crate::Journaled), whose log syncs.
    pub fn sync_writes(mut self, sync: bool) -> Self {
        self.sync_writes = sync;
        self
    }

    /// Sets the largest key, value and entry; default: the format's limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets whether the machine caches values that were read. Default: false, because a storage has
    /// its own caches, and this one takes memory beside them. `docs/operating.md` says when the
    /// cache pays.
    ///
    /// Reads return the same with and without the cache. Without the cache, the `cache_*` figures
    /// of the stats are `None`.
    pub fn enable_cache(mut self, enable: bool) -> Self {
        self.enable_cache = enable;
        self
    }

    /// Sets the most entries in the read cache, default 10,000; 1 to 2^32. It has an effect only
    /// with [`enable_cache`](StorageConfig::enable_cache).
    pub fn max_cache_size(mut self, entries: usize) -> Self {
        self.cache_limits.entries = entries;
        self
    }

    /// Sets the most bytes in the read cache, default 64 MiB; 1 MiB to 1 TiB. Keys and values
    /// count, and 192 bytes for each entry. It has an effect only with
    /// [`enable_cache`](StorageConfig::enable_cache).
    ///
    /// The cache has up to 16 parts, of 1 MiB at least; a value above 3/4 of a part is not cached.
    /// By default that limit is 3 MiB.
    pub fn max_cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_limits.bytes = bytes;
        self
    }

    /// Every option and its value, for the table of the profiles.
    #[cfg(test)]
    pub(crate) fn shown(&self) -> [(&'static str, String); 7] {
        let Self { batch_size, batch_interval, sync_writes, limits, enable_cache, cache_limits } =
            self;
        let CacheLimits { entries, bytes } = cache_limits;
        [
            ("StorageConfig::batch_size", batch_size.to_string()),
            ("StorageConfig::batch_interval", format!("{} s", batch_interval.as_secs_f64())),
            ("sync_writes", sync_writes.to_string()),
            ("StorageConfig::limits", format!("{limits:?}")),
            ("enable_cache", enable_cache.to_string()),
            ("max_cache_size", entries.to_string()),
            ("max_cache_bytes", format!("{} MiB", bytes >> 20)),
        ]
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        self.limits.check()?;
        within("batch_size", self.batch_size, 1, BATCH_SIZE_MAX)?;
        let CacheLimits { entries, bytes } = self.cache_limits;
        within("max_cache_size", entries, 1, EXPECTED_KEYS_MAX)?;
        within("max_cache_bytes", to_usize(bytes), CACHE_BYTES_MIN, CACHE_BYTES_MAX)?;
        if self.batch_interval > BATCH_INTERVAL_MAX {
            let (asked, most) = (self.batch_interval, BATCH_INTERVAL_MAX);
            let message = format!("{asked:?} is more than {most:?}");
            return Err(OpenError::Config { option: "batch_interval", message });
        }
        Ok(())
    }
}
