//! A suite to run on a state machine: whether it is a function of the log alone, as [`StateMachine`] asks.
//!
//! A machine that is not does harm long after it was written: nodes drift apart, a node comes back from its log with another
//! state than it had. This looks for it beforehand. Say in a [`Subject`] how to make the machine, what entries may ask of
//! it, and what its state is; each [`Check`] then looks for one kind of mistake, over a log drawn from a seed.
//!
//! ```
//! use std::sync::atomic::{AtomicI64, Ordering};
//! use sprag::error::OpenError;
//! use sprag::testing::Random;
//! use sprag::testing::conformance::{OwnedPayload, Subject, Suite};
//! use sprag::{Fatal, Partition, Payload, PayloadRef, Range, Replies, Reply, StateMachine};
//!
//! /// A sum of small numbers. Every entry is a barrier, as nothing else is said.
//! #[derive(Default)]
//! struct Sum(AtomicI64);
//!
//! impl StateMachine for Sum {
//!     // ...
//! #   fn apply(
//! #       &self,
//! #       range: &Range<'_>,
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
use crate::disk::Disk;
use crate::error::OpenError;
use crate::machine::{Journaled, StateMachine};
use crate::testing::{Random, SimDisk};

use self::log::Log;
pub use self::log::OwnedPayload;
pub(crate) use self::random::RandomLog;
pub use self::random::key_value_payload;
use self::reference::Reference;

/// What the suite needs to know of a machine.
pub trait Subject {
    /// The machine.
    type Machine: StateMachine;

    /// A new machine, without any state.
    ///
    /// # Errors
    ///
    /// Whatever is in the way of making one; the suite fails then.
    fn machine(&self) -> Result<Self::Machine, OpenError>;

    /// What the next entry of a log asks for: the same for the same random numbers.
    ///
    /// A good source collides: few keys or accounts, commands that are rejected, barriers, each now and then. The suite
    /// itself adds a [`Payload::Noop`](crate::Payload::Noop) wherever the term changes, as a consensus engine does.
    fn payload(&self, random: &mut Random) -> OwnedPayload;

    /// All of the state, in an order of its own: equal for equal states, different for different ones. Not in it: what
    /// depends on the process (addresses, hash seeds, how a table grew), and how far the machine has applied.
    fn digest(&self, machine: &Self::Machine) -> Vec<u8>;
}

/// What the suite needs to know of a machine that keeps a log on disk.
pub trait DurableSubject: Subject {
    /// Opens the machine on `disk`, as [`Journaled::open_on_disk`] and
    /// [`PersistentStateMachine::open_on_disk`](crate::PersistentStateMachine::open_on_disk) do.
    ///
    /// # Errors
    ///
    /// Those of opening; the suite makes some happen.
    fn open(
        &self,
        disk: Arc<dyn Disk>,
        config: PersistentConfig,
    ) -> Result<Self::Machine, OpenError>;
}

/// Segments of a machine made by [`OverOurLog`] where its entries are not known.
const SEGMENT_BYTES: usize = 1 << 20;

