//! Tests of a log that commits by `commit`: it belongs to a consensus engine, with an uncommitted
//! tail that changes.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sprag::error::{LogError, OpenError, SubmitError};
use sprag::testing::{Fault, FaultError, SimDisk};
use sprag::{CommandRef, CommitMode, Durability, Entry, PayloadRef, PersistentStateMachine};

use crate::simulation::history::State;
use crate::simulation::random::{Random, for_seeds};
use crate::simulation::snapshots::Take;
use crate::simulation::world::{Node, Shape};

/// A put, the only one with its value.
#[derive(Debug, PartialEq, Eq)]
struct Proposed {
    term: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

type Log = Vec<Rc<Proposed>>;

/// The interval of `Periodic`, and the step by which time passes.
const TICK: Duration = Duration::from_millis(1);

struct World {
    disk: SimDisk,
    random: Random,
    shape: Shape,
    /// Every version of the log, after each append of an entry and each truncation; the last is the
    /// current one.
    versions: Vec<Log>,
    /// Number of the version that survives any crash.
    durable_version: usize,
    term: u64,
    committed: usize,
    /// Number of acknowledged entries at the last look; the end of a run looks.
    acknowledged: usize,
    durable: usize,
    /// The saved hard state, and the last attempt.
    hard: [Option<Vec<u8>>; 2],
    /// Whether the kernel is known to have all of the log; under `Sync`, the disk.
    settled: bool,
    /// Whether a fault was set in this generation.
    armed: bool,
    crashes: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let durability = match random.below(4) {
            0 => Durability::Periodic(TICK),
            1 => Durability::Os,
            _ => Durability::Sync,
        };
        let shape = Shape { value_bytes_max: 600, durability, ..Shape::random(&mut random) };
        let disk = SimDisk::new(seed);
        disk.set_queue_depth(shape.queue_depth);
        Self {
            disk,
            random,
            shape,
            versions: vec![Log::new()],
            durable_version: 0,
            term: 1,
            committed: 0,
            acknowledged: 0,
            durable: 0,
            hard: [None, None],
            settled: true,
            armed: false,
            crashes: 0,
        }
    }

    fn log(&self) -> &Log {
        self.versions.last().unwrap()
    }

    /// Opens; `None` if the fault struck meanwhile.
    fn open(&mut self) -> Result<Option<Node>, String> {
        let disk = self.disk.open(true).map_err(|error| error.to_string())?;
        let config = self.shape.config().commit_mode(CommitMode::ByCommit);
        let operations = self.disk.operations();
        let machine = match PersistentStateMachine::open_on_disk(disk, config) {
            Ok(machine) => machine,
            Err(OpenError::Io { .. }) if self.disk.operations() > operations => return Ok(None),
            Err(error) => return Err(format!("opening was refused: {error}")),
        };
        let node = Node::new(&self.disk, machine, &self.shape);
        self.compare(&node)?;
        Ok(Some(node))
    }

    /// Checks that the log is one of the versions, no older than the durable one, and that the
    /// state is that of the committed entries.
    fn compare(&mut self, node: &Node) -> Result<(), String> {
        let found = self.read_log(node)?;
        let durable = self.versions[self.durable_version..].iter().rposition(|log| *log == found);
        let Some(version) = durable else {
            let terms: Vec<u64> = found.iter().map(|entry| entry.term).collect();
            let (entries, term) = (terms.len(), terms.last());
            return Err(format!("a log there never was, or one that was cut: {entries}, {term:?}"));
        };
        let log = self.versions[self.durable_version + version].clone();
        let current = self.log();
        if log.len() < self.durable || log[..self.durable] != current[..self.durable] {
            return Err(format!("{} entries of {} durable ones", log.len(), self.durable));
        }
        if log.len() < self.acknowledged {
            return Err(format!("{} entries of {} acknowledged", log.len(), self.acknowledged));
        }
        let state = node.log().unwrap().state().map_err(|error| error.to_string())?;
        let committed = state.committed.unwrap_or(0) as usize;
        if committed > self.committed {
            return Err(format!("{committed} committed by themselves, not {}", self.committed));
        }
        let stats = node.stats();
        if stats.applied.unwrap_or(0) as usize != committed {
            return Err(format!("{committed} committed, and applied is {:?}", stats.applied));
        }
        self.compare_state(node, &log, committed)?;
        let hard = node.log().unwrap().hard_state().map_err(|error| error.to_string())?;
        if !self.hard.contains(&hard) {
            return Err("a hard state that was not saved last, nor tried".to_owned());
        }
        self.hard = [hard.clone(), hard];
        self.durable = log.len();
        (self.versions, self.durable_version) = (vec![log], 0);
        (self.committed, self.acknowledged, self.settled) = (committed, committed, true);
        Ok(())
    }

