//! The promises of a storage, kept by redb: alone, through power cuts and kills, and under a
//! machine.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, unreachable_pub, reason = "tests")]

mod contract;
mod disk;
mod install;
mod kill;
mod machine;
mod memory;
mod opening;
#[path = "../../../../tests/common/storage/mod.rs"]
mod over_storage;
mod power_cut;
mod suite;
mod syncing;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use sprag::machine::storage::{Storage, StorageBatch, StorageSnapshot, Table};

/// The table that most tests write.
const STATE: Table = Table::State(1);

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

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
    let keep = |all: &mut Pairs, key: &[u8], value: &[u8]| all.push((key.into(), value.into()));
    let mut each = |key: &[u8], value: &[u8]| {
        keep(&mut forth, key, value);
        ControlFlow::Continue(())
    };
    snapshot.scan(table, from, to, &mut each).unwrap();
    let mut each = |key: &[u8], value: &[u8]| {
        keep(&mut back, key, value);
        ControlFlow::Continue(())
    };
    snapshot.scan_back(table, from, to, &mut each).unwrap();
    back.reverse();
    assert_eq!(forth, back, "a scan back gives the same pairs");
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

/// Expected content of a table.
type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn of_model(model: &Model) -> Pairs {
    model.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}
