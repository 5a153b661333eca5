//! A segment in memory: the buffer into which frames are encoded, and from which they are applied
//! and written to disk.
//!
//! One [`ImageWriter`] appends, and any number of threads read. The soundness in short: bytes below
//! `published` are never written again, except for the 64-byte *closing* half of each frame header.
//! The holder of its [`Closing`] token writes that half once, and no thread may read it before it
//! is filled. Readers reach bytes in two ways. An [`Extent`] or a [`Place`](crate::codec::Place) is
//! a proof that its bytes hold no closing half that is still to be written. A range below `filled`
//! covers whole frames, because every closing half below it has been written.

#![allow(unsafe_code, reason = "shared memory with one writer; see docs/unsafe.md")]

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::MmapMut;

use crate::codec::Extent;
use crate::codec::place::Location;
use crate::error::Poison;
use crate::numbers::SegmentNumber;
use crate::poison::{CallerPoisons, invariant};

/// Length of each half of a frame header; frames start at multiples of it.
pub(crate) const HALF_HEADER_BYTES: usize = 64;

/// A segment's bytes while they are in memory, page-aligned and as long as the segment.
pub(crate) struct Image {
    base: NonNull<u8>,
    capacity: usize,
    segment: SegmentNumber,
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
    ///
    /// # Errors
    ///
    /// Returns [`io::ErrorKind::InvalidInput`] for 4 GiB or more, because offsets in a segment have
    /// 32 bits, and otherwise the system's error.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        if u32::try_from(capacity).is_err() {
            let message = format!("an image of {capacity} bytes: a segment is smaller than 4 GiB");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let mut memory = MmapMut::map_anon(capacity)?;
        let base = NonNull::new(memory.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            base,
            capacity,
            segment: SegmentNumber::LOWEST,
            published: AtomicUsize::new(0),
            filled: AtomicUsize::new(0),
            _memory: memory,
        })
    }

    /// Asks the kernel for all pages, so that the appender meets no page fault. Best effort.
    pub(crate) fn populate(&self) {
        #[cfg(target_os = "linux")]
        if let Err(error) = self._memory.advise(memmap2::Advice::PopulateWrite) {
            crate::sync::tell(|| tracing::debug!(%error, "an image could not be populated ahead"));
        }
    }

    /// Starts segment number `segment` in this image, with `content` as its first bytes.
    ///
    /// Returns `None` if the image has another reference: its bytes may be in use. Also returns
    /// `None` if the content does not fit, or if no segment can have the number. Higher numbers
    /// belong to pieces of snapshots, whose places need no proof.
    pub(crate) fn begin(
        mut image: Arc<Self>,
        segment: SegmentNumber,
        content: &[u8],
    ) -> Option<ImageWriter> {
        let unique = Arc::get_mut(&mut image)?;
        if content.len() > unique.capacity || !segment.is_possible() {
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
        Some(ImageWriter { image, frame: end, body: end, end })
    }

    /// The number of the segment in the image.
    pub(crate) fn segment(&self) -> SegmentNumber {
        self.segment
    }

    /// Length of the image in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the bytes of entries, or `None` if they are of another segment or not published.
    #[inline]
    pub(crate) fn entries(&self, extent: Extent) -> Option<&[u8]> {
        if extent.segment() != self.segment {
            return None;
        }
        self.published_bytes(extent.start() as usize, extent.bytes())
    }

    /// A value's bytes; `None` if the place belongs to another segment.
    #[inline]
    pub(crate) fn value(&self, at: Location) -> Option<&[u8]> {
        if at.number() != self.segment.get() {
            return None;
        }
        self.published_bytes(at.offset() as usize, at.len())
    }

    /// The opening half of the header of the frame that the entries are in.
    #[inline]
    pub(crate) fn opening(&self, extent: Extent) -> Option<&[u8]> {
        if extent.segment() != self.segment {
            return None;
        }
        self.published_bytes(extent.frame() as usize, HALF_HEADER_BYTES)
    }

    /// Returns a published range. It comes from an [`Extent`] or a place of this segment, so it
    /// holds no closing half that is still to be written.
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

/// The one appender of an image.
#[derive(Debug)]
pub(crate) struct ImageWriter {
    image: Arc<Image>,
    /// Offset of the frame that was opened last. Before the first, the end of the image's content.
    frame: usize,
    /// Offset of that frame's body. Before the first, the end of the image's content.
    body: usize,
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
        // A full image may end less than a header before its capacity.
        self.image.capacity.saturating_sub(self.end.next_multiple_of(HALF_HEADER_BYTES))
    }

    /// Starts a frame at the next multiple of 64 with the opening half of its header; the padding
    /// is zeroed. Returns the frame's offset, or `None` if two halves do not fit.
    pub(crate) fn open_frame(
        &mut self,
        opening: &[u8; HALF_HEADER_BYTES],
    ) -> Option<(u32, Closing)> {
        let start = self.end.next_multiple_of(HALF_HEADER_BYTES);
        if start + 2 * HALF_HEADER_BYTES > self.image.capacity {
            return None;
        }
        let padding = start - self.end;
        self.reserve(padding)?.fill(0);
        self.reserve(HALF_HEADER_BYTES)?.copy_from_slice(opening);
        let closing = Closing { image: Arc::clone(&self.image), start: self.end };
        self.end += HALF_HEADER_BYTES;
        (self.frame, self.body) = (start, self.end);
        Some((offset_of(start), closing))
    }

    /// Reserves the next `len` bytes of the frame that was opened last, for an entry. Returns them
    /// and their extent, or `None` if they do not fit.
    #[inline]
    pub(crate) fn reserve_entry(&mut self, len: usize) -> Option<(Extent, &mut [u8])> {
        let end = self.end.checked_add(len).filter(|end| *end <= self.image.capacity)?;
        let extent = self.extent(self.end, end);
        Some((extent, self.reserve(len)?))
    }

    /// The extent of all bytes that were reserved in the frame that was opened last.
    pub(crate) fn body(&self) -> Extent {
        self.extent(self.body, self.end)
    }

    /// The extent from `start` to `end`, which is not below `self.body`, and reserved or about to
    /// be.
    #[inline]
    fn extent(&self, start: usize, end: usize) -> Extent {
        let (frame, start, end) = (offset_of(self.frame), offset_of(start), offset_of(end));
        // SAFETY: `open_frame` put the frame at `frame`, and what is reserved after it is its body.
        // The closing half lies below `body`, and that of the next frame above all that is reserved
        // before that frame is opened. Before the first frame, `frame` is where the content ends: a
        // closing half lies at least 64 bytes after it, and none in `start..end`.
        unsafe { Extent::new(self.image.segment, frame, start, end) }
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

/// Narrows an offset in an image.
#[inline]
#[allow(
    clippy::cast_possible_truncation,
    reason = "an image is smaller than 4 GiB: `Image::new` refuses all others"
)]
fn offset_of(at: usize) -> u32 {
    at as u32
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
    pub(crate) fn fill(
        self,
        closing: &[u8; HALF_HEADER_BYTES],
        frame_end: usize,
    ) -> Result<(), Poison> {
        let filled = self.image.filled.load(Ordering::Relaxed);
        let published = self.image.published.load(Ordering::Acquire);
        invariant!(
            CallerPoisons,
            filled <= self.start && self.start < frame_end && frame_end <= published,
            "filled <= published, and only rises",
            "{filled}, {published}, and a frame from before {} to {frame_end}",
            self.start
        );
        // SAFETY: `open_frame` checked that the half is inside the mapping.
        let start = unsafe { self.image.base.as_ptr().add(self.start) };
        // SAFETY: the half is inside our mapping, and `closing` is outside of it. No thread reads
        // the half. Extents and places never cover a half that is still to be written, and `filled`
        // is below it until the next line. No other thread writes it: `self` is the only token for
        // it, and is consumed.
        unsafe { std::ptr::copy_nonoverlapping(closing.as_ptr(), start, HALF_HEADER_BYTES) };
        self.image.filled.store(frame_end, Ordering::Release);
        Ok(())
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
    #[cfg(any(test, all(target_os = "linux", feature = "uring")))]
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Offset of its end in the image.
    #[cfg(any(test, all(target_os = "linux", feature = "uring")))]
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Other bytes of the same image, up to the end of this slice at most, with the same reference
    /// count.
    #[cfg(any(test, all(target_os = "linux", feature = "uring")))]
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const OPENING: [u8; HALF_HEADER_BYTES] = [1; HALF_HEADER_BYTES];
    const CLOSING: [u8; HALF_HEADER_BYTES] = [2; HALF_HEADER_BYTES];

    fn writer() -> ImageWriter {
        Image::begin(Arc::new(Image::new(1 << 16).unwrap()), SegmentNumber::new(7), b"").unwrap()
    }

    #[test]
    fn a_header_is_completed_in_order_and_not_before_its_frame_is_published() {
        let mut writer = writer();
        let (_, first) = writer.open_frame(&OPENING).unwrap();
        let (_, bytes) = writer.reserve_entry(100).unwrap();
        bytes.fill(3);
        let first_end = writer.end();
        assert!(matches!(first.fill(&CLOSING, first_end), Err(Poison::Invariant { .. })));
        assert_eq!(writer.image().frames(0, first_end), None, "nothing of it was published");

        let (_, second) = writer.open_frame(&OPENING).unwrap();
        let (_, third) = writer.open_frame(&OPENING).unwrap();
        writer.publish();
        let end = writer.end();
        third.fill(&CLOSING, end).unwrap();
        assert!(matches!(second.fill(&CLOSING, end), Err(Poison::Invariant { .. })));
    }

    #[test]
    fn an_extent_reads_what_is_published_of_its_own_segment_and_nothing_else() {
        let mut writer = writer();
        let (at, _closing) = writer.open_frame(&OPENING).unwrap();
        let (extent, bytes) = writer.reserve_entry(5).unwrap();
        bytes.copy_from_slice(b"entry");
        assert_eq!(
            (extent.segment(), extent.frame(), extent.start(), extent.end()),
            (SegmentNumber::new(7), at, 128, 133)
        );
        assert_eq!(writer.image().entries(extent), None, "not published");
        writer.publish();
        assert_eq!(writer.image().entries(extent), Some(&b"entry"[..]));
        assert_eq!(writer.image().opening(extent), Some(&OPENING[..]));
        assert_eq!(writer.body(), extent);
        let other =
            Image::begin(Arc::new(Image::new(1 << 16).unwrap()), SegmentNumber::new(8), &[0; 200])
                .unwrap();
        assert_eq!(other.image().entries(extent), None, "another segment");
        assert_eq!(other.image().opening(extent), None, "another segment");
    }

    #[test]
    fn no_image_takes_the_number_of_a_piece_or_is_too_long_for_its_offsets() {
        let image = || Arc::new(Image::new(4096).unwrap());
        assert!(
            Image::begin(image(), SegmentNumber::new(SegmentNumber::COUNT_MAX - 1), b"").is_some()
        );
        assert!(Image::begin(image(), SegmentNumber::new(SegmentNumber::COUNT_MAX), b"").is_none());
        let error = Image::new(1 << 32).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