    fn compare_state(&self, node: &Node, log: &Log, count: usize) -> Result<(), String> {
        let mut state = State::new();
        for entry in &log[..count] {
            state.insert(entry.key.as_slice().into(), entry.value.as_slice().into());
        }
        let found = node.machine().scan_sorted().map_err(|error| error.to_string())?;
        let same = found.len() == state.len()
            && found
                .iter()
                .zip(&state)
                .all(|((key, value), known)| (&**key, &**value) == (&**known.0, &**known.1));
        if same { Ok(()) } else { Err(format!("not the state of {count} committed entries")) }
    }

    /// All entries: the committed ones that are gone from the log, and the others as they are in
    /// it.
    fn read_log(&self, node: &Node) -> Result<Log, String> {
        let state = node.log().unwrap().state().map_err(|error| error.to_string())?;
        let purged = state.purged.unwrap_or(0) as usize;
        if purged > self.committed {
            return Err(format!("{purged} entries are gone, and {} committed", self.committed));
        }
        let mut out = self.log()[..purged].to_vec();
        let Some(last) = state.last.filter(|last| last.index as usize > purged) else {
            return Ok(out);
        };
        let entries = node.log().unwrap().entries(purged as u64 + 1..=last.index, usize::MAX);
        for (log_id, payload) in entries.map_err(|error| error.to_string())?.iter() {
            let PayloadRef::Command(CommandRef::Put { key, value }) = payload else {
                return Err("an entry that was never appended".to_owned());
            };
            if log_id.index != out.len() as u64 + 1 {
                return Err(format!("index {} in place {}", log_id.index, out.len()));
            }
            let (key, value) = (key.to_vec(), value.bytes.to_vec());
            out.push(Rc::new(Proposed { term: log_id.term, key, value }));
        }
        if out.len() as u64 == last.index { Ok(out) } else { Err("entries are missing".to_owned()) }
    }

    /// Takes steps until the engine fails, or `steps` were taken.
    fn drive(&mut self, node: &Node, steps: usize) -> Result<(), String> {
        let every = self.shape.snapshot_every;
        for _ in 0..steps {
            if every > 0 && self.random.one_in(every) {
                self.take_snapshot(node)?;
                if node.poison().is_some() {
                    break;
                }
            }
            match self.random.below(14) {
                0 | 1 => self.append(node)?,
                2 => self.commit(node)?,
                3 if self.random.one_in(3) => self.truncate(node)?,
                4 if self.random.one_in(3) => self.save_hard_state(node)?,
                5 => {
                    node.advance(TICK);
                    node.step_background();
                }
                6..=9 => self.step_log_writer(node),
                _ => {
                    let id = self.random.below(node.workers());
                    node.step_worker(id);
                }
            }
            if node.poison().is_some() {
                break;
            }
            // A look costs more than the step.
            if self.random.one_in(8) {
                self.note(node)?;
            }
        }
        self.note(node)
    }

