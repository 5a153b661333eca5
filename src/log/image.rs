//! A segment in memory: the buffer into which frames are encoded, and from which they are applied
//! and written to disk.
//!
//! One [`ImageWriter`] appends, and any number of threads read. The soundness in short: bytes below
//! `published` are never written again, except for the 64-byte *closing* half of each frame header.
//! The holder of its [`Closing`] token writes that half once, and no thread may read it before it
//! is filled. Readers reach bytes in two ways. An [`EntryOffset`] or a [`Place`], which only this
//! module's parent makes, covers bytes of entries and never a header. A range below `filled` covers
//! whole frames, because every closing half below it has been written.

#![allow(unsafe_code, reason = "shared memory with one writer; see docs/unsafe.md")]

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::MmapMut;

use crate::codec::Place;

/// Length of each half of a frame header; frames start at multiples of it.
pub(crate) const HALF_HEADER_BYTES: usize = 64;

/// A segment's bytes while they are in memory, page-aligned and as long as the segment.
pub(crate) struct Image {
    base: NonNull<u8>,
    capacity: usize,
    segment: u32,
    /// Every byte below this offset was written before the offset was stored (Release). Except for
    /// closing halves, none is written again until the image is begun anew, which takes a unique
    /// reference.
    published: AtomicUsize,
    /// Every closing half below this offset was written before the offset was stored (Release).
    filled: AtomicUsize,
    /// Owns the memory; nothing else uses it, so no reference to the whole of it ever exists.
    _memory: MmapMut,
}

// SAFETY: all shared state except the bytes is atomic. Bytes are written in two ways only. The one
// `ImageWriter` writes above `published`. The one `Closing` of a half header writes that half,
// which no reader may reach before `filled` covers it. Bytes are read only below `published` or
// `filled`, each loaded with Acquire after the writer's Release.
unsafe impl Send for Image {}
// SAFETY: as for `Send`.
unsafe impl Sync for Image {}

