//! Models of a manager over a machine that commits in batches, in random schedules: no waiter
//! returns before the commit.

use std::sync::Arc;
use std::time::Duration;

use shuttle::sync::Mutex;
use shuttle::thread;

use super::shuttle_manager::schedules;
use super::{FIRST, FOREVER, Toy, put};
use crate::apply::manager::ApplyManager;
use crate::codec::PayloadRef;
use crate::config::{ApplyConfig, Durability};
use crate::contract::machine::StateMachine;
use crate::contract::staging::Staging;
use crate::entry::{LogId, Reply};
use crate::error::Fatal;
use crate::hook::Hook;
use crate::ranges::partition::{Footprint, Partition};
use crate::ranges::range::{EntryRange, Replies};

const BATCH_SIZE: usize = 2;
const ENTRIES: u64 = 6;

/// A machine that commits what the toy applied.
#[derive(Debug)]
struct Batching {
    toy: Toy,
    is_synced: bool,
    /// Whether the machine tells the engine to commit.
    says_so: bool,
    stored: Mutex<Stored>,
}

#[derive(Debug, Default)]
struct Stored {
    staged: usize,
    applied: u64,
    committed: u64,
}

impl Batching {
    fn new(is_synced: bool, says_so: bool) -> Self {
        Self { toy: Toy::new(1), is_synced, says_so, stored: Mutex::default() }
    }

    fn has_committed(&self, index: u64) {
        assert!(self.stored.lock().unwrap().committed >= index, "{index} is not committed");
    }
}

impl StateMachine for Batching {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        self.toy.footprint(payload)
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        self.toy.apply(range, partition, replies)?;
        let mut stored = self.stored.lock().unwrap();
        stored.staged += usize::try_from(range.len()).unwrap();
        stored.applied = range.last().index;
        assert!(stored.staged <= BATCH_SIZE || !self.says_so, "{} in a batch", stored.staged);
        Ok(())
    }

    fn staging(&self, _: Hook) -> Option<&dyn Staging> {
        self.says_so.then_some(self as &dyn Staging)
    }
}

impl Staging for Batching {
    fn batch_size(&self) -> usize {
        BATCH_SIZE
    }

    fn batch_interval(&self) -> Duration {
        Duration::ZERO
    }

    fn durability(&self) -> Durability {
        if self.is_synced { Durability::Sync } else { Durability::Os }
    }

    fn leave_syncs_to_log(&self) {}

    fn commit(&self) -> Result<bool, Fatal> {
        thread::yield_now();
        let mut stored = self.stored.lock().unwrap();
        stored.staged = 0;
        stored.committed = stored.applied;
        Ok(self.is_synced)
    }

    fn sync(&self) -> Result<(), Fatal> {
        Ok(())
    }

    fn durable(&self) -> Option<LogId> {
        None
    }
}

/// Three threads propose, or submit and wait; each finds its entries committed when its call
/// returns.
fn who_waits_sees_the_commit(is_synced: bool, says_so: bool) {
    let config = ApplyConfig::new().pipeline_depth(4).batch_size(2).pin_workers(false);
    let machine = Batching::new(is_synced, says_so);
    let manager = Arc::new(ApplyManager::new(machine, config).unwrap());
    let reader = manager.reader();
    let waiting = Arc::clone(&manager);
    let waiter = thread::spawn(move || {
        waiting.wait_for_apply(ENTRIES / 2, FOREVER).unwrap();
        waiting.machine().has_committed(ENTRIES / 2);
        waiting.flush_pending(FOREVER).unwrap();
    });
    let propose = |manager: Arc<ApplyManager<Batching>>| {
        for _ in 0..ENTRIES / 2 {
            let reply = manager.propose(put(0, FIRST).payload, FOREVER).unwrap();
            let Reply::Custom(index) = reply else { panic!("{reply:?}") };
            manager.machine().has_committed(index);
        }
    };
    let other = Arc::clone(&manager);
    let other = thread::spawn(move || propose(other));
    propose(Arc::clone(&manager));
    other.join().unwrap();
    waiter.join().unwrap();
    Arc::into_inner(manager).unwrap().close(FOREVER).unwrap();
    reader.has_committed(ENTRIES);
    assert_eq!(reader.toy.applied_in(0), (1..=ENTRIES).collect::<Vec<_>>());
}

/// Proves ORD-12.
#[test]
fn no_waiter_is_satisfied_before_the_commit() {
    for is_synced in [false, true] {
        let model = move || who_waits_sees_the_commit(is_synced, true);
        shuttle::check_random(model, schedules(300));
        shuttle::check_pct(model, schedules(100), 3);
    }
}

#[test]
#[should_panic(expected = "is not committed")]
fn canary_an_engine_that_does_not_wait_for_the_commit_is_found() {
    shuttle::check_random(|| who_waits_sees_the_commit(true, false), schedules(300));
}