    /// Takes a snapshot, which has the committed entries, and makes all of the log durable first.
    fn take_snapshot(&mut self, node: &Node) -> Result<(), String> {
        let taken = match Take::random(&mut self.random) {
            Take::Snapshot => node.snapshots().write(),
            Take::Compaction => node.snapshots().compact().map(|report| report.snapshot),
        };
        match taken {
            Ok(report) => {
                let covered = report.log_id.map_or(0, |log_id| log_id.index as usize);
                if covered > self.committed {
                    return Err(format!("{covered} entries in a snapshot of {}", self.committed));
                }
                if covered > 0 {
                    (self.durable_version, self.settled) = (self.versions.len() - 1, true);
                }
                Ok(())
            }
            // A fault failed the call, or the engine.
            Err(_) if self.armed || node.poison().is_some() => Ok(()),
            Err(error) => Err(format!("a snapshot failed by itself: {error}")),
        }
    }

    fn note(&mut self, node: &Node) -> Result<(), String> {
        let stats = node.stats();
        if stats.durable > stats.written || stats.written > stats.submitted {
            return Err(format!("marks out of order: {stats:?}"));
        }
        let marks = [stats.acknowledged, stats.applied, stats.committed, stats.submitted];
        let marks = marks.map(|mark| mark.unwrap_or(0) as usize);
        let expected = [self.committed, self.log().len()];
        if !marks.is_sorted() || marks[2..] != expected || marks[0] < self.acknowledged {
            return Err(format!("marks {marks:?}, expected {expected:?}"));
        }
        self.acknowledged = marks[0];
        self.durable = stats.durable.unwrap_or(0) as usize;
        Ok(())
    }

    /// Steps the log writer. Once it finds no work, everything is written, including truncations,
    /// which no mark shows.
    fn step_log_writer(&mut self, node: &Node) {
        if !node.step_log_writer() && node.poison().is_none() {
            self.settled = true;
            if self.shape.durability == Durability::Sync {
                self.durable_version = self.versions.len() - 1;
            }
        }
    }

    fn append(&mut self, node: &Node) -> Result<(), String> {
        self.term += u64::from(self.random.one_in(8));
        let first = self.log().len() as u64 + 1;
        let proposed: Vec<Proposed> = (0..1 + self.random.below(self.shape.submission_max))
            .map(|_| {
                let mut value = self.random.next().to_le_bytes().to_vec();
                value.resize(8 + self.random.below(self.shape.value_bytes_max), b'v');
                let key = vec![b'k', b'0' + self.random.below(6) as u8];
                Proposed { term: self.term, key, value }
            })
            .collect();
        let entries: Vec<Entry<'_>> = proposed
            .iter()
            .zip(first..)
            .map(|(entry, index)| Entry::put(index, entry.term, &entry.key, &entry.value))
            .collect();
        match node.consensus().unwrap().append(&entries) {
            Ok(_) => {
                for entry in proposed {
                    let mut log = self.log().clone();
                    log.push(Rc::new(entry));
                    self.versions.push(log);
                }
                self.settled = false;
                Ok(())
            }
            Err(SubmitError::Full { .. } | SubmitError::Poisoned(_)) => Ok(()),
            Err(error) => Err(format!("an append was refused: {error}")),
        }
    }

    fn commit(&mut self, node: &Node) -> Result<(), String> {
        let uncommitted = self.log().len() - self.committed;
        if uncommitted == 0 {
            return Ok(());
        }
        let committed = self.committed + 1 + self.random.below(uncommitted);
        node.consensus().unwrap().commit(committed as u64).map_err(|error| error.to_string())?;
        self.committed = committed;
        Ok(())
    }

    fn truncate(&mut self, node: &Node) -> Result<(), String> {
        let uncommitted = self.log().len() - self.committed;
        if uncommitted == 0 {
            return Ok(());
        }
        let keep = self.committed + self.random.below(uncommitted);
        match node
            .consensus()
            .unwrap()
            .truncate_after(keep.checked_sub(1).map(|index| index as u64 + 1))
        {
            Ok(()) => {
                let mut log = self.log().clone();
                log.truncate(keep);
                self.versions.push(log);
                self.settled = false;
                Ok(())
            }
            Err(LogError::Full) => Ok(()),
            Err(error) => Err(format!("a truncation was refused: {error}")),
        }
    }

