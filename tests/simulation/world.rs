//! A disk, the engine on it, and a record of what must be there after the next crash.

use std::mem;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::thread;
use std::time::Duration;

use sprag::error::{CloseError, OpenError, Poison, SubmitError};
use sprag::testing::{Fault, SimDisk, Stepped};
use sprag::{
    ApplyConfig, Durability, PersistentConfig, PersistentStateMachine, Stage, StateMachine,
};

use crate::simulation::history::{History, with_entries};
use crate::simulation::random::Random;
use crate::simulation::snapshots::Take;

/// An engine, stepped by hand. Dropping it kills its process: it does not close, and a failing test
/// does not wait for that.
#[derive(Debug)]
pub(crate) struct Node {
    /// The engine, until it is closed or dead.
    engine: Option<Stepped<PersistentStateMachine>>,
    disk: SimDisk,
}

impl Node {
    pub(crate) fn new(disk: &SimDisk, machine: PersistentStateMachine, shape: &Shape) -> Self {
        let engine = Stepped::new(machine, shape.apply_config()).unwrap();
        Self { engine: Some(engine), disk: disk.clone() }
    }

    pub(crate) fn close(mut self) -> Result<(), CloseError> {
        let engine = self.engine.take().unwrap();
        engine.into_manager().close(Duration::from_secs(1))
    }
}

impl Deref for Node {
    type Target = Stepped<PersistentStateMachine>;

    fn deref(&self) -> &Self::Target {
        self.engine.as_ref().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(engine) = self.engine.take() else { return };
        self.disk.crash_process();
        if thread::panicking() {
            // The engine may be in any state, and dropping it would wait for it to drain.
            mem::forget(engine);
        }
    }
}

/// The shortest segment, which a few dozen entries fill.
pub(crate) const SEGMENT_BYTES: usize = 16 << 10;

/// Steps after which an unfinished run counts as stuck.
const STEPS_MAX: usize = 200_000;

/// Options of the engine.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) durability: Durability,
    pub(crate) workers: usize,
    /// Number of writes in flight.
    pub(crate) queue_depth: usize,
    pub(crate) frame_entries: usize,
    pub(crate) group_bytes: usize,
    pub(crate) value_bytes_max: usize,
    /// Most entries of one submission.
    pub(crate) submission_max: usize,
    /// Average number of steps between snapshots or compactions; 0: never.
    pub(crate) snapshot_every: usize,
    pub(crate) retain_entries: u64,
    /// Number of segment files that are kept for reuse.
    pub(crate) spare_segments: usize,
    /// Whether the recovered state is read key by key, so that the reads do not fill the store;
    /// otherwise all at once.
    pub(crate) reads_lazily: bool,
}

impl Shape {
    /// A small and plain shape.
    pub(crate) fn plain() -> Self {
        Self {
            durability: Durability::Sync,
            workers: 1,
            queue_depth: 1,
            frame_entries: 4,
            group_bytes: 4 << 10,
            value_bytes_max: 300,
            submission_max: 4,
            snapshot_every: 0,
            retain_entries: 0,
            spare_segments: 0,
            reads_lazily: false,
        }
    }

    /// A random shape.
    pub(crate) fn random(random: &mut Random) -> Self {
        Self {
            durability: Durability::Sync,
            workers: 1 + random.below(3),
            queue_depth: 1 + random.below(4),
            frame_entries: [1, 2, 4, 16][random.below(4)],
            group_bytes: [1, 700, 4 << 10, 1 << 20][random.below(4)],
            value_bytes_max: [8, 300, 300, 1500][random.below(4)],
            submission_max: [1, 4, 12][random.below(3)],
            snapshot_every: [0, 15, 60, 200][random.below(4)],
            retain_entries: [0, 0, 3, 30][random.below(4)],
            spare_segments: [0, 1, 4][random.below(3)],
            reads_lazily: random.one_in(2),
        }
    }

