//! fjall as a storage: a machine over it beside a bare loop, and figures at several sizes.
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

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use sprag_fjall::{FjallConfig, FjallStorage};
use storages::{Bare, Pair, Target};

struct Fjall;

struct Loop {
    database: Database,
    meta: Keyspace,
    state: Keyspace,
}

impl Bare for Loop {
    fn batch(&mut self, pairs: &[Pair], log_id: u64, gets: bool, sync: bool) {
        if gets {
            for (key, _) in pairs {
                std::hint::black_box(self.state.get(key).unwrap());
            }
        }
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.database.batch().durability(Some(mode));
        for (key, value) in pairs {
            batch.insert(&self.state, &key[..], &value[..]);
        }
        // This record is as long as the machine's.
        let record = [log_id.to_le_bytes(); 8].concat();
        batch.insert(&self.meta, &b"state"[..], record);
        batch.commit().unwrap();
    }

    fn sync(&mut self) {
        self.database.persist(PersistMode::SyncData).unwrap();
    }
}

impl Target for Fjall {
    type Storage = FjallStorage;
    type Bare = Loop;

    fn storage(&self, directory: &Path) -> FjallStorage {
        let is_sized = std::env::args().any(|argument| argument == "sizes");
        // The bare loop syncs only when it is told to.
        let config = FjallConfig::new();
        let config = if is_sized { config } else { config.sync_every(None) };
        FjallStorage::open(directory.join("state"), config).unwrap()
    }

    fn bare(&self, directory: &Path) -> Loop {
        let database =
            Database::builder(directory.join("state")).cache_size(64 << 20).open().unwrap();
        let options = || {
            KeyspaceCreateOptions::default()
                .with_kv_separation(Some(KvSeparationOptions::default()))
        };
        let [meta, state] = ["meta", "state"].map(|name| database.keyspace(name, options).unwrap());
        Loop { database, meta, state }
    }
}

fn main() {
    storages::main(&Fjall);
}
