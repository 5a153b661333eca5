//! Instant opening: keys that are not in the store yet are looked up in the snapshot, which fills
//! the store in the background.
//!
//! Until the store has all of the snapshot, a key that the store lacks may be in the snapshot. A
//! removed key leaves a tombstone, so that neither a look-up nor the fill brings it back. A write
//! to a key first puts the snapshot's value into the store; the fill only adds missing keys.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use super::cell::Cell;
use super::effect::{Effect, settle};
use super::key_value::{Bytes, KeyValue};
use super::store::Change;
use crate::codec::{PieceNumber, PiecePlace};
use crate::error::{Fatal, Poison, ReadError, SnapshotError};
use crate::places::table::SegmentTable;
use crate::snapshot::Snapshot;
use crate::sync::{Mutex, MutexGuard, Rank};

/// A snapshot that is not yet completely in the store.
pub(crate) struct Filling {
    pub(crate) snapshot: Snapshot,
    table: Arc<SegmentTable>,
    /// For each chunk, the number for places in it, once the chunk was checked.
    pieces: Box<[OnceLock<PieceNumber>]>,
    /// The next chunk for the store. The holder of this lock fills.
    next: Mutex<usize>,
    /// Keys with tombstones in the store.
    removed: Mutex<Vec<Bytes>>,
    /// The numbers that another owner releases.
    taken: OnceLock<Vec<PieceNumber>>,
    /// Number of fillings that it replaced. A thread may have the turns of two at once, the older
    /// one's first.
    number: u32,
}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filling").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

impl Filling {
    pub(crate) fn new(snapshot: Snapshot, table: Arc<SegmentTable>) -> Self {
        let pieces = (0..snapshot.chunk_count()).map(|_| OnceLock::new()).collect();
        Self::with_pieces(snapshot, table, pieces, 0)
    }

    fn with_pieces(
        snapshot: Snapshot,
        table: Arc<SegmentTable>,
        pieces: Box<[OnceLock<PieceNumber>]>,
        number: u32,
    ) -> Self {
        let next = Mutex::numbered(Rank::FillTurn, number, 0);
        let removed = Mutex::new(Rank::RemovedKeys, Vec::new());
        Self { snapshot, table, pieces, next, removed, taken: OnceLock::new(), number }
    }

    /// The filling of another snapshot, whose chunks have these numbers, in place of this one.
    pub(crate) fn another(&self, snapshot: &Snapshot, pieces: &[PieceNumber]) -> Self {
        let pieces = pieces.iter().map(|piece| OnceLock::from(*piece)).collect();
        let number = self.number.wrapping_add(1);
        Self::with_pieces(snapshot.clone(), Arc::clone(&self.table), pieces, number)
    }

    /// The place of a key's value in the snapshot.
    pub(crate) fn find(&self, key: &[u8]) -> Result<Option<PiecePlace>, SnapshotError> {
        let Some((chunk, offset, len)) = self.snapshot.locate(key)? else { return Ok(None) };
        Ok(Some(PiecePlace { piece: self.piece(chunk)?, offset, len }))
    }

    /// The number of a chunk; the chunk is checked first.
    pub(crate) fn piece(&self, chunk: usize) -> Result<PieceNumber, SnapshotError> {
        let none = SnapshotError::Unsupported { what: "so many snapshots at once" };
        let Some(piece) = self.pieces.get(chunk) else { return Err(none) };
        if let Some(number) = piece.get() {
            return Ok(*number);
        }
        let number = self.table.add_piece(&self.snapshot.chunk_slice(chunk)?).ok_or(none)?;
        let kept = *piece.get_or_init(|| number);
        if kept != number {
            // Another thread added the chunk at the same time. No other thread knows this number.
            self.table.remove_piece(number);
        }
        Ok(kept)
    }

    /// Takes the numbers of all numbered chunks, which the caller then releases.
    pub(crate) fn take_pieces(&self) -> Vec<PieceNumber> {
        self.taken.get_or_init(|| self.known_pieces().collect()).clone()
    }

    fn known_pieces(&self) -> impl Iterator<Item = PieceNumber> {
        self.pieces.iter().filter_map(|piece| piece.get().copied())
    }

    /// Notes that a key has a tombstone.
    pub(crate) fn removed(&self, key: &[u8]) {
        self.removed.lock().push(key.into());
    }

