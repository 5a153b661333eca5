//! Models of the apply side for the model checkers; `docs/testing.md` says how to run them.
//!
//! Each is small, runs the engine's own code, and fails in any interleaving that breaks what it
//! states. The canaries leave out one thing that a model depends on, and pass because the checker
//! finds the consequence.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[cfg(loom)]
mod loom_cache;
#[cfg(loom)]
mod loom_engine;
#[cfg(loom)]
mod loom_host;
#[cfg(loom)]
mod loom_parts;
#[cfg(shuttle)]
mod shuttle_manager;
#[cfg(shuttle)]
mod shuttle_staging;

use std::sync::Arc;
use std::time::Duration;

use crate::codec::{CommandRef, PayloadRef};
use crate::contract::machine::StateMachine;
use crate::contract::view::{Head, View, Views};
use crate::entry::{Entry, Reply};
use crate::error::{Fatal, SnapshotError};
use crate::hook::Hook;
use crate::machine::capture::Captured;
use crate::machine::cell::HeapCell;
use crate::machine::sorted::Sorted;
use crate::numbers::SegmentNumber;
use crate::places::table::SegmentHold;
use crate::ranges::partition::{Footprint, Partition};
use crate::ranges::range::{EntryRange, Replies};
use crate::snapshot::Snapshot;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Timeout of every wait in a model, which never fires.
const FOREVER: Duration = Duration::MAX;

/// A key of the first partition; the next constant is one of the last.
const FIRST: &[u8] = &[0];
const LAST: &[u8] = &[255];

fn put(index: u64, key: &[u8]) -> Entry<'_> {
    Entry::put(index, 1, key, b"")
}

/// A machine that records its calls in memory that no lock protects: the engine must.
#[derive(Debug)]
struct Toy {
    partitions: Vec<Applied>,
    /// Number of partitions that have reached the view token.
    reached: AtomicU64,
}

#[derive(Debug, Default)]
struct Applied {
    /// The last index. Accesses are relaxed on purpose: a worker that does not see its
    /// predecessor's write reads an old value.
    last: AtomicU64,
    /// The true sequence of calls. No thread is stopped while it holds this.
    all: std::sync::Mutex<Vec<u64>>,
    /// Number of these calls when the view token arrived.
    at_token: std::sync::Mutex<Option<usize>>,
}

impl Toy {
    fn new(partitions: usize) -> Self {
        let partitions = (0..partitions).map(|_| Applied::default()).collect();
        Self { partitions, reached: AtomicU64::new(0) }
    }

    /// For each partition, the number of its entries when the view token arrived.
    #[cfg(loom)]
    fn at_token(&self) -> Vec<Option<usize>> {
        self.partitions.iter().map(|applied| *applied.at_token.lock().unwrap()).collect()
    }

    /// The indexes that a partition got, in order.
    fn applied_in(&self, partition: usize) -> Vec<u64> {
        self.partitions[partition].all.lock().unwrap().clone()
    }
}

impl StateMachine for Toy {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        match payload {
            PayloadRef::Command(CommandRef::Put { key, .. }) => {
                Footprint::Key(u64::from(key[0]) << 49)
            }
            _ => Footprint::All,
        }
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        let applied = &self.partitions[partition.id()];
        for entry in range.entries(partition) {
            let entry = entry?;
            let index = entry.log_id.index;
            let before = applied.all.lock().unwrap().last().copied().unwrap_or(0);
            let seen = applied.last.load(Ordering::Relaxed);
            if seen != before || index <= before {
                return Err(Fatal::new(format!("{index} after {before}, of which it saw {seen}")));
            }
            applied.last.store(index, Ordering::Relaxed);
            let mut all = applied.all.lock().unwrap();
            if all.last().copied().unwrap_or(0) != before {
                return Err(Fatal::new(format!("{index} together with another")));
            }
            all.push(index);
            drop(all);
            replies.set(&entry, Reply::Custom(index));
        }
        Ok(())
    }

    fn views(&self, _: Hook) -> Option<&dyn Views> {
        Some(self)
    }
}

/// Records where the view token arrived, and copies nothing.
impl Views for Toy {
    fn begin_view(&self) -> Result<(), SnapshotError> {
        self.reached.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn reach_view_token(&self, partition: Partition) {
        let applied = &self.partitions[partition.id()];
        *applied.at_token.lock().unwrap() = Some(applied.all.lock().unwrap().len());
        self.reached.fetch_add(1, Ordering::Release);
    }

    fn partitions_reached(&self) -> usize {
        usize::try_from(self.reached.load(Ordering::Acquire)).unwrap()
    }

    fn finish_view(&self, hold: SegmentHold) -> Result<View, SnapshotError> {
        let captured = Captured { head: Head::default(), shards: Vec::new() };
        Ok(View::new(Sorted::<HeapCell>::new(captured, (), Arc::default()), Some(hold)))
    }

    fn fill_some(&self) -> Result<bool, SnapshotError> {
        Ok(false)
    }

    fn load(&self, _: &Snapshot) -> Result<(), SnapshotError> {
        Err(SnapshotError::Unsupported { what: "a model" })
    }

    fn check_sources(&self, _: &dyn Fn() -> bool) -> Result<bool, SnapshotError> {
        Ok(false)
    }

    fn let_go(&self, _: &Snapshot, _: SegmentNumber) -> Result<(), SnapshotError> {
        Err(SnapshotError::Unsupported { what: "a model" })
    }
}
