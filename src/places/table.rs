//! The segment table: the current bytes of each segment number, as an image in memory, a read-only
//! mapping of the file, or the file.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwapOption;

use super::unmapped::{NotRead, SegmentFile, is_no_mapping};
use crate::codec::place::{Location, PIECES_MAX};
use crate::codec::{Extent, PieceNumber};
use crate::disk::holders::Holding;
use crate::disk::{Disk, DiskFile, Mapping};
use crate::image::{HALF_HEADER_BYTES, Image};
use crate::numbers::SegmentNumber;
use crate::snapshot::ChunkSlice;
use crate::sync::{Mutex, Rank, tell_under_locks};

/// The bytes of one segment.
#[derive(Debug)]
pub(crate) enum SegmentBytes {
    /// The segment is (or was just) being written, and is in memory.
    Image(Arc<Image>, PinCount),
    /// The segment is sealed, and read in place from its mapped file.
    Mapped(
        Mapping,
        #[allow(
            dead_code,
            reason = "held for the directory's lock, which a mapping does not keep"
        )]
        Arc<dyn Disk>,
    ),
    /// The segment is sealed and cannot be mapped, so each read reads the file.
    File(SegmentFile),
    /// A piece of a snapshot, read in place; no segment.
    Snapshot(ChunkSlice),
    /// No bytes: a holder that waits for an image, in no table.
    Spare,
}

/// Number of values in use that hold an image. It is the last part of an image's entry in the
/// table that is dropped.
#[derive(Debug, Default)]
pub(crate) struct PinCount(AtomicUsize, Arc<Freed>);

impl Drop for PinCount {
    fn drop(&mut self) {
        if let Some(tell) = self.1.0.get() {
            tell();
        }
    }
}

/// Told when the table and all its readers have let go of an image: its memory may be free.
#[derive(Default)]
struct Freed(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl fmt::Debug for Freed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Freed").field(&self.0.get().is_some()).finish()
    }
}

impl SegmentBytes {
    /// A sealed segment of `bytes` bytes: its file mapped or, if the kernel gives no mapping, to be
    /// read.
    pub(crate) fn sealed(
        disk: &Arc<dyn Disk>,
        segment: SegmentNumber,
        file: Arc<dyn DiskFile>,
        bytes: usize,
    ) -> io::Result<Self> {
        match file.map(bytes) {
            Ok(mapping) => Ok(Self::Mapped(mapping, Arc::clone(disk))),
            Err(error) if is_no_mapping(&error) => {
                tell_under_locks(|| {
                    tracing::debug!(%error, %segment, "a segment is read and not mapped");
                });
                Ok(Self::File(SegmentFile::new(Arc::clone(disk), segment, bytes, Some(file))))
            }
            Err(error) => Err(error),
        }
    }

    /// The bytes at a place of this segment; `None` if they are not in memory.
    #[inline]
    pub(crate) fn value(&self, at: Location) -> Option<&[u8]> {
        match self {
            Self::Image(image, _) => image.value(at),
            Self::Mapped(..) | Self::Snapshot(_) => self.range(at.offset() as usize, at.len()),
            Self::File(_) | Self::Spare => None,
        }
    }

    /// A range of mapped bytes.
    #[inline]
    fn range(&self, start: usize, len: usize) -> Option<&[u8]> {
        match self {
            Self::Mapped(mapping, _) => mapping.get(start..start.checked_add(len)?),
            Self::Snapshot(piece) => piece.get(start..start.checked_add(len)?),
            Self::Image(..) | Self::File(_) | Self::Spare => None,
        }
    }

    /// Runs `read` over the bytes at a place of this segment, which may have to be read first.
    #[inline]
    fn read<R>(&self, at: Location, read: impl FnOnce(&[u8]) -> R) -> Result<R, NotRead> {
        match (self.value(at), self) {
            (Some(bytes), _) => Ok(read(bytes)),
            (None, Self::File(file)) => {
                file.read(at.offset() as usize, at.len()).map(|bytes| read(&bytes))
            }
            _ => Err(NotRead::Gone),
        }
    }

