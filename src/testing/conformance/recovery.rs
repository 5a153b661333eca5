//! Checks of recovery: after every end of the process, the state is that of the log's first
//! entries.

use std::fmt;

use super::log::{Log, Logged, with_entries};
use super::reference::{Reference, check_poison, compare_applied, poisoned, stepped, submit};
use super::{Check, DurableSubject, Failure};
use crate::apply::manager::consensus::ConsensusLog;
use crate::config::{CommitMode, PersistentConfig};
use crate::contract::machine::StateMachine;
use crate::entry::LogId;
use crate::error::{LogError, SubmitError};
use crate::testing::{Fault, Random, SimDisk, Stepped};

/// Number of random runs under a consensus engine that truncates.
const TRUNCATION_RUNS: u64 = 8;
/// Number of restarts in each.
const LIVES: u64 = 5;
/// Number of runs whose power is cut.
const POWER_CUT_RUNS: u64 = 3;
/// Maximum of cuts in each run; with more operations, the cuts are spread over them.
const POWER_CUTS_MAX: u64 = 100;

/// Ways in which a process ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Close,
    Kill,
    PowerCut,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Close => "closed",
            Self::Kill => "killed",
            Self::PowerCut => "cut off from power",
        })
    }
}

impl End {
    pub(super) fn come<M: StateMachine>(self, disk: &SimDisk, engine: Stepped<M>) {
        match self {
            Self::Close => {}
            Self::Kill => disk.crash_process(),
            Self::PowerCut => disk.power_cut_random(),
        }
        // Dropping closes the engine, if it still has a disk.
        drop(engine);
    }
}

/// Options with segments that have room for the log's largest entry, and that roll over if
/// possible.
fn config(log: &Log) -> PersistentConfig {
    let bytes = (8 * log.entry_bytes_max()).next_multiple_of(4096).max(64 << 10);
    PersistentConfig::new("simulated").segment_bytes(bytes)
}

pub(super) fn open<S: DurableSubject>(
    check: Check,
    subject: &S,
    disk: &SimDisk,
    log: &Log,
    mode: CommitMode,
    workers: usize,
) -> Result<Stepped<S::Machine>, Failure> {
    let config = config(log).commit_mode(mode);
    let machine = disk.open(true).and_then(|disk| subject.open(disk, config));
    stepped(check, machine, log, workers, 16)
}

/// Checks that the machine has the state of as many entries as it reports, and returns the number.
pub(super) fn check_state<S: DurableSubject>(
    check: Check,
    subject: &S,
    machine: &S::Machine,
    log: &Log,
    reference: &Reference,
) -> Result<usize, Failure> {
    let applied = machine.applied();
    let count = applied.map_or(0, |last| usize::try_from(last.index).unwrap_or(usize::MAX));
    compare_applied(log, count, applied).map_err(|failure| Failure { check, ..failure })?;
    reference.compare(check, log, count, &subject.digest(machine))?;
    Ok(count)
}

/// Ends the process after every entry and opens again, in each way.
pub(super) fn check_reopening<S: DurableSubject>(
    subject: &S,
    log: &Log,
    reference: &Reference,
    seed: u64,
) -> Result<(), Failure> {
    let check = Check::Reopen;
    for end in [End::Close, End::Kill, End::PowerCut] {
        let disk = SimDisk::new(seed);
        for count in 0..=log.len() {
            let run = || {
                let engine = open(check, subject, &disk, log, CommitMode::OnAppend, 1 + count % 3)?;
                let found = check_state(check, subject, engine.machine(), log, reference)?;
                if found != count {
                    let what = format!("{found} entries came back of {count} acknowledged ones");
                    return Err(Failure::new(check, log.last_of(count).map(|id| id.index), what));
                }
                let next = log.last_of(count + 1).filter(|_| count < log.len());
                if let Some(next) = next {
                    submit(check, &engine, log, count, count + 1)?;
                    engine.run_until_idle();
                    check_poison(check, &engine)?;
                    reference.compare_reply(check, log, count, &engine.reply(next.index))?;
                }
                end.come(&disk, engine);
                Ok(())
            };
            run().map_err(|failure| failure.during(format!("{end} after every entry")))?;
        }
    }
    Ok(())
}