    pub(crate) fn config(&self) -> PersistentConfig {
        PersistentConfig::new("simulated")
            .segment_bytes(SEGMENT_BYTES)
            .segment_images(2)
            .expected_keys(16)
            .durability(self.durability)
            .batch_size(self.frame_entries)
            .group_bytes(self.group_bytes)
            .retain_entries(self.retain_entries)
            .spare_segments(self.spare_segments)
            .snapshot_chunk_bytes(2000)
    }

    pub(crate) fn apply_config(&self) -> ApplyConfig {
        ApplyConfig::new()
            .worker_count(NonZeroUsize::new(self.workers).unwrap())
            .pipeline_depth(64)
            .batch_size(8)
    }
}

/// Result of opening.
pub(crate) enum Opened {
    Ready(Node),
    /// The fault struck meanwhile.
    Failed(OpenError),
}

/// End of a run.
#[derive(Debug)]
pub(crate) enum Ran {
    /// Everything was acknowledged; a fault that struck did not matter to it.
    Through,
    /// The run stopped dead when the fault struck.
    Stopped,
    /// The engine failed.
    Poisoned(Poison),
    /// Opening failed.
    NotOpened(OpenError),
}

/// Effect of a crash on unsynced items.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crash {
    /// The process dies, and the system goes on.
    Process,
    /// The power fails, and item `i` survives if bit `i` is set (from the 64th on, bit `i - 64`).
    Power(u64),
}

/// The disk, the engine and the record; see the module.
pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) random: Random,
    pub(crate) shape: Shape,
    pub(crate) history: History,
    /// Number of entries that survive any crash.
    pub(crate) durable: usize,
    /// Number of entries that survive a crash of the process, too. Under `Sync` it is not more than
    /// the durable ones.
    pub(crate) acknowledged: usize,
    /// The operation that has a fault.
    armed: Option<u64>,
    /// Whether a run takes no more steps once the fault has struck, because the process died there.
    pub(crate) dies_when_struck: bool,
    pub(crate) crashes: u64,
}

impl World {
    pub(crate) fn new(seed: u64, shape: Shape) -> Self {
        let disk = SimDisk::new(seed);
        disk.set_queue_depth(shape.queue_depth);
        Self {
            disk,
            random: Random::new(seed),
            shape,
            history: History::new(seed % 2),
            durable: 0,
            acknowledged: 0,
            armed: None,
            dies_when_struck: false,
            crashes: 0,
        }
    }

    /// Makes a world of a random shape.
    pub(crate) fn random(seed: u64) -> Self {
        let shape = Shape::random(&mut Random::new(!seed));
        Self::new(seed, shape)
    }

    pub(crate) fn config(&self) -> PersistentConfig {
        self.shape.config()
    }

    /// Sets a fault for the operation of that number, counted from now.
    pub(crate) fn arm(&mut self, operation: u64, fault: Fault) {
        self.disk.reset_operations();
        self.disk.fail_at(operation, fault);
        self.armed = Some(operation);
    }

    /// Whether the operation with the fault was tried.
    pub(crate) fn struck(&self) -> bool {
        self.armed.is_some_and(|operation| self.disk.operations() > operation)
    }

    /// Opens, and compares the recovered state with the model. Only a fault that struck excuses a
    /// failure.
    pub(crate) fn open(&mut self) -> Result<Opened, String> {
        let disk =
            self.disk.open(true).map_err(|error| format!("the lock is not free: {error}"))?;
        let struck_before = self.struck();
        let machine = match PersistentStateMachine::open_on_disk(disk, self.config()) {
            Ok(machine) => machine,
            Err(error @ OpenError::Io { .. }) if self.struck() && !struck_before => {
                return Ok(Opened::Failed(error));
            }
            Err(error) => return Err(format!("opening was refused: {error}")),
        };
        self.compare(&machine)?;
        Ok(Opened::Ready(Node::new(&self.disk, machine, &self.shape)))
    }

    /// Opens without a fault.
    pub(crate) fn open_whole(&mut self) -> Result<Node, String> {
        match self.open()? {
            Opened::Ready(node) => Ok(node),
            Opened::Failed(error) => Err(format!("opening failed: {error}")),
        }
    }

