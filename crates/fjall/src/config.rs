//! Limits of a storage, and the times at which it syncs.

use std::time::Duration;

use fjall::{KeyspaceCreateOptions, KvSeparationOptions};

use crate::error::OpenError;

/// The smallest limit that fjall accepts for its journals.
pub(crate) const JOURNAL_BYTES_MIN: u64 = 64 << 20;

/// The options of a [`FjallStorage`](crate::FjallStorage): memory, disk, and when it syncs on its
/// own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct FjallConfig {
    pub(crate) cache_bytes: u64,
    pub(crate) write_buffer_bytes: u64,
    pub(crate) journal_bytes: u64,
    pub(crate) separate_from: Option<u32>,
    pub(crate) sync_every: Option<Duration>,
    pub(crate) worker_threads: usize,
}

impl Default for FjallConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            write_buffer_bytes: 64 << 20,
            journal_bytes: 512 << 20,
            separate_from: Some(1 << 10),
            sync_every: Some(Duration::from_secs(1)),
            worker_threads: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().min(4)),
        }
    }
}

impl FjallConfig {
    /// Makes the defaults: 64 MiB of cache, 64 MiB of write buffer a table, and 512 MiB of
    /// journals. Values from 1 KiB on are kept apart, and a sync follows each second.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the bytes of blocks that fjall keeps in memory for reads, of all tables together.
    /// Default: 64 MiB. A read of a block outside of the cache reads a file.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets the bytes that a table takes in memory before they are written to a sorted file.
    /// Default: 64 MiB. A table has four such buffers at most. One takes writes, and may grow to
    /// twice the size; three are being written. A table keeps the value that it was made with; a
    /// change counts for tables that are made later.
    pub fn write_buffer_bytes(mut self, bytes: u64) -> Self {
        self.write_buffer_bytes = bytes;
        self
    }

    /// Sets the bytes of journals at which fjall writes out the write buffers that keep the oldest
    /// journal alive. Default: 512 MiB. At least 64 MiB. Opening reads the journals, so fewer
    /// bytes open faster.
    pub fn journal_bytes(mut self, bytes: u64) -> Self {
        self.journal_bytes = bytes;
        self
    }

    /// Sets the length in bytes from which a value is kept apart from its key, in a file that
    /// compactions of keys do not rewrite. Default: 1 KiB. `None` keeps every value with its key. A
    /// table keeps the value that it was made with.
    pub fn separate_from(mut self, bytes: Option<u32>) -> Self {
        self.separate_from = bytes;
        self
    }

    /// Sets the interval at which a thread of the storage syncs batches that were committed without
    /// `sync`. Default: 1 second. `None` starts no thread; then only the caller syncs.
    pub fn sync_every(mut self, interval: Option<Duration>) -> Self {
        self.sync_every = interval;
        self
    }

    /// Sets the number of threads of fjall that write buffers to files and compact files. Default:
    /// the number of cores, 4 at most. At least 1.
    pub fn worker_threads(mut self, threads: usize) -> Self {
        self.worker_threads = threads;
        self
    }

    /// Refuses an option that fjall panics at, or that leaves no thread to write.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let below = |option, value: u64, least: u64| {
            let message = format!("{value} is less than {least}");
            if value < least { Err(OpenError::Config { option, message }) } else { Ok(()) }
        };
        below("journal_bytes", self.journal_bytes, JOURNAL_BYTES_MIN)?;
        below("worker_threads", self.worker_threads as u64, 1)
    }

    /// The options of a new table.
    pub(crate) fn table(&self) -> KeyspaceCreateOptions {
        let separation = self
            .separate_from
            .map(|bytes| KvSeparationOptions::default().separation_threshold(bytes));
        KeyspaceCreateOptions::default()
            .max_memtable_size(self.write_buffer_bytes)
            .with_kv_separation(separation)
    }
}
