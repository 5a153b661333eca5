//! Checks of order: for all partitions, schedules, batch sizes and threads, the result is that of
//! one entry at a time.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::log::{Log, with_entries};
use super::reference::{Reference, check_poison, compare_applied, poisoned, stepped, submit};
use super::{Check, Failure, Subject};
use crate::apply::manager::ApplyManager;
use crate::codec::{self, Encoded};
use crate::config::ApplyConfig;
use crate::contract::machine::StateMachine;
use crate::entry::Reply;
use crate::error::{ApplyError, Poison, SubmitError, WaitError};
use crate::ranges::partition::Footprint;
use crate::testing::{Random, Stepped};

/// Time after which a call counts as stuck.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Pipeline depth, enough for the longest batch of the checks.
const PIPELINE_DEPTH: usize = 64;
/// Number of schedules of the partitions that are drawn, for each number of partitions.
const SCHEDULES: u64 = 6;

/// Asks for every footprint several times: of a machine without state and with, in another order,
/// at another address.
pub(super) fn check_footprints<S: Subject>(subject: &S, log: &Log) -> Result<(), Failure> {
    let check = Check::Footprint;
    let engine = stepped(check, subject.machine(), log, 2, 16)?;
    let machine = engine.machine();
    let first = footprints(machine, log, 0)?;
    let again = footprints(machine, log, 3)?;
    submit(check, &engine, log, 0, log.len())?;
    engine.run_until_idle();
    check_poison(check, &engine)?;
    let after = footprints(machine, log, 0)?;
    for (at, first) in first.iter().enumerate() {
        let index = log.last_of(at + 1).map(|last| last.index);
        for (others, when) in [
            (&again, "asked again, of a copy of the bytes,"),
            (&after, "after the log was applied"),
        ] {
            match others.get(at) {
                Some(other) if other == first => {}
                other => {
                    let what = format!("the footprint was {first:?}, {when} it was {other:?}");
                    return Err(Failure::new(check, index, what));
                }
            }
        }
    }
    Ok(())
}

/// The footprint of each entry, asked from the last to the first, for a copy of its bytes that
/// starts `skip` bytes into a buffer.
fn footprints<M: StateMachine>(
    machine: &M,
    log: &Log,
    skip: usize,
) -> Result<Vec<Footprint>, Failure> {
    let mut found = Vec::with_capacity(log.len());
    for logged in log.all().iter().rev() {
        let failed = |what: String| Failure::new(Check::Footprint, logged.log_id.index, what);
        let encoded = logged.payload.encoded();
        let encoded = encoded.map_err(|error| failed(format!("not an entry: {error}")))?;
        let copy = [&vec![0; skip], encoded].concat();
        let bytes = copy.get(skip..).unwrap_or_default();
        let decoded = codec::decode(Encoded::elsewhere(bytes));
        let (payload, _) = decoded.map_err(|error| failed(error.to_string()))?;
        found.push(machine.footprint(&payload));
    }
    found.reverse();
    Ok(found)
}

/// Gives the whole log to several partitions, in orders that threads hardly ever take.
pub(super) fn check_partitions<S: Subject>(
    subject: &S,
    log: &Log,
    reference: &Reference,
    seed: u64,
) -> Result<(), Failure> {
    for workers in 2..=4 {
        for schedule in 0..SCHEDULES + 2 {
            let mut random = Random::new(seed ^ schedule << 8 ^ workers as u64);
            let batch_size = [1, 5, 128][random.below(3)];
            let circumstances =
                || format!("{workers} workers, ranges of up to {batch_size}, schedule {schedule}");
            let check = Check::Partitions;
            let mut run = || {
                let engine = stepped(check, subject.machine(), log, workers, batch_size)?;
                submit(check, &engine, log, 0, log.len())?;
                match schedule {
                    // Each partition runs as far as it can before the next one starts, from the
                    // first or from the last.
                    0 => run_by(&engine, || (0, usize::MAX)),
                    1 => run_by(&engine, || (workers - 1, usize::MAX)),
                    _ => run_by(&engine, || (random.below(workers), 1 + random.below(20))),
                }
                check_poison(check, &engine)?;
                for (at, logged) in log.all().iter().enumerate() {
                    reference.compare_reply(check, log, at, &engine.reply(logged.log_id.index))?;
                }
                reference.compare(check, log, log.len(), &subject.digest(engine.machine()))?;
                compare_applied(log, log.len(), engine.applied())?;
                reference.compare_own_applied(log, log.len(), engine.machine().applied())
            };
            run().map_err(|failure| failure.during(circumstances()))?;
        }
    }
    Ok(())
}

