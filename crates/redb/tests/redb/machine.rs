//! Tests of power cuts under a stand-alone key-value machine over redb.

use sprag::StorageConfig;
use sprag::testing::Random;
use sprag_redb::{RedbConfig, RedbStorage};

use crate::disk::Disk;
use crate::over_storage::{PATIENT, applied, entry, manage};

fn config() -> RedbConfig {
    RedbConfig::new().sync_every(None).cache_bytes(64 << 10)
}

const ENTRIES: u64 = 8;

/// Applies entries until the power fails, and returns the last acknowledged one.
fn run(disk: &Disk) -> u64 {
    let mut acknowledged = 0;
    let Ok(storage) = RedbStorage::with_backend(disk.clone(), config()) else { return 0 };
    let Some(manager) = manage(storage, StorageConfig::new()) else { return 0 };
    for index in 1..=ENTRIES {
        if manager.apply(&entry(index), PATIENT).is_err() {
            break;
        }
        acknowledged = index;
    }
    acknowledged
}

#[test]
fn a_power_cut_takes_nothing_acknowledged_and_nothing_is_applied_twice() {
    let whole = Disk::new();
    assert_eq!(run(&whole), ENTRIES);
    let mut cut = 0;
    for cut_at in 1..=whole.operations() {
        let disk = Disk::cutting_at(cut_at);
        let acknowledged = run(&disk);
        cut += u64::from(acknowledged < ENTRIES);
        for keep in [0, 60] {
            let disk = disk.after_a_cut(&mut Random::new(cut_at + 1000 * keep as u64), keep);
            let storage = RedbStorage::with_backend(disk, config()).unwrap();
            let manager = manage(storage, StorageConfig::new()).unwrap();
            let recovered = applied(&manager);
            let case = format!("cut at {cut_at}, {keep} percent kept");
            assert!(recovered >= acknowledged, "{case}: {recovered} of {acknowledged}");
            // A caller submits the entries again that may be lost.
            for index in acknowledged + 1..=ENTRIES {
                manager.apply(&entry(index), PATIENT).unwrap();
            }
            assert_eq!(applied(&manager), ENTRIES, "{case}");
        }
    }
    assert!(cut > 20, "{cut} cuts before the end");
}
