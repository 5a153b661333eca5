//! Tests with a power cut at every write of an installation.

use sprag::testing::Random;
use sprag::{
    ApplyConfig, ApplyManager, Entry, LogId, MemoryConfig, MemoryStateMachine, Payload, Snapshot,
    StateMachine, StorageConfig,
};
use sprag_redb::{RedbConfig, RedbStorage};

use crate::disk::Disk;
use crate::over_storage::{Manager, PATIENT, manage};

fn config() -> RedbConfig {
    // A small cache makes redb write pages while the snapshot is loaded.
    RedbConfig::new().sync_every(None).cache_bytes(64 << 10)
}

fn fill<M: StateMachine>(manager: &ApplyManager<M>, keys: u64, mark: u8) {
    for index in 1..=keys {
        let (key, value) = (index.to_be_bytes(), [mark; 1500]);
        manager.apply(&Entry::put(index, 1, &key, &value), PATIENT).unwrap();
    }
    let members = [mark];
    let membership = Entry::new(LogId::new(keys + 1, 1), Payload::Membership(&members));
    manager.apply(&membership, PATIENT).unwrap();
}

/// The bytes of a snapshot of some state, and the snapshot itself.
fn snapshot() -> (Vec<u8>, Snapshot) {
    let machine = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
    let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
    fill(&manager, 40, b'n');
    let mut bytes = Vec::new();
    manager.snapshots().write_to(&mut bytes).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    (bytes, Snapshot::open(file.path()).unwrap())
}

fn open(disk: &Disk) -> Option<Manager<RedbStorage>> {
    let storage = RedbStorage::with_backend(disk.clone(), config()).ok()?;
    manage(storage, StorageConfig::new())
}

fn bytes_of(manager: &Manager<RedbStorage>) -> Vec<u8> {
    let mut bytes = Vec::new();
    manager.machine().snapshot(&mut bytes).unwrap();
    bytes
}

/// Proves DUR-30.
#[test]
fn a_power_cut_at_any_write_of_an_installation_leaves_the_old_state_or_the_new_one() {
    let (new, snapshot) = snapshot();
    let old_disk = Disk::new();
    let manager = open(&old_disk).unwrap();
    fill(&manager, 3, b'o');
    let old = bytes_of(&manager);
    manager.close(PATIENT).unwrap();

    let whole = old_disk.reopened();
    let manager = open(&whole).unwrap();
    let first = whole.operations();
    manager.snapshots().restore(&snapshot, PATIENT).unwrap();
    let last = whole.operations();
    assert!(bytes_of(&manager) == new);
    drop(manager);

    let (mut left_old, mut left_new) = (0, 0);
    for cut_at in first + 1..=last {
        let disk = old_disk.reopened();
        disk.cut_at(cut_at);
        let manager = open(&disk).unwrap();
        let installed = manager.snapshots().restore(&snapshot, PATIENT).is_ok();
        for keep in [0, 50, 100] {
            let mut random = Random::new(cut_at * 7 + keep as u64);
            let left = disk.after_a_cut(&mut random, keep);
            let case = format!("cut at {cut_at} of {first} to {last}, {keep} percent kept");
            let recovered = open(&left).unwrap_or_else(|| panic!("{case}: it does not open"));
            let found = bytes_of(&recovered);
            assert!(found == old || found == new, "{case}");
            assert!(!installed || found == new, "{case}: an installation that was done is lost");
            let tables = sprag::Storage::tables(recovered.machine().storage()).unwrap();
            assert_eq!(tables.len(), 3, "{case}: the other state is gone");
            left_old += u32::from(found == old);
            left_new += u32::from(found == new);
            let next = recovered.applied().unwrap().index + 1;
            recovered.apply(&Entry::put(next, 1, b"next", b"value"), PATIENT).unwrap();
        }
    }
    assert!(left_old > 10 && left_new > 2, "{left_old} old, {left_new} new");
}