/// Steps until no worker has work. `turn` returns the next worker, and the maximum of its steps.
fn run_by<M: StateMachine>(engine: &Stepped<M>, mut turn: impl FnMut() -> (usize, usize)) {
    let workers = engine.workers();
    loop {
        let (first, steps) = turn();
        // A worker without work, or one that waits for the others, passes the turn on.
        let worked = (0..workers).any(|offset| {
            let id = (first + offset) % workers;
            let mut worked = false;
            for _ in 0..steps {
                if !engine.step_worker(id) {
                    break;
                }
                worked = true;
            }
            worked
        });
        if !worked && !(engine.step_log_writer() | engine.step_background()) {
            return;
        }
    }
}

/// Gives the log to worker threads.
pub(super) fn check_threads<S: Subject>(
    subject: &S,
    log: &Log,
    reference: &Reference,
    seed: u64,
) -> Result<(), Failure> {
    let mut random = Random::new(seed);
    for workers in 1..=4 {
        for batch_size in [1, 7, 128] {
            for inline in [false, true] {
                let config = ApplyConfig::new()
                    .worker_count(NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN))
                    .batch_size(batch_size)
                    .inline_apply(inline)
                    .pipeline_depth(PIPELINE_DEPTH)
                    .pin_workers(false);
                run_threads(subject, log, reference, config, &mut random).map_err(|failure| {
                    let inline = if inline { ", inline where possible" } else { "" };
                    failure
                        .during(format!("{workers} workers, ranges of up to {batch_size}{inline}"))
                })?;
            }
        }
    }
    Ok(())
}

fn run_threads<S: Subject>(
    subject: &S,
    log: &Log,
    reference: &Reference,
    config: ApplyConfig,
    random: &mut Random,
) -> Result<(), Failure> {
    let check = Check::Order;
    let failed = |error| Failure::new(check, None, format!("opening: {error}"));
    let machine = subject.machine().map_err(failed)?;
    let manager = ApplyManager::new(machine, config).map_err(failed)?;
    let mut done = 0;
    while done < log.len() {
        // Single entries may be applied inline; batches fill the ranges.
        let size = if random.coin() { 1 } else { 1 + random.below(60) };
        let part = log.part(done, done + size);
        for reply in with_entries(part, |entries| perform(&manager, entries))
            .map_err(|(index, what)| Failure::new(check, index, what))??
        {
            reference.compare_reply(check, log, done, &reply)?;
            done += 1;
        }
    }
    reference.compare(check, log, log.len(), &subject.digest(manager.machine()))?;
    compare_applied(log, log.len(), manager.applied())?;
    reference.compare_own_applied(log, log.len(), manager.machine().applied())?;
    reference.check_reply_bytes_max(check, log, manager.machine())?;
    let closed = manager.close(TIMEOUT);
    closed.map_err(|error| Failure::new(check, None, format!("closing: {error}")))
}

/// Submits `entries`, and returns one reply for each.
fn perform<M: StateMachine>(
    manager: &ApplyManager<M>,
    entries: &[crate::entry::Entry<'_>],
) -> Result<Vec<Reply>, Failure> {
    let outcome = if let [only] = entries {
        manager.apply(only, TIMEOUT).map(|reply| vec![reply])
    } else {
        let mut replies = Vec::with_capacity(entries.len());
        let sink = |_index, reply| replies.push(reply);
        manager.apply_batch(entries.iter().copied(), TIMEOUT, sink).map(|_count| replies)
    };
    outcome.map_err(|error| match poison_of(&error) {
        Some(poison) => poisoned(Check::Order, poison),
        None => {
            let index = entries.first().map(|first| first.log_id.index);
            Failure::new(Check::Order, index, format!("applying: {error}"))
        }
    })
}

fn poison_of(error: &ApplyError) -> Option<&Poison> {
    match error {
        ApplyError::Submit { source: SubmitError::Poisoned(poison), .. }
        | ApplyError::Wait { source: WaitError::Poisoned(poison), .. } => Some(poison),
        _ => None,
    }
}
