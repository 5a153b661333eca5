//! The key-value state behind both built-in machines: commands applied to a store, and the data
//! beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::capture::Captured;
use super::cell::{Cell, HeapCell, PlaceCell};
use super::effect::{InStore, Overlay, Pending, evaluate};
use super::fill::{Fill, Filling, settle_or_bury};
use super::sorted::Sorted;
use super::store::{Change, Key, Store};
use crate::bytes::{at_most, to_usize};
use crate::codec::{BatchRef, CommandRef, PayloadRef, PieceNumber, PiecePlace, Place, ValueRef};
use crate::contract::machine::StateMachineStats;
use crate::contract::value::Value;
use crate::contract::view::{Head, View};
use crate::entry::{LogId, Rejection, Reply};
use crate::error::{Fatal, Poison, ReadError, SnapshotError};
use crate::places::table::SegmentHold;
use crate::poison::PoisonCell;
use crate::ranges::partition::{Footprint, Partition, hash_part};
use crate::ranges::range::{EntryRange, EntryRef, Replies};
use crate::snapshot::writer::SnapshotMeta;
use crate::snapshot::{Snapshot, SnapshotKind};
use crate::sync::{Mutex, Rank};

/// Distance in a partition's own entries at which memory is prefetched ahead of the current one.
/// The slot is fetched at this distance, and the memory it refers to at half of it.
///
/// Over 1M keys, an overwrite of a prototype takes 77 ns if only slots are fetched. At a distance
/// of 8, 16, 24 and 32 it takes 44, 33, 30 and 29 ns.
const TOUCH_AHEAD: u32 = 24;
/// Number of entries that the search ahead covers, including those of other partitions.
const TOUCH_AHEAD_MAX: u32 = 64;

/// Bytes that are replaced, and never changed.
pub(crate) type Bytes = Box<[u8]>;

/// A key-value state whose slots hold `C`.
///
/// Reads may run at any time, on any thread. Calls of [`KeyValue::apply`] follow the rules of
/// [`StateMachine::apply`], and so do the calls that change what recovery finds.
///
/// [`StateMachine::apply`]: crate::contract::machine::StateMachine::apply
pub(crate) struct KeyValue<C: Cell> {
    pub(super) store: Store<C>,
    pub(super) context: C::Context,
    pub(super) notes: Mutex<BTreeMap<Bytes, Bytes>>,
    pub(super) membership: Mutex<Option<(LogId, Bytes)>>,
    applied: Mutex<Option<LogId>>,
    applied_count: AtomicU64,
    pub(super) fill: Fill,
    /// The pieces of the snapshot that the store was filled from, or was to be.
    pub(super) filled_pieces: Mutex<Vec<PieceNumber>>,
}

impl<C: Cell> KeyValue<C> {
    /// Makes an empty state with room for `expected_keys`.
    pub(crate) fn new(expected_keys: usize, hash_seed: u64, context: C::Context) -> Self {
        Self {
            store: Store::new(expected_keys, hash_seed),
            context,
            notes: Mutex::new(Rank::Notes, BTreeMap::new()),
            membership: Mutex::new(Rank::Membership, None),
            applied: Mutex::new(Rank::AppliedEntry, None),
            applied_count: AtomicU64::new(0),
            fill: Fill::default(),
            filled_pieces: Mutex::new(Rank::FilledPieces, Vec::new()),
        }
    }

    /// Number of keys with a value; exact while nothing is being applied. The call first puts all
    /// of a snapshot into the store.
    pub(crate) fn len(&self) -> Result<usize, ReadError> {
        self.fill_all().map_err(ReadError::of_snapshot)?;
        Ok(self.store.len())
    }

    /// The note with this name.
    pub(crate) fn note(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.notes.lock().get(name).map(|value| value.to_vec())
    }

    /// Sets a note during recovery.
    pub(crate) fn set_note(&self, name: &[u8], value: &[u8]) {
        self.notes.lock().insert(name.into(), value.into());
    }