    /// Checks that the recovered state is the model's at exactly the recovered index, and that
    /// nothing promised is missing.
    fn compare(&mut self, machine: &PersistentStateMachine) -> Result<(), String> {
        let count = self.history.count_to(machine.applied().map(|last| last.index));
        let promised = self.durable.max(self.acknowledged);
        if count < promised {
            return Err(format!("{count} entries were recovered of {promised} that must survive"));
        }
        if count > self.history.len() {
            let submitted = self.history.len();
            return Err(format!("{count} entries were recovered of {submitted} submitted"));
        }
        if self.shape.reads_lazily {
            self.compare_keys(machine, count)?;
        } else {
            self.compare_state(machine, count)?;
        }
        self.history.cut(count);
        // Opening makes everything it found durable, in every mode.
        (self.durable, self.acknowledged) = (count, count);
        Ok(())
    }

    /// Checks that the state is that of the first `count` entries.
    pub(crate) fn compare_state(
        &self,
        machine: &PersistentStateMachine,
        count: usize,
    ) -> Result<(), String> {
        let state = machine.scan_sorted().map_err(|error| format!("reading failed: {error}"))?;
        let expected = self.history.state(count);
        let same = state.len() == expected.len()
            && state
                .iter()
                .zip(expected)
                .all(|((key, value), known)| (&**key, &**value) == (&**known.0, &**known.1));
        if same { Ok(()) } else { Err(format!("not the state after {count} entries")) }
    }

    /// Takes steps in an order of the seed until `entries` more are acknowledged, or the engine
    /// fails.
    pub(crate) fn drive(&mut self, node: &Node, entries: usize) -> Result<(), String> {
        let goal = self.history.len() + entries;
        let differ_at = self.history.len() + self.random.below(6);
        let syncs_by_request = self.shape.durability != Durability::Sync;
        let every = self.shape.snapshot_every;
        for _ in 0..STEPS_MAX {
            if every > 0 && self.random.one_in(every) {
                let what = Take::random(&mut self.random);
                self.take(node, what)?;
            }
            match self.random.below(10) {
                0 | 1 => self.submit(node, goal, differ_at)?,
                2..=4 => drop(node.step_log_writer()),
                5 if every > 0 && self.random.one_in(4) => drop(node.step_fill()),
                5 => drop(node.step_background()),
                6 if syncs_by_request && self.random.one_in(4) => self.request_sync(node),
                _ => {
                    let id = self.random.below(node.workers());
                    node.step_worker(id);
                }
            }
            if node.poison().is_some() || (self.dies_when_struck && self.struck()) {
                return self.note(node);
            }
            if self.history.len() >= goal && node.pending_count() == 0 {
                return self.note(node);
            }
        }
        Err(format!("stuck: {:?}", node.stats()))
    }

    fn submit(&mut self, node: &Node, goal: usize, differ_at: usize) -> Result<(), String> {
        let known = self.history.len();
        let count = (1 + self.random.below(self.shape.submission_max)).min(goal - known.min(goal));
        if count == 0 {
            return Ok(());
        }
        let (bytes_max, differ) = (self.shape.value_bytes_max, known >= differ_at);
        let proposal = self.history.proposal(&mut self.random, count, bytes_max, differ);
        let first = self.history.first + known as u64;
        match with_entries(first, &proposal, |entries| node.apply_entries(entries)) {
            Ok(_) => self.history.extend(proposal),
            // The entry is too large; a smaller one comes next.
            Err(SubmitError::Full { .. } | SubmitError::Poisoned(_)) => {}
            Err(SubmitError::TooLarge { .. }) => {}
            Err(error) => return Err(format!("a submission was refused: {error}")),
        }
        Ok(())
    }

    /// Asks for the submitted entries to become durable, and does not wait.
    fn request_sync(&self, node: &Node) {
        if let Some(last) = (self.history.first + self.history.len() as u64).checked_sub(1) {
            // Later steps do it.
            drop(node.wait_until(last, Stage::Durable, Duration::ZERO));
        }
    }

