//! Tools for the author of a [`Storage`]. They are a suite to run on it, and a storage in memory
//! whose failures and power cuts can be controlled.
//!
//! A [`Subject`] tells where a storage is, how it is opened and, if possible, how it looks after a
//! crash. Each [`Check`] of the [`Suite`] then looks for one kind of mistake. The first checks use
//! the storage alone. The later ones use the key-value machine over it, whose replies and snapshots
//! must be those of a [`MemoryStateMachine`](crate::MemoryStateMachine).
//!
//! ```
//! use sprag::StorageError;
//! use sprag::testing::storage::{MemoryStorage, Subject, Suite};
//!
//! struct Memory;
//!
//! impl Subject for Memory {
//!     type Storage = MemoryStorage;
//!     /// Of a storage on a disk: a temporary directory.
//!     type Place = MemoryStorage;
//!
//!     fn place(&self) -> MemoryStorage {
//!         MemoryStorage::new()
//!     }
//!
//!     fn open(&self, place: &MemoryStorage) -> Result<MemoryStorage, StorageError> {
//!         Ok(place.clone())
//!     }
//! }
//!
//! Suite::new().logs(3).entries(16).check(&Memory)?;
//! # Ok::<(), sprag::testing::storage::Failures>(())
//! ```
//!
//! `examples/storage.rs` has a storage of 60 lines that passes.

mod crashes;
mod machine;
mod memory;
mod placed;
mod tables;

use std::fmt;

use crate::error::{OpenError, StorageError};
use crate::machine::StateMachine;
use crate::machine::storage::Storage;
use crate::testing::SimDisk;

pub use memory::{MemorySnapshot, MemoryStorage};

/// Description of a storage for the suite.
pub trait Subject {
    /// The storage's type.
    type Storage: Storage;
    /// Place of a storage that stays when the storage is closed, such as a directory. Dropping it
    /// frees its space.
    type Place: Send + Sync + 'static;

    /// Makes a new place, without a storage in it.
    fn place(&self) -> Self::Place;

    /// Opens the storage at a place, or makes it. The suite has closed the one that was opened
    /// there before.
    ///
    /// # Errors
    ///
    /// Returns any obstacle; the suite fails then.
    fn open(&self, place: &Self::Place) -> Result<Self::Storage, StorageError>;

    /// Ends `storage` as a kill of its process or a power cut does, without closing it. Returns the
    /// place as it is found afterwards. `None`, the default, means that this is impossible; the
    /// checks of crashes are left out then.
    ///
    /// # Errors
    ///
    /// Returns any obstacle; the suite fails then.
    fn crash(
        &self,
        place: Self::Place,
        storage: Self::Storage,
    ) -> Result<Option<Self::Place>, StorageError> {
        drop((place, storage));
        Ok(None)
    }
}

/// The kinds of mistakes that the suite looks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Check {
    /// Tables are made once, listed, and removed with their content; a missing table is empty.
    Tables,
    /// A batch does what its writes say, in several tables; values may be empty; removed keys are
    /// gone.
    Batches,
    /// Keys of 1 byte to 64 KiB and values of up to 16 MiB come back as they were.
    Sizes,
    /// Scans return all keys between their bounds, in the order of their bytes, from either end,
    /// until the callback breaks.
    Scans,
    /// A snapshot taken beside a batch has all of the batch or nothing.
    Atomicity,
    /// A snapshot does not change while batches are committed, or when a table of it is removed.
    Snapshots,
    /// Everything is there after a sync, a close and another opening.
    Reopening,
    /// The storage has the result of the first batches after a crash, in their order, and at least
    /// of the synced ones.
    Crashes,
    /// The machine over the storage conforms: see [`conformance`](crate::testing::conformance).
    Machine,
    /// Replies and snapshots of random logs are those of a machine in memory, byte for byte, also
    /// after reopening.
    Logs,
    /// An installed snapshot replaces the state, and nothing of the earlier state is left.
    Installing,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tables => "tables",
            Self::Batches => "batches",
            Self::Sizes => "sizes",
            Self::Scans => "scans",
            Self::Atomicity => "atomicity",
            Self::Snapshots => "snapshots",
            Self::Reopening => "reopening",
            Self::Crashes => "crashes",
            Self::Machine => "machine",
            Self::Logs => "logs",
            Self::Installing => "installing",
        })
    }
}