    /// Encoded entries of this segment.
    #[inline]
    pub(crate) fn entries(&self, extent: Extent) -> Result<Cow<'_, [u8]>, NotRead> {
        let (start, len) = (extent.start() as usize, extent.bytes());
        let bytes = match self {
            Self::Image(image, _) => image.entries(extent),
            Self::Mapped(..) => self.range(start, len),
            Self::File(file) => return file.read(start, len).map(Cow::Owned),
            Self::Snapshot(_) | Self::Spare => None,
        };
        bytes.map(Cow::Borrowed).ok_or(NotRead::Gone)
    }

    /// The opening half of the header of the frame that entries of this segment are in.
    #[inline]
    pub(crate) fn opening(&self, extent: Extent) -> Result<Cow<'_, [u8]>, NotRead> {
        let start = extent.frame() as usize;
        let bytes = match self {
            Self::Image(image, _) => image.opening(extent),
            Self::Mapped(..) => self.range(start, HALF_HEADER_BYTES),
            Self::File(file) => return file.read(start, HALF_HEADER_BYTES).map(Cow::Owned),
            Self::Snapshot(_) | Self::Spare => None,
        };
        bytes.map(Cow::Borrowed).ok_or(NotRead::Gone)
    }

    /// Bytes of complete frames, with their headers.
    pub(crate) fn frames(&self, start: usize, len: usize) -> Result<Cow<'_, [u8]>, NotRead> {
        let end = start.checked_add(len).ok_or(NotRead::Gone)?;
        let bytes = match self {
            Self::Image(image, _) => image.frames(start, end),
            Self::Mapped(..) => self.range(start, len),
            Self::File(file) => return file.read(start, len).map(Cow::Owned),
            Self::Snapshot(_) | Self::Spare => None,
        };
        bytes.map(Cow::Borrowed).ok_or(NotRead::Gone)
    }

    /// Whether every frame up to `end`, the end of a frame, is complete: its header has been
    /// written.
    pub(crate) fn is_complete_to(&self, end: usize) -> bool {
        match self {
            Self::Image(image, _) => image.frames(end, end).is_some(),
            Self::Mapped(..) | Self::File(_) | Self::Snapshot(_) | Self::Spare => true,
        }
    }
}

const CHUNK: usize = 1024;
type Chunk = Box<[ArcSwapOption<SegmentBytes>]>;

/// All live segments by number. Lookups take no lock.
///
/// A caller that found a place under the store's shard lock may resolve it here while it holds that
/// lock. A thread that retires a segment first re-points every place into it, under those locks.
pub(crate) struct SegmentTable {
    chunks: Box<[OnceLock<Chunk>]>,
    /// Number of distinct images that values may hold at a time. Beyond that, values are copied.
    pinned_images_max: usize,
    pinned_images: Arc<AtomicUsize>,
    freed: Arc<Freed>,
    next_piece: AtomicU32,
    held: Mutex<Held>,
    /// The segments that are read from files and have them open: the most recent ones.
    open_files: Mutex<VecDeque<Weak<SegmentBytes>>>,
}

/// Result of retiring a segment, for its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Retired {
    /// Nothing reads the file any more, and nothing will.
    Free,
    /// Readers remain, and do not need the file's name.
    Held,
    /// Readers remain, and need the file's name.
    Named,
}

/// Holds that may still refer to retired segments.
#[derive(Debug, Default)]
struct Held {
    /// The number of the next hold.
    next: u64,
    /// Numbers of the live holds.
    live: BTreeSet<u64>,
    /// Retired segments and pieces, each with the number that the next hold had then. A hold with
    /// that number or a later one does not refer to the segment. They are in the order of these
    /// numbers.
    retired: VecDeque<(u64, u32)>,
}

/// A hold on the segments of a log, for a view: while it lives, the segments live. Segments retired
/// before the hold was made are not covered, so overlapping views in succession keep nothing
/// forever.
#[derive(Debug)]
pub struct SegmentHold {
    table: Arc<SegmentTable>,
    number: u64,
    #[allow(dead_code, reason = "counts while it lives")]
    holding: Option<Holding>,
}

impl SegmentHold {
    /// The hold, counted as a holder of the directory.
    pub(crate) fn of(mut self, holding: Option<Holding>) -> Self {
        self.holding = holding;
        self
    }
}

impl Drop for SegmentHold {
    fn drop(&mut self) {
        let mut gone = Vec::new();
        let mut held = self.table.held.lock();
        held.live.remove(&self.number);
        // Without a hold, nothing that is retired is kept.
        let oldest = held.live.first().copied().unwrap_or(u64::MAX);
        while let Some((_, number)) = held.retired.pop_front_if(|(next, _)| *next <= oldest) {
            gone.push(number);
        }
        drop(held);
        // Their files are closed and unmapped without the lock.
        gone.into_iter().for_each(|number| self.table.remove_at(number));
    }
}

