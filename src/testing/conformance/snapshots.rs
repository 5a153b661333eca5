//! Checks of snapshots: each is the whole state, and a machine that restores one continues
//! correctly.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::log::Log;
use super::recovery::{End, check_state, open};
use super::reference::{Reference, check_poison, compare_applied, stepped, submit};
use super::{Check, DurableSubject, Failure, Subject};
use crate::config::CommitMode;
use crate::contract::machine::StateMachine;
use crate::disk::Mapping;
use crate::error::SnapshotError;
use crate::snapshot::{Snapshot, SnapshotSource};
use crate::testing::{Random, SimDisk, Stepped};

/// Time that an engine may take to write its log.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Number of places in the log at which a snapshot is taken.
const CUTS: usize = 6;
/// Number of copies of each snapshot for each kind of damage.
const DAMAGED: usize = 6;
/// Most entries between two snapshots on a disk.
const BETWEEN: usize = 12;

/// Takes snapshots along the log, from engines with different workers, and restores each of them.
pub(super) fn check_snapshots<S: Subject>(
    subject: &S,
    log: &Log,
    reference: &Reference,
    seed: u64,
) -> Result<(), Failure> {
    let check = Check::Snapshot;
    let one = stepped(check, subject.machine(), log, 1, 128)?;
    let other = stepped(check, subject.machine(), log, 3, 7)?;
    let mut random = Random::new(seed);
    let mut done = 0;
    for cut in 0..=CUTS {
        let count = log.len() * cut / CUTS;
        for engine in [&one, &other] {
            submit(check, engine, log, done, count)?;
            engine.run_until_idle();
            check_poison(check, engine)?;
        }
        done = count;
        let Some(bytes) = whole(&one, log, count)? else { return Ok(()) };
        let others = whole(&other, log, count)?;
        if others.as_ref() != Some(&bytes) {
            let what = "two machines with the same state wrote different snapshots";
            return Err(at(log, count, what));
        }
        for engine in [&one, &other] {
            reference.compare(check, log, count, &subject.digest(engine.machine()))?;
        }
        check_restoring(subject, log, reference, one.machine(), count, &mut random)?;
        if (1..log.len()).contains(&count) {
            check_going_on(subject, log, reference, bytes, count)?;
        }
    }
    Ok(())
}

fn at(log: &Log, count: usize, what: impl Into<String>) -> Failure {
    let what = format!("after {count} entries: {}", what.into());
    Failure::new(Check::Snapshot, log.last_of(count).map(|last| last.index), what)
}

/// The snapshot that an engine writes; `None` if its machine has none.
fn whole<M: StateMachine>(
    engine: &Stepped<M>,
    log: &Log,
    count: usize,
) -> Result<Option<Vec<u8>>, Failure> {
    let mut bytes = Vec::new();
    match catch_unwind(AssertUnwindSafe(|| engine.snapshots().write_to(&mut bytes))) {
        Ok(Ok(_)) => Ok(Some(bytes)),
        Ok(Err(SnapshotError::Unsupported { .. })) => Ok(None),
        Ok(Err(error)) => Err(at(log, count, format!("snapshot: {error}"))),
        Err(_panic) => Err(at(log, count, "snapshot panicked")),
    }
}

/// The bytes that the machine itself writes; `None` if it leaves that to the engine.
fn own<M: StateMachine>(machine: &M, log: &Log, count: usize) -> Result<Option<Vec<u8>>, Failure> {
    let mut bytes = Vec::new();
    match catch_unwind(AssertUnwindSafe(|| machine.snapshot(&mut bytes))) {
        Ok(Ok(())) => Ok(Some(bytes)),
        Ok(Err(SnapshotError::Unsupported { .. })) => Ok(None),
        Ok(Err(error)) => Err(at(log, count, format!("snapshot: {error}"))),
        Err(_panic) => Err(at(log, count, "snapshot panicked")),
    }
}