/// Finding of one check.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{check}: {what}")]
#[non_exhaustive]
pub struct Failure {
    /// The check.
    pub check: Check,
    /// The difference.
    pub what: String,
}

/// Findings of all checks, the first failure of each.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the storage does not conform{}", failures.iter().map(|failure| format!("\n  {failure}")).collect::<String>())]
#[non_exhaustive]
pub struct Failures {
    /// The failures in the order of the checks; never empty.
    pub failures: Vec<Failure>,
}

impl fmt::Debug for Failures {
    /// Prints as it displays, for a test that unwraps it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Result of a check, before the check's name is added.
type Outcome = Result<(), String>;

/// The suite, with its sizes and its seed.
#[derive(Clone, Debug)]
#[must_use]
pub struct Suite {
    seed: u64,
    logs: usize,
    entries: usize,
}

impl Default for Suite {
    fn default() -> Self {
        Self { seed: 1, logs: 20, entries: 64 }
    }
}

impl Suite {
    /// Makes a suite with seed 1, 20 random logs, and 64 entries each.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the seed of keys, logs and cuts.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the number of random logs that the machine over the storage applies, each in a separate
    /// storage.
    pub fn logs(mut self, logs: usize) -> Self {
        self.logs = logs;
        self
    }

    /// Sets the number of entries of each log.
    pub fn entries(mut self, entries: usize) -> Self {
        self.entries = entries.max(1);
        self
    }

    /// Runs all checks, of the storage and of the machine over it.
    ///
    /// # Errors
    ///
    /// Returns the failures.
    pub fn check<S: Subject>(&self, subject: &S) -> Result<(), Failures> {
        self.check_storage(subject)?;
        self.check_machine(subject)
    }

    /// Runs the checks of the storage alone: [`Check::Tables`] to [`Check::Crashes`].
    ///
    /// # Errors
    ///
    /// Returns the failures.
    pub fn check_storage<S: Subject>(&self, subject: &S) -> Result<(), Failures> {
        gather([
            (Check::Tables, tables::check_tables(subject)),
            (Check::Batches, tables::check_batches(subject)),
            (Check::Sizes, tables::check_sizes(subject)),
            (Check::Scans, tables::check_scans(subject, self.seed)),
            (Check::Atomicity, crashes::check_atomicity(subject)),
            (Check::Snapshots, tables::check_snapshots(subject)),
            (Check::Reopening, crashes::check_reopening(subject)),
            (Check::Crashes, crashes::check_crashes(subject, self.seed)),
        ])
    }

    /// Runs the checks of the machine over the storage: [`Check::Machine`] to
    /// [`Check::Installing`].
    ///
    /// # Errors
    ///
    /// Returns the failures.
    pub fn check_machine<S: Subject>(&self, subject: &S) -> Result<(), Failures> {
        gather([
            (Check::Machine, machine::check_machine(subject, self.seed, self.entries)),
            (Check::Logs, machine::check_logs(subject, self.seed, self.logs, self.entries)),
            (Check::Installing, machine::check_installing(subject, self.seed, self.entries)),
        ])
    }

    /// Runs [`Check::Logs`] on a key-value machine over the engine's own log, such as a
    /// [`PersistentStateMachine`](crate::PersistentStateMachine). `open` opens it in the directory
    /// of a simulated disk, which is a new one for each log.
    ///
    /// # Errors
    ///
    /// Returns the first log whose replies or snapshots differ from those of a machine in memory.
    pub fn check_logged<M: StateMachine>(
        &self,
        open: impl Fn(&SimDisk) -> Result<M, OpenError>,
    ) -> Result<(), Failures> {
        let outcome = machine::check_logged(self.seed, self.logs, self.entries, open);
        gather([(Check::Logs, outcome)])
    }
}

fn gather<const N: usize>(outcomes: [(Check, Outcome); N]) -> Result<(), Failures> {
    let failed =
        |(check, outcome): (Check, Outcome)| outcome.err().map(|what| Failure { check, what });
    let failures: Vec<_> = outcomes.into_iter().filter_map(failed).collect();
    if failures.is_empty() { Ok(()) } else { Err(Failures { failures }) }
}

/// Adds the operation during which the storage failed.
fn doing<T>(what: &'static str, result: Result<T, StorageError>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}