/// Cuts the power at every operation of a few runs, opens again, and continues to the end.
pub(super) fn check_power_cuts<S: DurableSubject>(
    subject: &S,
    log: &Log,
    reference: &Reference,
    seed: u64,
) -> Result<(), Failure> {
    for run in 0..POWER_CUT_RUNS {
        let seed = seed ^ (run << 8);
        let whole = SimDisk::new(seed);
        run_until_cut(subject, log, &whole, seed);
        let operations = whole.operations();
        let stride = usize::try_from(operations.div_ceil(POWER_CUTS_MAX).max(1)).unwrap_or(1);
        for operation in (0..operations).step_by(stride) {
            cut_power_at(operation, subject, log, reference, seed).map_err(|failure| {
                failure.during(format!(
                    "run {run}, power cut at operation {operation} of {operations}"
                ))
            })?;
        }
    }
    Ok(())
}

fn cut_power_at<S: DurableSubject>(
    operation: u64,
    subject: &S,
    log: &Log,
    reference: &Reference,
    seed: u64,
) -> Result<(), Failure> {
    let check = Check::PowerCut;
    let disk = SimDisk::new(seed ^ (operation << 16));
    disk.fail_at(operation, Fault::PowerCut);
    let (acknowledged, submitted) = run_until_cut(subject, log, &disk, seed);
    disk.power_cut_random();
    let engine = open(check, subject, &disk, log, CommitMode::OnAppend, 2)?;
    let found = check_state(check, subject, engine.machine(), log, reference)?;
    if !(acknowledged..=submitted).contains(&found) {
        let what = format!(
            "{found} entries came back of {submitted} submitted and {acknowledged} acknowledged ones"
        );
        return Err(Failure::new(check, log.last_of(found.max(1)).map(|id| id.index), what));
    }
    submit(check, &engine, log, found, log.len())?;
    engine.run_until_idle();
    check_poison(check, &engine)?;
    let all = check_state(check, subject, engine.machine(), log, reference)?;
    match all == log.len() {
        true => Ok(()),
        false => Err(Failure::new(check, None, format!("it went on to {all} entries only"))),
    }
}

/// Runs the log in random steps until its end or a power cut. Returns the numbers of entries
/// acknowledged and submitted.
fn run_until_cut<S: DurableSubject>(
    subject: &S,
    log: &Log,
    disk: &SimDisk,
    seed: u64,
) -> (usize, usize) {
    let Ok(engine) = open(Check::PowerCut, subject, disk, log, CommitMode::OnAppend, 2) else {
        return (0, 0);
    };
    let mut random = Random::new(seed);
    let mut submitted = 0;
    while submitted < log.len() && engine.poison().is_none() {
        let size = 1 + random.below(4);
        if submit(Check::PowerCut, &engine, log, submitted, submitted + size).is_err() {
            break;
        }
        submitted = log.len().min(submitted + size);
        step_some(&engine, &mut random);
    }
    engine.run_until_idle();
    let acknowledged = engine.stats().acknowledged;
    (acknowledged.map_or(0, |index| usize::try_from(index).unwrap_or(usize::MAX)), submitted)
}

/// Plays a consensus engine that appends and then truncates entries, commits late, and restarts.
pub(super) fn check_truncation<S: DurableSubject>(
    subject: &S,
    log: &Log,
    reference: &Reference,
    seed: u64,
) -> Result<(), Failure> {
    let wrong = Log::draw(subject, !seed, log.len());
    for run in 0..TRUNCATION_RUNS {
        let mut random = Random::new(seed ^ (run << 8));
        let disk = SimDisk::new(random.next_u64());
        for life in 0..=LIVES {
            let circumstances = format!("run {run} of truncations, after {life} restarts");
            // Entries whose commit was forgotten are sent and committed again; the last life
            // reaches the end of the log.
            let rounds = if life < LIVES { random.below(4) } else { usize::MAX };
            let end = [End::Close, End::Kill, End::PowerCut][random.below(3)];
            let mode = CommitMode::ByCommit;
            let lived = open(Check::Truncation, subject, &disk, log, mode, 2).and_then(|engine| {
                let leader = Leader { subject, log, wrong: &wrong, reference, engine: &engine };
                leader.live(rounds, &mut random)?;
                end.come(&disk, engine);
                Ok(())
            });
            lived.map_err(|failure| failure.during(circumstances))?;
        }
    }
    Ok(())
}

