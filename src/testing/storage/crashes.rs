//! Checks of recovery, and of reads beside a commit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::placed::open_new;
use super::tables::{Writing, all, commit, require};
use super::{Outcome, Subject, doing};
use crate::machine::storage::{Storage, StorageSnapshot, Table};
use crate::testing::Random;

const STATE: Table = Table::State(1);
const NOTES: Table = Table::Notes(1);

/// Number of batches of the check of atomicity; the next constant is the keys of each.
const BATCHES: u64 = 200;
const KEYS: u64 = 16;
/// Number of crashes that are tried.
const CRASHES: usize = 8;
/// Most batches before each crash.
const CRASH_BATCHES: usize = 24;

/// Takes snapshots while another thread commits batches that write one number under many keys.
pub(super) fn check_atomicity<S: Subject>(subject: &S) -> Outcome {
    let storage = open_new(subject)?;
    for table in [STATE, NOTES] {
        doing("making a table", storage.create_table(table))?;
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| -> Outcome {
            let mut newest = None;
            loop {
                let is_last = done.load(Ordering::Acquire);
                let snapshot = doing("taking a snapshot beside a commit", storage.snapshot())?;
                let found = one_number(&snapshot)?;
                require!(found >= newest, "a snapshot has an older state than one before it");
                newest = found;
                if is_last {
                    let must = Some((BATCHES - 1).to_be_bytes().to_vec());
                    require!(newest == must, "the last snapshot does not have the last batch");
                    return Ok(());
                }
            }
        });
        let written = (0..BATCHES).try_for_each(|number| {
            let (keys, value) = ((0..KEYS).map(u64::to_be_bytes), number.to_be_bytes());
            let keys: Vec<_> = keys.collect();
            let writes: Vec<Writing<'_>> = keys
                .iter()
                .flat_map(|key| {
                    [(STATE, &key[..], Some(&value[..])), (NOTES, &key[..], Some(&value[..]))]
                })
                .collect();
            commit(&storage, &writes, number % 64 == 0).map(|_| ())
        });
        done.store(true, Ordering::Release);
        let read = reader.join().map_err(|_panic| "reading beside a commit panicked".to_owned());
        written.and(read?)
    })
}

/// The number that all keys of both tables have; `None` before the first batch.
fn one_number(snapshot: &impl StorageSnapshot) -> Result<Option<Vec<u8>>, String> {
    let (state, notes) = (all(snapshot, STATE)?, all(snapshot, NOTES)?);
    let values: Vec<_> = state.values().chain(notes.values()).collect();
    let is_whole = values.is_empty() || values.len() as u64 == 2 * KEYS;
    let is_one = values.iter().all(|value| Some(value) == values.first());
    require!(is_whole && is_one, "a snapshot has a part of a batch");
    Ok(values.first().map(|value| value.to_vec()))
}

/// The result of batches: `n` is the number of the last one.
type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Commits batch number `number`.
fn commit_number(
    storage: &impl Storage,
    model: &mut Model,
    number: u64,
    sync: bool,
) -> Result<bool, String> {
    let bytes = number.to_be_bytes();
    let (key, gone) = ((number % 7).to_be_bytes(), (number * 5 % 7).to_be_bytes());
    let mut writes: Vec<Writing<'_>> =
        vec![(STATE, b"n", Some(&bytes)), (STATE, &key, Some(&bytes))];
    model.insert(b"n".to_vec(), bytes.to_vec());
    model.insert(key.to_vec(), bytes.to_vec());
    if gone != key {
        writes.push((STATE, &gone, None));
        model.remove(&gone[..]);
    }
    commit(storage, &writes, sync)
}

pub(super) fn check_reopening<S: Subject>(subject: &S) -> Outcome {
    let place = subject.place();
    let mut model = Model::new();
    for round in 0..4 {
        let storage = doing("opening", subject.open(&place))?;
        let snapshot = doing("taking a snapshot", storage.snapshot())?;
        let there = all(&snapshot, STATE)? == model;
        require!(
            there,
            "closed after a sync and opened again ({round} times), it has another state"
        );
        drop(snapshot);
        doing("making a table", storage.create_table(STATE))?;
        doing("making a table", storage.create_table(Table::State(round)))?;
        for number in 10 * round..10 * round + 10 {
            commit_number(&storage, &mut model, number, false)?;
        }
        doing("removing a table", storage.remove_table(Table::State(round + 100)))?;
        doing("syncing", storage.sync())?;
    }
    Ok(())
}

/// Ends the storage after some batches, a few of which were synced.
pub(super) fn check_crashes<S: Subject>(subject: &S, seed: u64) -> Outcome {
    let mut random = Random::new(seed);
    for _ in 0..CRASHES {
        let place = subject.place();
        let storage = doing("opening", subject.open(&place))?;
        doing("making a table", storage.create_table(STATE))?;
        let mut models = vec![Model::new()];
        let mut synced = 0;
        for number in 1..=1 + random.below(CRASH_BATCHES) as u64 {
            let mut model = models.last().cloned().unwrap_or_default();
            if commit_number(&storage, &mut model, number, random.below(4) == 0)? {
                synced = models.len();
            }
            models.push(model);
            if random.below(9) == 0 {
                doing("syncing", storage.sync())?;
                synced = models.len() - 1;
            }
        }
        let Some(place) = doing("crashing", subject.crash(place, storage))? else { return Ok(()) };
        let storage = doing("opening after a crash", subject.open(&place))?;
        let snapshot = doing("taking a snapshot", storage.snapshot())?;
        let found = all(&snapshot, STATE)?;
        let Some(after) = models.iter().position(|model| *model == found) else {
            return Err("a crash left what no number of batches leaves".to_owned());
        };
        require!(after >= synced, "a crash left {after} batches, and {synced} were synced");
        drop(snapshot);
        // The storage continues after that.
        doing("making a table", storage.create_table(STATE))?;
        commit_number(&storage, &mut Model::new(), 2 + CRASH_BATCHES as u64, true)?;
    }
    Ok(())
}
