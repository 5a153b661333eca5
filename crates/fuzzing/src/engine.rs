//! Operations and faults on an engine, compared with a plain model: a list of entries, and which of
//! them are promised.

use std::time::Duration;

use super::bases::{Node, config, new_disk, node};
use super::input::Input;
use super::model::{Op, State, state_after};
use sprag::StateMachine as _;
use sprag::config::CommitMode;
use sprag::entry::{Entry, LogId};
use sprag::error::{LogError, OpenError, SubmitError};
use sprag::machine::PersistentStateMachine;
use sprag::testing::{Fault, FaultError, SimDisk};

const OPERATIONS_MAX: usize = 160;
const ENTRIES_MAX: usize = 96;

type Items = Vec<(u64, Op)>;

/// Runs the input. In the first byte, bit 0 selects commits by `commit`, and bit 1 begins
/// at index 0. Bits 2 and 3 set the number of workers, and bits 4 and 5 that of writes in flight.
/// Operations follow.
pub fn engine(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(input.u8());
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        world.operate(&mut input);
    }
    world.finish();
}

#[derive(Debug)]
struct World {
    sim: SimDisk,
    mode: CommitMode,
    workers: usize,
    first: u64,
    node: Option<Node>,
    /// The current log.
    log: Items,
    /// The log before truncations that may not be durable.
    versions: Vec<Items>,
    committed: usize,
    /// Number of entries that survive everything.
    durable: usize,
    /// Number of entries that survive a crash of the process.
    written: usize,
    hard: Option<Vec<u8>>,
    /// A hard state whose store failed: it may be there or not.
    hard_maybe: Option<Vec<u8>>,
    /// The operation that a fault is set for.
    armed: Option<u64>,
    /// Whether the last life closed cleanly: then its committed mark is known.
    closed: bool,
}

impl World {
    fn new(shape: u8) -> Self {
        let mode = if shape & 1 == 0 { CommitMode::OnAppend } else { CommitMode::ByCommit };
        let sim = new_disk(mode);
        sim.set_queue_depth(1 + usize::from(shape >> 4 & 3));
        let mut world = Self {
            sim,
            mode,
            workers: 1 + usize::from(shape >> 2 & 3).min(2),
            first: u64::from(shape & 2 == 0),
            node: None,
            log: Vec::new(),
            versions: Vec::new(),
            committed: 0,
            durable: 0,
            written: 0,
            hard: None,
            hard_maybe: None,
            armed: None,
            closed: false,
        };
        world.open();
        world
    }

    fn operate(&mut self, input: &mut Input<'_>) {
        match input.u8() % 20 {
            0..=4 => self.submit(input),
            5 => drop(self.node().step_worker(input.below(self.workers))),
            6 | 7 => drop(self.node().step_log_writer()),
            8 => drop(self.node().step_background()),
            9 | 10 => self.settle(),
            11 => self.commit(input),
            12 => self.truncate(input),
            13 => {
                let mask = input.u64();
                self.crash(Some(mask));
            }
            14 => self.crash(None),
            15 => self.arm(input),
            16 => self.close(),
            17 => self.read(input),
            18 => self.save_hard_state(input),
            _ => self.submit_wrongly(input),
        }
        if self.node.is_some() {
            self.note();
        }
    }

    fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    fn index(&self, position: usize) -> u64 {
        self.first + position as u64
    }

    fn count_to(&self, index: Option<u64>) -> usize {
        index.map_or(0, |index| (index + 1 - self.first) as usize)
    }

    fn struck(&self) -> bool {
        self.armed.is_some_and(|operation| self.sim.operations() > operation)
    }

    /// Whether the engine has failed, which is right only after a fault.
    fn is_poisoned(&self) -> bool {
        let Some(poison) = self.node().poison() else { return false };
        assert!(self.struck(), "the engine failed by itself: {poison}");
        true
    }

    fn refused(&self, error: &SubmitError) {
        match error {
            SubmitError::Full { .. } => {}
            SubmitError::Poisoned(_) => assert!(self.is_poisoned()),
            other => panic!("a submission was refused: {other}"),
        }
    }