    /// Records the engine's promises, and checks that its marks are in order.
    pub(crate) fn note(&mut self, node: &Node) -> Result<(), String> {
        let stats = node.stats();
        let in_order = stats.durable <= stats.written
            && stats.written <= stats.submitted
            && stats.acknowledged <= stats.applied
            && stats.applied <= stats.committed
            && stats.committed <= stats.submitted;
        if !in_order || self.history.count_to(stats.submitted) != self.history.len() {
            return Err(format!("marks out of order: {stats:?}"));
        }
        let acknowledged = self.history.count_to(stats.acknowledged);
        let durable = self.history.count_to(stats.durable);
        if acknowledged < self.acknowledged || durable < self.durable {
            return Err(format!("a mark went back: {stats:?}"));
        }
        (self.acknowledged, self.durable) = (acknowledged, durable);
        if self.shape.durability == Durability::Sync && acknowledged > durable {
            return Err(format!("acknowledged and not durable: {stats:?}"));
        }
        Ok(())
    }

    /// Checks that a failed engine stays failed: it takes nothing, reads nothing, and acknowledges
    /// nothing.
    pub(crate) fn check_poison_is_sticky(&mut self, node: &Node) -> Result<(), String> {
        let (acknowledged, durable) = (self.acknowledged, self.durable);
        node.run_until_idle();
        self.note(node)?;
        if (self.acknowledged, self.durable) != (acknowledged, durable) {
            return Err("something was acknowledged after the failure".to_owned());
        }
        let next = self.history.proposal(&mut Random::new(0), 1, 8, false);
        let first = self.history.first + self.history.len() as u64;
        let taken = with_entries(first, &next, |entries| node.apply_entries(entries));
        if !matches!(taken, Err(SubmitError::Poisoned(_))) {
            return Err(format!("a failed engine took an entry: {taken:?}"));
        }
        match node.machine().get(b"k0") {
            Err(_) => Ok(()),
            Ok(_) => Err("a failed engine was read".to_owned()),
        }
    }

    /// Runs from opening until `entries` more are acknowledged, or until the fault strikes. The
    /// engine is gone then, and the disk is as it left it.
    pub(crate) fn run(&mut self, entries: usize) -> Result<Ran, String> {
        let node = match self.open()? {
            Opened::Ready(node) => node,
            Opened::Failed(error) => return Ok(Ran::NotOpened(error)),
        };
        self.drive(&node, entries)?;
        let ran = match node.poison() {
            Some(poison) if !self.struck() => {
                return Err(format!("the engine failed by itself: {poison}"));
            }
            Some(poison) => {
                self.check_poison_is_sticky(&node)?;
                Ran::Poisoned(poison)
            }
            None if self.dies_when_struck && self.struck() => Ran::Stopped,
            None => Ran::Through,
        };
        drop(node);
        Ok(ran)
    }

    /// Decides about unsynced items by `crash`. The disk works again after that.
    pub(crate) fn crash(&mut self, crash: Crash) {
        self.crashes += 1;
        self.armed = None;
        match crash {
            Crash::Process => self.disk.crash_process(),
            Crash::Power(mask) => {
                self.disk.power_cut(&mut |item| mask >> (item % 64) & 1 == 1);
                self.acknowledged = self.acknowledged.min(self.durable);
            }
        }
        self.disk.reset_operations();
    }

    /// Opens again, with up to `deep` crashes on the way, and continues for a while.
    pub(crate) fn recover(&mut self, deep: usize, entries: usize) -> Result<(), String> {
        for _ in 0..deep {
            let operation = self.random.below(12) as u64;
            self.arm(operation, Fault::PowerCut);
            self.run(entries)?;
            let mask = self.random.next();
            self.crash(Crash::Power(mask));
        }
        self.disk.reset_operations();
        let node = self.open_whole()?;
        self.drive(&node, entries)?;
        if let Some(poison) = node.poison() {
            return Err(format!("the engine failed by itself: {poison}"));
        }
        self.compare_state(node.machine(), self.history.len())?;
        drop(node);
        Ok(())
    }
}