    /// The newest membership, and the log id of its entry.
    pub(crate) fn membership(&self) -> Option<(LogId, Vec<u8>)> {
        self.membership.lock().as_ref().map(|(log_id, bytes)| (*log_id, bytes.to_vec()))
    }

    /// Sets the membership during recovery.
    pub(crate) fn set_membership(&self, log_id: LogId, bytes: &[u8]) {
        *self.membership.lock() = Some((log_id, bytes.into()));
    }

    /// The last entry in the state; exact while nothing is being applied.
    pub(crate) fn applied(&self) -> Option<LogId> {
        *self.applied.lock()
    }

    /// Sets the last entry of a recovered state.
    pub(crate) fn set_applied(&self, applied: Option<LogId>) {
        *self.applied.lock() = applied;
    }

    /// Every key and its value, sorted by key. All are of one index while nothing is being applied.
    pub(crate) fn scan_sorted(&self) -> Result<Vec<(Bytes, Value)>, ReadError> {
        let mut entries = Vec::with_capacity(self.len()?);
        let mut failed = None;
        self.store.scan(
            |key, cell| {
                let value = (!cell.is_gone()).then(|| cell.value(&self.context));
                (key.as_slice().into(), value)
            },
            |shard| {
                for (key, value) in shard.drain(..) {
                    match value {
                        Some(Ok(value)) => entries.push((key, value)),
                        Some(Err(error)) => failed = Some(error),
                        None => {}
                    }
                }
            },
        );
        if let Some(error) = failed {
            return Err(error);
        }
        entries.sort_unstable_by(|(one, _): &(Bytes, Value), (other, _)| one.cmp(other));
        Ok(entries)
    }

    /// See [`Views`](crate::contract::view::Views).
    pub(crate) fn begin_view(&self) -> Result<(), SnapshotError> {
        self.fill_all()?;
        let room = self.store.room(&C::from_number(0));
        self.store.capture.begin(room);
        Ok(())
    }

    /// See [`Views`](crate::contract::view::Views).
    pub(crate) fn reach_view_token(&self, partition: Partition) {
        // The thread that applies for the first partition runs all barriers and keeps `applied`, so
        // both are exact now.
        let head = (partition.id() == 0).then(|| self.head());
        self.store.capture.reach_token(partition.id(), head);
    }

    fn head(&self) -> Head {
        let (applied, membership) = (self.applied(), self.membership.lock().clone());
        Head { applied, membership, notes: self.notes.lock().clone() }
    }

    /// A view of a state to which nothing is applied: any number of calls may run at once.
    pub(crate) fn view_still(
        &self,
        poison: &Arc<PoisonCell>,
        hold: SegmentHold,
    ) -> Result<View, SnapshotError> {
        self.fill_all()?;
        let mut shards = Vec::new();
        let copy = |key: &Key, cell: &C| (key.clone(), cell.clone());
        self.store.scan(copy, |copies| shards.push(std::mem::take(copies)));
        let captured = Captured { head: self.head(), shards };
        let sorted = Sorted::new(captured, self.context.clone(), Arc::clone(poison));
        Ok(View::new(sorted, Some(hold)))
    }

    /// See [`Views`](crate::contract::view::Views).
    pub(crate) fn partitions_reached(&self) -> usize {
        self.store.capture.partitions_reached()
    }

    /// See [`Views`](crate::contract::view::Views).
    pub(crate) fn finish_view(&self, poison: &Arc<PoisonCell>, hold: SegmentHold) -> View {
        let capture = &self.store.capture;
        self.store.sweep(capture.generation());
        let sorted = Sorted::new(capture.take(), self.context.clone(), Arc::clone(poison));
        View::new(sorted, Some(hold))
    }

