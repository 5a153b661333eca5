//! For the author of a [`Storage`]: a suite to run on it, and a storage in memory whose failures and power cuts are at hand.
//!
//! Say in a [`Subject`] where a storage is, how it is opened and, if that can be done, how it looks after a crash. Each
//! [`Check`] of the [`Suite`] then looks for one kind of mistake: first in the storage, then in the key-value machine over
//! it, whose replies and snapshots must be those of a [`MemoryStateMachine`](crate::MemoryStateMachine).
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

use crate::error::StorageError;
use crate::machine::storage::Storage;

pub use memory::{MemorySnapshot, MemoryStorage};

/// What the suite needs to know of a storage.
pub trait Subject {
    /// The storage.
    type Storage: Storage;
    /// Where one is, and stays when it is closed: a directory. What it takes is given back when this is dropped.
    type Place: Send + Sync + 'static;

    /// A new place, without a storage in it.
    fn place(&self) -> Self::Place;

    /// Opens the storage at a place, or makes it. The one that was opened there before is closed.
    ///
    /// # Errors
    ///
    /// Whatever is in the way; the suite fails then.
    fn open(&self, place: &Self::Place) -> Result<Self::Storage, StorageError>;

    /// Ends `storage` as a kill of its process or a power cut does, without closing it, and gives the place as it is found
    /// afterwards. `None`, the default, if that cannot be done; the checks of crashes are left out then.
    ///
    /// # Errors
    ///
    /// Whatever is in the way; the suite fails then.
    fn crash(
        &self,
        place: Self::Place,
        storage: Self::Storage,
    ) -> Result<Option<Self::Place>, StorageError> {
        drop((place, storage));
        Ok(None)
    }
}

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Check {
    /// Tables are made once, listed, and removed with what is in them; one that is missing is empty.
    Tables,
    /// A batch does what its writes say, in several tables; values may be empty; what is removed is gone.
    Batches,
    /// Keys of 1 byte to 64 KiB and values of up to 16 MiB come back as they were.
    Sizes,
    /// Scans give all keys between their bounds, in the order of their bytes, from either end, until they are told to end.
    Scans,
    /// A snapshot taken beside a batch has all of it or nothing.
    Atomicity,
    /// A snapshot stays as it was while batches go on, and when a table of it is removed.
    Snapshots,
    /// Closed after a sync and opened again, everything is there.
    Reopening,
    /// After a crash there is what the first batches left, in their order, and at least what was synced.
    Crashes,
    /// The machine over the storage conforms: see [`conformance`](crate::testing::conformance).
    Machine,
    /// Replies and snapshots of random logs are those of a machine in memory, byte for byte, over reopening too.
    Logs,
    /// A snapshot that is installed takes the place of the state, and nothing is left of what was before.
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

/// What one check found.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{check}: {what}")]
#[non_exhaustive]
pub struct Failure {
    /// Which check.
    pub check: Check,
    /// What differs.
    pub what: String,
}

/// What all checks found, the first failure of each.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the storage does not conform{}", failures.iter().map(|failure| format!("\n  {failure}")).collect::<String>())]
#[non_exhaustive]
pub struct Failures {
    /// In the order of the checks; never empty.
    pub failures: Vec<Failure>,
}

impl fmt::Debug for Failures {
    /// As it displays, for a test that unwraps it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a check says before it knows which one it is.
type Outcome = Result<(), String>;

/// The suite: how long it looks, and from which seed.
#[derive(Clone, Debug)]
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
    /// Seed 1, 20 random logs, 64 entries each.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What keys, logs and cuts are drawn from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many random logs the machine over the storage applies; each in a storage of its own.
    #[must_use]
    pub fn logs(mut self, logs: usize) -> Self {
        self.logs = logs;
        self
    }

    /// How many entries each of them has.
    #[must_use]
    pub fn entries(mut self, entries: usize) -> Self {
        self.entries = entries.max(1);
        self
    }

    /// All checks: of the storage, and of the machine over it.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn check<S: Subject>(&self, subject: &S) -> Result<(), Failures> {
        self.check_storage(subject)?;
        self.check_machine(subject)
    }

    /// The checks of the storage alone: [`Check::Tables`] to [`Check::Crashes`].
    ///
    /// # Errors
    ///
    /// What does not hold.
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

    /// The checks of the machine over the storage: [`Check::Machine`] to [`Check::Installing`].
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn check_machine<S: Subject>(&self, subject: &S) -> Result<(), Failures> {
        gather([
            (Check::Machine, machine::check_machine(subject, self.seed, self.entries)),
            (Check::Logs, machine::check_logs(subject, self.seed, self.logs, self.entries)),
            (Check::Installing, machine::check_installing(subject, self.seed, self.entries)),
        ])
    }
}

fn gather<const N: usize>(outcomes: [(Check, Outcome); N]) -> Result<(), Failures> {
    let failed =
        |(check, outcome): (Check, Outcome)| outcome.err().map(|what| Failure { check, what });
    let failures: Vec<_> = outcomes.into_iter().filter_map(failed).collect();
    if failures.is_empty() { Ok(()) } else { Err(Failures { failures }) }
}

/// Says what was being done when the storage failed.
fn doing<T>(what: &'static str, result: Result<T, StorageError>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}