    /// The keys that got a tombstone since the last call.
    pub(crate) fn take_removed(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.removed.lock())
    }

    /// Locks the right to fill; the value is the next chunk.
    pub(crate) fn turn(&self) -> MutexGuard<'_, usize> {
        self.next.lock()
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        // Numbers that a reader requested after the take; no key refers to them.
        if let Some(taken) = self.taken.get()
            && taken.len() < self.known_pieces().count()
        {
            let taken: BTreeSet<_> = taken.iter().copied().collect();
            let late = self.known_pieces().filter(|piece| !taken.contains(piece));
            late.for_each(|piece| self.table.retire_piece(piece));
        }
    }
}

/// State of the filling of a store.
#[derive(Debug)]
pub(crate) struct Fill {
    filling: ArcSwapOption<Filling>,
    /// Whether `filling` is set, so that a read costs one load. It is cleared after `filling` is,
    /// which is cleared after the last key was put into the store.
    is_filling: AtomicBool,
    /// Lock that is held from before a filling ends until its tombstones, which are no keys, are
    /// removed.
    pub(super) burying: Mutex<()>,
    /// Whether the log is being replayed: then no caller reads replies.
    replaying: AtomicBool,
}

impl Default for Fill {
    fn default() -> Self {
        Self {
            filling: ArcSwapOption::empty(),
            is_filling: AtomicBool::new(false),
            burying: Mutex::new(Rank::Burying, ()),
            replaying: AtomicBool::new(false),
        }
    }
}

impl Fill {
    /// Begins a filling, before anything is read or applied, or replaces one whose turn the caller
    /// holds.
    pub(crate) fn begin(&self, filling: Arc<Filling>) {
        self.filling.store(Some(filling));
        self.is_filling.store(true, Ordering::Release);
    }

    pub(crate) fn set_replaying(&self, replaying: bool) {
        self.replaying.store(replaying, Ordering::Relaxed);
    }

    pub(crate) fn is_replaying(&self) -> bool {
        self.replaying.load(Ordering::Relaxed)
    }

    /// Whether a key that the store lacks may be in a snapshot. Callers must ask this *before* they
    /// read the store.
    #[inline]
    pub(crate) fn is_filling(&self) -> bool {
        self.is_filling.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<Arc<Filling>> {
        if self.is_filling() { self.filling.load_full() } else { None }
    }

    /// Whether this is the current filling.
    pub(crate) fn is(&self, filling: &Arc<Filling>) -> bool {
        self.get().is_some_and(|current| Arc::ptr_eq(&current, filling))
    }

    /// Ends the filling: the store has everything.
    pub(crate) fn end(&self) -> Option<Arc<Filling>> {
        let filling = self.filling.swap(None);
        self.is_filling.store(false, Ordering::Release);
        filling
    }

    /// Number of chunks that are not in the store yet. It is one while the store still has
    /// tombstones to remove.
    pub(crate) fn chunks_left(&self) -> u64 {
        let Some(filling) = self.get() else {
            return u64::from(self.burying.try_lock().is_none());
        };
        // A thread is filling; then use the chunk that it will reach last.
        let next = filling.next.try_lock().map_or(0, |next| *next);
        // The last piece is taken and its tombstones remain.
        filling.pieces.len().saturating_sub(next).max(1) as u64
    }

    /// Waits until no tombstones of an ended filling are left.
    fn wait_until_buried(&self) {
        drop(self.burying.lock());
    }
}

impl<C: Cell> KeyValue<C> {
    /// Makes the state that of a snapshot. Reads use the snapshot until all of it is in the (empty)
    /// store.
    pub(crate) fn begin_to_fill(&self, snapshot: Snapshot, table: Arc<SegmentTable>) {
        let notes = snapshot.notes().map(|(name, value)| (name.into(), value.into()));
        *self.notes.lock() = notes.collect();
        *self.membership.lock() =
            snapshot.membership().map(|(log_id, bytes)| (log_id, bytes.into()));
        self.set_applied(snapshot.log_id());
        self.fill.begin(Arc::new(Filling::new(snapshot, table)));
    }

    /// Takes, once, the numbers of the pieces that the store was filled from.
    pub(crate) fn take_filled_pieces(&self) -> Vec<PieceNumber> {
        std::mem::take(&mut self.filled_pieces.lock())
    }

