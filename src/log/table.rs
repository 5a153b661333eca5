//! Which bytes a segment number stands for right now: an image in memory, or a read-only mapping of its file.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;

use super::image::{EntryOffset, FrameOffset, HALF_HEADER_BYTES, Image};
use crate::codec::Place;
use crate::disk::{Disk, Mapping};
use crate::snapshot::ChunkSlice;

/// The bytes of one segment.
#[derive(Debug)]
pub(crate) enum SegmentBytes {
    /// Still (or just) written to: in memory.
    Image(Arc<Image>, PinCount),
    /// Sealed: read in place from its file.
    Mapped(
        Mapping,
        #[allow(
            dead_code,
            reason = "held for the directory's lock, which a mapping does not keep"
        )]
        Arc<dyn Disk>,
    ),
    /// No segment: a piece of a snapshot, read in place.
    Snapshot(ChunkSlice),
}

/// How many values handed out hold an image.
#[derive(Debug, Default)]
pub(crate) struct PinCount(AtomicUsize);

impl SegmentBytes {
    /// The bytes at a place of this segment.
    #[inline]
    pub(crate) fn value(&self, place: Place) -> Option<&[u8]> {
        match self {
            Self::Image(image, _) => image.value(place),
            Self::Mapped(mapping, _) => {
                let start = place.offset as usize;
                mapping.get(start..start.checked_add(place.len as usize)?)
            }
            Self::Snapshot(piece) => {
                let start = place.offset as usize;
                piece.get(start..start.checked_add(place.len as usize)?)
            }
        }
    }
}

impl SegmentBytes {
    /// The encoded entries between two offsets of one frame.
    #[inline]
    pub(crate) fn entries(&self, start: EntryOffset, end: EntryOffset) -> Option<&[u8]> {
        match self {
            Self::Image(image, _) => image.entries(start, end),
            Self::Mapped(mapping, _) => mapping.get(start.get() as usize..end.get() as usize),
            Self::Snapshot(_) => None,
        }
    }

    /// The opening half of a frame's header.
    #[inline]
    pub(crate) fn opening(&self, frame: FrameOffset) -> Option<&[u8]> {
        match self {
            Self::Image(image, _) => image.opening(frame),
            Self::Mapped(mapping, _) => {
                let start = frame.get() as usize;
                mapping.get(start..start.checked_add(HALF_HEADER_BYTES)?)
            }
            Self::Snapshot(_) => None,
        }
    }

    /// Whole frames from `start` to the last one that is complete.
    pub(crate) fn frames_from(&self, start: usize) -> Option<&[u8]> {
        match self {
            Self::Image(image, _) => image.frames_from(start),
            Self::Mapped(mapping, _) => mapping.get(start..),
            Self::Snapshot(_) => None,
        }
    }

    /// Whether every frame up to `end`, where one ends, is complete: its header has been written.
    pub(crate) fn is_complete_to(&self, end: usize) -> bool {
        match self {
            Self::Image(image, _) => image.frames(end, end).is_some(),
            Self::Mapped(..) | Self::Snapshot(_) => true,
        }
    }

    /// Where the entry starts that follows `bytes` of whole entries from `start`.
    pub(crate) fn entry_after(start: EntryOffset, bytes: u32) -> EntryOffset {
        EntryOffset::mint(start.get().saturating_add(bytes))
    }
}

const CHUNK: usize = 1024;
type Chunk = Box<[ArcSwapOption<SegmentBytes>]>;

/// All live segments by number. Lookups take no lock.
///
/// A caller that found a place under the store's shard lock may resolve it here while it holds that lock: whoever
/// retires a segment first re-points every place into it, under those locks.
pub(crate) struct SegmentTable {
    chunks: Box<[OnceLock<Chunk>]>,
    /// How many distinct images may be held by values at a time; beyond that, values are copied out.
    pinned_images_max: usize,
    pinned_images: Arc<AtomicUsize>,
    next_piece: AtomicUsize,
    held: Mutex<Held>,
}

/// Who may still refer to what no key refers to.
#[derive(Debug, Default)]
struct Held {
    /// The number of the next hold.
    next: u64,
    /// Numbers of those that live.
    live: BTreeSet<u64>,
    /// With the number of the hold that was next: one with that number, or a later one, is of a state that no longer refers
    /// to it. In the order of these numbers.
    retired: VecDeque<(u64, u32)>,
}

/// Keeps the segments of a log for as long as it lives, for a view. What is retired before it is made is none of its own, so
/// that views that follow each other without a gap keep nothing for ever.
#[derive(Debug)]
pub struct SegmentHold {
    table: Arc<SegmentTable>,
    number: u64,
}

impl Drop for SegmentHold {
    fn drop(&mut self) {
        let mut held = self.table.lock_held();
        held.live.remove(&self.number);
        let oldest = held.live.first().copied().unwrap_or(u64::MAX);
        while let Some((_, segment)) = held.retired.pop_front_if(|(next, _)| *next <= oldest) {
            self.table.remove(segment);
        }
    }
}

