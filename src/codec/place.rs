//! Where bytes of the log lie: the proof that a reader of a segment's memory needs.
//!
//! The log writer completes the header of a frame while other threads read the bytes around it. So
//! a reader may take only bytes that no unfinished header is in. An [`Extent`] or a [`Place`] is
//! the proof of that. The proof begins with [`Extent::new`], which is `unsafe`; all else here takes
//! smaller or joined parts of what was proved, and is safe.

#![allow(unsafe_code, reason = "the constructor of a proof is unsafe; see docs/unsafe.md")]

use super::ValueRef;
use crate::numbers::SegmentNumber;

/// The numbers of segments are below it, those of pieces are not.
const SEGMENTS_MAX: u32 = SegmentNumber::COUNT_MAX;
/// The most pieces of snapshots there can be at a time.
pub(crate) const PIECES_MAX: u32 = 4 << 20;

/// Consecutive entries of one frame: in which segment, where the frame starts, where the entries
/// start and end.
///
/// Invariant: while the segment is in memory under this number, two parts are never written again.
/// They are the opening half of the frame's header, and the bytes from `start` to `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    segment: SegmentNumber,
    frame: u32,
    start: u32,
    end: u32,
}

impl Extent {
    /// No entries, in no segment.
    pub(crate) const NOWHERE: Self =
        Self { segment: SegmentNumber::NOWHERE, frame: 0, start: 0, end: 0 };

    /// The entries from `start` to `end` of the frame at `frame`.
    ///
    /// # Safety
    ///
    /// If an image has the number `segment` now or later, a frame starts in it at `frame`. The body
    /// of that frame contains `start..end`. Or both lie below what the image was begun with. An
    /// image whose number was taken by another one counts as another segment: an extent must not be
    /// kept for so long.
    pub(crate) const unsafe fn new(
        segment: SegmentNumber,
        frame: u32,
        start: u32,
        end: u32,
    ) -> Self {
        Self { segment, frame, start, end }
    }

    /// The number of the segment.
    #[inline]
    pub(crate) const fn segment(self) -> SegmentNumber {
        self.segment
    }

    /// Offset of the frame, whose header has the term and leader of all these entries.
    #[inline]
    pub(crate) const fn frame(self) -> u32 {
        self.frame
    }

    /// Offset of the first entry.
    #[inline]
    pub(crate) const fn start(self) -> u32 {
        self.start
    }

    /// Offset of the end of the last entry.
    #[inline]
    pub(crate) const fn end(self) -> u32 {
        self.end
    }

    /// Length of the entries in bytes.
    #[inline]
    pub(crate) const fn bytes(self) -> usize {
        // The maker has `start <= end`; another extent would have no bytes to be read.
        self.end.saturating_sub(self.start) as usize
    }

    /// The part before `offset` and the part from it on; `None` if `offset` is outside.
    #[inline]
    pub(crate) fn split_at(self, offset: u32) -> Option<(Self, Self)> {
        let is_inside = self.start <= offset && offset <= self.end;
        is_inside.then_some((Self { end: offset, ..self }, Self { start: offset, ..self }))
    }

    /// Whether `next` starts where this ends, in the same frame.
    #[inline]
    pub(crate) fn is_before(self, next: Self) -> bool {
        self.segment == next.segment && self.frame == next.frame && self.end == next.start
    }

    /// Both, of which `next` follows this one; `None` if it does not.
    #[inline]
    pub(crate) fn joined(self, next: Self) -> Option<Self> {
        self.is_before(next).then_some(Self { end: next.end, ..self })
    }

    /// The place of the last `bytes` bytes before `offset`; [`Place::NOWHERE`] if the extent has
    /// not so many there.
    #[inline]
    pub(crate) fn place_before(self, offset: u32, bytes: usize) -> Place {
        let Some((before, _)) = self.split_at(offset) else { return Place::NOWHERE };
        match u32::try_from(bytes) {
            Ok(len) if bytes <= before.bytes() => {
                Place { segment: self.segment, offset: offset.wrapping_sub(len), len }
            }
            _ => Place::NOWHERE,
        }
    }

    /// The bytes that were read from there; `None` if there are more of them than the extent has.
    #[inline]
    pub(crate) fn over(self, bytes: &[u8]) -> Option<Encoded<'_>> {
        let Self { segment, start: offset, .. } = self;
        (bytes.len() <= self.bytes()).then_some(Encoded { bytes, segment, offset })
    }
}

/// Encoded entries, or a part of one, and where they lie.
///
/// Invariant: the bytes are in no segment, or lie within an `Extent`.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    bytes: &'a [u8],
    segment: SegmentNumber,
    offset: u32,
}

impl<'a> Encoded<'a> {
    /// Bytes that lie in no segment. What is decoded from them has places that nothing is read
    /// from.
    #[inline]
    pub const fn elsewhere(bytes: &'a [u8]) -> Self {
        Self { bytes, segment: SegmentNumber::NOWHERE, offset: 0 }
    }