impl SegmentTable {
    /// Number of segments that keep their files open for reading.
    const OPEN_FILES_MAX: usize = 16;

    pub(crate) fn new(pinned_images_max: usize) -> Self {
        Self {
            chunks: (0..(SegmentNumber::COUNT_MAX + PIECES_MAX) as usize / CHUNK)
                .map(|_| OnceLock::new())
                .collect(),
            pinned_images_max,
            pinned_images: Arc::new(AtomicUsize::new(0)),
            freed: Arc::default(),
            next_piece: AtomicU32::new(0),
            held: Mutex::new(Rank::SegmentHolds, Held::default()),
            open_files: Mutex::new(Rank::OpenSegments, VecDeque::new()),
        }
    }

    /// Has `tell` called after each image that the table and its readers let go of. It may be
    /// called under any lock but [`Rank::RoomLine`], by any thread. Only the first call counts.
    pub(crate) fn tell_of_free_images(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _is_first = self.freed.0.set(Box::new(tell)).is_ok();
    }

    /// The count of the values of a new image.
    pub(crate) fn pin_count(&self) -> PinCount {
        PinCount(AtomicUsize::new(0), Arc::clone(&self.freed))
    }

    /// The place in the table of the segment or the piece with this number.
    #[inline]
    fn entry(&self, number: u32) -> Option<&ArcSwapOption<SegmentBytes>> {
        self.chunks.get(number as usize / CHUNK)?.get()?.get(number as usize % CHUNK)
    }

    /// Puts (or replaces) the bytes of a segment. Replaced bytes live until their last reader is
    /// done.
    pub(crate) fn set(&self, segment: SegmentNumber, bytes: SegmentBytes) {
        self.set_at(segment.get(), self.noted(bytes));
    }

    /// Puts (or replaces) the bytes of a segment by those of a holder.
    pub(crate) fn set_held(&self, segment: SegmentNumber, holder: Arc<SegmentBytes>) {
        self.set_at(segment.get(), holder);
    }

    fn set_at(&self, number: u32, bytes: Arc<SegmentBytes>) {
        let Some(chunk) = self.chunks.get(number as usize / CHUNK) else { return };
        let chunk =
            chunk.get_or_init(|| (0..CHUNK).map(|_| ArcSwapOption::const_empty()).collect());
        if let Some(entry) = chunk.get(number as usize % CHUNK) {
            entry.store(Some(bytes));
        }
    }

    /// Forgets a segment; its bytes live until their last reader is done.
    pub(crate) fn remove(&self, segment: SegmentNumber) {
        self.remove_at(segment.get());
    }

    /// Forgets a segment, and returns what held its bytes; readers may have it too.
    pub(crate) fn take(&self, segment: SegmentNumber) -> Option<Arc<SegmentBytes>> {
        self.entry(segment.get())?.swap(None)
    }

    fn remove_at(&self, number: u32) {
        if let Some(entry) = self.entry(number) {
            entry.store(None);
        }
    }

    /// Replaces a segment's bytes, unless the segment is already forgotten.
    pub(crate) fn replace(&self, segment: SegmentNumber, bytes: SegmentBytes) {
        let Some(entry) = self.entry(segment.get()) else { return };
        let current = entry.load();
        if current.is_some() {
            entry.compare_and_swap(&current, Some(self.noted(bytes)));
        }
    }

    /// Notes a segment that is read from its file; only the most recent ones keep theirs open.
    fn noted(&self, bytes: SegmentBytes) -> Arc<SegmentBytes> {
        let bytes = Arc::new(bytes);
        if let SegmentBytes::File(_) = *bytes {
            let mut open = self.open_files.lock();
            open.push_back(Arc::downgrade(&bytes));
            if open.len() > Self::OPEN_FILES_MAX
                && let Some(oldest) = open.pop_front().and_then(|oldest| oldest.upgrade())
                && let SegmentBytes::File(file) = &*oldest
            {
                file.close();
            }
        }
        bytes
    }