impl Image {
    /// Makes an image of `capacity` bytes, which the kernel provides as they are first touched.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        let mut memory = MmapMut::map_anon(capacity)?;
        let base = NonNull::new(memory.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            base,
            capacity,
            segment: 0,
            published: AtomicUsize::new(0),
            filled: AtomicUsize::new(0),
            _memory: memory,
        })
    }

    /// Asks the kernel for all pages, so that the appender meets no page fault. Best effort.
    pub(crate) fn populate(&self) {
        #[cfg(target_os = "linux")]
        if let Err(error) = self._memory.advise(memmap2::Advice::PopulateWrite) {
            tracing::debug!(%error, "an image could not be populated ahead");
        }
    }

    /// Starts segment number `segment` in this image, with `content` as its first bytes.
    ///
    /// Returns `None` if the image has another reference: its bytes may be in use.
    pub(crate) fn begin(mut image: Arc<Self>, segment: u32, content: &[u8]) -> Option<ImageWriter> {
        let unique = Arc::get_mut(&mut image)?;
        if content.len() > unique.capacity {
            return None;
        }
        // SAFETY: the destination is `content.len() <= capacity` bytes of our mapping. No other
        // thread refers to it (`get_mut` succeeded), and `content`, a live slice, cannot overlap
        // it.
        unsafe {
            std::ptr::copy_nonoverlapping(content.as_ptr(), unique.base.as_ptr(), content.len());
        }
        unique.segment = segment;
        *unique.published.get_mut() = content.len();
        *unique.filled.get_mut() = content.len();
        let end = content.len();
        Some(ImageWriter { image, end })
    }

    /// The number of the segment in the image.
    pub(crate) fn segment(&self) -> u32 {
        self.segment
    }

    /// Length of the image in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The bytes from the entry at `from` up to the end of an entry at `end`, both of one frame.
    ///
    /// Returns `None` if they are not published.
    #[inline]
    pub(crate) fn entries(&self, from: EntryOffset, end: EntryOffset) -> Option<&[u8]> {
        self.published_bytes(from.0 as usize, (end.0 as usize).checked_sub(from.0 as usize)?)
    }

    /// A value's bytes; `None` if the place belongs to another segment.
    #[inline]
    pub(crate) fn value(&self, place: Place) -> Option<&[u8]> {
        if place.segment != self.segment {
            return None;
        }
        self.published_bytes(place.offset as usize, place.len as usize)
    }

    /// The opening half of the header of the frame at `offset`.
    #[inline]
    pub(crate) fn opening(&self, frame: FrameOffset) -> Option<&[u8]> {
        self.published_bytes(frame.0 as usize, HALF_HEADER_BYTES)
    }

    /// Returns a published range. Callers have checked that it holds no closing half: see the types
    /// that they take.
    #[inline]
    fn published_bytes(&self, start: usize, len: usize) -> Option<&[u8]> {
        if start.checked_add(len)? > self.published.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: `start + len <= published <= capacity`, so both pointers are inside our mapping.
        let start = unsafe { self.base.as_ptr().add(start) };
        // SAFETY: published bytes are initialized. The range holds no closing half, so they are not
        // written while `self` is borrowed (`begin` needs a unique reference).
        Some(unsafe { slice::from_raw_parts(start, len) })
    }

    /// Whole frames with their headers; `None` unless every header in `start..end` is complete.
    pub(crate) fn frames(&self, start: usize, end: usize) -> Option<&[u8]> {
        if start > end || end > self.filled.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: `start <= end <= filled <= capacity`, so the pointer is inside our mapping.
        let first = unsafe { self.base.as_ptr().add(start) };
        // SAFETY: bytes below `filled` are initialized, and neither entries nor headers are written
        // again while `self` is borrowed.
        Some(unsafe { slice::from_raw_parts(first, end - start) })
    }

    /// Returns the same bytes as [`Image::frames`], held by a reference count.
    pub(crate) fn slice(image: &Arc<Self>, start: usize, end: usize) -> Option<ImageSlice> {
        image.frames(start, end)?;
        Some(ImageSlice { image: Arc::clone(image), start, end })
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("segment", &self.segment)
            .field("published", &self.published)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

const _: () = assert!(EntryOffset::FIRST.0 as usize == 2 * HALF_HEADER_BYTES);

/// The start of an entry in its segment (or the end of a range's last entry). Only the log makes
/// such offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryOffset(u32);

impl EntryOffset {
    /// The offset of the first entry of a segment: its first frame begins at 0, with a header.
    pub(crate) const FIRST: Self = Self(128);

    /// Makes an offset, which must be the start or end of an entry's encoding inside one frame.
    pub(in crate::log) fn mint(offset: u32) -> Self {
        Self(offset)
    }

    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

/// The start of a frame in its segment. Only [`ImageWriter::open_frame`] makes such offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameOffset(u32);

impl FrameOffset {
    /// The offset of the first frame of a segment.
    pub(crate) const FIRST: Self = Self(0);

    /// Makes an offset, which must be the start of a frame.
    pub(in crate::log) fn mint(offset: u32) -> Self {
        Self(offset)
    }

    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

/// The one appender of an image.
#[derive(Debug)]
pub(crate) struct ImageWriter {
    image: Arc<Image>,
    /// Offset of the next byte; never below `published`, never above `capacity`.
    end: usize,
}

impl ImageWriter {
    /// The image, for readers.
    pub(crate) fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Offset of the next byte.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Bytes left, if a frame comes next.
    pub(crate) fn room(&self) -> usize {
        self.image.capacity.saturating_sub(self.end.next_multiple_of(HALF_HEADER_BYTES))
    }

    /// Starts a frame at the next multiple of 64 with the opening half of its header; the padding
    /// is zeroed. Returns `None` if two halves do not fit.
    pub(crate) fn open_frame(
        &mut self,
        opening: &[u8; HALF_HEADER_BYTES],
    ) -> Option<(FrameOffset, Closing)> {
        let start = self.end.next_multiple_of(HALF_HEADER_BYTES);
        if start + 2 * HALF_HEADER_BYTES > self.image.capacity {
            return None;
        }
        let offset = u32::try_from(start).ok()?;
        let padding = start - self.end;
        self.reserve(padding)?.fill(0);
        self.reserve(HALF_HEADER_BYTES)?.copy_from_slice(opening);
        let closing = Closing { image: Arc::clone(&self.image), start: self.end };
        self.end += HALF_HEADER_BYTES;
        Some((FrameOffset(offset), closing))
    }

    /// Reserves the next `len` bytes, which the appender writes before it publishes; `None` if they
    /// do not fit.
    #[inline]
    pub(crate) fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        let end = self.end.checked_add(len)?;
        if end > self.image.capacity {
            return None;
        }
        // SAFETY: `self.end <= end <= capacity`, so the pointer is inside our mapping.
        let start = unsafe { self.image.base.as_ptr().add(self.end) };
        self.end = end;
        // SAFETY: these bytes are at or above `published`, so no reader reaches them. The only
        // writer hands them out once, because `end` has moved past them. The result borrows the
        // writer until the caller is done, and `publish` takes `&mut self` too. Mapped memory is
        // initialized (zeros).
        Some(unsafe { slice::from_raw_parts_mut(start, len) })
    }

    /// Makes everything reserved so far readable.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.image.published.store(self.end, Ordering::Release);
    }
}

/// A token with the right to write the closing half of one frame header, once.
#[derive(Debug)]
pub(crate) struct Closing {
    image: Arc<Image>,
    start: usize,
}

impl Closing {
    /// The image of the frame.
    pub(crate) fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Completes the header, and with it everything below `frame_end`. Frames are completed in
    /// their order.
    pub(crate) fn fill(self, closing: &[u8; HALF_HEADER_BYTES], frame_end: usize) {
        debug_assert!(self.image.filled.load(Ordering::Relaxed) <= self.start);
        debug_assert!(frame_end <= self.image.published.load(Ordering::Relaxed));
        // SAFETY: `open_frame` checked that the half is inside the mapping.
        let start = unsafe { self.image.base.as_ptr().add(self.start) };
        // SAFETY: the half is inside our mapping, and `closing` is outside of it. No thread reads
        // the half: entry offsets and places never cover a header, and `filled` is below it until
        // the next line. No other thread writes it: `self` is the only token for it, and is
        // consumed.
        unsafe { std::ptr::copy_nonoverlapping(closing.as_ptr(), start, HALF_HEADER_BYTES) };
        self.image.filled.store(frame_end, Ordering::Release);
    }
}

/// Whole frames of an image, held until dropped.
#[derive(Debug)]
pub struct ImageSlice {
    image: Arc<Image>,
    start: usize,
    end: usize,
}

impl ImageSlice {
    /// Offset of its start in the image; for a segment's image, also its offset in the file.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Offset of its end in the image.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Other bytes of the same image, up to the end of this slice at most, with the same reference
    /// count.
    pub(crate) fn within(&self, start: usize, end: usize) -> Option<Self> {
        if end > self.end {
            return None;
        }
        Image::slice(&self.image, start, end)
    }
}

impl AsRef<[u8]> for ImageSlice {
    fn as_ref(&self) -> &[u8] {
        self.image.frames(self.start, self.end).unwrap_or_default()
    }
}
