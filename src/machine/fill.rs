//! Opening at once: keys that are not in the store yet are looked up in the snapshot, while it fills in the background.
//!
//! Until all of the snapshot is in the store, a key that the store does not have may be in the snapshot, and a key that
//! was removed stays as a tombstone, so that neither a look-up nor the fill brings it back. Whoever writes to a key puts
//! it into the store first; the fill puts only where there is nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use arc_swap::ArcSwapOption;

use super::Fatal;
use super::cell::Cell;
use super::effect::{Effect, settle};
use super::key_value::{Bytes, KeyValue, lock};
use super::store::Change;
use crate::codec::{PieceNumber, PiecePlace};
use crate::error::{Poison, ReadError, SnapshotError};
use crate::log::table::SegmentTable;
use crate::snapshot::Snapshot;

/// A snapshot that is not all in the store.
pub(crate) struct Filling {
    pub(crate) snapshot: Snapshot,
    table: Arc<SegmentTable>,
    /// By chunk: the number that places in it have, once it was checked.
    pieces: Box<[OnceLock<PieceNumber>]>,
    /// The chunk that is put into the store next. Whoever has this fills.
    next: Mutex<usize>,
    /// Keys whose tombstones are in the store.
    removed: Mutex<Vec<Bytes>>,
    /// The numbers that somebody else lets go of.
    taken: OnceLock<Vec<PieceNumber>>,
}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filling").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

impl Filling {
    pub(crate) fn new(snapshot: Snapshot, table: Arc<SegmentTable>) -> Self {
        let pieces = (0..snapshot.chunk_count()).map(|_| OnceLock::new()).collect();
        Self::with_pieces(snapshot, table, pieces)
    }

    fn with_pieces(
        snapshot: Snapshot,
        table: Arc<SegmentTable>,
        pieces: Box<[OnceLock<PieceNumber>]>,
    ) -> Self {
        let (next, removed, taken) = (Mutex::new(0), Mutex::default(), OnceLock::new());
        Self { snapshot, table, pieces, next, removed, taken }
    }

    /// One of a snapshot whose chunks have these numbers, in the place of this one.
    pub(crate) fn another(&self, snapshot: &Snapshot, pieces: &[PieceNumber]) -> Self {
        let pieces = pieces.iter().map(|piece| OnceLock::from(*piece)).collect();
        Self::with_pieces(snapshot.clone(), Arc::clone(&self.table), pieces)
    }

    /// Where in the snapshot a key's value is.
    pub(crate) fn find(&self, key: &[u8]) -> Result<Option<PiecePlace>, SnapshotError> {
        let Some((chunk, offset, len)) = self.snapshot.locate(key)? else { return Ok(None) };
        Ok(Some(PiecePlace { piece: self.piece(chunk)?, offset, len }))
    }

    /// The number of a chunk, which is checked for it.
    pub(crate) fn piece(&self, chunk: usize) -> Result<PieceNumber, SnapshotError> {
        let none = SnapshotError::Unsupported { what: "so many snapshots at once" };
        let Some(piece) = self.pieces.get(chunk) else { return Err(none) };
        if let Some(number) = piece.get() {
            return Ok(*number);
        }
        let number = self.table.add_piece(&self.snapshot.chunk_slice(chunk)?).ok_or(none)?;
        let kept = *piece.get_or_init(|| number);
        if kept != number {
            // Somebody else was here at once. Nobody has heard of this number.
            self.table.remove_piece(number);
        }
        Ok(kept)
    }

    /// The numbers of all chunks that have one, for the caller to let go of.
    pub(crate) fn take_pieces(&self) -> Vec<PieceNumber> {
        self.taken.get_or_init(|| self.known_pieces().collect()).clone()
    }

    fn known_pieces(&self) -> impl Iterator<Item = PieceNumber> {
        self.pieces.iter().filter_map(|piece| piece.get().copied())
    }

    /// A key has a tombstone from now on.
    pub(crate) fn removed(&self, key: &[u8]) {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).push(key.into());
    }

    /// The keys that have got one since the last call.
    pub(crate) fn take_removed(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.removed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The right to fill, from this chunk on.
    pub(crate) fn turn(&self) -> MutexGuard<'_, usize> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        // Numbers that a reader asked for after that, and that no key refers to.
        if let Some(taken) = self.taken.get()
            && taken.len() < self.known_pieces().count()
        {
            let taken: BTreeSet<_> = taken.iter().copied().collect();
            let late = self.known_pieces().filter(|piece| !taken.contains(piece));
            late.for_each(|piece| self.table.retire_piece(piece));
        }
    }
}

