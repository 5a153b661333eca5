//! redb as a storage: a machine over it beside a bare loop, and figures at several sizes. With the
//! argument `quick-repair`, synced batches record the free pages.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a benchmark"
)]

#[path = "../../../benches/storages/mod.rs"]
mod storages;

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, TableDefinition, TableError};
use sprag_redb::{RedbConfig, RedbStorage};
use storages::{Bare, Pair, Target};

const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");
const STATE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");

struct Redb;

struct Loop(Database);

impl Loop {
    fn end(&self, pairs: &[Pair], log_id: Option<u64>, durability: Durability) {
        let mut transaction = self.0.begin_write().unwrap();
        transaction.set_durability(durability).unwrap();
        if let Some(log_id) = log_id {
            let mut state = transaction.open_table(STATE).unwrap();
            for (key, value) in pairs {
                state.insert(&key[..], &value[..]).unwrap();
            }
            let mut meta = transaction.open_table(META).unwrap();
            // This record is as long as the machine's.
            let record = [log_id.to_le_bytes(); 8].concat();
            meta.insert(&b"state"[..], &record[..]).unwrap();
        }
        transaction.commit().unwrap();
    }
}

impl Bare for Loop {
    fn batch(&mut self, pairs: &[Pair], log_id: u64, gets: bool, sync: bool) {
        if gets {
            let transaction = self.0.begin_read().unwrap();
            match transaction.open_table(STATE) {
                Ok(state) => {
                    for (key, _) in pairs {
                        std::hint::black_box(state.get(&key[..]).unwrap());
                    }
                }
                Err(error) => assert!(matches!(error, TableError::TableDoesNotExist(_))),
            }
        }
        let durability = if sync { Durability::Immediate } else { Durability::None };
        self.end(pairs, Some(log_id), durability);
    }

    fn sync(&mut self) {
        self.end(&[], None, Durability::Immediate);
    }
}

/// Options for a storage that syncs when the loop does: neither by time nor by bytes.
fn config() -> RedbConfig {
    RedbConfig::new().sync_every(None).unsynced_bytes(u64::MAX)
}

impl Target for Redb {
    type Storage = RedbStorage;
    type Bare = Loop;

    fn storage(&self, directory: &Path) -> RedbStorage {
        let has = |word| std::env::args().any(|argument| argument == word);
        let config = if has("sizes") { RedbConfig::new() } else { config() };
        let config = config.quick_repair(has("quick-repair"));
        RedbStorage::open(directory.join("state.redb"), config).unwrap()
    }

    fn bare(&self, directory: &Path) -> Loop {
        let mut builder = Database::builder();
        builder.set_cache_size(64 << 20);
        Loop(builder.create(directory.join("state.redb")).unwrap())
    }
}

fn main() {
    storages::main(&Redb);
}