    /// The numbers of the pieces that the store was filled from.
    pub(crate) fn filled_pieces(&self) -> Vec<PieceNumber> {
        self.filled_pieces.lock().clone()
    }

    /// Puts a key's value from the snapshot into the store before a write to the key. Does nothing
    /// where the old value does not matter.
    #[cold]
    pub(super) fn settle_key(
        &self,
        filling: &Filling,
        hash: u64,
        key: &[u8],
        blind: bool,
    ) -> Result<(), Fatal> {
        if blind || self.store.read(hash, key, |cell| cell.is_some()) {
            return Ok(());
        }
        let place = filling.find(key);
        let place = place.map_err(|error| Fatal::of_read(&ReadError::of_snapshot(error)))?;
        if let Some(place) = place {
            let cell = C::in_piece(place);
            let cell = cell.map_err(|poison| Fatal::of_read(&ReadError::Poisoned(poison)))?;
            self.store.update(hash, key, 0, |slot| match slot {
                // The filling may have ended since this range was begun, and removed the key's
                // tombstone. The check is under the shard's lock, because a tombstone is removed
                // only after the filling is marked as ended.
                None if self.fill.is_filling() => (Change::Set(cell), ()),
                _ => (Change::Keep, ()),
            });
        }
        Ok(())
    }

    fn put_if_vacant(&self, hash: u64, key: &[u8], place: PiecePlace) -> Result<(), Poison> {
        let cell = C::in_piece(place)?;
        self.store.update(hash, key, 0, |slot| match slot {
            Some(_) => (Change::Keep, ()),
            None => (Change::Set(cell), ()),
        });
        Ok(())
    }

    /// Puts a chunk of the snapshot into the store. Returns whether there was anything left.
    pub(crate) fn fill_some(&self) -> Result<bool, SnapshotError> {
        let Some(filling) = self.fill.get() else { return Ok(false) };
        let mut turn = filling.turn();
        self.fill_chunk(&filling, &mut turn)
    }

    /// Puts the rest of the snapshot into the store.
    pub(crate) fn fill_all(&self) -> Result<(), SnapshotError> {
        if let Some(filling) = self.fill.get() {
            let mut turn = filling.turn();
            while self.fill_chunk(&filling, &mut turn)? {}
        }
        self.fill.wait_until_buried();
        Ok(())
    }

    fn fill_chunk(&self, filling: &Arc<Filling>, next: &mut usize) -> Result<bool, SnapshotError> {
        if !self.fill.is(filling) {
            // The filling ended while this thread waited for its turn.
            return Ok(false);
        }
        if *next < filling.snapshot.chunk_count() {
            let piece = filling.piece(*next)?;
            for located in filling.snapshot.chunk_records(*next)? {
                let (key, offset, len) = located?;
                let place = PiecePlace { piece, offset, len };
                self.put_if_vacant(self.store.hash(key), key, place)
                    .map_err(SnapshotError::Poisoned)?;
            }
            *next += 1;
        }
        if *next == filling.snapshot.chunk_count() {
            // Keep this order: a thread that sees no filling must find the pieces that the store
            // was filled from.
            *self.filled_pieces.lock() = filling.take_pieces();
            let _burying = self.fill.burying.lock();
            self.fill.end();
            self.bury(filling);
        }
        Ok(true)
    }

    /// Removes the tombstones of an ended filling.
    pub(super) fn bury(&self, filling: &Filling) {
        for key in filling.take_removed() {
            self.store.update(self.store.hash(&key), &key, 0, |slot| {
                let gone = slot.is_some_and(|cell| cell.is_gone());
                (if gone { Change::Remove } else { Change::Keep }, ())
            });
        }
    }
}

/// Settles as [`settle`] does; while the store fills, a removal leaves a tombstone.
#[inline(always)]
pub(super) fn settle_or_bury<C: Cell>(
    slot: Option<&mut C>,
    effect: Effect<'_>,
    key: &[u8],
    filling: Option<&Filling>,
) -> Change<C> {
    let change = settle(slot, effect);
    match (filling, change) {
        (Some(filling), Change::Remove) => match C::tombstone() {
            Some(tombstone) => {
                filling.removed(key);
                Change::Set(tombstone)
            }
            None => Change::Remove,
        },
        (_, change) => change,
    }
}
