//! Tests of lives without waiting. Every call comes while other entries are in memory, queued,
//! written and not durable, committed and not applied, in any mixture. Other tests mostly run the
//! engine until it is idle first, which hides decisions of a call about entries in progress.

mod beside;
mod checks;
mod steps;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use sprag::snapshot::SnapshotReceiver;
use sprag::testing::{Fault, FaultError, SimDisk};
use sprag::{CommitMode, CompactionPolicy, Durability, PersistentConfig, Value, View};

use self::checks::check_view;
use crate::simulation::history::{Item, State};
use crate::simulation::random::{Random, for_seeds};
use crate::simulation::world::{SEGMENT_BYTES, Shape};

type Log = Vec<Rc<(u64, Item)>>;

/// The interval of `Periodic`, and the step by which time passes.
const TICK: Duration = Duration::from_millis(1);

/// A change from one log to the next.
enum Change {
    Append(Rc<(u64, Item)>),
    Truncate(usize),
    /// Another node's log replaced it, or was about to.
    Install(Log),
}

/// All kinds of steps.
const STEPS: [&str; 19] = [
    "append",
    "commit",
    "truncate",
    "worker",
    "writer",
    "background",
    "fill",
    "policy",
    "compact",
    "snapshot",
    "purge",
    "read",
    "view",
    "get",
    "vote",
    "receive",
    "install",
    "tick",
    "sync",
];

