//! A suite that checks whether a state machine is a function of the log alone, as [`StateMachine`]
//! requires.
//!
//! A machine that is not does harm long after it was written. Nodes drift apart, or a node recovers
//! another state from its log than it had. This suite finds that beforehand. A [`Subject`] tells
//! how to make the machine, which entries to submit, and what its state is. Each [`Check`] then
//! looks for one kind of mistake, over a log drawn from a seed.
//!
//! ```
//! use std::sync::atomic::{AtomicI64, Ordering};
//! use sprag::error::OpenError;
//! use sprag::testing::Random;
//! use sprag::testing::conformance::{OwnedPayload, Subject, Suite};
//! use sprag::{EntryRange, Fatal, Partition, Payload, PayloadRef, Replies, Reply, StateMachine};
//!
//! /// A sum of small numbers. Every entry is a barrier, as nothing else is said.
//! #[derive(Default)]
//! struct Sum(AtomicI64);
//!
//! impl StateMachine for Sum {
//!     // ...
//! #   fn apply(
//! #       &self,
//! #       range: &EntryRange<'_>,
//! #       partition: Partition,
//! #       replies: &mut Replies<'_>,
//! #   ) -> Result<(), Fatal> {
//! #       for entry in range.entries(partition) {
//! #           let entry = entry?;
//! #           if let PayloadRef::Opaque([byte]) = entry.payload {
//! #               let add = i64::from(*byte);
//! #               let sum = self.0.fetch_add(add, Ordering::Relaxed) + add;
//! #               replies.set(&entry, Reply::Custom(sum.cast_unsigned()));
//! #           }
//! #       }
//! #       Ok(())
//! #   }
//! }
//!
//! struct Sums;
//!
//! impl Subject for Sums {
//!     type Machine = Sum;
//!
//!     fn machine(&self) -> Result<Sum, OpenError> {
//!         Ok(Sum::default())
//!     }
//!
//!     fn payload(&self, random: &mut Random) -> OwnedPayload {
//!         Payload::Opaque(&random.bytes(1)).into()
//!     }
//!
//!     fn digest(&self, machine: &Sum) -> Vec<u8> {
//!         machine.0.load(Ordering::Relaxed).to_le_bytes().to_vec()
//!     }
//! }
//!
//! Suite::new().entries(64).check_journaled(&Sums)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod log;
mod order;
mod random;
mod recovery;
mod reference;
mod snapshots;

use std::fmt;
use std::sync::Arc;

use crate::config::PersistentConfig;
use crate::contract::machine::StateMachine;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::machine::Journaled;
use crate::testing::{Random, SimDisk};

use self::log::Log;
pub use self::log::OwnedPayload;
pub(crate) use self::random::RandomLog;
pub use self::random::key_value_payload;
use self::reference::Reference;

/// Description of a machine for the suite.
pub trait Subject {
    /// The machine's type.
    type Machine: StateMachine;

    /// Makes a new machine, without any state.
    ///
    /// # Errors
    ///
    /// Returns any obstacle to making one; the suite fails then.
    fn machine(&self) -> Result<Self::Machine, OpenError>;

    /// Draws the payload of the next entry of a log: the same for the same random numbers.
    ///
    /// A good source collides: few keys or accounts, some rejected commands, some barriers. The
    /// suite itself adds a [`Payload::Noop`](crate::Payload::Noop) wherever the term changes, as a
    /// consensus engine does.
    fn payload(&self, random: &mut Random) -> OwnedPayload;

    /// The whole state in a canonical order: equal for equal states, and different for different
    /// ones. It must leave out what depends on the process (addresses, hash seeds, the growth of a
    /// table), and the applied index.
    fn digest(&self, machine: &Self::Machine) -> Vec<u8>;
}

/// Description of a machine with a log on disk.
pub trait DurableSubject: Subject {
    /// Opens the machine on `disk`, as [`Journaled::open_on_disk`] and
    /// [`PersistentStateMachine::open_on_disk`](crate::PersistentStateMachine::open_on_disk) do.
    ///
    /// # Errors
    ///
    /// Returns the errors of opening; the suite causes some.
    fn open(
        &self,
        disk: Arc<dyn Disk>,
        config: PersistentConfig,
    ) -> Result<Self::Machine, OpenError>;
}

