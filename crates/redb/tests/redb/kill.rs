//! Tests with SIGKILL at any moment of a process with a machine over redb.

use std::path::Path;

use sprag_redb::{RedbConfig, RedbStorage};

use crate::over_storage::kill;

fn open(directory: &Path) -> RedbStorage {
    let config = RedbConfig::new().sync_every(None).unsynced_bytes(20_000);
    RedbStorage::open(directory.join("state.redb"), config).unwrap()
}

#[test]
fn the_program() {
    kill::program(open);
}

/// Proves DUR-29.
#[test]
fn sigkill_takes_nothing_acknowledged_and_nothing_is_applied_twice() {
    let mut repaired = 0;
    kill::kill_again_and_again("kill::the_program", open, (true, 9), |storage| {
        repaired += usize::from(storage.was_repaired());
    });
    assert!(repaired > 2, "{repaired} repairs");
}

#[test]
fn sigkill_takes_nothing_flushed_where_batches_are_not_synced() {
    kill::kill_again_and_again("kill::the_program", open, (false, 6), |_| {});
}
