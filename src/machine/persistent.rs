//! The persistent state machine: keys in memory, values in the log or in a snapshot.

use std::path::Path;
use std::sync::Arc;

use super::cell::PlaceCell;
use super::key_value::KeyValue;
use crate::codec::{PayloadRef, PieceNumber};
use crate::config::PersistentConfig;
use crate::contract::machine::{StateMachine, StateMachineStats};
use crate::contract::view::{View, Views};
use crate::disk::Disk;
use crate::disk::real::{OpenMode, RealDisk};
use crate::entry::LogId;
use crate::error::{Fatal, OpenError, SnapshotError, ViewError};
use crate::hook::Hook;
use crate::log::recovery::freeze::hold_still;
use crate::log::{Journal, RecoveryReport};
use crate::numbers::SegmentNumber;
use crate::opening::LogOpening;
use crate::places::table::{SegmentBytes, SegmentTable};
use crate::ranges::partition::{Footprint, Partition};
use crate::ranges::range::{EntryRange, Replies};
use crate::snapshot::{Snapshot, SnapshotKind};
use crate::sync::{Mutex, Rank};

/// A key-value state machine with a log on disk; [`Command`](crate::Command) lists its commands.
///
/// A key maps to the place of its value, in the log or, after a compaction, in a snapshot. A value
/// is read from there. An [`ApplyManager`](crate::ApplyManager) feeds the machine; a machine that
/// was opened read-only is only read.
///
/// Any thread may read at any time. A read returns its key's value after some entry between
/// `applied` (at the call) and `committed`, and never goes back for a key. Reads of several keys
/// may be of different entries. Stand-alone, a power cut may take back values that were read but
/// not yet acknowledged.
#[derive(Debug)]
pub struct PersistentStateMachine {
    state: KeyValue<PlaceCell>,
    table: Arc<SegmentTable>,
    /// The pieces of the snapshot that keys refer to.
    pieces: Mutex<Vec<PieceNumber>>,
    journal: Journal,
    recovery: RecoveryReport,
}

impl PersistentStateMachine {
    /// Opens (or creates) the directory of `config`, replays its log, and locks it against other
    /// writers.
    ///
    /// The call costs one pass over the log. A torn end that a crash left is cut (see
    /// [`recovery`](PersistentStateMachine::recovery)); damage of durable bytes is refused. If only
    /// one snapshot has the state, each of its chunks is checked at its first use, by any call
    /// ([`ReadError::Snapshot`](crate::error::ReadError::Snapshot)).
    ///
    /// # Errors
    ///
    /// Returns [`OpenError`] with the obstacle. Nothing was changed then, with two exceptions. A
    /// missing directory may have been created. An installation that a crash interrupted is
    /// completed before replay. An [`OpenError::Io`] may come later, when a torn end is cut and
    /// files outside of the log are removed. Everything durable stays, and the next open does the
    /// rest.
    pub fn open(config: PersistentConfig) -> Result<Self, OpenError> {
        let disk = RealDisk::open(&config.path, OpenMode::Write { create: config.create })?;
        let disk = disk.with_io(config.io, config.io_uring_refused);
        Self::open_on(Arc::new(disk), config, true)
    }

