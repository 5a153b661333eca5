//! How a machine over a storage is made.

use std::time::Duration;

use crate::codec::Limits;
use crate::config::{BATCH_SIZE_MAX, within};
use crate::error::OpenError;

/// The longest [`StorageConfig::batch_interval`].
const BATCH_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// How a [`StorageMachine`](super::StorageMachine) is made.
///
/// ```
/// use std::time::Duration;
/// use sprag::StorageConfig;
///
/// let config = StorageConfig::default()
///     .batch_size(1000)
///     .batch_interval(Duration::from_millis(2))
///     .sync_writes(true);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct StorageConfig {
    pub(super) batch_size: usize,
    pub(super) batch_interval: Duration,
    pub(super) sync_writes: bool,
    pub(super) limits: Limits,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            batch_size: 128,
            batch_interval: Duration::ZERO,
            sync_writes: true,
            limits: Limits::default(),
        }
    }
}

impl StorageConfig {
    /// The most entries that the storage commits as one batch, default 128. A batch of 16 MiB ends before that.
    pub fn batch_size(mut self, entries: usize) -> Self {
        self.batch_size = entries;
        self
    }

    /// How long fewer entries than [`batch_size`](StorageConfig::batch_size) wait for more before they are committed, default
    /// 0: not at all. At most 60 seconds.
    ///
    /// A synchronous caller, a flush, a view, a snapshot and a close do not wait for it.
    pub fn batch_interval(mut self, interval: Duration) -> Self {
        self.batch_interval = interval;
        self
    }

    /// Whether each batch is on stable storage before its entries are acknowledged, default true.
    ///
    /// With false a power cut may lose acknowledged entries: as many as the storage had not synced by itself, never out of
    /// order. [`flush_pending`](crate::ApplyManager::flush_pending) and [`close`](crate::ApplyManager::close) sync all the
    /// same. It has no meaning for a machine under [`Journaled`](crate::Journaled), whose log syncs.
    pub fn sync_writes(mut self, sync: bool) -> Self {
        self.sync_writes = sync;
        self
    }

    /// The largest key, value and entry taken; default: the most there can be.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        self.limits.check()?;
        within("batch_size", self.batch_size, 1, BATCH_SIZE_MAX)?;
        if self.batch_interval > BATCH_INTERVAL_MAX {
            let (asked, most) = (self.batch_interval, BATCH_INTERVAL_MAX);
            let message = format!("{asked:?} is more than {most:?}");
            return Err(OpenError::Config { option: "batch_interval", message });
        }
        Ok(())
    }
}