/// Restores the bytes of `machine`, whole and damaged, on machines without state and with another
/// one.
fn check_restoring<S: Subject>(
    subject: &S,
    log: &Log,
    reference: &Reference,
    machine: &S::Machine,
    count: usize,
    random: &mut Random,
) -> Result<(), Failure> {
    if machine.journal().is_log() {
        // The machine is opened from its snapshots and the rest of its directory, which another
        // check covers.
        return Ok(());
    }
    let Some(bytes) = own(machine, log, count)? else { return Ok(()) };
    let check = Check::Snapshot;
    let fresh = stepped(check, subject.machine(), log, 1, 128)?;
    let used = stepped(check, subject.machine(), log, 1, 128)?;
    // This machine is further, so the restored state has to go back.
    submit(check, &used, log, 0, log.len())?;
    used.run_until_idle();
    check_poison(check, &used)?;
    check_damage(subject, log, used.machine(), &bytes, count, random)?;
    for (engine, kind) in [(&fresh, "one without state"), (&used, "one with another state")] {
        let target = engine.machine();
        let restored = match restore(target, &mut Slowly(&bytes)) {
            None => Err("restore panicked".to_owned()),
            Some(Err(error)) => Err(format!("restore: {error}")),
            Some(Ok(())) => Ok(()),
        };
        restored.map_err(|what| at(log, count, format!("{what}, on {kind}")))?;
        reference
            .compare(check, log, count, &subject.digest(target))
            .map_err(|failure| failure.during(format!("restored on {kind}")))?;
        if own(target, log, count)?.as_ref() != Some(&bytes) {
            return Err(at(log, count, format!("restored on {kind} it writes another snapshot")));
        }
    }
    Ok(())
}

/// Gives the snapshot to a new engine, and then the rest of the log.
fn check_going_on<S: Subject>(
    subject: &S,
    log: &Log,
    reference: &Reference,
    bytes: Vec<u8>,
    count: usize,
) -> Result<(), Failure> {
    let check = Check::Snapshot;
    let engine = stepped(check, subject.machine(), log, 2, 16)?;
    let bytes = Mapping::Copied(bytes.into());
    Snapshot::of_mapping(bytes, "the snapshot".to_owned(), None)
        .and_then(|snapshot| engine.snapshots().restore(&snapshot, TIMEOUT))
        .map_err(|error| at(log, count, format!("a new engine refused the snapshot: {error}")))?;
    reference.compare(check, log, count, &subject.digest(engine.machine()))?;
    compare_applied(log, count, engine.applied())?;
    submit(check, &engine, log, count, log.len())?;
    engine.run_until_idle();
    check_poison(check, &engine)?;
    for (place, logged) in log.all().iter().enumerate().skip(count) {
        let reply = engine.reply(logged.log_id.index);
        reference
            .compare_reply(check, log, place, &reply)
            .map_err(|failure| failure.during(format!("after a snapshot of {count} entries")))?;
    }
    reference.compare(check, log, log.len(), &subject.digest(engine.machine()))
}

/// Restores; `None` if the machine panicked.
fn restore<M: StateMachine>(
    machine: &M,
    source: &mut dyn SnapshotSource,
) -> Option<Result<(), SnapshotError>> {
    catch_unwind(AssertUnwindSafe(|| machine.restore(source))).ok()
}

/// Restores damaged copies on a machine with another state. A refused copy must have changed
/// nothing, and a copy that is too short or too long must be refused.
fn check_damage<S: Subject>(
    subject: &S,
    log: &Log,
    machine: &S::Machine,
    bytes: &[u8],
    count: usize,
    random: &mut Random,
) -> Result<(), Failure> {
    for round in 0..4 * DAMAGED {
        let before = subject.digest(machine);
        let mut copy = bytes.to_vec();
        let place = random.below(bytes.len());
        // Changed bits come last: a machine that takes them has another state from then on.
        let (what, outcome) = match round / DAMAGED {
            _ if bytes.is_empty() => return Ok(()),
            0 => {
                copy.truncate(place);
                ("one that ends early", restore(machine, &mut &copy[..]))
            }
            1 => {
                let more = 1 + random.below(3);
                copy.extend(random.bytes(more));
                ("one that goes on after its end", restore(machine, &mut &copy[..]))
            }
            2 => {
                copy.truncate(place);
                ("one that cannot be read to its end", restore(machine, &mut Failing(&copy)))
            }
            _ => {
                copy[place] ^= 1 << random.below(8);
                ("one with a bit changed", restore(machine, &mut &copy[..]))
            }
        };
        let failed = match outcome {
            None => "panicked",
            Some(Err(_)) if subject.digest(machine) != before => "failed, and changed the state",
            // The file has the checksums, so a machine without checksums cannot detect this.
            Some(Ok(())) if round / DAMAGED < 3 => "was done",
            Some(_) => continue,
        };
        return Err(at(log, count, format!("restoring {what} {failed}")));
    }
    Ok(())
}