/// A subject whose machine runs on [`Journaled`]. Its entries may have half a MiB.
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

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Check {
    /// Two machines given the same log, one entry at a time, reply the same, also in bytes, and are the same after each;
    /// [`reply_bytes_max`](StateMachine::reply_bytes_max) is the same with state and without. Who fails it
    /// looks at a clock, a random number, an address, or at something that outlives the machine.
    Determinism,
    /// A rejected entry leaves the state as it was.
    Rejection,
    /// [`applied`](StateMachine::applied) names the last entry whenever nothing is being applied, or never
    /// names one.
    Applied,
    /// [`footprint`](StateMachine::footprint) is a function of the payload: the same at any time, from any address,
    /// whatever the state.
    Footprint,
    /// Entries of different partitions commute: in whatever order the partitions come to theirs, replies and state are
    /// those of one entry at a time. Who fails it has a footprint that does not cover what `apply` touches.
    Partitions,
    /// Replies and state are those of one entry at a time, for 1 to 4 workers on threads of their own, ranges of
    /// different lengths, applied inline or not.
    Order,
    /// A snapshot is the whole state: machines with the same state write the same bytes, and whoever restores them, with
    /// a state of its own before or without, has that state and nothing of the other. One that ends early, goes on
    /// after its end or cannot be read is refused, and the state stays. Nothing, for a machine without snapshots.
    Snapshot,
    /// Closed, killed, or cut off from power after any entry, and opened again, the machine has the state it had, and
    /// goes on from there.
    Reopen,
    /// With the power cut at any operation of the disk, the machine comes back with everything that was acknowledged,
    /// and with the state of exactly as many entries as it says.
    PowerCut,
    /// Opened from a snapshot and the log after it, the log before given up, the machine has the state it had and goes on
    /// from there; from a damaged one it has that state or does not open. Nothing, for a machine without snapshots.
    Compaction,
    /// Under a consensus engine, what was appended and then truncated is never in the state; over restarts neither.
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

/// What one check found.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{check}: {}{what}", index.map_or(String::new(), |index| format!("at index {index}: ")))]
#[non_exhaustive]
pub struct Failure {
    /// Which check.
    pub check: Check,
    /// The entry at which the first difference shows, where it is known.
    pub index: Option<u64>,
    /// What differs, and under which workers, batch sizes and cuts.
    pub what: String,
}

impl Failure {
    fn new(check: Check, index: impl Into<Option<u64>>, what: impl Into<String>) -> Self {
        Self { check, index: index.into(), what: what.into() }
    }

    /// The same, with the circumstances before it.
    fn during(mut self, circumstances: impl fmt::Display) -> Self {
        self.what = format!("{circumstances}: {}", self.what);
        self
    }
}

/// What all checks found, the first failure of each.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state machine does not conform{}", failures.iter().map(|failure| format!("\n  {failure}")).collect::<String>())]
#[non_exhaustive]
pub struct Failures {
    /// In the order of the checks; never empty.
    pub failures: Vec<Failure>,
}

impl fmt::Debug for Failures {
    /// As it displays, for the sake of who unwraps it in a test.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The suite: how long the logs are, and of which seed.
#[derive(Clone, Debug)]
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
    /// Seed 1, 256 entries, 32 for the checks that open a machine again and again.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the log, the schedules and the cuts are drawn from. A failure comes back under the same seed, but for one of
    /// [`Check::Order`] that threads had a part in.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many entries the log has. The time of the checks grows with them, and a digest is kept after each.
    #[must_use]
    pub fn entries(mut self, entries: usize) -> Self {
        self.entries = entries.max(1);
        self
    }

    /// How many of them the checks on a disk take: their time grows with the square of it.
    #[must_use]
    pub fn durable_entries(mut self, entries: usize) -> Self {
        self.durable_entries = entries.max(1);
        self
    }

    /// The checks for any machine: [`Check::Determinism`] to [`Check::Snapshot`].
    ///
    /// # Errors
    ///
    /// What does not hold.
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

    /// The checks of coming back, for a machine with a log on disk: [`Check::Reopen`] to [`Check::Truncation`], on the
    /// simulated disk.
    ///
    /// # Errors
    ///
    /// What does not hold.
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
        // Long enough to fill segments, so that there is something to give up.
        let log = Log::draw_long(subject, self.seed, 2 * self.durable_entries);
        with_reference(subject, &log, |reference| {
            vec![snapshots::check_compaction(subject, &log, reference, self.seed)]
        })
    }

    /// All of it: [`check`](Suite::check) on the machine, and on the machine over our log, and
    /// [`check_durable`](Suite::check_durable) on that.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn check_journaled<S: Subject>(&self, subject: &S) -> Result<(), Failures> {
        self.check(subject)?;
        self.check(&OverOurLog(subject))?;
        self.check_durable(&OverOurLog(subject))
    }
}

/// Runs checks against what one entry at a time comes to; without a reference to trust there is nothing to check.
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
