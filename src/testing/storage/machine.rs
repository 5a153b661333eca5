//! Checks of the machine over a storage, beside a machine in memory.

use std::time::Duration;

use super::placed::{Placed, open_new};
use super::tables::require;
use super::{Outcome, Subject, doing};
use crate::config::ApplyConfig;
use crate::contract::machine::StateMachine;
use crate::disk::Mapping;
use crate::entry::Reply;
use crate::error::OpenError;
use crate::machine::storage::{Storage, StorageConfig, StorageMachine, Table};
use crate::machine::{MemoryConfig, MemoryStateMachine, PersistentStateMachine};
use crate::snapshot::Snapshot;
use crate::testing::conformance::{self, OwnedPayload, RandomLog, key_value_payload};
use crate::testing::{Random, SimDisk, Stepped};

/// Time after which a call counts as stuck.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Options without a sync for each batch: other checks cover syncs, with the storage alone.
fn config() -> StorageConfig {
    StorageConfig::new().sync_writes(false)
}

/// The machine as a subject of the suite of state machines.
struct Machines<'a, S>(&'a S);

impl<S: Subject> conformance::Subject for Machines<'_, S> {
    type Machine = StorageMachine<Placed<S::Storage, S::Place>>;

    fn machine(&self) -> Result<Self::Machine, OpenError> {
        let storage = open_new(self.0);
        let storage =
            storage.map_err(|message| OpenError::Config { option: "storage", message })?;
        PersistentStateMachine::with_storage(storage, config())
    }

    fn payload(&self, random: &mut Random) -> OwnedPayload {
        key_value_payload(random)
    }

    fn digest(&self, machine: &Self::Machine) -> Vec<u8> {
        match (machine.scan_sorted(), machine.note(b"n"), machine.membership()) {
            (Ok(keys), Ok(note), Ok(members)) => {
                let keys: Vec<_> = keys.iter().map(|(key, value)| (&**key, &**value)).collect();
                format!("{keys:?}{note:?}{members:?}").into_bytes()
            }
            // No other state exists.
            _ => b"it cannot be read".to_vec(),
        }
    }
}

/// The key-value commands that random logs are drawn from.
struct Commands;

impl conformance::Subject for Commands {
    type Machine = MemoryStateMachine;

    fn machine(&self) -> Result<MemoryStateMachine, OpenError> {
        MemoryStateMachine::new(MemoryConfig::new())
    }

    fn payload(&self, random: &mut Random) -> OwnedPayload {
        key_value_payload(random)
    }

    fn digest(&self, _machine: &MemoryStateMachine) -> Vec<u8> {
        Vec::new()
    }
}

pub(super) fn check_machine<S: Subject>(subject: &S, seed: u64, entries: usize) -> Outcome {
    let suite = conformance::Suite::new().seed(seed).entries(entries);
    suite.check(&Machines(subject)).map_err(|failures| failures.to_string())
}

fn manage<M: StateMachine>(
    machine: Result<M, OpenError>,
    log: &RandomLog,
) -> Result<Stepped<M>, String> {
    let config = ApplyConfig::new().pipeline_depth(log.len().max(64)).batch_size(16);
    let machine = machine.map_err(|error| format!("opening a machine: {error}"))?;
    Stepped::new(machine, config).map_err(|error| format!("starting a manager: {error}"))
}

fn over<S: Storage>(storage: S, log: &RandomLog) -> Result<Stepped<StorageMachine<S>>, String> {
    manage(PersistentStateMachine::with_storage(storage, config()), log)
}

fn in_memory(log: &RandomLog) -> Result<Stepped<MemoryStateMachine>, String> {
    manage(MemoryStateMachine::new(MemoryConfig::new().expected_keys(16)), log)
}

/// Applies entries number `from` up to and without `to`, and returns their replies.
fn apply<M: StateMachine>(
    engine: &Stepped<M>,
    log: &RandomLog,
    from: usize,
    to: usize,
) -> Result<Vec<Reply>, String> {
    log.submit(engine, from, to)?;
    engine.run_until_idle();
    if let Some(poison) = engine.poison() {
        return Err(format!("the engine failed: {poison}"));
    }
    Ok(log.indexes(from, to).map(|index| engine.reply(index)).collect())
}

/// The bytes of its snapshot.
fn snapshot<M: StateMachine>(engine: &Stepped<M>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    engine
        .snapshots()
        .write_to(&mut bytes)
        .map_err(|error| format!("taking a snapshot: {error}"))?;
    Ok(bytes)
}

/// Applies random logs beside a machine in memory, and opens the machine anew in the middle.
pub(super) fn check_logs<S: Subject>(
    subject: &S,
    seed: u64,
    logs: usize,
    entries: usize,
) -> Outcome {
    each_log(seed, logs, |seed| {
        let log = RandomLog::draw(&Machines(subject), seed, entries);
        let place = subject.place();
        check_log(&log, seed, || over(doing("opening", subject.open(&place))?, &log), close)
    })
}

