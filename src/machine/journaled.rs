//! A wrapper that runs any deterministic state machine over our log.

use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::codec::PayloadRef;
use crate::config::PersistentConfig;
use crate::contract::machine::{StateMachine, StateMachineStats};
use crate::contract::run::sync_applied;
use crate::contract::staging::Staging;
use crate::contract::view::Views;
use crate::disk::Disk;
use crate::disk::real::{OpenMode, RealDisk};
use crate::entry::LogId;
use crate::error::{Fatal, OpenError, Poison, ReadError, SnapshotError};
use crate::hook::Hook;
use crate::log::recovery::freeze::hold_still;
use crate::log::{Journal, RecoveryReport};
use crate::opening::LogOpening;
use crate::ranges::partition::{Footprint, Partition};
use crate::ranges::range::{EntryRange, Replies};
use crate::snapshot::{Snapshot, SnapshotKind, SnapshotSink, SnapshotSource};
use crate::sync::{Mutex, Rank};

/// A state machine of any kind with a log on disk: applied entries are durable, and replay brings
/// the state back.
///
/// The state itself stays in `M`. Opening gives `M` every committed entry that it lacks, in index
/// order, on one thread, as [`Partition`] 0 of 1. An [`ApplyManager`](crate::ApplyManager) then
/// continues from there. `M` needs no I/O, and must be a function of the log alone: see
/// [`StateMachine`]. [`testing::conformance`](crate::testing::conformance) has a suite that looks
/// for violations.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
/// use sprag::{
///     ApplyConfig, ApplyManager, Entry, EntryRange, Fatal, Journaled, LogId, Partition, Payload,
///     PersistentConfig, Replies, Reply, StateMachine,
/// };
///
/// /// Adds up how many bytes it was sent.
/// #[derive(Default)]
/// struct Bytes(AtomicU64);
///
/// impl StateMachine for Bytes {
///     fn apply(
///         &self,
///         range: &EntryRange<'_>,
///         partition: Partition,
///         replies: &mut Replies<'_>,
///     ) -> Result<(), Fatal> {
///         for entry in range.entries(partition) {
///             let entry = entry?;
///             let sprag::PayloadRef::Opaque(bytes) = entry.payload else { continue };
///             let added = bytes.len() as u64;
///             let sum = self.0.fetch_add(added, Ordering::Relaxed) + added;
///             replies.set(&entry, Reply::Custom(sum));
///         }
///         Ok(())
///     }
/// }
///
/// let directory = std::env::temp_dir().join(format!("sprag-journaled-{}", std::process::id()));
/// let timeout = Duration::from_secs(10);
/// let machine = Journaled::open(PersistentConfig::new(&directory), Bytes::default())?;
/// let manager = ApplyManager::new(machine, ApplyConfig::new())?;
/// let entry = Entry::new(LogId::new(1, 1), Payload::Opaque(b"seven b"));
/// assert_eq!(manager.apply(&entry, timeout)?, Reply::Custom(7));
/// manager.close(timeout)?;
///
/// let machine = Journaled::open(PersistentConfig::new(&directory), Bytes::default())?;
/// assert_eq!(machine.machine().0.load(Ordering::Relaxed), 7);
/// assert_eq!(machine.applied(), Some(LogId::new(1, 1)));
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Journaled<M> {
    state: Counted<M>,
    journal: Journal,
    recovery: RecoveryReport,
}

impl<M: StateMachine> Journaled<M> {
    /// Opens (or creates) the directory of `config`, locks it against other writers, and replays
    /// its log into `machine`. Replay covers all of the log, or the part after the last entry that
    /// `machine` has [applied](StateMachine::applied).
    ///
    /// A machine over a storage
    /// ([`PersistentStateMachine::with_storage`](crate::PersistentStateMachine::with_storage)) is
    /// durable by itself. Entries in its storage count as committed. If they go beyond the end of
    /// the log, the log starts over behind them. The storage syncs before the log is given up, and
    /// otherwise leaves syncs to the log.
    ///
    /// The call costs one pass over the log, and the machine's time to apply it. A torn end that a
    /// crash left is cut (see [`recovery`](Journaled::recovery)); damage of durable bytes is
    /// refused. [`expected_keys`](PersistentConfig::expected_keys) has no effect here: `machine`
    /// decides its own room.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError`]; [`PersistentStateMachine::open`](crate::PersistentStateMachine::open)
    /// says which files an error may have changed. [`OpenError::Replay`] names the entry at which
    /// `machine` panicked or failed. [`OpenError::OtherLog`] means that the state of `machine`
    /// comes from another log. [`OpenError::OtherState`] means that the directory belongs to the
    /// other kind of machine (key-value, or an embedder's). [`OpenError::Config`] means that
    /// `machine` has its own log. [`OpenError::StorageBehind`] means that its storage ends before
    /// the log begins.
    pub fn open(config: PersistentConfig, machine: M) -> Result<Self, OpenError> {
        let disk = RealDisk::open(&config.path, OpenMode::Write { create: config.create })?;
        let disk = disk.with_io(config.io, config.io_uring_refused);
        Self::open_on(Arc::new(disk), config, true, machine)
    }