/// Segment length for machines made by [`OverOurLog`] whose entries are unknown.
const SEGMENT_BYTES: usize = 1 << 20;

/// A subject that runs the machine under [`Journaled`]. Its entries may have up to half a MiB.
#[derive(Clone, Copy, Debug)]
pub struct OverOurLog<'a, S>(pub &'a S);

impl<S: Subject> Subject for OverOurLog<'_, S> {
    type Machine = Journaled<S::Machine>;

    fn machine(&self) -> Result<Self::Machine, OpenError> {
        let config = PersistentConfig::new("simulated").segment_bytes(SEGMENT_BYTES);
        self.open(SimDisk::new(0).open(true)?, config)
    }

    fn payload(&self, random: &mut Random) -> OwnedPayload {
        self.0.payload(random)
    }

    fn digest(&self, machine: &Self::Machine) -> Vec<u8> {
        self.0.digest(machine.machine())
    }
}

impl<S: Subject> DurableSubject for OverOurLog<'_, S> {
    fn open(
        &self,
        disk: Arc<dyn Disk>,
        config: PersistentConfig,
    ) -> Result<Self::Machine, OpenError> {
        Journaled::open_on_disk(disk, config, self.0.machine()?)
    }
}

/// The kinds of mistakes that the suite looks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Check {
    /// Two machines given the same log, one entry at a time, give the same replies, including
    /// bytes, and have the same state after each.
    /// [`reply_bytes_max`](StateMachine::reply_bytes_max) is the same with state and without. A
    /// machine that fails uses a clock, a random number, an address, or something that outlives it.
    Determinism,
    /// A rejected entry leaves the state as it was.
    Rejection,
    /// [`applied`](StateMachine::applied) names the last entry whenever nothing is being applied,
    /// or never names an entry.
    Applied,
    /// [`footprint`](StateMachine::footprint) is a function of the payload: the same at any time,
    /// at any address, in any state.
    Footprint,
    /// Entries of different partitions commute: in every order of the partitions, replies and state
    /// are those of one entry at a time. A machine that fails has a footprint that does not cover
    /// what `apply` touches.
    Partitions,
    /// Replies and state are those of one entry at a time, for 1 to 4 worker threads, ranges of
    /// different lengths, applied inline or not.
    Order,
    /// A snapshot is the whole state. Machines with the same state write the same bytes. A machine
    /// that restores them, with another state before or without one, has that state and nothing of
    /// the other. A snapshot that ends early, continues after its end or cannot be read is refused,
    /// and the state stays. The check passes for a machine without snapshots.
    Snapshot,
    /// The machine is closed, killed, or cut off from power after any entry, and opened again. It
    /// has the same state, and continues.
    Reopen,
    /// The power is cut at any operation of the disk. The machine comes back with everything
    /// acknowledged, and with the state of exactly as many entries as it reports.
    PowerCut,
    /// The machine is opened from a snapshot and the log after it, while the log before is given
    /// up. It has the same state and continues. From a damaged snapshot it has that state or does
    /// not open. The check passes for a machine without snapshots.
    Compaction,
    /// Entries that were appended and then truncated are never in the state of a consensus engine's
    /// log, even after restarts.
    Truncation,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Determinism => "determinism",
            Self::Rejection => "rejection",
            Self::Applied => "applied",
            Self::Footprint => "footprint",
            Self::Partitions => "partitions",
            Self::Order => "order",
            Self::Snapshot => "snapshot",
            Self::Reopen => "reopen",
            Self::PowerCut => "power cut",
            Self::Compaction => "compaction",
            Self::Truncation => "truncation",
        })
    }
}

/// Finding of one check.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{check}: {}{what}", index.map_or(String::new(), |index| format!("at index {index}: ")))]
#[non_exhaustive]
pub struct Failure {
    /// The check.
    pub check: Check,
    /// The entry at which the first difference shows, where it is known.
    pub index: Option<u64>,
    /// The difference, and the workers, batch sizes and cuts that led to it.
    pub what: String,
}