    fn send(&self, position: usize, items: &[(u64, Op)]) -> Result<(), SubmitError> {
        // Submit one by one, because entries borrow. Other tests cover all-or-nothing.
        for (at, (term, op)) in items.iter().enumerate() {
            let log_id = LogId::new(self.index(position + at), *term);
            let _ = op.with_payload(|payload| {
                let entries = [Entry::new(log_id, payload)];
                if self.mode == CommitMode::OnAppend {
                    self.node().apply_entries(&entries)
                } else {
                    self.node().consensus().unwrap().append(&entries)
                }
            })?;
        }
        Ok(())
    }

    fn submit(&mut self, input: &mut Input<'_>) {
        if self.log.len() >= ENTRIES_MAX {
            return;
        }
        let term = self.log.last().map_or(1, |(term, _)| *term);
        let item = (term + u64::from(input.u8().is_multiple_of(16)), random_op(input, true));
        match self.send(self.log.len(), std::slice::from_ref(&item)) {
            Ok(()) => self.log.push(item),
            Err(error) => self.refused(&error),
        }
        if self.mode == CommitMode::OnAppend {
            self.committed = self.log.len();
        }
    }

    /// Submits existing entries, which change nothing, and a gap or another term at a known index,
    /// which are refused.
    fn submit_wrongly(&mut self, input: &mut Input<'_>) {
        let Some((term, op)) = self.log.last().cloned() else { return };
        let last = self.log.len() - 1;
        let result = match input.u8() % 3 {
            0 => match self.send(last, &[(term, op)]) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
            1 => self.send(last + 2, &[(term, op)]),
            _ => self.send(last, &[(term + 1, Op::Noop)]),
        };
        match result {
            Err(SubmitError::Gap { .. } | SubmitError::Conflict { .. }) => {}
            Err(error) => self.refused(&error),
            Ok(()) => panic!("an entry that does not belong there was taken"),
        }
    }

    fn commit(&mut self, input: &mut Input<'_>) {
        if self.mode == CommitMode::OnAppend || self.log.is_empty() {
            return;
        }
        let position = input.below(self.log.len());
        match self.node().consensus().unwrap().commit(self.index(position)) {
            Ok(()) => self.committed = self.committed.max(position + 1),
            Err(error) => self.refused(&error),
        }
    }

    fn truncate(&mut self, input: &mut Input<'_>) {
        if self.mode == CommitMode::OnAppend {
            return;
        }
        let keep = input.below(self.log.len() + 1);
        let keep_index = keep.checked_sub(1).map(|position| self.index(position));
        // With the first index 0, "keep nothing" and "keep below the first" are the same.
        match self.node().consensus().unwrap().truncate_after(keep_index) {
            Ok(()) => {
                assert!(keep >= self.committed, "what was committed was truncated");
                self.versions.push(self.log.clone());
                self.log.truncate(keep);
                self.durable = self.durable.min(keep);
                self.written = self.written.min(keep);
            }
            Err(LogError::BelowCommitted { .. }) => assert!(keep < self.committed),
            Err(LogError::Full) => {}
            Err(LogError::Poisoned(_)) => assert!(self.is_poisoned()),
            Err(error) => panic!("a truncation was refused: {error}"),
        }
    }

    /// Completes all work, after which everything is known.
    fn settle(&mut self) {
        self.node().run_until_idle();
        self.note();
        if self.is_poisoned() {
            return;
        }
        let stats = self.node().stats();
        assert_eq!(self.count_to(stats.durable), self.log.len(), "{stats:?}");
        assert_eq!(self.count_to(stats.acknowledged), self.committed, "{stats:?}");
        self.versions.clear();
        self.compare_state(self.node().machine(), self.committed);
    }

    /// Checks that a value is one that its key had after some entry between `applied` and
    /// `committed`.
    fn read(&mut self, input: &mut Input<'_>) {
        let key = key(input.u8());
        let applied = self.count_to(self.node().stats().applied);
        let found = match self.node().machine().get(&key) {
            Ok(found) => found.map(|value| value.to_vec()),
            Err(error) => return assert!(self.is_poisoned(), "a read failed: {error}"),
        };
        let possible =
            (applied..=self.committed).any(|count| self.state(count).get(&key) == found.as_ref());
        assert!(possible, "a value that was not there between applied and committed");
        let at = input.below(self.log.len() + 1);
        match self.node().log().unwrap().log_id(self.index(at)) {
            Ok(found) => assert_eq!(
                found,
                self.log.get(at).map(|(term, _)| LogId::new(self.index(at), *term))
            ),
            Err(_) => assert!(self.is_poisoned()),
        }
    }