    /// Opens a directory read-only, for a look at the state that its log makes of `machine`. No
    /// byte of the directory is changed.
    ///
    /// The readable part is that of
    /// [`PersistentStateMachine::open_read_only`](crate::PersistentStateMachine::open_read_only). A
    /// damaged directory is read up to the damage. A directory that is open for writing is read up
    /// to some moment of this call.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open`](Journaled::open), except for the cases above.
    pub fn open_read_only(path: impl AsRef<Path>, machine: M) -> Result<Self, OpenError> {
        let config = PersistentConfig::new(path.as_ref());
        let (disk, copied) = hold_still(RealDisk::open(path.as_ref(), OpenMode::ReadBeside)?)?;
        let mut journaled = Self::open_on(disk, config, false, machine)?;
        journaled.recovery.add_copied(copied);
        Ok(journaled)
    }

    /// Opens as [`open`](Journaled::open) does, on any disk: the simulated one, for tests.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open`](Journaled::open).
    pub fn open_on_disk(
        disk: Arc<dyn Disk>,
        config: PersistentConfig,
        machine: M,
    ) -> Result<Self, OpenError> {
        Self::open_on(disk, config, true, machine)
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        config: PersistentConfig,
        writable: bool,
        machine: M,
    ) -> Result<Self, OpenError> {
        let own = machine.journal();
        if own.is_log() {
            let message = "it has a log of its own, and needs no other".to_owned();
            return Err(OpenError::Config { option: "state machine", message });
        }
        let state = match machine.views(Hook::ENGINE) {
            Some(_) => SnapshotKind::KeyValue,
            None => SnapshotKind::Blob,
        };
        let staging = machine.staging(Hook::ENGINE);
        let mut opening = LogOpening::new(disk, config, writable, (state, staging.is_some()))?;
        // A built-in machine refuses reads after its engine has failed, and checks its own journal
        // for that.
        opening.share_poison(own.poison());
        if let Some(staging) = staging {
            staging.leave_syncs_to_log();
            staging.begin();
            // The log may begin behind the storage's entries, which nothing else has then.
            sync_applied(staging, machine.applied())?;
            opening.keeps(machine.applied());
        }
        let state = Counted {
            applied: Mutex::new(Rank::AppliedEntry, machine.applied()),
            count: AtomicU64::new(0),
            membership: Mutex::new(Rank::Membership, machine.last_membership()),
            machine,
        };
        if let Some((snapshot, _)) = opening.newest_snapshot(false)? {
            state.open_from(&snapshot)?;
            if state.machine.staging(Hook::ENGINE).is_some() {
                opening.keeps(state.applied());
            }
        }
        let log = opening.replay(&state)?;
        let recovery = log.opened.recovery.clone();
        Ok(Self { state, journal: Journal::log(log), recovery })
    }

    /// The machine, for reading; this type also dereferences to it.
    ///
    /// After the engine has failed, the machine's state may be ahead of the durable entries;
    /// [`read`](Journaled::read) returns an error then.
    #[must_use]
    pub fn machine(&self) -> &M {
        &self.state.machine
    }

    /// The machine, for reading, unless the engine has failed. The call checks one flag.
    ///
    /// # Errors
    ///
    /// Returns [`ReadError::Poisoned`] after the engine has failed.
    #[inline]
    pub fn read(&self) -> Result<&M, ReadError> {
        self.journal.poison().check()?;
        Ok(&self.state.machine)
    }

    /// Findings of opening: the end of the log, and what was cut.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }
}

impl<M> Deref for Journaled<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.state.machine
    }
}

impl<M> fmt::Debug for Journaled<M> {
    /// Shows nothing of the machine: its state belongs to the embedder, and not into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journaled")
            .field("applied", &*self.state.applied.lock())
            .field("journal", &self.journal)
            .field("recovery", &self.recovery)
            .finish_non_exhaustive()
    }
}

/// A machine, and the last entry that it was given. The log uses this count, not the machine's.
struct Counted<M> {
    machine: M,
    applied: Mutex<Option<LogId>>,
    /// Number of entries that the machine was given.
    count: AtomicU64,
    membership: Mutex<Membership>,
}

/// The newest membership, and the log id of its entry.
type Membership = Option<(LogId, Vec<u8>)>;