    /// Replaces the whole state by that of a verified snapshot. `cell_of` makes the cell of a value
    /// from its chunk's number, its offset in the chunk, and its bytes. Nothing is applied
    /// meanwhile. A reader finds the old value of its key or the new one.
    fn load_with(
        &self,
        snapshot: &Snapshot,
        pieces: &[PieceNumber],
        cell_of: impl Fn(usize, u32, &[u8]) -> Result<C, SnapshotError>,
    ) -> Result<(), SnapshotError> {
        snapshot.check_kind(SnapshotKind::KeyValue)?;
        let keys = to_usize(snapshot.len());
        let new = self.store.empty_like(keys);
        for chunk in 0..snapshot.chunk_count() {
            let bytes = snapshot.chunk_bytes(chunk)?;
            for located in snapshot.chunk_records(chunk)? {
                let (key, offset, len) = located?;
                let start = offset as usize;
                let bytes = bytes.get(start..start + len as usize);
                let outside =
                    Poison::Internal("a value lies outside of the chunk that it was found in");
                let bytes = bytes.ok_or(SnapshotError::Poisoned(outside))?;
                let cell = cell_of(chunk, offset, bytes)?;
                new.update(new.hash(key), key, 0, |_| (Change::Set(cell), ()));
            }
        }
        self.take_over(&new, snapshot, pieces);
        let notes = snapshot.notes().map(|(name, value)| (name.into(), value.into()));
        *self.notes.lock() = notes.collect();
        *self.membership.lock() =
            snapshot.membership().map(|(log_id, bytes)| (log_id, bytes.into()));
        self.set_applied(snapshot.log_id());
        Ok(())
    }

    /// Replaces the store by that of a snapshot. If the store was being filled from another
    /// snapshot, the filling is also replaced. A reader that misses a key or its tombstone then
    /// looks into the right snapshot.
    fn take_over(&self, new: &Store<C>, snapshot: &Snapshot, pieces: &[PieceNumber]) {
        if let Some(filling) = self.fill.get() {
            // A thread that is filling finishes its chunk first, and then finds nothing left.
            let _turn = filling.turn();
            if self.fill.is(&filling) {
                let filled = Arc::new(filling.another(snapshot, pieces));
                let _turn = filled.turn();
                self.fill.begin(Arc::clone(&filled));
                *self.filled_pieces.lock() = filling.take_pieces();
                self.store.take_over(new);
                self.fill.end();
                return;
            }
        }
        self.store.take_over(new);
    }

    /// The parts of its snapshot beside keys and values.
    pub(crate) fn beside(&self) -> SnapshotMeta {
        SnapshotMeta {
            log_id: self.applied(),
            membership: self.membership.lock().clone(),
            notes: self.notes.lock().clone(),
        }
    }

