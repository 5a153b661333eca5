//! Tests with a power cut at every operation of a run, which keeps any of the unsynced sectors.

use sprag::machine::storage::{Storage, StorageBatch, StorageError, Table};
use sprag::testing::Random;
use sprag_redb::{RedbConfig, RedbStorage};

use crate::disk::Disk;
use crate::{Model, STATE, all, get, of_model};

const BATCHES: u64 = 9;

fn config() -> RedbConfig {
    // A small cache makes redb write pages before their transaction ends.
    RedbConfig::new().sync_every(None).cache_bytes(64 << 10).unsynced_bytes(40_000)
}

/// The writes of batch `number`: its number in a separate table, and some keys of the state.
fn batch_of(number: u64, model: &mut Model) -> StorageBatch {
    let mut random = Random::new(number);
    let mut batch = StorageBatch::new();
    batch.put(Table::Meta, b"number", &number.to_be_bytes());
    for key in 0..12_u8 {
        match random.below(3) {
            0 => {}
            1 => {
                batch.remove(STATE, &[key]);
                model.remove(&vec![key]);
            }
            _ => {
                let value = {
                    let len = random.below(3000);
                    random.bytes(len)
                };
                batch.put(STATE, &[key], &value);
                model.insert(vec![key], value);
            }
        }
    }
    batch
}

#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    /// Number of the last batch that was begun.
    begun: u64,
    durable: u64,
}

/// Opens what is on the disk, and commits batches until a failure.
fn run(disk: &Disk, syncs: bool, progress: &mut Progress) -> Result<(), StorageError> {
    let Ok(storage) = RedbStorage::with_backend(disk.clone(), config()) else { return Ok(()) };
    storage.create_table(Table::Meta)?;
    storage.create_table(STATE)?;
    storage.create_table(Table::State(2))?;
    let mut model = Model::new();
    for number in 1..=BATCHES {
        let batch = batch_of(number, &mut model);
        progress.begun = number;
        if storage.commit(&batch, syncs && number % 3 != 1)? {
            progress.durable = number;
        }
        match number {
            6 => storage.remove_table(Table::State(2))?,
            9 => {
                storage.sync()?;
                progress.durable = number;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Number of the last batch that a storage over the disk has. Checks that batches are whole and in
/// order, and that no durable batch is missing.
fn check(disk: &Disk, progress: Progress) -> Result<u64, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let open = |disk: Disk, config| {
        RedbStorage::with_backend(disk, config).map_err(|error| failed(&error))
    };
    let storage = open(disk.clone(), config())?;
    let number = get(&storage, Table::Meta, b"number")
        .map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
    if !(progress.durable..=progress.begun).contains(&number) {
        return Err(format!("{number} batches are there"));
    }
    let mut model = Model::new();
    for number in 1..=number {
        batch_of(number, &mut model);
    }
    if all(&storage.snapshot().unwrap(), STATE) != of_model(&model) {
        return Err(format!("the state is not that of {number} batches"));
    }
    // The storage continues from there, and the whole file is sound.
    for table in [Table::Meta, STATE] {
        storage.create_table(table).map_err(|error| failed(&error))?;
    }
    storage.commit(&batch_of(number + 1, &mut model), true).map_err(|error| failed(&error))?;
    drop(storage);
    let storage = open(disk.reopened(), config().verify_on_open(true))?;
    if all(&storage.snapshot().unwrap(), STATE) != of_model(&model) {
        return Err(format!("after one more: the state is not that of {} batches", number + 1));
    }
    Ok(number)
}

fn cut_everywhere(syncs: bool) -> (u64, u64) {
    let whole = Disk::new();
    let mut progress = Progress::default();
    run(&whole, syncs, &mut progress).unwrap();
    assert_eq!(progress.begun, BATCHES);
    let mut lost = 0;
    for cut_at in 1..=whole.operations() {
        let disk = Disk::cutting_at(cut_at);
        let mut progress = Progress::default();
        // The run fails where the power does.
        let _ = run(&disk, syncs, &mut progress);
        lost += progress.begun - progress.durable;
        for keep in [0, 50, 100] {
            let mut random = Random::new(cut_at * 101 + keep as u64);
            if let Err(error) = check(&disk.after_a_cut(&mut random, keep), progress) {
                panic!("cut at {cut_at}, {keep} percent kept, {progress:?}: {error}");
            }
        }
    }
    (whole.operations(), lost)
}

/// Proves DUR-28.
#[test]
fn a_power_cut_takes_no_durable_batch_and_no_part_of_one() {
    let (operations, _) = cut_everywhere(true);
    assert!(operations > 50, "{operations}");
}

#[test]
fn a_power_cut_without_syncs_takes_the_newest_batches_only() {
    let (operations, lost) = cut_everywhere(false);
    assert!(operations > 20 && lost > 0, "{operations}, {lost}");
}

#[test]
fn the_check_notices_a_disk_that_does_not_sync() {
    let disk = Disk::lying();
    let mut progress = Progress::default();
    run(&disk, true, &mut progress).unwrap();
    check(&disk.reopened(), progress).unwrap();
    let error = check(&disk.after_a_cut(&mut Random::new(1), 0), progress).unwrap_err();
    assert_eq!(error, "0 batches are there");
}