impl Failure {
    fn new(check: Check, index: impl Into<Option<u64>>, what: impl Into<String>) -> Self {
        Self { check, index: index.into(), what: what.into() }
    }

    /// The same failure, with the circumstances before it.
    fn during(mut self, circumstances: impl fmt::Display) -> Self {
        self.what = format!("{circumstances}: {}", self.what);
        self
    }
}

/// Findings of all checks, the first failure of each.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state machine does not conform{}", failures.iter().map(|failure| format!("\n  {failure}")).collect::<String>())]
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

/// The suite, with the length and the seed of its logs.
#[derive(Clone, Debug)]
#[must_use]
pub struct Suite {
    seed: u64,
    entries: usize,
    durable_entries: usize,
}

impl Default for Suite {
    fn default() -> Self {
        Self { seed: 1, entries: 256, durable_entries: 32 }
    }
}

impl Suite {
    /// Makes a suite with seed 1, 256 entries, and 32 for the checks that open a machine many
    /// times.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the seed of the log, the schedules and the cuts. A failure recurs under the same seed,
    /// except for one of [`Check::Order`] that depends on threads.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the number of entries of the log. The time of the checks grows with it, and a digest is
    /// kept after each entry.
    pub fn entries(mut self, entries: usize) -> Self {
        self.entries = entries.max(1);
        self
    }

    /// Sets the number of entries for the checks on a disk: their time grows with its square.
    pub fn durable_entries(mut self, entries: usize) -> Self {
        self.durable_entries = entries.max(1);
        self
    }

    /// Runs the checks for any machine: [`Check::Determinism`] to [`Check::Snapshot`].
    ///
    /// # Errors
    ///
    /// Returns the failures.
    pub fn check<S: Subject>(&self, subject: &S) -> Result<(), Failures> {
        let log = Log::draw(subject, self.seed, self.entries);
        with_reference(subject, &log, |reference| {
            let log = &log;
            vec![
                reference.check_rejections(log),
                reference.check_applied(log),
                order::check_footprints(subject, log),
                order::check_partitions(subject, log, reference, self.seed),
                order::check_threads(subject, log, reference, self.seed),
                snapshots::check_snapshots(subject, log, reference, self.seed),
            ]
        })
    }

    /// Runs the checks of recovery, for a machine with a log on disk: [`Check::Reopen`] to
    /// [`Check::Truncation`], on the simulated disk.
    ///
    /// # Errors
    ///
    /// Returns the failures.
    pub fn check_durable<S: DurableSubject>(&self, subject: &S) -> Result<(), Failures> {
        let log = Log::draw(subject, self.seed, self.durable_entries);
        with_reference(subject, &log, |reference| {
            let log = &log;
            vec![
                recovery::check_reopening(subject, log, reference, self.seed),
                recovery::check_power_cuts(subject, log, reference, self.seed),
                recovery::check_truncation(subject, log, reference, self.seed),
            ]
        })?;
        // The log fills segments, so that there is something to give up.
        let log = Log::draw_long(subject, self.seed, 2 * self.durable_entries);
        with_reference(subject, &log, |reference| {
            vec![snapshots::check_compaction(subject, &log, reference, self.seed)]
        })
    }

    /// Runs all checks: [`check`](Suite::check) on the machine, and on the machine over our log,
    /// and [`check_durable`](Suite::check_durable) on the latter.
    ///
    /// # Errors
    ///
    /// Returns the failures.
    pub fn check_journaled<S: Subject>(&self, subject: &S) -> Result<(), Failures> {
        self.check(subject)?;
        self.check(&OverOurLog(subject))?;
        self.check_durable(&OverOurLog(subject))
    }
}

/// Runs checks against the results of one entry at a time; without a trusted reference there is
/// nothing to check.
fn with_reference<S: Subject>(
    subject: &S,
    log: &Log,
    checks: impl FnOnce(&Reference) -> Vec<Result<(), Failure>>,
) -> Result<(), Failures> {
    let outcomes = match Reference::take_twice(subject, log) {
        Ok(reference) => checks(&reference),
        Err(failure) => vec![Err(failure)],
    };
    let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(Failures { failures }) }
}