/// A source that returns a few bytes at a time.
struct Slowly<'a>(&'a [u8]);

impl SnapshotSource for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let few = buffer.len().min(7);
        io::Read::read(&mut self.0, buffer.get_mut(..few).unwrap_or_default())
    }
}

/// A source that returns some bytes, and then fails.
struct Failing<'a>(&'a [u8]);

impl SnapshotSource for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match io::Read::read(&mut self.0, buffer) {
            Ok(0) => Err(io::Error::other("the source failed, as it was told to")),
            read => read,
        }
    }
}

/// Takes snapshots into the directory, gives up the log they cover, and opens again.
pub(super) fn check_compaction<S: DurableSubject>(
    subject: &S,
    log: &Log,
    reference: &Reference,
    seed: u64,
) -> Result<(), Failure> {
    let check = Check::Compaction;
    let disk = SimDisk::new(seed);
    let mut random = Random::new(seed);
    let mut done = 0;
    loop {
        let compacts = random.coin();
        let end = [End::Close, End::Kill, End::PowerCut][random.below(3)];
        let damages = random.below(3) == 0;
        let run = || {
            let engine = open(check, subject, &disk, log, CommitMode::OnAppend, 2)?;
            let found = check_state(check, subject, engine.machine(), log, reference)?;
            if found != done {
                let what = format!("{found} entries came back of {done} acknowledged ones");
                return Err(Failure::new(check, log.last_of(done).map(|id| id.index), what));
            }
            let next = log.len().min(done + 1 + random.below(BETWEEN));
            submit(check, &engine, log, done, next)?;
            engine.run_until_idle();
            check_poison(check, &engine)?;
            for (count, logged) in log.all().iter().enumerate().take(next).skip(done) {
                reference.compare_reply(check, log, count, &engine.reply(logged.log_id.index))?;
            }
            let taken = if compacts {
                engine.snapshots().compact().map(|_report| ())
            } else {
                engine.snapshots().write().map(|_report| ())
            };
            match taken {
                Ok(()) => {}
                Err(SnapshotError::Unsupported { .. }) => return Ok(None),
                Err(error) => {
                    let index = log.last_of(next).map(|last| last.index);
                    return Err(Failure::new(check, index, format!("snapshot: {error}")));
                }
            }
            check_state(check, subject, engine.machine(), log, reference)?;
            end.come(&disk, engine);
            if damages {
                check_damaged_file(subject, log, reference, &disk, &mut random)?;
            }
            Ok(Some(next))
        };
        let how = if compacts { "compacted" } else { "a snapshot taken" };
        let next = { run }().map_err(|failure| failure.during(format!("{how}, {end}")))?;
        match next {
            Some(next) if next < log.len() || done < next => done = next,
            _ => return Ok(()),
        }
    }
}

/// Flips a bit of a snapshot file and opens: the state is right, or opening fails.
fn check_damaged_file<S: DurableSubject>(
    subject: &S,
    log: &Log,
    reference: &Reference,
    disk: &SimDisk,
    random: &mut Random,
) -> Result<(), Failure> {
    let check = Check::Compaction;
    let names: Vec<_> =
        disk.file_names().into_iter().filter(|name| name.ends_with(".snap")).collect();
    let Some(name) = names.get(random.below(names.len())) else { return Ok(()) };
    let bytes = disk.read_file(name).map_or(0, |bytes| bytes.len());
    let (place, bit) = (random.below(bytes) as u64, 1 << random.below(8));
    if !disk.corrupt(name, place, bit) {
        return Ok(());
    }
    if let Ok(engine) = open(check, subject, disk, log, CommitMode::OnAppend, 1) {
        check_state(check, subject, engine.machine(), log, reference)
            .map_err(|failure| failure.during("opened beside a damaged snapshot"))?;
    }
    // The file may have been removed meanwhile.
    let _there = disk.corrupt(name, place, bit);
    Ok(())
}
