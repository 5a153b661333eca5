//! For tests: an engine without threads, stepped by hand, over the simulated disk; and, in [`conformance`], a suite to
//! run on a state machine of one's own.
//!
//! The steps are the ones the threads take, so what is proved here holds there; and as one thread takes them in an
//! order that a seed decides, a seed reproduces a run to the byte.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use sprag::testing::{SimDisk, Stepped};
//! use sprag::{ApplyConfig, Entry, PersistentConfig, PersistentStateMachine};
//!
//! let disk = SimDisk::new(1);
//! let config = PersistentConfig::new("simulated").segment_bytes(64 << 10);
//! let machine = PersistentStateMachine::open_on_disk(disk.open(true)?, config.clone())?;
//! let engine = Stepped::new(machine, ApplyConfig::new().worker_count(NonZeroUsize::MIN))?;
//!
//! let taken = engine.apply_entries(&[Entry::put(1, 1, b"key", b"value")])?;
//! assert_eq!(taken.new, 1);
//! assert_eq!(engine.stats().acknowledged, None);
//! while engine.step_log_writer() {}
//! while engine.step_worker(0) {}
//! assert_eq!(engine.stats().acknowledged, Some(1));
//!
//! // The power fails, and takes with it everything that was not synced.
//! disk.power_cut_keeping(0);
//! drop(engine);
//! let machine = PersistentStateMachine::open_on_disk(disk.open(true)?, config)?;
//! assert_eq!(machine.get(b"key")?.as_deref(), Some(&b"value"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ApplyManager;
use crate::apply::worker::Step;
use crate::clock::Clock;
use crate::config::{ApplyConfig, CommitMode};
use crate::entry::Reply;
use crate::error::OpenError;
use crate::inspect::VerifyReport;
use crate::machine::StateMachine;
use crate::repair::{RepairOptions, RepairReport};
use crate::restore::RestoreReport;

pub use crate::disk::sim::{Fault, FaultError, Random, SimDisk};

pub mod conformance;
pub mod storage;

/// As [`repair`](fn@crate::repair), on the simulated disk; the copies go to `backup`, which must be empty.
///
/// # Errors
///
/// As [`repair`](fn@crate::repair).
pub fn repair_on_disk(
    disk: &SimDisk,
    backup: &SimDisk,
    options: RepairOptions,
) -> Result<RepairReport, OpenError> {
    crate::repair::repair_on_disk(&disk.open(options.writes())?, options, &mut || {
        Ok((backup.open(true)?, PathBuf::from("backup")))
    })
}

/// As [`verify`](fn@crate::inspect::verify), on the simulated disk, which must not be open for writing.
///
/// # Errors
///
/// As [`verify`](fn@crate::inspect::verify).
pub fn verify_on_disk(disk: &SimDisk) -> Result<VerifyReport, OpenError> {
    crate::inspect::verify_on_disk(disk.open(false)?)
}

/// As [`restore`](fn@crate::restore), of a snapshot's bytes, on the simulated disk.
///
/// # Errors
///
/// As [`restore`](fn@crate::restore).
pub fn restore_on_disk(
    disk: &SimDisk,
    snapshot: &[u8],
    commit_mode: CommitMode,
) -> Result<RestoreReport, OpenError> {
    crate::restore::restore_bytes(&disk.open(true)?, snapshot, commit_mode)
}

/// A clock that only its callers move. Clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct HandClock(Arc<AtomicU64>);

impl HandClock {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::AcqRel);
    }
}

/// An apply manager whose threads are you.
///
/// Calls that wait do not step by themselves: step until what you wait for is there. Inline apply is off, so that a
/// synchronous call never does more than submit.
#[derive(Debug)]
pub struct Stepped<M: StateMachine> {
    manager: ApplyManager<M>,
    clock: HandClock,
}

impl<M: StateMachine> Stepped<M> {
    /// Takes a machine over, as [`ApplyManager::new`] does.
    ///
    /// # Errors
    ///
    /// As [`ApplyManager::new`].
    pub fn new(machine: M, config: ApplyConfig) -> Result<Self, OpenError> {
        Self::with_clock(machine, config, HandClock::default())
    }

    /// As [`new`](Stepped::new), with a clock that others move too: a disk that takes its time, say, or a machine.
    ///
    /// # Errors
    ///
    /// As [`ApplyManager::new`].
    pub fn with_clock(
        machine: M,
        config: ApplyConfig,
        clock: HandClock,
    ) -> Result<Self, OpenError> {
        let by_hand = Clock::Manual(Arc::clone(&clock.0));
        let config = config.by_hand(by_hand).inline_apply(false).pin_workers(false);
        Ok(Self { manager: ApplyManager::new(machine, config)?, clock })
    }

    /// How many workers there are to step.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.manager.engine.workers.count()
    }

    /// Lets time pass: for lingers and [`Durability::Periodic`](crate::Durability::Periodic). It stands still otherwise.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// One step of a worker: at most one range. Whether it did anything.
    pub fn step_worker(&self, id: usize) -> bool {
        self.worked(self.manager.engine.step_worker(id))
    }

    /// One step of the log writer: one group, or closing the open frame. Whether it did anything.
    pub fn step_log_writer(&self) -> bool {
        self.worked(self.manager.engine.step_writer())
    }

    /// One step of the background: the next segment. Whether it did anything.
    pub fn step_background(&self) -> bool {
        self.worked(self.manager.engine.step_background())
    }

    /// One step of filling the store after an opening from a snapshot: one chunk. Whether it did anything.
    pub fn step_fill(&self) -> bool {
        self.worked(self.manager.engine.step_fill())
    }

    /// One step of compaction: all of it, if it is due. Whether it did anything.
    pub fn step_compaction(&self) -> bool {
        self.worked(self.manager.engine.step_compaction())
    }

    /// As the loops over the steps do it, wakers are called after each.
    fn worked(&self, step: Step) -> bool {
        self.manager.engine.progress.wake_tasks();
        step == Step::Worked
    }

    /// Steps everything but filling and compaction, round-robin, until nothing has anything to do.
    pub fn run_until_idle(&self) {
        loop {
            let mut worked = self.step_log_writer() | self.step_background();
            for id in 0..self.workers() {
                worked |= self.step_worker(id);
            }
            if !worked {
                return;
            }
        }
    }

    /// The reply of an applied entry, as long as its slot is its own: for twice the pipeline's depth.
    pub(crate) fn reply(&self, index: u64) -> Reply {
        self.manager.engine.slots.reply(index).unwrap_or(Reply::Applied)
    }

    /// The manager, to be closed.
    #[must_use]
    pub fn into_manager(self) -> ApplyManager<M> {
        self.manager
    }
}

impl<M: StateMachine> Deref for Stepped<M> {
    type Target = ApplyManager<M>;

    fn deref(&self) -> &ApplyManager<M> {
        &self.manager
    }
}