struct World {
    disk: SimDisk,
    random: Random,
    shape: Shape,
    by_commit: bool,
    /// Index of the first entry.
    first: u64,
    images: usize,
    lingers: bool,
    policy: CompactionPolicy,
    /// Current probability of each step.
    weights: [usize; STEPS.len()],
    /// A log that survives any crash; with the later changes it is the current one.
    base: Log,
    changes: Vec<Change>,
    /// Number of entries in `base`.
    settled: usize,
    log: Log,
    term: u64,
    terms: BTreeSet<u64>,
    /// The following fields are counts.
    committed: usize,
    applied: usize,
    written: usize,
    durable: usize,
    /// Entries that survive the current crash.
    promised: usize,
    /// Entries that the newest durable snapshot covers.
    covered: usize,
    purged: usize,
    /// The saved vote, and the last attempt.
    votes: [Option<Vec<u8>>; 2],
    views: Vec<(View, State)>,
    values: Vec<(Value, Vec<u8>)>,
    received: Option<(SnapshotReceiver, Log)>,
    crashes: u64,
    /// The operation that has a fault.
    fault_at: Option<u64>,
    /// Record of the steps, for reading a failure.
    told: String,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let durability = match random.below(4) {
            0 => Durability::Periodic(3 * TICK),
            1 => Durability::Os,
            _ => Durability::Sync,
        };
        let mut shape = Shape { durability, ..Shape::random(&mut random) };
        shape.retain_entries = [0, 1, 5, 20][random.below(4)];
        shape.spare_segments = random.below(5);
        shape.value_bytes_max = [8, 300, 1500, 4000, 4000][random.below(5)];
        let disk = SimDisk::new(seed);
        disk.set_queue_depth(shape.queue_depth);
        let ratio = random.below(2) as f64;
        let log_bytes = ((1 + random.below(3)) * SEGMENT_BYTES) as u64;
        Self {
            disk,
            by_commit: !random.one_in(5),
            first: random.below(2) as u64,
            images: 2 + random.below(4),
            // The end of a segment would wait for a clock that stands still.
            lingers: shape.retain_entries > 0 && random.one_in(4),
            policy: CompactionPolicy::new().garbage_ratio(ratio).log_bytes(log_bytes),
            weights: weights(&mut random),
            shape,
            random,
            base: Log::new(),
            changes: Vec::new(),
            settled: 0,
            log: Log::new(),
            term: 1,
            terms: BTreeSet::new(),
            committed: 0,
            applied: 0,
            written: 0,
            durable: 0,
            promised: 0,
            covered: 0,
            purged: 0,
            votes: [None, None],
            views: Vec::new(),
            values: Vec::new(),
            received: None,
            crashes: 0,
            fault_at: None,
            told: String::new(),
        }
    }

    fn config(&self) -> PersistentConfig {
        let mode = if self.by_commit { CommitMode::ByCommit } else { CommitMode::OnAppend };
        self.shape
            .config()
            .commit_mode(mode)
            .segment_images(self.images)
            .compaction(self.policy)
            .batch_interval(if self.lingers { 2 * TICK } else { Duration::ZERO })
    }

    fn count(&self, index: Option<u64>) -> usize {
        index.map_or(0, |index| (index + 1 - self.first) as usize)
    }

    /// The index of entry number `count`.
    fn last(&self, count: usize) -> Option<u64> {
        (count > 0).then(|| self.first + count as u64 - 1)
    }

    fn state(log: &[Rc<(u64, Item)>]) -> State {
        let mut state = State::new();
        log.iter().for_each(|entry| entry.1.apply(&mut state));
        state
    }

    fn change(&mut self, change: Change) {
        apply(&change, &mut self.log);
        self.changes.push(change);
    }

    /// Moves to a term that no entry had, not below that of the last: one log id is one entry.
    /// Replacements of an old leader's tail may have an older term than the tail.
    fn next_term(&mut self) {
        let last = self.log.last().map_or(0, |entry| entry.0);
        let newest = self.terms.last().copied().unwrap_or(0).max(last);
        let older = (last + 1..newest).find(|term| !self.terms.contains(term));
        self.term = older.filter(|_| self.random.one_in(2)).unwrap_or(newest + 2);
        self.terms.insert(self.term);
    }

    /// Notes that everything survives any crash.
    fn settle(&mut self) {
        self.settle_to(self.version());
    }

    /// Number of changes so far.
    fn version(&self) -> usize {
        self.settled + self.changes.len()
    }

    /// Notes, as [`settle`](Self::settle) does, that the log after `version` changes survives.
    fn settle_to(&mut self, version: usize) {
        let more = version.saturating_sub(self.settled);
        self.changes.drain(..more).for_each(|change| apply(&change, &mut self.base));
        self.settled += more;
    }

    /// Replaces the log by this one.
    fn start_from(&mut self, log: Log) {
        self.settled += self.changes.len();
        self.changes.clear();
        self.base.clone_from(&log);
        self.log = log;
    }

    /// Whether the fault has struck.
    fn struck(&self) -> bool {
        self.fault_at.is_some_and(|operation| self.disk.operations() > operation)
    }

    /// Opens, takes steps, crashes, and leaves the disk for the next opening.
    fn generation(&mut self, steps: usize, operations: usize) -> Result<(), String> {
        self.disk.reset_operations();
        self.fault_at = (operations > 0).then(|| self.random.below(operations) as u64);
        if let Some(operation) = self.fault_at {
            let fault = match self.random.below(10) {
                0 => Fault::Error(FaultError::Eio),
                1 => Fault::Error(FaultError::Enospc),
                2 => Fault::SyncErrorThenClean,
                3 => Fault::ShortWriteThenError { bytes: 512 * self.random.below(5) },
                _ => Fault::PowerCut,
            };
            self.disk.fail_at(operation, fault);
        }
        write!(self.told, "\n  open").unwrap();
        let node = self.open()?;
        let opened = node.is_some();
        if let Some(node) = node {
            self.drive(&node, steps, false)?;
            if node.poison().is_none() && !self.disk.is_power_off() {
                for (view, known) in self.views.drain(..) {
                    check_view(&view, &known)?;
                }
                if self.values.drain(..).any(|(value, known)| *value != *known) {
                    return Err("a value changed".to_owned());
                }
            }
            self.views.clear();
            self.values.clear();
            self.received = None;
            if node.poison().is_none() && !self.disk.is_power_off() && self.random.one_in(6) {
                write!(self.told, " close").unwrap();
                match node.close() {
                    Ok(()) => {
                        self.settle();
                        (self.durable, self.written) = (self.log.len(), self.log.len());
                        self.covered = self.committed;
                    }
                    Err(_) if self.struck() => {}
                    Err(error) => return Err(format!("closing failed: {error}")),
                }
                self.disk.crash_process();
            }
        }
        self.crash(opened);
        self.disk.reset_operations();
        self.fault_at = None;
        Ok(())
    }

    fn crash(&mut self, opened: bool) {
        self.crashes += 1;
        if !self.disk.is_power_off() && self.random.one_in(4) {
            write!(self.told, " killed").unwrap();
            self.disk.crash_process();
            if opened {
                self.promised = self.written;
            }
            return;
        }
        self.promised = self.durable;
        let (way, mask) = (self.random.below(6), self.random.next());
        let one = self.random.below(self.disk.unsynced() + 1);
        write!(self.told, " cut{way}").unwrap();
        self.disk.power_cut(&mut |item| match way {
            0 => false,
            1 => true,
            2 => item == one,
            3 => item != one,
            4 => item < one,
            _ => mask >> (item % 61) & 1 == 1,
        });
    }

    fn live(&mut self) -> Result<(), String> {
        for _ in 0..1 + self.random.below(5) {
            let steps = self.random.below([20, 200, 500][self.random.clone().below(3)]);
            let operations = [0, 20, 100, 300][self.random.below(4)];
            self.generation(steps, operations)?;
            while self.random.one_in(3) {
                // Crash again during the opening.
                self.generation(self.random.clone().below(3), 12)?;
            }
        }
        self.disk.reset_operations();
        let node = self.open()?.ok_or("nothing was set to fail")?;
        if let Some(last) = self.last(self.log.len()).filter(|_| self.by_commit) {
            node.consensus().unwrap().commit(last).map_err(|error| error.to_string())?;
            self.committed = self.log.len();
        }
        node.run_until_idle();
        self.check_state(&node)?;
        self.note(&node)
    }
}

/// Draws the probabilities for a while: sometimes no step writes, or applies, or truncates.
fn weights(random: &mut Random) -> [usize; STEPS.len()] {
    let mut weights = [12, 6, 4, 10, 10, 3, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1];
    for weight in &mut weights {
        *weight *= [0, 1, 2, 4, 4, 12][random.below(6)];
    }
    weights[0] = weights[0].max(24);
    weights[4] *= random.below(2);
    weights
}

fn apply(change: &Change, log: &mut Log) {
    match change {
        Change::Append(entry) => log.push(Rc::clone(entry)),
        Change::Truncate(keep) => log.truncate(*keep),
        Change::Install(other) => log.clone_from(other),
    }
}

#[test]
fn campaign_of_interleavings() {
    for_seeds("campaign_of_interleavings", 50, |seed| {
        let mut world = World::new(seed);
        world.live().map_err(|wrong| format!("{wrong}; after{}", world.told))?;
        Ok(world.crashes)
    });
}