/// Whether a state is all in its store.
#[derive(Debug, Default)]
pub(crate) struct Fill {
    filling: ArcSwapOption<Filling>,
    /// Whether `filling` is set: one load on the way of a read. It is cleared after `filling` is, and that after the
    /// last key was put into the store.
    is_filling: AtomicBool,
    /// Held from before a filling ends until the tombstones it was the reason for are gone, which are no keys.
    pub(super) burying: Mutex<()>,
    /// The log is being replayed: nobody looks at replies.
    replaying: AtomicBool,
}

impl Fill {
    /// Before anything is read or applied; or in the place of another, whose turn the caller has.
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

    /// Whether a key that the store does not have may be in a snapshot. Asked *before* the store is.
    #[inline]
    pub(crate) fn is_filling(&self) -> bool {
        self.is_filling.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<Arc<Filling>> {
        if self.is_filling() { self.filling.load_full() } else { None }
    }

    /// Whether this is the one.
    pub(crate) fn is(&self, filling: &Arc<Filling>) -> bool {
        self.get().is_some_and(|current| Arc::ptr_eq(&current, filling))
    }

    /// The store has everything.
    pub(crate) fn end(&self) -> Option<Arc<Filling>> {
        let filling = self.filling.swap(None);
        self.is_filling.store(false, Ordering::Release);
        filling
    }

    /// Chunks that are not in the store yet. One while the store still has tombstones to be rid of.
    pub(crate) fn chunks_left(&self) -> u64 {
        let Some(filling) = self.get() else {
            return u64::from(matches!(self.burying.try_lock(), Err(TryLockError::WouldBlock)));
        };
        // Somebody fills: then the last one he has not reached yet.
        let next = filling.next.try_lock().map_or(0, |next| *next);
        filling.pieces.len().saturating_sub(next).max(1) as u64
    }

    /// Waits until no tombstones are left of a filling that has ended.
    fn wait_until_buried(&self) {
        drop(lock(&self.burying));
    }
}

impl<C: Cell> KeyValue<C> {
    /// The state is that of a snapshot, which is looked into until all of it is in the (empty) store.
    pub(crate) fn begin_to_fill(&self, snapshot: Snapshot, table: Arc<SegmentTable>) {
        let notes = snapshot.notes().map(|(name, value)| (name.into(), value.into()));
        *lock(&self.notes) = notes.collect();
        *lock(&self.membership) =
            snapshot.membership().map(|(log_id, bytes)| (log_id, bytes.into()));
        self.set_applied(snapshot.log_id());
        self.fill.begin(Arc::new(Filling::new(snapshot, table)));
    }

    /// The numbers of the pieces that it was filled from, once.
    pub(crate) fn take_filled_pieces(&self) -> Vec<PieceNumber> {
        std::mem::take(&mut lock(&self.filled_pieces))
    }

    /// The same, without taking them.
    pub(crate) fn filled_pieces(&self) -> Vec<PieceNumber> {
        lock(&self.filled_pieces).clone()
    }

    /// Puts a key into the store as the snapshot has it, before it is written to; or, where what it was does not matter,
    /// does nothing.
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
                // The filling may have ended since this range was begun, and have taken the key's tombstone with it.
                // Under the shard's lock: a tombstone is removed only after it is said that the filling has ended.
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

    /// Puts a chunk of the snapshot into the store. Whether there was anything left.
    pub(crate) fn fill_some(&self) -> Result<bool, SnapshotError> {
        let Some(filling) = self.fill.get() else { return Ok(false) };
        let mut turn = filling.turn();
        self.fill_chunk(&filling, &mut turn)
    }

    /// Puts all that is left of the snapshot into the store.
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
            // It ended while we waited for our turn.
            return Ok(false);
        }
        if *next < filling.snapshot.chunk_count() {
            let piece = filling.piece(*next)?;
            for (key, offset, len) in filling.snapshot.chunk_records(*next)? {
                let place = PiecePlace { piece, offset, len };
                self.put_if_vacant(self.store.hash(key), key, place)
                    .map_err(SnapshotError::Poisoned)?;
            }
            *next += 1;
        }
        if *next == filling.snapshot.chunk_count() {
            // In this order: whoever finds that nothing fills any more finds what it was filled from.
            *lock(&self.filled_pieces) = filling.take_pieces();
            let _burying = lock(&self.fill.burying);
            self.fill.end();
            self.bury(filling);
        }
        Ok(true)
    }

    /// Removes the tombstones that a filling that has ended was the reason for.
    pub(super) fn bury(&self, filling: &Filling) {
        for key in filling.take_removed() {
            self.store.update(self.store.hash(&key), &key, 0, |slot| {
                let gone = slot.is_some_and(|cell| cell.is_gone());
                (if gone { Change::Remove } else { Change::Keep }, ())
            });
        }
    }
}

/// As [`settle`]; but while the store is filled, what is removed leaves a tombstone.
#[inline]
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
