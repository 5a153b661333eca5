//! Models of the apply side for the model checkers; `docs/model-checking.md` says how to run them.
//!
//! Each is small, runs the engine's own code, and fails in any interleaving that breaks what it states. The canaries
//! leave out one thing that it depends on, and pass because the checker finds what comes of that.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[cfg(loom)]
mod loom_engine;
#[cfg(loom)]
mod loom_parts;
#[cfg(shuttle)]
mod shuttle_manager;

use std::time::Duration;

use crate::codec::{CommandRef, PayloadRef};
use crate::entry::{Entry, LogId, Reply};
use crate::machine::{Fatal, Footprint, Partition, Range, Replies, StateMachine};
use crate::sync::atomic::{AtomicU64, Ordering};

/// No wait of a model ends by a timeout.
const FOREVER: Duration = Duration::MAX;

/// Keys of the first partition and of the last one.
const FIRST: &[u8] = &[0];
const LAST: &[u8] = &[255];

fn put(index: u64, key: &[u8]) -> Entry<'_> {
    Entry::put(index, 1, key, b"")
}

/// Writes down what it is given, in memory that no lock protects: the engine must.
#[derive(Debug)]
struct Toy {
    partitions: Vec<Applied>,
}

#[derive(Debug, Default)]
struct Applied {
    /// Relaxed on purpose: a worker that does not see what the one before it did reads an old value.
    last: AtomicU64,
    /// What really happened. No thread is stopped while it holds this.
    all: std::sync::Mutex<Vec<u64>>,
}

impl Toy {
    fn new(partitions: usize) -> Self {
        Self { partitions: (0..partitions).map(|_| Applied::default()).collect() }
    }

    /// The indexes a partition was given, in the order in which it was given them.
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
        range: &Range<'_>,
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

    fn applied(&self) -> Option<LogId> {
        None
    }
}
