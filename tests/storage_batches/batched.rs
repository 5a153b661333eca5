//! A machine that commits applied entries in batches, as one over a storage does, and records each
//! commit.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sprag::testing::hooks::{Hook, Staging, Views};
use sprag::{
    Durability, EntryRange, Fatal, Footprint, Journal, LogId, MemoryConfig, MemoryStateMachine,
    Partition, PayloadRef, Replies, StateMachine, StateMachineStats,
};

use crate::common::machines::Gate;

/// A call of the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A commit of this number of entries, and whether it syncs.
    Commit(u64, bool),
    Sync,
}

/// Calls that fail, or panic, from now on.
#[derive(Debug, Default)]
pub struct Faults {
    pub commits: AtomicBool,
    pub commits_panic: AtomicBool,
    pub syncs: AtomicBool,
}

/// State of a [`Batched`] that a test reads and sets, also while an engine has it.
#[derive(Debug, Default)]
pub struct Seen {
    pub faults: Faults,
    /// A gate at which commits wait while it is shut.
    pub gate: Arc<Gate>,
    calls: Mutex<Vec<Call>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    staged: u64,
    last_applied: Option<LogId>,
    committed: Option<LogId>,
    durable: Option<LogId>,
}

impl Seen {
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// Numbers of entries of each commit.
    pub fn commits(&self) -> Vec<u64> {
        let entries = |call| if let Call::Commit(entries, _) = call { Some(entries) } else { None };
        self.calls().into_iter().filter_map(entries).collect()
    }

    pub fn syncs(&self) -> usize {
        self.calls().iter().filter(|call| **call == Call::Sync).count()
    }

    pub fn committed(&self) -> Option<u64> {
        self.state.lock().unwrap().committed.map(|last| last.index)
    }
}

/// A memory machine with the interface of a machine over a storage.
#[derive(Debug)]
pub struct Batched {
    inner: MemoryStateMachine,
    pub seen: Arc<Seen>,
    batch_size: usize,
    batch_interval: Duration,
    sync_writes: bool,
    /// Whether it reports commits as durable that need not be.
    always_durable: bool,
}

impl Batched {
    pub fn new(batch_size: usize) -> Self {
        Self {
            inner: MemoryStateMachine::new(MemoryConfig::new()).unwrap(),
            seen: Arc::default(),
            batch_size,
            batch_interval: Duration::ZERO,
            sync_writes: true,
            always_durable: false,
        }
    }

    pub fn batch_interval(self, batch_interval: Duration) -> Self {
        Self { batch_interval, ..self }
    }

    pub fn sync_writes(self, sync_writes: bool) -> Self {
        Self { sync_writes, ..self }
    }

    pub fn always_durable(self) -> Self {
        Self { always_durable: true, ..self }
    }
}

impl Deref for Batched {
    type Target = MemoryStateMachine;

    fn deref(&self) -> &MemoryStateMachine {
        &self.inner
    }
}

impl StateMachine for Batched {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        // The inner store uses this hash.
        self.inner.footprint(payload)
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        self.inner.apply(range, partition, replies)?;
        let mut state = self.seen.state.lock().unwrap();
        state.staged += range.last().index - range.first().index + 1;
        state.last_applied = Some(range.last());
        Ok(())
    }

    fn applied(&self) -> Option<LogId> {
        self.inner.applied()
    }

    fn stats(&self) -> StateMachineStats {
        self.inner.stats()
    }

    fn views(&self, hook: Hook) -> Option<&dyn Views> {
        self.inner.views(hook)
    }

    fn staging(&self, _: Hook) -> Option<&dyn Staging> {
        Some(self)
    }

    fn journal(&self) -> Journal {
        self.inner.journal()
    }
}

impl Staging for Batched {
    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn batch_interval(&self) -> Duration {
        self.batch_interval
    }

    fn durability(&self) -> Durability {
        if self.sync_writes { Durability::Sync } else { Durability::Os }
    }

    fn leave_syncs_to_log(&self) {}

    fn commit(&self) -> Result<bool, Fatal> {
        self.seen.gate.pass();
        assert!(!self.seen.faults.commits_panic.load(Ordering::Relaxed), "asked for");
        if self.seen.faults.commits.load(Ordering::Relaxed) {
            return Err(Fatal::new("the storage is broken"));
        }
        let mut state = self.seen.state.lock().unwrap();
        let entries = std::mem::take(&mut state.staged);
        state.committed = state.last_applied;
        let durable = self.sync_writes || self.always_durable;
        if durable {
            state.durable = state.committed;
        }
        self.seen.calls.lock().unwrap().push(Call::Commit(entries, self.sync_writes));
        Ok(durable)
    }

    fn sync(&self) -> Result<(), Fatal> {
        if self.seen.faults.syncs.load(Ordering::Relaxed) {
            return Err(Fatal::new("the disk is gone"));
        }
        let mut state = self.seen.state.lock().unwrap();
        state.durable = state.committed;
        self.seen.calls.lock().unwrap().push(Call::Sync);
        Ok(())
    }

    fn durable(&self) -> Option<LogId> {
        self.seen.state.lock().unwrap().durable
    }
}