    /// Forgets a segment to which no key refers any more, now or when the last view that may refer
    /// to it is dropped. Returns what happens to the segment's file.
    pub(crate) fn retire(&self, segment: SegmentNumber) -> Retired {
        self.retire_at(segment.get())
    }

    fn retire_at(&self, number: u32) -> Retired {
        let mut held = self.held.lock();
        if !held.live.is_empty() {
            let next = held.next;
            held.retired.push_back((next, number));
            return self.bytes_at(number).map_or(Retired::Held, |bytes| Self::held_open(&bytes));
        }
        // A thread that has loaded the entry without counting is counted when the entry is swapped
        // out. No thread can load it after that.
        match self.entry(number).and_then(|entry| entry.swap(None)).map(Arc::try_unwrap) {
            Some(Ok(SegmentBytes::Mapped(..) | SegmentBytes::File(_))) => Retired::Free,
            Some(Err(bytes)) => Self::held_open(&bytes),
            Some(Ok(_)) | None => Retired::Held,
        }
    }

    /// Opens the file for the remaining readers, which read it by its name.
    fn held_open(bytes: &SegmentBytes) -> Retired {
        let SegmentBytes::File(file) = bytes else { return Retired::Held };
        match file.keep_open() {
            Ok(()) => Retired::Held,
            Err(error) => {
                tell_under_locks(|| {
                    tracing::warn!(
                        %error,
                        "the file of a segment that is still read keeps its name"
                    );
                });
                Retired::Named
            }
        }
    }

    /// Keeps all segments for as long as the result lives.
    pub(crate) fn hold(self: &Arc<Self>) -> SegmentHold {
        let mut held = self.held.lock();
        let number = held.next;
        held.next += 1;
        held.live.insert(number);
        drop(held);
        SegmentHold { table: Arc::clone(self), number, holding: None }
    }

    /// Adds a piece of a snapshot, and returns the number for places in it. Returns `None` if there
    /// are too many.
    pub(crate) fn add_piece(&self, piece: &ChunkSlice) -> Option<PieceNumber> {
        for _ in 0..PIECES_MAX {
            let number = PieceNumber::nth(self.next_piece.fetch_add(1, Ordering::Relaxed));
            if self.entry(number.get()).is_none_or(|entry| entry.load().is_none()) {
                self.set_at(number.get(), self.noted(SegmentBytes::Snapshot(piece.clone())));
                return Some(number);
            }
        }
        None
    }

    /// Forgets a piece that no key refers to.
    pub(crate) fn remove_piece(&self, piece: PieceNumber) {
        self.remove_at(piece.get());
    }

    /// Retires a piece as [`SegmentTable::retire`] does a segment.
    pub(crate) fn retire_piece(&self, piece: PieceNumber) {
        self.retire_at(piece.get());
    }

    /// The bytes of a piece, held by a reference count.
    pub(crate) fn piece(&self, piece: PieceNumber) -> Option<Arc<SegmentBytes>> {
        self.bytes_at(piece.get())
    }

    /// The bytes of a segment, held by a reference count.
    pub(crate) fn get(&self, segment: SegmentNumber) -> Option<Arc<SegmentBytes>> {
        self.bytes_at(segment.get())
    }

    fn bytes_at(&self, number: u32) -> Option<Arc<SegmentBytes>> {
        self.entry(number)?.load_full()
    }

    /// Runs `read` over the bytes at `at`.
    #[inline]
    pub(crate) fn read<R>(
        &self,
        at: Location,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, NotRead> {
        let guard = self.entry(at.number()).ok_or(NotRead::Gone)?.load();
        guard.as_ref().ok_or(NotRead::Gone)?.read(at, read)
    }

    /// Holds the bytes at `at` without a copy. Returns `None` if they are not in memory, or if
    /// they are in an image and the budget of held images is used up. The caller then copies
    /// ([`SegmentTable::read`]).
    pub(crate) fn pin(&self, at: Location) -> Option<PinnedBytes> {
        let bytes = self.bytes_at(at.number())?;
        bytes.value(at)?;
        let mut pins_image = false;
        if let SegmentBytes::Image(_, pins) = &*bytes {
            if !self.pin_image(pins) {
                return None;
            }
            pins_image = true;
        }
        let budget = pins_image.then(|| Arc::clone(&self.pinned_images));
        Some(PinnedBytes { bytes, at, budget })
    }

    /// Takes a unit of the budget for the first value of an image; later values share it.
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
            // Another thread pinned the image first, and has taken the unit.
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

/// A reader of many places of one table. It remembers the bytes of recent segments, so that a place
/// costs no look-up.
///
/// It remembers mapped segments and no images, because images are few, and the log waits for them.
#[derive(Debug)]
pub(crate) struct TableReader<'t> {
    table: &'t SegmentTable,
    /// The remembered segments, by the last bits of their numbers.
    known: [Option<(u32, Arc<SegmentBytes>)>; TableReader::KNOWN],
}

impl<'t> TableReader<'t> {
    const KNOWN: usize = 64;