impl<M> Counted<M> {
    /// Brings the state at least to a verified snapshot.
    fn open_from(&self, snapshot: &Snapshot) -> Result<(), OpenError>
    where
        M: StateMachine,
    {
        let has = |log_id: Option<LogId>| log_id.map(|log_id| log_id.index);
        let (applied, found) = (self.applied(), snapshot.log_id());
        if has(applied) < has(found) {
            let index = has(found).unwrap_or(0);
            return catch_unwind(AssertUnwindSafe(|| self.load(snapshot)))
                .map_err(|_panic| OpenError::Replay(Poison::Panic { index }))?
                .map_err(OpenError::of_snapshot);
        }
        if let Some(applied) = applied
            && has(found) == Some(applied.index)
            && found != Some(applied)
        {
            // The log may no longer have either of them.
            return Err(OpenError::OtherLog { applied, found });
        }
        if let Some((log_id, membership)) = snapshot.membership() {
            self.had_membership(Hook::ENGINE, log_id, membership);
        }
        Ok(())
    }

    /// Replaces the state by that of a verified snapshot.
    fn load(&self, snapshot: &Snapshot) -> Result<(), SnapshotError>
    where
        M: StateMachine,
    {
        match self.machine.views(Hook::ENGINE) {
            Some(views) => views.load(snapshot)?,
            None => self.machine.restore(&mut snapshot.blob()?)?,
        }
        *self.applied.lock() = snapshot.log_id();
        self.set_membership(snapshot.membership());
        Ok(())
    }

    fn set_membership(&self, membership: Option<(LogId, &[u8])>) {
        let owned = membership.map(|(log_id, bytes)| (log_id, bytes.to_vec()));
        *self.membership.lock() = owned;
    }
}

impl<M: StateMachine> StateMachine for Counted<M> {
    #[inline]
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        match payload {
            // The wrapper keeps memberships, so each is a barrier, whatever the machine says. A
            // storage keeps its own.
            PayloadRef::Membership(_) if self.machine.staging(Hook::ENGINE).is_none() => {
                Footprint::All
            }
            payload => self.machine.footprint(payload),
        }
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        self.machine.apply(range, partition, replies)?;
        // Every partition gets every range, so only one of them counts. Only one partition gets a
        // barrier.
        if range.is_barrier()
            && let Some(Ok(entry)) = range.entries(partition).next()
            && let PayloadRef::Membership(bytes) = entry.payload
        {
            self.set_membership(Some((entry.log_id, bytes)));
        }
        if partition.id() == 0 || range.is_barrier() {
            *self.applied.lock() = Some(range.last());
            self.count.fetch_add(range.len(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn applied(&self) -> Option<LogId> {
        match self.machine.staging(Hook::ENGINE) {
            // The last entries that the machine was given may not be committed.
            Some(_) => self.machine.applied(),
            None => *self.applied.lock(),
        }
    }

    fn staging(&self, _: Hook) -> Option<&dyn Staging> {
        self.machine.staging(Hook::ENGINE)
    }

    fn last_membership(&self) -> Option<(LogId, Vec<u8>)> {
        match self.machine.staging(Hook::ENGINE) {
            Some(_) => self.machine.last_membership(),
            None => self.membership.lock().clone(),
        }
    }

    fn reply_bytes_max(&self) -> usize {
        self.machine.reply_bytes_max()
    }

    fn had_membership(&self, _: Hook, log_id: LogId, membership: &[u8]) {
        let mut newest = self.membership.lock();
        if newest.as_ref().is_none_or(|(newest, _)| newest.index < log_id.index) {
            *newest = Some((log_id, membership.to_vec()));
        }
    }

    fn stats(&self) -> StateMachineStats {
        let stats = self.machine.stats();
        let last_applied = self.applied().map(|last| last.index);
        let applied_count = self.count.load(Ordering::Relaxed);
        StateMachineStats { last_applied, applied_count, ..stats }
    }
}

impl<M: StateMachine> StateMachine for Journaled<M> {
    #[inline]
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        self.state.footprint(payload)
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        self.state.apply(range, partition, replies)
    }

    fn applied(&self) -> Option<LogId> {
        self.state.applied()
    }

    fn reply_bytes_max(&self) -> usize {
        self.state.reply_bytes_max()
    }

    fn stats(&self) -> StateMachineStats {
        self.state.stats()
    }

    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        self.state.machine.snapshot(out)
    }

    fn restore(&self, source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        self.state.machine.restore(source)
    }

    fn last_membership(&self) -> Option<(LogId, Vec<u8>)> {
        self.state.last_membership()
    }

    fn jumped_to(&self, _: Hook, log_id: Option<LogId>, membership: Option<(LogId, &[u8])>) {
        *self.state.applied.lock() = log_id;
        self.state.set_membership(membership);
    }

    fn is_brief(&self, _: Hook) -> bool {
        self.state.machine.is_brief(Hook::ENGINE)
    }

    fn views(&self, _: Hook) -> Option<&dyn Views> {
        self.state.machine.views(Hook::ENGINE)
    }

    fn staging(&self, _: Hook) -> Option<&dyn Staging> {
        self.state.staging(Hook::ENGINE)
    }

    fn journal(&self) -> Journal {
        self.journal.clone()
    }
}