/// Does the same with a machine over the engine's log on a simulated disk. It is closed or killed
/// before it is opened anew.
pub(super) fn check_logged<M: StateMachine>(
    seed: u64,
    logs: usize,
    entries: usize,
    open: impl Fn(&SimDisk) -> Result<M, OpenError>,
) -> Outcome {
    each_log(seed, logs, |seed| {
        let log = RandomLog::draw(&Commands, seed, entries);
        let disk = SimDisk::new(seed);
        check_log(
            &log,
            seed,
            || manage(open(&disk), &log),
            |engine, random| {
                if random.coin() {
                    return close(engine, random);
                }
                disk.crash_process();
                drop(engine);
                Ok(())
            },
        )
    })
}

fn each_log(seed: u64, logs: usize, check: impl Fn(u64) -> Outcome) -> Outcome {
    for number in 0..logs as u64 {
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number);
        check(seed).map_err(|what| format!("log {number}: {what}"))?;
    }
    Ok(())
}

fn close<M: StateMachine>(engine: Stepped<M>, _random: &mut Random) -> Outcome {
    engine.into_manager().close(TIMEOUT).map_err(|error| format!("closing: {error}"))
}

/// Applies one log by one machine after another, each of which `open` gives and `end` ends.
fn check_log<M: StateMachine>(
    log: &RandomLog,
    seed: u64,
    open: impl Fn() -> Result<Stepped<M>, String>,
    end: impl Fn(Stepped<M>, &mut Random) -> Outcome,
) -> Outcome {
    let mut random = Random::new(seed);
    let memory = in_memory(log)?;
    let mut done = 0;
    while done < log.len() {
        let to = (done + 1 + random.below(log.len())).min(log.len());
        let engine = open()?;
        let applied = engine.stats().applied;
        let must = log.indexes(0, done).last();
        require!(applied == must, "opened again, it has applied {applied:?}, must be {must:?}");
        let replies = apply(&engine, log, done, to)?;
        for (index, (reply, must)) in
            log.indexes(done, to).zip(replies.iter().zip(apply(&memory, log, done, to)?))
        {
            require!(*reply == must, "index {index} is replied {reply:?}, must be {must:?}");
        }
        require!(
            snapshot(&engine)? == snapshot(&memory)?,
            "after {to} entries the snapshots differ"
        );
        let (keys, must) = (engine.stats().machine.keys, memory.stats().machine.keys);
        require!(keys == must, "after {to} entries it counts {keys} keys, must be {must}");
        end(engine, &mut random)?;
        done = to;
    }
    Ok(())
}

/// Installs a snapshot of a machine in memory over another state, and continues from there.
pub(super) fn check_installing<S: Subject>(subject: &S, seed: u64, entries: usize) -> Outcome {
    let log = RandomLog::draw(&Machines(subject), seed, entries.max(4));
    let (before, half) = (log.len() / 4, log.len() / 2);
    let memory = in_memory(&log)?;
    apply(&memory, &log, 0, half)?;
    let bytes = snapshot(&memory)?;
    let place = subject.place();
    let engine = over(doing("opening", subject.open(&place))?, &log)?;
    apply(&engine, &log, 0, before)?;
    let view = engine.snapshots().view().map_err(|error| format!("taking a view: {error}"))?;
    let of_view = || -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        view.snapshot_to(&mut bytes).map_err(|error| format!("writing a view: {error}"))?;
        Ok(bytes)
    };
    let viewed = of_view()?;
    Snapshot::of_mapping(Mapping::Copied(bytes.clone().into()), "the snapshot".to_owned(), None)
        .and_then(|snapshot| engine.snapshots().restore(&snapshot, TIMEOUT))
        .map_err(|error| format!("installing a snapshot: {error}"))?;
    require!(snapshot(&engine)? == bytes, "after an installation it writes another snapshot");
    require!(of_view()? == viewed, "a view of before changed when a snapshot was installed");
    drop(view);
    let closed = engine.into_manager().close(TIMEOUT);
    closed.map_err(|error| format!("closing: {error}"))?;
    let storage = doing("opening", subject.open(&place))?;
    let engine = over(storage, &log)?;
    require!(snapshot(&engine)? == bytes, "opened after an installation it has another state");
    let tables = doing("listing tables", engine.machine().storage().tables())?;
    let states = tables.iter().filter(|table| matches!(table, Table::State(_))).count();
    require!(states == 1, "an installation and opening again left {states} states");
    apply(&engine, &log, half, log.len())?;
    apply(&memory, &log, half, log.len())?;
    require!(
        snapshot(&engine)? == snapshot(&memory)?,
        "after an installation it goes on differently"
    );
    Ok(())
}