    pub(crate) fn new(table: &'t SegmentTable) -> Self {
        Self { table, known: [const { None }; Self::KNOWN] }
    }

    /// Runs `read` over the bytes at `at`.
    #[inline]
    pub(crate) fn read<R>(
        &mut self,
        at: Location,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, NotRead> {
        self.bytes(at.number(), |bytes| bytes.read(at, read)).unwrap_or(Err(NotRead::Gone))
    }

    /// Runs `read` over the bytes at `at` if they are in memory.
    #[inline]
    pub(crate) fn in_place<R>(&mut self, at: Location, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.bytes(at.number(), |bytes| bytes.value(at).map(read))?
    }

    #[inline]
    fn bytes<R>(&mut self, number: u32, read: impl FnOnce(&SegmentBytes) -> R) -> Option<R> {
        let known = &mut self.known[number as usize % Self::KNOWN];
        if let Some((of, bytes)) = known
            && *of == number
        {
            return Some(read(bytes));
        }
        let bytes = self.table.bytes_at(number)?;
        let result = read(&bytes);
        if !matches!(*bytes, SegmentBytes::Image(..)) {
            *known = Some((number, bytes));
        }
        Some(result)
    }
}

/// A value's bytes, held in their segment.
#[derive(Debug)]
pub(crate) struct PinnedBytes {
    bytes: Arc<SegmentBytes>,
    at: Location,
    budget: Option<Arc<AtomicUsize>>,
}

impl PinnedBytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.value(self.at).unwrap_or_default()
    }
}

impl Clone for PinnedBytes {
    fn clone(&self) -> Self {
        if let SegmentBytes::Image(_, pins) = &*self.bytes {
            pins.0.fetch_add(1, Ordering::AcqRel);
        }
        Self { bytes: Arc::clone(&self.bytes), at: self.at, budget: self.budget.clone() }
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

    fn table(last: u32) -> Arc<SegmentTable> {
        let (table, disk) = (SegmentTable::new(1), SimDisk::new(1).open(true).unwrap());
        for segment in SegmentNumber::new(1).until(SegmentNumber::new(last + 1)) {
            let bytes = Mapping::Copied(vec![1; 8].into());
            table.set(segment, SegmentBytes::Mapped(bytes, Arc::clone(&disk)));
        }
        Arc::new(table)
    }

    #[test]
    fn what_is_retired_goes_with_the_last_view_that_was_there_before_though_later_ones_live() {
        let table = table(4);
        let is_there = |number: &u32| table.get(SegmentNumber::new(*number)).is_some();
        let there = || (1..=4).filter(is_there).collect::<Vec<_>>();
        let retire = |number| table.retire(SegmentNumber::new(number));
        let one = table.hold();
        retire(1);
        let two = table.hold();
        assert_eq!(retire(2), Retired::Held);
        let three = table.hold();
        assert_eq!(there(), [1, 2, 3, 4]);
        drop(two);
        assert_eq!(there(), [1, 2, 3, 4], "the first may refer to both");
        drop(one);
        assert_eq!(there(), [3, 4], "the third never did");
        assert_eq!(retire(3), Retired::Held, "the third may");
        drop(three);
        assert_eq!(there(), [4]);
        assert_eq!(retire(4), Retired::Free, "no reader holds the file");
    }

    #[test]
    fn views_that_overlap_for_ever_keep_no_more_than_what_was_retired_in_their_time() {
        let table = table(100);
        let mut view = table.hold();
        for segment in SegmentNumber::new(1).until(SegmentNumber::new(101)) {
            table.retire(segment);
            let next = table.hold();
            drop(std::mem::replace(&mut view, next));
            assert!(table.get(segment).is_none(), "{segment}");
        }
        assert!(table.held.lock().retired.is_empty());
    }
}