impl SegmentTable {
    /// The most segments a log can have had over its life.
    pub(crate) const SEGMENTS_MAX: usize = CHUNK * CHUNK * 4;
    /// The most pieces of snapshots there can be at a time; their numbers come after those of segments.
    const PIECES_MAX: usize = CHUNK * CHUNK * 4;

    pub(crate) fn new(pinned_images_max: usize) -> Self {
        Self {
            chunks: (0..(Self::SEGMENTS_MAX + Self::PIECES_MAX) / CHUNK)
                .map(|_| OnceLock::new())
                .collect(),
            pinned_images_max,
            pinned_images: Arc::new(AtomicUsize::new(0)),
            next_piece: AtomicUsize::new(0),
            held: Mutex::default(),
        }
    }

    #[inline]
    fn entry(&self, segment: u32) -> Option<&ArcSwapOption<SegmentBytes>> {
        self.chunks.get(segment as usize / CHUNK)?.get()?.get(segment as usize % CHUNK)
    }

    /// Puts (or replaces) the bytes of a segment; what was there before lives until its last reader is done.
    pub(crate) fn set(&self, segment: u32, bytes: SegmentBytes) {
        let Some(chunk) = self.chunks.get(segment as usize / CHUNK) else { return };
        let chunk =
            chunk.get_or_init(|| (0..CHUNK).map(|_| ArcSwapOption::const_empty()).collect());
        if let Some(entry) = chunk.get(segment as usize % CHUNK) {
            entry.store(Some(Arc::new(bytes)));
        }
    }

    /// Forgets a segment; its bytes live until their last reader is done.
    pub(crate) fn remove(&self, segment: u32) {
        if let Some(entry) = self.entry(segment) {
            entry.store(None);
        }
    }

    /// Puts a segment's bytes in the place of those that are there, unless the segment is forgotten by now.
    pub(crate) fn replace(&self, segment: u32, bytes: SegmentBytes) {
        let Some(entry) = self.entry(segment) else { return };
        let current = entry.load();
        if current.is_some() {
            entry.compare_and_swap(&current, Some(Arc::new(bytes)));
        }
    }

    /// Forgets a segment to which no key refers any more: now, or when the last view that may refer to it is gone.
    pub(crate) fn retire(&self, segment: u32) {
        self.retire_file(segment);
    }

    /// As [`SegmentTable::retire`], of one in a file: whether nobody reads the file any more, nor ever will.
    pub(crate) fn retire_file(&self, segment: u32) -> bool {
        let mut held = self.lock_held();
        if !held.live.is_empty() {
            let next = held.next;
            held.retired.push_back((next, segment));
            return false;
        }
        // Whoever has loaded it without counting is counted when it is swapped out; nobody can load it after.
        match self.entry(segment).and_then(|entry| entry.swap(None)) {
            Some(bytes) => matches!(Arc::into_inner(bytes), Some(SegmentBytes::Mapped(..))),
            None => false,
        }
    }

    /// Keeps all segments for as long as the result lives.
    pub(crate) fn hold(self: &Arc<Self>) -> SegmentHold {
        let mut held = self.lock_held();
        let number = held.next;
        held.next += 1;
        held.live.insert(number);
        drop(held);
        SegmentHold { table: Arc::clone(self), number }
    }

    fn lock_held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece of a snapshot and gives the number that places in it have. `None` if there are too many.
    pub(crate) fn add_piece(&self, piece: &ChunkSlice) -> Option<u32> {
        for _ in 0..Self::PIECES_MAX {
            let next = self.next_piece.fetch_add(1, Ordering::Relaxed) % Self::PIECES_MAX;
            let number = u32::try_from(Self::SEGMENTS_MAX + next).ok()?;
            if self.entry(number).is_none_or(|entry| entry.load().is_none()) {
                self.set(number, SegmentBytes::Snapshot(piece.clone()));
                return Some(number);
            }
        }
        None
    }

    /// Whether places with this number are in a snapshot.
    #[inline]
    pub(crate) fn is_piece(segment: u32) -> bool {
        segment as usize >= Self::SEGMENTS_MAX
    }

    /// The bytes of a segment, held by a reference count.
    pub(crate) fn get(&self, segment: u32) -> Option<Arc<SegmentBytes>> {
        self.entry(segment)?.load_full()
    }

    /// Runs `read` over the bytes at `place`; `None` if the segment is gone.
    #[inline]
    pub(crate) fn read<R>(&self, place: Place, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let guard = self.entry(place.segment)?.load();
        guard.as_ref()?.value(place).map(read)
    }

    /// Holds the bytes at `place` where they are. `None` if the segment is gone, or if it is an image and the budget for
    /// holding images is used up: the caller then copies ([`SegmentTable::read`]).
    pub(crate) fn pin(&self, place: Place) -> Option<PinnedBytes> {
        let bytes = self.get(place.segment)?;
        bytes.value(place)?;
        let mut pins_image = false;
        if let SegmentBytes::Image(_, pins) = &*bytes {
            if !self.pin_image(pins) {
                return None;
            }
            pins_image = true;
        }
        let budget = pins_image.then(|| Arc::clone(&self.pinned_images));
        Some(PinnedBytes { bytes, place, budget })
    }