    /// Opens a directory read-only. No byte of it is changed, and no memory for writing is taken; a
    /// full disk does not matter.
    ///
    /// A damaged directory is read up to the damage, and
    /// [`recovery`](PersistentStateMachine::recovery) names the unreadable part
    /// ([`RecoveryReport::unreadable`]). A directory that is open for writing is read up to some
    /// moment of this call ([`RecoveryReport::beside_a_writer`]), including everything durable
    /// before it. Its log and its newest snapshot are copied into memory, so the writer does not
    /// change them.
    ///
    /// While a directory without a writer is open this way, it cannot be opened for writing
    /// ([`OpenError::Locked`]).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open`](PersistentStateMachine::open), except for the cases above. A
    /// directory without a readable `META` cannot be read.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let config = PersistentConfig::new(path.as_ref());
        let disk = RealDisk::open(path.as_ref(), OpenMode::ReadBeside)?;
        let (disk, copied) = hold_still(disk)?;
        let mut machine = Self::open_on(disk, config, false)?;
        machine.recovery.add_copied(copied);
        Ok(machine)
    }

    /// Opens as [`open_read_only`](PersistentStateMachine::open_read_only) does, on any disk that
    /// was opened for reading: the simulated one, for tests.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open_read_only`](PersistentStateMachine::open_read_only).
    pub fn open_read_only_on_disk(disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        Self::open_on(disk, PersistentConfig::new(""), false)
    }

    /// Opens as [`open`](PersistentStateMachine::open) does, on any disk: the simulated one, for
    /// tests.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open`](PersistentStateMachine::open).
    pub fn open_on_disk(disk: Arc<dyn Disk>, config: PersistentConfig) -> Result<Self, OpenError> {
        Self::open_on(disk, config, true)
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        config: PersistentConfig,
        writable: bool,
    ) -> Result<Self, OpenError> {
        let expected_keys = config.expected_keys;
        let mut opening = LogOpening::new(disk, config, writable, (SnapshotKind::KeyValue, false))?;
        let table = Arc::clone(opening.table());
        let state =
            KeyValue::<PlaceCell>::new(expected_keys, opening.hash_seed(), Arc::clone(&table));
        let mut pieces = Vec::new();
        match opening.newest_snapshot(true)? {
            Some((snapshot, true)) => {
                pieces = add_pieces(&table, &snapshot).map_err(OpenError::of_snapshot)?;
                state.load(&snapshot, &pieces).map_err(OpenError::of_snapshot)?;
            }
            Some((snapshot, false)) => state.begin_to_fill(snapshot, Arc::clone(&table)),
            None => {}
        }
        state.fill.set_replaying(true);
        let replayed = Replayed(state);
        let log = opening.replay(&replayed)?;
        replayed.0.fill.set_replaying(false);
        let recovery = log.opened.recovery.clone();
        let (journal, pieces) = (Journal::log(log), Mutex::new(Rank::SnapshotPieces, pieces));
        Ok(Self { state: replayed.0, table, pieces, journal, recovery })
    }

    fn load_snapshot(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let pieces = add_pieces(&self.table, snapshot)?;
        if let Err(error) = self.state.load(snapshot, &pieces) {
            // The state is unchanged.
            pieces.into_iter().for_each(|piece| self.table.retire_piece(piece));
            return Err(error);
        }
        self.replace_pieces(pieces);
        Ok(())
    }

    fn check_what_is_read(&self, stopping: &dyn Fn() -> bool) -> Result<bool, SnapshotError> {
        let mut pieces = self.pieces.lock().clone();
        pieces.extend(self.state.filled_pieces());
        for piece in pieces {
            if stopping() {
                return Err(SnapshotError::Closed);
            }
            if let Some(bytes) = self.table.piece(piece)
                && let SegmentBytes::Snapshot(chunk) = &*bytes
            {
                chunk.check_again()?;
            }
        }
        Ok(true)
    }

    fn let_go_of(&self, snapshot: &Snapshot, below: SegmentNumber) -> Result<(), SnapshotError> {
        // Later additions to the store would refer to pieces that are released here.
        self.state.fill_all()?;
        let pieces = add_pieces(&self.table, snapshot)?;
        if let Err(error) = self.state.repoint(snapshot, &pieces, below) {
            // Some keys may refer to either snapshot, so both stay until the next one.
            self.pieces.lock().extend(pieces);
            return Err(error);
        }
        self.replace_pieces(pieces);
        Ok(())
    }

    fn replace_pieces(&self, pieces: Vec<PieceNumber>) {
        let mut current = self.pieces.lock();
        let mut old = std::mem::replace(&mut *current, pieces);
        old.extend(self.state.take_filled_pieces());
        old.into_iter().for_each(|piece| self.table.retire_piece(piece));
    }

    /// The whole state of a machine that was opened read-only, sorted by key. It serves to write a
    /// snapshot ([`View::snapshot_to`]), or to read ranges.
    ///
    /// # Errors
    ///
    /// Returns [`ViewError::Unsupported`] for a machine that was opened for writing, because its
    /// state may change; call [`Snapshots::view`](crate::Snapshots::view) instead.
    pub fn view_read_only(&self) -> Result<View, ViewError> {
        if self.journal.is_writable() {
            return Err(ViewError::Unsupported);
        }
        let hold = self.table.hold();
        Ok(self.state.view_still(self.journal.poison(), hold)?)
    }

    /// Findings of opening: the end of the log, and what was cut.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// Memory of the tables in bytes. Keys of more than 22 bytes come on top, and the images of the
    /// log's segments ([`PersistentConfig::memory_bytes`]).
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.state.memory_bytes()
    }
}

/// Checks every chunk of a snapshot, and gives each a number for places in it.
fn add_pieces(
    table: &SegmentTable,
    snapshot: &Snapshot,
) -> Result<Vec<PieceNumber>, SnapshotError> {
    let mut pieces = Vec::with_capacity(snapshot.chunk_count());
    for chunk in 0..snapshot.chunk_count() {
        let none = SnapshotError::Unsupported { what: "so many snapshots at once" };
        match snapshot.chunk_slice(chunk).and_then(|slice| table.add_piece(&slice).ok_or(none)) {
            Ok(piece) => pieces.push(piece),
            Err(error) => {
                // No other thread knows these numbers.
                pieces.into_iter().for_each(|piece| table.remove_piece(piece));
                return Err(error);
            }
        }
    }
    Ok(pieces)
}

super::reads::key_value_reads!(PersistentStateMachine);

/// The state while its log is replayed into it.
struct Replayed(KeyValue<PlaceCell>);

impl StateMachine for Replayed {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        self.0.footprint(payload)
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        self.0.apply(range, partition, replies)
    }

    fn applied(&self) -> Option<LogId> {
        self.0.applied()
    }
}

impl StateMachine for PersistentStateMachine {
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

    fn last_membership(&self) -> Option<(LogId, Vec<u8>)> {
        self.state.membership()
    }

    fn applied(&self) -> Option<LogId> {
        self.state.applied()
    }

    fn stats(&self) -> StateMachineStats {
        self.state.stats()
    }

    fn is_brief(&self, _: Hook) -> bool {
        self.state.is_brief()
    }

    fn views(&self, _: Hook) -> Option<&dyn Views> {
        Some(self)
    }

    fn journal(&self) -> Journal {
        self.journal.clone()
    }
}
