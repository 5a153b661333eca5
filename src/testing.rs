//! Tools for tests. An engine without threads is stepped by hand, over the simulated disk.
//! [`conformance`] has a suite to run on an embedder's state machine.
//!
//! The module is compiled with the feature `testing` only, which is for dev-dependencies.
//!
//! The steps are those of the threads, so proofs here hold there. One thread takes the steps in an
//! order that a seed decides, so a seed reproduces a run to the byte.
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

use crate::apply::manager::ApplyManager;
use crate::clock::Clock;
use crate::config::{ApplyConfig, CommitMode};
use crate::contract::machine::StateMachine;
use crate::entry::Reply;
use crate::error::OpenError;
use crate::inspect::VerifyReport;
use crate::repair::{RepairOptions, RepairReport};
use crate::restore::RestoreReport;
use crate::threads::Step;

pub use crate::disk::sim::{Fault, FaultError, Random, SimDisk};

pub mod conformance;
#[doc(hidden)]
pub mod internals;
pub mod storage;

/// Items for a test that decorates a machine with the engine's hooks. They may change in any
/// version. No other build than one with the feature `testing` shows them to users.
#[doc(hidden)]
pub mod hooks {
    pub use crate::contract::staging::Staging;
    pub use crate::contract::view::Views;
    pub use crate::hook::Hook;

    /// The value that the engine passes.
    pub const ENGINE: Hook = Hook::ENGINE;
}

/// Repairs as [`repair`](fn@crate::repair) does, on the simulated disk. The copies go to `backup`,
/// which must be empty.
///
/// # Errors
///
/// Returns the errors of [`repair`](fn@crate::repair).
pub fn repair_on_disk(
    disk: &SimDisk,
    backup: &SimDisk,
    options: RepairOptions,
) -> Result<RepairReport, OpenError> {
    crate::repair::repair_on_disk(&disk.open(options.writes())?, options, &mut || {
        Ok((backup.open(true)?, PathBuf::from("backup")))
    })
}

/// Verifies as [`verify`](fn@crate::inspect::verify) does, on the simulated disk, which must not be
/// open for writing.
///
/// # Errors
///
/// Returns the errors of [`verify`](fn@crate::inspect::verify).
pub fn verify_on_disk(disk: &SimDisk) -> Result<VerifyReport, OpenError> {
    crate::inspect::verify_on_disk(disk.open(false)?)
}

/// Restores as [`restore`](fn@crate::restore) does, from a snapshot's bytes, on the simulated disk.
///
/// # Errors
///
/// Returns the errors of [`restore`](fn@crate::restore).
pub fn restore_on_disk(
    disk: &SimDisk,
    snapshot: &[u8],
    commit_mode: CommitMode,
) -> Result<RestoreReport, OpenError> {
    crate::restore::restore_bytes(&disk.open(true)?, snapshot, commit_mode)
}

/// A clock that only its callers move. Clones share the clock.
#[derive(Clone, Debug, Default)]
pub struct HandClock(Arc<AtomicU64>);

impl HandClock {
    /// Advances the time.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::AcqRel);
    }
}

/// An apply manager without threads: its caller takes their steps.
///
/// Calls that wait do not step by themselves: step until the awaited event has happened. Inline
/// apply is off, so a synchronous call only submits.
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
    /// Returns the errors of [`ApplyManager::new`].
    pub fn new(machine: M, config: ApplyConfig) -> Result<Self, OpenError> {
        Self::with_clock(machine, config, HandClock::default())
    }

    /// Makes the engine as [`new`](Stepped::new) does, with a clock that others move too, such as a
    /// slow disk or a machine.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`ApplyManager::new`].
    pub fn with_clock(
        machine: M,
        config: ApplyConfig,
        clock: HandClock,
    ) -> Result<Self, OpenError> {
        Self::by_hand(machine, config.inline_apply(false), clock)
    }

    /// Makes the engine as [`new`](Stepped::new) does, for a synchronous call that applies its
    /// entries itself when nothing is pending, and then does not wait. A bench counts its
    /// instructions.
    #[doc(hidden)]
    pub fn applying_inline(machine: M, config: ApplyConfig) -> Result<Self, OpenError> {
        Self::by_hand(machine, config.inline_apply(true), HandClock::default())
    }

    fn by_hand(machine: M, config: ApplyConfig, clock: HandClock) -> Result<Self, OpenError> {
        let by_hand = Clock::Manual(Arc::clone(&clock.0));
        let config = config.by_hand(by_hand).pin_workers(false);
        Ok(Self { manager: ApplyManager::new(machine, config)?, clock })
    }

    /// Number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.manager.engine.pipeline().workers().count()
    }

    /// Advances the time, for lingers and [`Durability::Periodic`](crate::Durability::Periodic).
    /// Nothing else moves it.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Takes one step of a worker: at most one range. Returns whether it did anything.
    pub fn step_worker(&self, id: usize) -> bool {
        self.worked(self.manager.engine.pipeline().step_worker(id))
    }

    /// Takes one step of the log writer: one group, or closing the open frame. Returns whether it
    /// did anything.
    pub fn step_log_writer(&self) -> bool {
        self.worked(self.manager.engine.pipeline().log_desk().step_writer())
    }

    /// Takes one step of the background: the next segment. Returns whether it did anything.
    pub fn step_background(&self) -> bool {
        self.worked(self.manager.engine.pipeline().log_desk().step_background())
    }

    /// Takes one step of filling the store after an opening from a snapshot: one chunk. Returns
    /// whether it did anything.
    pub fn step_fill(&self) -> bool {
        self.worked(self.manager.engine.step_fill())
    }

    /// Takes one step of compaction: all of it, if it is due. Returns whether it did anything.
    pub fn step_compaction(&self) -> bool {
        self.worked(self.manager.engine.step_compaction())
    }

    /// Calls the wakers after a step, as the threads' loops do.
    fn worked(&self, step: Step) -> bool {
        self.manager.engine.pipeline().progress().wake_tasks();
        step == Step::Worked
    }

    /// Steps everything but filling and compaction, round-robin, until no step does anything.
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

    /// The reply of an applied entry, while its slot is valid: for twice the pipeline's depth.
    pub(crate) fn reply(&self, index: u64) -> Reply {
        self.manager.engine.pipeline().in_flight().reply(index)
    }

    /// The manager, for closing it.
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