    /// Saves a hard state. The call waits for the log, which no thread steps meanwhile, so it is
    /// made only where nothing is left to write.
    fn save_hard_state(&mut self, node: &Node) -> Result<(), String> {
        if !self.settled {
            return Ok(());
        }
        let mut vote = self.random.next().to_le_bytes().to_vec();
        vote.resize(1 + self.random.below([8, 400, 3000][self.random.clone().below(3)]), b'h');
        self.hard[1] = Some(vote.clone());
        match node.log().unwrap().save_hard_state(&vote) {
            Ok(()) => {
                self.hard[0] = Some(vote);
                // Earlier appends and truncations are durable now.
                self.durable_version = self.versions.len() - 1;
                Ok(())
            }
            Err(LogError::Poisoned(_)) if node.poison().is_some() => Ok(()),
            Err(error) => Err(format!("a hard state was refused: {error}")),
        }
    }

    /// Runs into a fault, crashes, and leaves the disk for the next opening.
    fn generation(&mut self, faulty: bool) -> Result<(), String> {
        self.disk.reset_operations();
        if faulty {
            let fault = match self.random.below(6) {
                0 => Fault::Error(FaultError::Eio),
                1 => Fault::SyncErrorThenClean,
                _ => Fault::PowerCut,
            };
            self.disk.fail_at(self.random.below(70) as u64, fault);
        }
        self.armed = faulty;
        if let Some(node) = self.open()? {
            let steps = self.random.below(300);
            self.drive(&node, steps)?;
            if node.poison().is_none() && self.random.one_in(4) && !self.disk.is_power_off() {
                self.close(node)?;
            } else {
                drop(node);
            }
        }
        self.crashes += 1;
        let process_only = !self.disk.is_power_off();
        match self.random.below(4) {
            1 if process_only => {
                self.disk.crash_process();
                return Ok(());
            }
            0 => self.disk.power_cut_keeping(0),
            _ => self.disk.power_cut_random(),
        }
        // These entries may be lost with the power in the other modes; under `Sync` none may.
        if self.shape.durability != Durability::Sync {
            self.acknowledged = self.acknowledged.min(self.durable);
        }
        Ok(())
    }

    /// Checks that everything is there after a clean close, whatever was pending.
    fn close(&mut self, node: Node) -> Result<(), String> {
        let closed = node.close();
        if closed.is_ok() {
            self.durable_version = self.versions.len() - 1;
            self.durable = self.log().len();
        }
        Ok(())
    }
}

/// Proves DUR-7.
#[test]
fn campaign_by_commit() {
    for_seeds("campaign_by_commit", 100, |seed| {
        let mut world = World::new(seed);
        for _ in 0..1 + world.random.below(6) {
            let faulty = !world.random.one_in(4);
            world.generation(faulty)?;
        }
        world.generation(false)?;
        world.disk.reset_operations();
        world.open()?.ok_or("nothing was set to fail")?;
        Ok(world.crashes)
    });
}

/// A plain node on `disk` that commits by `commit`.
fn plain(disk: &SimDisk) -> Node {
    let config = Shape::plain().config().commit_mode(CommitMode::ByCommit);
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config).unwrap();
    Node::new(disk, machine, &Shape::plain())
}

/// A node with entries 1 to `count`, of term 1 and one key, durable and not committed.
fn with_entries(disk: &SimDisk, count: u64) -> Node {
    let node = plain(disk);
    append(&node, 1..=count, 1, b"old");
    node.run_until_idle();
    node
}

fn append(node: &Node, indexes: std::ops::RangeInclusive<u64>, term: u64, key: &[u8]) {
    let entries: Vec<Entry<'_>> =
        indexes.map(|index| Entry::put(index, term, key, b"value")).collect();
    let _ = node.consensus().unwrap().append(&entries).unwrap();
}

