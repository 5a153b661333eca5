//! Storages with keys and transactions: fjall, redb and LMDB.

use std::path::Path;

use anyhow::Result;
use heed::types::Bytes;
use redb::{Durability, ReadableDatabase, TableDefinition};

use super::{Store, sum};
use crate::workload::Key;

/// fjall: an LSM tree with a journal.
pub(crate) struct Fjall {
    db: fjall::Database,
    keyspace: fjall::Keyspace,
}

impl Fjall {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let db = fjall::Database::builder(dir).cache_size(256 << 20).open()?;
        let keyspace = db.keyspace("state", fjall::KeyspaceCreateOptions::default)?;
        Ok(Self { db, keyspace })
    }
}

impl Store for Fjall {
    fn write(&self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()> {
        let mut batch = self.db.batch().durability(Some(fjall::PersistMode::SyncData));
        for (key, value) in writes {
            batch.insert(&self.keyspace, key.as_slice(), value);
        }
        Ok(batch.commit()?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<u64>> {
        Ok(self.keyspace.get(key)?.map(|value| sum(&value)))
    }
}

/// redb: a B-tree in one file.
pub(crate) struct Redb {
    db: redb::Database,
}

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");

impl Redb {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let db = redb::Database::builder().set_cache_size(256 << 20).create(dir.join("db"))?;
        Ok(Self { db })
    }
}

impl Store for Redb {
    fn write(&self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in writes {
                table.insert(key.as_slice(), value)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<u64>> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        Ok(redb::ReadableTable::get(&table, key)?.map(|value| sum(value.value())))
    }
}

/// LMDB: a B-tree in one mapped file.
pub(crate) struct Lmdb {
    env: heed::Env,
    db: heed::Database<Bytes, Bytes>,
}

impl Lmdb {
    /// Writes a copy of the state without its free pages, and makes it durable.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<()> {
        let file = self.env.copy_to_path(path, heed::CompactionOption::Enabled)?;
        Ok(file.sync_all()?)
    }
}

impl Lmdb {
    #[allow(unsafe_code, reason = "LMDB maps its file")]
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let mut options = heed::EnvOpenOptions::new();
        options.map_size(8 << 30);
        // SAFETY: the comparison made this directory, and nothing else opens or changes its files
        // while they are mapped.
        let env = unsafe { options.open(dir)? };
        let mut transaction = env.write_txn()?;
        let db = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        Ok(Self { env, db })
    }
}

impl Store for Lmdb {
    fn write(&self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in writes {
            self.db.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<u64>> {
        let transaction = self.env.read_txn()?;
        Ok(self.db.get(&transaction, key)?.map(sum))
    }
}