    /// Memory of the tables in bytes; see [`Store::memory_bytes`].
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.memory_bytes()
    }

    /// The figures that both machines have.
    pub(crate) fn stats(&self) -> StateMachineStats {
        let stalls = self.store.capture.stalls();
        StateMachineStats {
            longest_copy_cpu_ns: stalls.longest_cpu_ns,
            longest_copy_ns: stalls.longest_wall_ns,
            copy_p999_cpu_ns: stalls.p999_cpu_ns,
            copy_p999_ns: stalls.p999_wall_ns,
            applied_count: self.applied_count.load(Ordering::Relaxed),
            last_applied: self.applied().map(|log_id| log_id.index),
            keys: self.store.len() as u64,
            unfilled_chunks: self.fill.chunks_left(),
            memory_bytes: Some(self.memory_bytes() as u64),
            ..StateMachineStats::default()
        }
    }

    /// Whether applying is brief. Nothing is looked up in a snapshot's file any more, and no shard
    /// is copied for a view.
    #[inline]
    pub(crate) fn is_brief(&self) -> bool {
        self.fill.chunks_left() == 0 && !self.store.capture.is_taken()
    }

    /// See [`StateMachine::footprint`](crate::contract::machine::StateMachine::footprint).
    #[inline]
    pub(crate) fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        match payload {
            PayloadRef::Noop | PayloadRef::Opaque(_) => Footprint::Key(0),
            PayloadRef::Membership(_) => Footprint::All,
            PayloadRef::Command(CommandRef::Batch(batch)) => self.batch_footprint(batch),
            PayloadRef::Command(command) => {
                Footprint::Key(command.key().map_or(0, |key| self.store.hash(key)))
            }
        }
    }

    /// The footprint of a batch: one partition if all keys have the same hash part, whatever the
    /// number of partitions.
    fn batch_footprint(&self, batch: &BatchRef<'_>) -> Footprint {
        if batch.note().is_some() {
            return Footprint::All;
        }
        let mut hashes =
            batch.commands().filter_map(|command| command.key()).map(|key| self.store.hash(key));
        let Some(first) = hashes.next() else { return Footprint::Key(0) };
        if hashes.all(|hash| hash_part(hash) == hash_part(first)) {
            Footprint::Key(first)
        } else {
            Footprint::All
        }
    }

    /// See [`StateMachine::apply`](crate::contract::machine::StateMachine::apply).
    pub(crate) fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        let count = at_most(partition.count() as u64, TOUCH_AHEAD_MAX);
        let ahead = (TOUCH_AHEAD * count).min(TOUCH_AHEAD_MAX);
        let generation = self.store.capture.reached_token(partition.id());
        let filling = self.fill.get();
        let filling = filling.as_deref();
        // The first entry's cell is needed at once, so there is nothing to peek at ahead of it.
        let (mut touched, mut peeked, mut applied) = (0, 1, 0);
        let last = range.last_position();
        let mut entries = range.entries(partition);
        while let Some(entry) = entries.locate() {
            let entry = entry?;
            // A position is below 2^16, so the sums do not saturate.
            let slots_through = entry.position.saturating_add(ahead).min(last);
            while touched <= slots_through {
                if let Some(hash) = range.hash_at(touched, partition) {
                    self.store.prefetch(hash);
                }
                touched += 1;
            }
            // Nor does this one.
            let cells_through = entry.position.saturating_add(ahead / 2).min(last);
            while C::REFERS && peeked <= cells_through {
                if let Some(hash) = range.hash_at(peeked, partition) {
                    self.store.peek(hash, C::prefetch);
                }
                peeked += 1;
            }
            let reply = match entry.put() {
                // Most commands are puts. The compiler folds what it knows of one into this call.
                Some(put) => self.apply_command(entry.hash, &put, generation, filling)?,
                None => self.apply_entry(&entries.decode(&entry)?, generation, filling)?,
            };
            replies.set_at(entry.index, reply);
            applied += 1;
        }
        self.applied_count.fetch_add(applied, Ordering::Relaxed);
        if partition.id() == 0 || range.is_barrier() {
            self.set_applied(Some(range.last()));
        }
        if let Some(filling) = filling
            && !self.fill.is_filling()
        {
            // The filling ended meanwhile, perhaps before it could see the last tombstones.
            self.bury(filling);
        }
        Ok(())
    }

    /// Applies an entry of any kind.
    #[inline(never)]
    fn apply_entry(
        &self,
        entry: &EntryRef<'_>,
        generation: u64,
        filling: Option<&Filling>,
    ) -> Result<Reply, Fatal> {
        Ok(match &entry.payload {
            PayloadRef::Command(CommandRef::Batch(batch)) => {
                self.apply_batch(batch, generation, filling)?
            }
            PayloadRef::Command(command) => {
                self.apply_command(entry.hash, command, generation, filling)?
            }
            PayloadRef::Membership(bytes) => {
                self.set_membership(entry.log_id, bytes);
                Reply::Applied
            }
            PayloadRef::Noop => Reply::Applied,
            PayloadRef::Opaque(_) => Reply::Rejected(Rejection::Unsupported),
        })
    }

    /// Runs a command, with one take of the shard's lock for both look-up and change.
    #[inline(always)]
    fn apply_command(
        &self,
        hash: u64,
        command: &CommandRef<'_>,
        generation: u64,
        filling: Option<&Filling>,
    ) -> Result<Reply, Fatal> {
        let Some(key) = command.key() else { return Err(Fatal::new("a command without a key")) };
        if let Some(filling) = filling {
            // While the log is replayed, no caller asks what a put replaces.
            let blind = self.fill.is_replaying() && matches!(command, CommandRef::Put { .. });
            self.settle_key(filling, hash, key, blind)?;
        }
        self.store.update(hash, key, generation, |slot| {
            let context = &self.context;
            let found = slot.as_deref().filter(|cell| !cell.is_gone());
            let found = found.map(|cell| InStore { cell, context });
            match evaluate(command, found.as_ref()) {
                Ok(Ok((effect, reply))) => (settle_or_bury(slot, effect, key, filling), Ok(reply)),
                Ok(Err(rejection)) => (Change::Keep, Ok(Reply::Rejected(rejection.into()))),
                Err(fatal) => (Change::Keep, Err(fatal)),
            }
        })
    }

    /// Runs every command over an overlay first, and then writes each key once, under one lock
    /// after another. So a reader never sees a part of a rejected batch.
    fn apply_batch(
        &self,
        batch: &BatchRef<'_>,
        generation: u64,
        filling: Option<&Filling>,
    ) -> Result<Reply, Fatal> {
        let mut overlay = Overlay::new(batch.len() as usize);
        let mut position = 0;
        for command in batch.commands() {
            let Some(key) = command.key() else { return Err(Fatal::new("a batch in a batch")) };
            let hash = self.store.hash(key);
            if let Some(filling) = filling {
                self.settle_key(filling, hash, key, false)?;
            }
            let outcome = match overlay.evaluate(hash, key, &command) {
                Some(outcome) => outcome?,
                None => self.store.read(hash, key, |cell| {
                    let found = cell.filter(|cell| !cell.is_gone());
                    let found = found.map(|cell| InStore { cell, context: &self.context });
                    evaluate(&command, found.as_ref())
                })?,
            };
            match outcome {
                Ok((effect, _)) => {
                    // The store counts its keys itself.
                    overlay.record(Pending { hash, key, effect, existed: false });
                }
                Err(reason) => {
                    return Ok(Reply::Rejected(Rejection::InBatch { position, reason }));
                }
            }
            position += 1;
        }
        if position != batch.len() {
            return Err(Fatal::new("a batch in memory does not decode"));
        }
        for change in overlay.changes() {
            self.store.update(change.hash, change.key, generation, |slot| {
                (settle_or_bury(slot, change.effect, change.key, filling), ())
            });
        }
        if let Some(note) = batch.note() {
            self.set_note(note.name, note.value);
        }
        Ok(Reply::Batch { commands: batch.len() })
    }
}