    /// The first value of an image takes a unit of the budget, later ones share it.
    fn pin_image(&self, pins: &PinCount) -> bool {
        let shared = |count: usize| (count > 0).then_some(count + 1);
        if pins.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, shared).is_ok() {
            return true;
        }
        let room = |count: usize| (count < self.pinned_images_max).then_some(count + 1);
        if self.pinned_images.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_err() {
            return false;
        }
        if pins.0.fetch_add(1, Ordering::AcqRel) > 0 {
            // Somebody else pinned it first and paid for it.
            self.pinned_images.fetch_sub(1, Ordering::AcqRel);
        }
        true
    }
}

impl fmt::Debug for SegmentTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentTable")
            .field("pinned_images", &self.pinned_images)
            .finish_non_exhaustive()
    }
}

/// Reads many places of one table: remembers the bytes of the segments it has come by, so that a place costs no look-up of
/// its own.
///
/// It remembers what is mapped, and no image: those are few, and the log waits for them.
#[derive(Debug)]
pub(crate) struct TableReader<'t> {
    table: &'t SegmentTable,
    /// By the last bits of the segment's number.
    known: [Option<(u32, Arc<SegmentBytes>)>; TableReader::KNOWN],
}

impl<'t> TableReader<'t> {
    const KNOWN: usize = 64;

    pub(crate) fn new(table: &'t SegmentTable) -> Self {
        Self { table, known: [const { None }; Self::KNOWN] }
    }

    /// Runs `read` over the bytes at `place`; `None` if the segment is gone.
    #[inline]
    pub(crate) fn read<R>(&mut self, place: Place, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let known = &mut self.known[place.segment as usize % Self::KNOWN];
        if let Some((segment, bytes)) = known
            && *segment == place.segment
        {
            return bytes.value(place).map(read);
        }
        let bytes = self.table.get(place.segment)?;
        let result = bytes.value(place).map(read);
        if !matches!(*bytes, SegmentBytes::Image(..)) {
            *known = Some((place.segment, bytes));
        }
        result
    }
}

/// A value's bytes, held in their segment.
#[derive(Debug)]
pub(crate) struct PinnedBytes {
    bytes: Arc<SegmentBytes>,
    place: Place,
    budget: Option<Arc<AtomicUsize>>,
}

impl PinnedBytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.value(self.place).unwrap_or_default()
    }
}

impl Clone for PinnedBytes {
    fn clone(&self) -> Self {
        if let SegmentBytes::Image(_, pins) = &*self.bytes {
            pins.0.fetch_add(1, Ordering::AcqRel);
        }
        Self { bytes: Arc::clone(&self.bytes), place: self.place, budget: self.budget.clone() }
    }
}

impl Drop for PinnedBytes {
    fn drop(&mut self) {
        if let (SegmentBytes::Image(_, pins), Some(budget)) = (&*self.bytes, &self.budget)
            && pins.0.fetch_sub(1, Ordering::AcqRel) == 1
        {
            budget.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::disk::Mapping;
    use crate::disk::sim::SimDisk;

    fn table(segments: std::ops::RangeInclusive<u32>) -> Arc<SegmentTable> {
        let (table, disk) = (SegmentTable::new(1), SimDisk::new(1).open(true).unwrap());
        for segment in segments {
            let bytes = Mapping::Copied(vec![1; 8].into());
            table.set(segment, SegmentBytes::Mapped(bytes, Arc::clone(&disk)));
        }
        Arc::new(table)
    }

    #[test]
    fn what_is_retired_goes_with_the_last_view_that_was_there_before_though_later_ones_live() {
        let table = table(1..=4);
        let there = || (1..=4).filter(|segment| table.get(*segment).is_some()).collect::<Vec<_>>();
        let one = table.hold();
        table.retire(1);
        let two = table.hold();
        assert!(!table.retire_file(2));
        let three = table.hold();
        assert_eq!(there(), [1, 2, 3, 4]);
        drop(two);
        assert_eq!(there(), [1, 2, 3, 4], "the first may refer to both");
        drop(one);
        assert_eq!(there(), [3, 4], "the third never did");
        assert!(!table.retire_file(3), "the third may");
        drop(three);
        assert_eq!(there(), [4]);
        assert!(table.retire_file(4), "nobody does");
    }

    #[test]
    fn views_that_overlap_for_ever_keep_no_more_than_what_was_retired_in_their_time() {
        let table = table(1..=100);
        let mut view = table.hold();
        for segment in 1..=100 {
            table.retire(segment);
            let next = table.hold();
            drop(std::mem::replace(&mut view, next));
            assert!(table.get(segment).is_none(), "{segment}");
        }
        assert!(table.lock_held().retired.is_empty());
    }
}
