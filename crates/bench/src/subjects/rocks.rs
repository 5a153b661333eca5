//! RocksDB: an LSM tree with a log, in C++.

use std::path::Path;

use anyhow::Result;
use rocksdb::{BlockBasedOptions, Cache, DB, Options, WriteBatch, WriteOptions};

use super::{Store, sum};
use crate::workload::Key;

/// Cache of blocks, as large as that of the other storages.
const CACHE_BYTES: usize = 256 << 20;

pub(super) struct Rocks(DB);

impl Rocks {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        Ok(Self(DB::open(&options, dir)?))
    }
}

impl Store for Rocks {
    fn write(&self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in writes {
            batch.put(key, value);
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.0.write_opt(batch, &options)?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<u64>> {
        Ok(self.0.get_pinned(key)?.map(|value| sum(&value)))
    }
}
