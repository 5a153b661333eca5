//! The promises of a storage, kept by fjall: alone, through power cuts and kills, and under a
//! machine.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, unreachable_pub, reason = "tests")]

mod contract;
mod machine;
mod opening;
#[path = "../../../../tests/common/storage/mod.rs"]
mod over_storage;
mod power_cut;
mod settings;
mod suite;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};

use sprag::machine::storage::{Storage, StorageBatch, StorageSnapshot, Table};
use sprag_fjall::{FjallConfig, FjallStorage};
use tempfile::TempDir;

/// The table that most tests write.
const STATE: Table = Table::State(1);

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
/// Expected content of a table.
type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// A place for a storage, removed when dropped.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        // Use memory if possible: these tests cut journals themselves, and a sync in memory is
        // still a call.
        let in_memory = Path::new("/dev/shm");
        Self(tempfile::tempdir_in(in_memory).or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn open(&self) -> FjallStorage {
        open(&self.path())
    }
}

/// Opens a storage with small limits, and with the table of the tests.
fn open(path: &Path) -> FjallStorage {
    let storage = FjallStorage::open(path, small()).unwrap();
    storage.create_table(STATE).unwrap();
    storage
}

fn small() -> FjallConfig {
    FjallConfig::new().cache_bytes(1 << 20).write_buffer_bytes(1 << 18).sync_every(None)
}

fn get(storage: &impl Storage, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    let is_there = storage.get(table, key, &mut |value| found = Some(value.to_vec())).unwrap();
    assert_eq!(is_there, found.is_some());
    found
}

fn pairs(
    snapshot: &impl StorageSnapshot,
    table: Table,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
) -> Pairs {
    let (mut forth, mut back) = (Pairs::new(), Pairs::new());
    let keep = |all: &mut Pairs, key: &[u8], value: &[u8]| {
        all.push((key.into(), value.into()));
        ControlFlow::Continue(())
    };
    snapshot.scan(table, from, to, &mut |key, value| keep(&mut forth, key, value)).unwrap();
    snapshot.scan_back(table, from, to, &mut |key, value| keep(&mut back, key, value)).unwrap();
    back.reverse();
    assert!(forth == back, "a scan back gives the same pairs");
    forth
}

fn all(snapshot: &impl StorageSnapshot, table: Table) -> Pairs {
    pairs(snapshot, table, Bound::Unbounded, Bound::Unbounded)
}

fn put(storage: &impl Storage, key: &[u8], value: &[u8], sync: bool) -> bool {
    let mut batch = StorageBatch::new();
    batch.put(STATE, key, value);
    storage.commit(&batch, sync).unwrap()
}

fn of_model(model: &Model) -> Pairs {
    model.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}