    fn save_hard_state(&mut self, input: &mut Input<'_>) {
        let state = vec![input.u8(); input.below(1200)];
        // The call waits for earlier entries, and no other thread takes steps here.
        self.node().run_until_idle();
        self.note();
        let was_poisoned = self.is_poisoned();
        match self.node().log().unwrap().save_hard_state(&state) {
            Ok(()) => {
                (self.hard, self.hard_maybe) = (Some(state), None);
                self.versions.clear();
            }
            Err(LogError::Poisoned(_)) => {
                assert!(self.is_poisoned());
                // A poisoned engine writes nothing: the failed call decides what may be there.
                if !was_poisoned {
                    self.hard_maybe = Some(state);
                }
            }
            Err(error) => panic!("a hard state was refused: {error}"),
        }
    }

    fn arm(&mut self, input: &mut Input<'_>) {
        let fault = match input.u8() % 5 {
            0 => Fault::Error(FaultError::Eio),
            1 => Fault::Error(FaultError::Enospc),
            // Write whole sectors: no crash leaves less than a sector of a slot of META or HARD,
            // and recovery reports it.
            2 => Fault::ShortWriteThenError { bytes: input.below(2000) / 512 * 512 },
            3 => Fault::PowerCut,
            _ => Fault::SyncErrorThenClean,
        };
        if self.struck() {
            return;
        }
        self.sim.reset_operations();
        let operation = u64::from(input.u8() % 16);
        self.sim.fail_at(operation, fault);
        self.armed = Some(operation);
    }

    /// Records the promises of this moment, and checks that marks are in order and never fall.
    fn note(&mut self) {
        let stats = self.node().stats();
        let count = |index| self.count_to(index);
        let (durable, written) = (count(stats.durable), count(stats.written));
        let (acknowledged, applied) = (count(stats.acknowledged), count(stats.applied));
        assert!(durable <= written && written <= self.log.len(), "{stats:?}");
        assert!(acknowledged <= applied && acknowledged <= durable, "{stats:?}");
        assert!(applied <= self.committed && self.committed <= self.log.len(), "{stats:?}");
        assert_eq!(count(stats.submitted), self.log.len(), "{stats:?}");
        assert!(durable >= self.durable && written >= self.written, "a mark went back: {stats:?}");
        (self.durable, self.written) = (durable, written);
    }

    fn state(&self, count: usize) -> State {
        state_after(self.log[..count].iter().map(|(_, op)| op))
    }

    fn compare_state(&self, machine: &PersistentStateMachine, count: usize) {
        let found = machine.scan_sorted().unwrap();
        let found: State =
            found.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        assert!(found == self.state(count), "not the state after {count} entries");
    }

    /// Cuts the power, with a mask of the survivors, or crashes the process.
    fn crash(&mut self, mask: Option<u64>) {
        let node = self.node.take();
        self.sim.crash_process();
        drop(node);
        let mask = mask.or_else(|| self.sim.is_power_off().then_some(0));
        if let Some(mask) = mask {
            self.sim.power_cut(&mut |item| mask >> (item % 64) & 1 == 1);
            self.written = self.durable;
        }
        self.open();
    }

    fn close(&mut self) {
        let node = self.node.take().unwrap();
        match node.into_manager().close(Duration::from_secs(10)) {
            Ok(()) => {
                (self.durable, self.written) = (self.log.len(), self.log.len());
                self.versions.clear();
                self.closed = true;
            }
            Err(error) => assert!(self.struck(), "closing failed: {error}"),
        }
        self.crash(None);
    }

    /// Opens until it works: each fault strikes once.
    fn open(&mut self) {
        loop {
            let disk = self.sim.open(true).expect("the lock is free");
            let struck_before = self.struck();
            match PersistentStateMachine::open_on_disk(disk, config(self.mode)) {
                Ok(machine) => {
                    // A fault that struck without harm is over.
                    if self.struck() {
                        self.disarm();
                    }
                    return self.recovered(machine);
                }
                Err(error @ OpenError::Io { .. }) => {
                    assert!(self.struck() && !struck_before, "opening failed: {error}");
                }
                Err(error) => panic!("opening was refused: {error}"),
            }
            self.disarm();
            self.closed = false;
            self.sim.crash_process();
            if self.sim.is_power_off() {
                self.sim.power_cut_random();
                self.written = self.durable;
            }
        }
    }