/// A leader, from one restart of its node to the next.
struct Leader<'a, S: DurableSubject> {
    subject: &'a S,
    log: &'a Log,
    /// Entries that are never committed.
    wrong: &'a Log,
    reference: &'a Reference,
    engine: &'a Stepped<S::Machine>,
}

impl<S: DurableSubject> Leader<'_, S> {
    fn live(&self, rounds: usize, random: &mut Random) -> Result<(), Failure> {
        let mut committed = self.check_state()?;
        self.truncate(committed)?;
        for _ in 0..rounds {
            if committed == self.log.len() {
                break;
            }
            // A former leader sent these entries, and no other node has them.
            self.append_wrong(committed, random)?;
            self.truncate(committed)?;
            let size = 1 + random.below(5);
            self.append(self.log.part(committed, committed + size))?;
            step_some(self.engine, random);
            committed = self.log.len().min(committed + 1 + random.below(size));
            self.commit(committed)?;
            step_some(self.engine, random);
            self.truncate(committed)?;
        }
        self.engine.run_until_idle();
        check_poison(Check::Truncation, self.engine)?;
        let applied = self.check_state()?;
        if applied != committed {
            let what = format!("{applied} entries are applied of {committed} committed ones");
            return Err(self.failure(committed, what));
        }
        self.append_wrong(committed, random)
    }

    fn check_state(&self) -> Result<usize, Failure> {
        let Self { subject, log, reference, engine, .. } = *self;
        check_state(Check::Truncation, subject, engine.machine(), log, reference)
    }

    /// Appends at most three entries after the first `committed`, of a later term and with other
    /// payloads.
    fn append_wrong(&self, committed: usize, random: &mut Random) -> Result<(), Failure> {
        let term = self.log.last_of(committed).map_or(1, |last| last.term + 1);
        let part = self.wrong.part(committed, committed + random.below(4));
        let wrong: Vec<_> = part
            .iter()
            .map(|Logged { log_id, payload }| Logged {
                log_id: LogId::new(log_id.index, term),
                payload: payload.clone(),
            })
            .collect();
        self.append(&wrong)?;
        step_some(self.engine, random);
        Ok(())
    }

    fn append(&self, part: &[Logged]) -> Result<(), Failure> {
        let log = self.consensus()?;
        let appended = with_entries(part, |entries| log.append(entries));
        let index = part.first().map(|first| first.log_id.index);
        match appended {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(SubmitError::Poisoned(poison))) => Err(poisoned(Check::Truncation, &poison)),
            Ok(Err(error)) => {
                Err(Failure::new(Check::Truncation, index, format!("appending: {error}")))
            }
            Err((index, what)) => Err(Failure::new(Check::Truncation, index, what)),
        }
    }

    fn commit(&self, count: usize) -> Result<(), Failure> {
        let Some(last) = self.log.last_of(count) else { return Ok(()) };
        let failed = |error| self.failure(count, format!("committing: {error}"));
        self.consensus()?.commit(last.index).map_err(failed)
    }

    /// Truncates to the first `count` entries.
    fn truncate(&self, count: usize) -> Result<(), Failure> {
        let keep = self.log.last_of(count).map(|last| last.index);
        let failed = |error| self.failure(count, format!("truncating: {error}"));
        let log = self.consensus()?;
        match log.truncate_after(keep) {
            Err(LogError::Full) => {
                self.engine.run_until_idle();
                log.truncate_after(keep).map_err(failed)
            }
            outcome => outcome.map_err(failed),
        }
    }

    fn consensus(&self) -> Result<ConsensusLog<'_, S::Machine>, Failure> {
        let failed = |error| Failure::new(Check::Truncation, None, format!("the log: {error}"));
        self.engine.consensus().map_err(failed)
    }

    fn failure(&self, count: usize, what: String) -> Failure {
        let index = self.log.last_of(count).map(|last| last.index);
        Failure::new(Check::Truncation, index, what)
    }
}

/// Takes a few random steps of workers and log writer.
fn step_some<M: StateMachine>(engine: &Stepped<M>, random: &mut Random) {
    for _ in 0..random.below(6) {
        let _worked = match random.below(3) {
            0 => engine.step_log_writer(),
            worker => engine.step_worker(worker - 1),
        };
    }
}