    /// The bytes.
    #[inline]
    pub(crate) const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Number of bytes.
    #[inline]
    pub const fn len(self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Offset of the bytes in the segment; counted from 0 for bytes outside of a segment.
    #[inline]
    pub(crate) const fn offset(self) -> u32 {
        self.offset
    }

    /// Returns the bytes from an offset of the segment on; `None` if it is outside.
    #[inline]
    pub(crate) fn from(self, offset: u32) -> Option<Self> {
        self.skip(offset.checked_sub(self.offset)? as usize)
    }

    /// Returns the bytes after the first `bytes`; `None` if there are fewer.
    #[inline]
    pub fn skip(self, bytes: usize) -> Option<Self> {
        self.split_at(bytes).map(|(_, rest)| rest)
    }

    /// Only the first `bytes`; `None` if there are not so many.
    #[inline]
    pub fn first(self, bytes: usize) -> Option<Self> {
        self.split_at(bytes).map(|(first, _)| first)
    }

    /// The first `bytes`, and the rest; `None` if there are not so many.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "an extent ends below 4 GiB, and so do its parts; elsewhere the offset leads to nothing"
    )]
    pub(crate) fn split_at(self, bytes: usize) -> Option<(Self, Self)> {
        let (first, rest) = self.bytes.split_at_checked(bytes)?;
        let offset = self.offset.wrapping_add(bytes as u32);
        Some((Self { bytes: first, ..self }, Self { bytes: rest, offset, ..self }))
    }

    /// All of it as a value.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "an extent is below 4 GiB; elsewhere the length leads to nothing"
    )]
    pub(crate) const fn value(self) -> ValueRef<'a> {
        let Self { bytes, segment, offset } = self;
        ValueRef { bytes, place: Place { segment, offset, len: bytes.len() as u32 } }
    }
}

/// Place of a value's bytes in the log: segment, offset and length.
///
/// Invariant: they are in no segment, or lie within an [`Extent`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    segment: SegmentNumber,
    offset: u32,
    len: u32,
}

impl Place {
    /// Place of a value that is not in the log. It reads as gone.
    pub(crate) const NOWHERE: Self = Self { segment: SegmentNumber::NOWHERE, offset: 0, len: 0 };

    /// The number of the segment.
    #[inline]
    pub(crate) const fn segment(self) -> SegmentNumber {
        self.segment
    }
}

/// The number of a piece of a snapshot in the table of segments; never that of a segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PieceNumber(u32);

impl PieceNumber {
    /// The piece with this count of pieces before it, round after round.
    pub(crate) const fn nth(count: u32) -> Self {
        Self(SEGMENTS_MAX + count % PIECES_MAX)
    }

    /// The number, which comes after those of all segments.
    #[inline]
    pub(crate) const fn get(self) -> u32 {
        self.0
    }
}

/// Place of a value's bytes in a piece of a snapshot. Nothing writes to a piece, so making a place
/// needs no proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PiecePlace {
    pub(crate) piece: PieceNumber,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// Place of a value's bytes: a [`Place`] of the log or a [`PiecePlace`], for the table that has
/// both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Location {
    number: u32,
    offset: u32,
    len: u32,
}

impl Location {
    /// The number of the segment or of the piece.
    #[inline]
    pub(crate) const fn number(self) -> u32 {
        self.number
    }

    /// Offset of the value in its segment or piece.
    #[inline]
    pub(crate) const fn offset(self) -> u32 {
        self.offset
    }

    /// Length of the value in bytes.
    #[inline]
    pub(crate) const fn len(self) -> usize {
        self.len as usize
    }
}

impl From<Place> for Location {
    #[inline]
    fn from(Place { segment, offset, len }: Place) -> Self {
        Self { number: segment.get(), offset, len }
    }
}

impl From<PiecePlace> for Location {
    #[inline]
    fn from(PiecePlace { piece, offset, len }: PiecePlace) -> Self {
        Self { number: piece.0, offset, len }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn extent() -> Extent {
        // SAFETY: no image has this number in this test.
        unsafe { Extent::new(SegmentNumber::new(7), 64, 192, 292) }
    }

    #[test]
    fn parts_of_an_extent_lie_inside_of_it_and_join_only_where_they_touch() {
        let all = extent();
        assert_eq!(all.split_at(191), None);
        assert_eq!(all.split_at(293), None);
        let (first, rest) = all.split_at(200).unwrap();
        assert_eq!((first.start(), first.end(), rest.start(), rest.end()), (192, 200, 200, 292));
        assert_eq!((first.frame(), rest.segment().get()), (64, 7));
        assert_eq!(first.joined(rest), Some(all));
        assert_eq!(rest.joined(first), None);
        let (_, later) = rest.split_at(201).unwrap();
        assert_eq!(first.joined(later), None, "a byte is between them");
        // SAFETY: as above.
        let other_frame = unsafe { Extent::new(SegmentNumber::new(7), 0, 200, 292) };
        assert_eq!(first.joined(other_frame), None);
    }

    #[test]
    fn a_place_made_from_an_extent_never_reaches_beyond_it() {
        let bytes = [1; 101];
        assert!(extent().over(&bytes).is_none(), "more bytes than the extent has");
        let encoded = extent().over(&bytes[..100]).unwrap();
        assert!(encoded.from(191).is_none() && encoded.from(293).is_none());
        assert!(encoded.skip(101).is_none() && encoded.first(101).is_none());
        let place = encoded.from(200).unwrap().skip(2).unwrap().first(5).unwrap().value().place;
        assert_eq!(Location::from(place), Location { number: 7, offset: 202, len: 5 });
    }

    #[test]
    fn a_piece_never_has_the_number_of_a_segment_and_neither_has_what_is_nowhere() {
        for count in [0, 1, PIECES_MAX - 1, PIECES_MAX, u32::MAX] {
            let piece = PieceNumber::nth(count);
            let location = Location::from(PiecePlace { piece, offset: 0, len: 0 });
            assert!((SEGMENTS_MAX..SEGMENTS_MAX + PIECES_MAX).contains(&location.number()));
        }
        let place = Encoded::elsewhere(b"1").value().place;
        assert_eq!(place.segment(), Place::NOWHERE.segment());
        assert!(place.segment().get() >= SEGMENTS_MAX + PIECES_MAX);
    }
}