impl KeyValue<HeapCell> {
    /// Replaces the whole state by that of a snapshot; see [`KeyValue::load_with`].
    pub(crate) fn load(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.load_with(snapshot, &[], |_, _, bytes| {
            Ok(HeapCell::new(ValueRef { bytes, place: Place::NOWHERE }))
        })
    }
}

impl KeyValue<PlaceCell> {
    /// Replaces the whole state by that of a snapshot, whose chunks have these numbers; see
    /// [`KeyValue::load_with`].
    pub(crate) fn load(
        &self,
        snapshot: &Snapshot,
        pieces: &[PieceNumber],
    ) -> Result<(), SnapshotError> {
        self.load_with(snapshot, pieces, |chunk, offset, bytes| {
            let no_number = Poison::Internal("a chunk of a snapshot was given no number");
            let piece = pieces.get(chunk).copied().ok_or(SnapshotError::Poisoned(no_number))?;
            let too_long = Poison::Internal("a value of a snapshot is longer than 4 GiB");
            let len = u32::try_from(bytes.len()).map_err(|_| SnapshotError::Poisoned(too_long))?;
            Ok(PlaceCell::Piece(PiecePlace { piece, offset, len }))
        })
    }
}

impl<C: Cell> fmt::Debug for KeyValue<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValue")
            .field("applied", &self.applied())
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "fill_tests.rs"]
mod fill_tests;
#[cfg(test)]
#[path = "key_value_tests.rs"]
mod tests;