#[test]
fn a_truncated_entry_is_not_applied_when_the_directory_is_opened_again() {
    let disk = SimDisk::new(0);
    let node = with_entries(&disk, 5);
    node.consensus().unwrap().truncate_after(Some(3)).unwrap();
    append(&node, 4..=5, 2, b"new");
    node.run_until_idle();
    node.consensus().unwrap().truncate_after(Some(3)).unwrap();
    append(&node, 4..=5, 3, b"newer");
    node.run_until_idle();
    node.consensus().unwrap().commit(5).unwrap();
    node.run_until_idle();
    node.close().unwrap();
    let node = plain(&disk);
    assert_eq!(node.stats().applied, Some(5));
    assert!(node.machine().contains(b"old").unwrap() && node.machine().contains(b"newer").unwrap());
    assert!(!node.machine().contains(b"new").unwrap(), "a truncated entry was applied");
}

#[test]
fn a_commit_is_not_recorded_of_entries_that_a_truncation_on_its_way_removes() {
    let disk = SimDisk::new(0);
    let node = plain(&disk);
    // All of it waits in memory when it is committed.
    append(&node, 1..=5, 1, b"old");
    node.consensus().unwrap().truncate_after(Some(3)).unwrap();
    append(&node, 4..=5, 2, b"new");
    node.consensus().unwrap().commit(5).unwrap();
    node.run_until_idle();
    disk.power_cut_keeping(0);
    drop(node);
    assert_eq!(plain(&disk).log().unwrap().state().unwrap().last.unwrap().term, 2);
}

#[test]
fn a_hard_state_that_was_read_back_is_not_forgotten_by_a_power_cut() {
    for fault in [Fault::Error(FaultError::Eio), Fault::SyncErrorThenClean] {
        let disk = SimDisk::new(0);
        let node = plain(&disk);
        node.log().unwrap().save_hard_state(b"vote 1").unwrap();
        // The process dies between write and sync, or the sync fails.
        disk.fail_at(disk.operations() + 1, fault);
        node.log().unwrap().save_hard_state(b"vote 2").unwrap_err();
        disk.crash_process();
        drop(node);
        let node = plain(&disk);
        let read = node.log().unwrap().hard_state().unwrap();
        disk.power_cut_keeping(0);
        drop(node);
        assert_eq!(plain(&disk).log().unwrap().hard_state().unwrap(), read, "{fault:?}");
    }
}

#[test]
fn a_truncation_before_a_clean_close_is_not_undone_by_it() {
    let disk = SimDisk::new(0);
    let node = with_entries(&disk, 5);
    node.consensus().unwrap().truncate_after(Some(3)).unwrap();
    node.close().unwrap();
    let last = plain(&disk).log().unwrap().state().unwrap().last.unwrap();
    assert_eq!(last.index, 3, "what was truncated came back");
}

#[test]
fn a_truncation_is_durable_before_a_hard_state_that_is_saved_after_it() {
    let disk = SimDisk::new(0);
    let node = with_entries(&disk, 5);
    node.consensus().unwrap().truncate_after(Some(3)).unwrap();
    // The call may wait for the log, so another thread steps it.
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let saving = scope.spawn(|| {
            let saved = node.log().unwrap().save_hard_state(b"a vote of the next term");
            done.store(true, Ordering::Release);
            saved
        });
        while !done.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(1));
            node.run_until_idle();
        }
        saving.join().unwrap().unwrap();
    });
    disk.power_cut_keeping(0);
    drop(node);
    let node = plain(&disk);
    assert_eq!(
        node.log().unwrap().hard_state().unwrap().as_deref(),
        Some(&b"a vote of the next term"[..])
    );
    assert_eq!(
        node.log().unwrap().state().unwrap().last.unwrap().index,
        3,
        "the truncation was lost"
    );
}