    fn disarm(&mut self) {
        self.sim.reset_operations();
        self.armed = None;
    }

    /// Checks that every promised entry is there, and no entry that never was.
    fn recovered(&mut self, machine: PersistentStateMachine) {
        if self.struck() {
            self.disarm();
        }
        let applied = self.count_to(machine.applied().map(|last| last.index));
        let node = node(machine, self.workers);
        let found = log_of(&node, self.first);
        assert!(found.len() >= self.written, "{} of {}", found.len(), self.written);
        assert!(found[..self.written] == self.log[..self.written], "other entries than promised");
        let is_known = |log: &Items| log.len() >= found.len() && log[..found.len()] == found[..];
        assert!(self.versions.iter().chain([&self.log]).any(is_known), "a log that never was");
        let known = self.committed.min(found.len());
        let exactly = self.mode == CommitMode::OnAppend || self.closed;
        if self.mode == CommitMode::OnAppend {
            assert_eq!(applied, found.len());
        } else {
            assert!(applied <= known);
        }
        assert!(!self.closed || applied == self.committed, "a commit was forgotten by a close");
        assert!(!exactly || applied >= known);
        self.log = found;
        self.versions.clear();
        self.closed = false;
        self.committed = applied;
        // Opening makes everything it found durable.
        (self.durable, self.written) = (self.log.len(), self.log.len());
        self.compare_state(node.machine(), applied);
        let hard = node.log().unwrap().hard_state().unwrap();
        assert!(hard == self.hard || (self.hard_maybe.is_some() && hard == self.hard_maybe));
        (self.hard, self.hard_maybe) = (hard, None);
        self.node = Some(node);
    }

    /// Checks that the next open works, whatever happened, and that the engine continues.
    fn finish(&mut self) {
        self.crash(Some(0));
        self.disarm();
        self.settle();
        let node = self.node.take();
        self.sim.crash_process();
        drop(node);
    }
}

/// The log, read back.
fn log_of(node: &Node, first: u64) -> Items {
    let Some(last) = node.log().unwrap().state().unwrap().last else { return Vec::new() };
    let entries = node.log().unwrap().entries(first..=last.index, usize::MAX).unwrap();
    let indexes = entries.iter().map(|(log_id, _)| log_id.index);
    assert!(indexes.eq(first..=last.index), "entries are read back in order");
    entries.iter().map(|(log_id, payload)| (log_id.term, Op::decoded(&payload))).collect()
}

fn key(number: u8) -> Vec<u8> {
    match number % 8 {
        // This key is too long for a slot of the store.
        7 => b"a key that is longer than what a slot of the store holds".to_vec(),
        number => vec![b'k', b'0' + number],
    }
}

fn random_op(input: &mut Input<'_>, may_be_batch: bool) -> Op {
    let kind = input.u8();
    let key = key(kind >> 4);
    match kind & 15 {
        0..=5 => Op::Put(key, value(input)),
        6 => Op::Delete(key),
        7..=9 => Op::Increment(key, input.number(0).cast_signed()),
        10 => Op::Swap(key, None, Some(value(input))),
        11 => Op::Swap(key, Some(b"0".to_vec()), None),
        12 | 13 if may_be_batch => {
            let count = input.below(4);
            let ops = (0..count).map(|_| random_op(input, false)).collect();
            let note = input.u8().is_multiple_of(3).then(|| (b"note".to_vec(), vec![kind]));
            Op::Batch(ops, note)
        }
        14 if may_be_batch => Op::Membership(vec![kind]),
        15 if may_be_batch => Op::Noop,
        _ => Op::Put(key, b"0".to_vec()),
    }
}

fn value(input: &mut Input<'_>) -> Vec<u8> {
    let len = match input.u8() {
        short @ 0..200 => usize::from(short % 32),
        long => usize::from(long - 199) * 50,
    };
    vec![input.u8(); len]
}
