//! The bytes of a frame header, and the names of the files. This module does no I/O;
//! `docs/format.md` has the same as tables.
//!
//! A header is two halves of 64 bytes. The appender writes the *opening* half when it opens the
//! frame. The log writer writes the *closing* half when it takes the frame, because only then are
//! length, watermarks and chain known.
//!
//! These fields stay in place in every version: magic, version, incarnation, segment number,
//! offset, and the header checksum with its range. So a release can tell a frame of a later version
//! from a damaged one.

use crc32c::{crc32c, crc32c_append};
use thiserror::Error;

use crate::bytes::{put, u16_at, u32_at, u64_at};
use crate::codec;
use crate::entry::{LeaderTag, LogId};
use crate::image::HALF_HEADER_BYTES;
use crate::numbers::{FrameSequence, SegmentNumber};

/// The first four bytes of every frame.
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"SPRG");
/// The frame version that this release writes, and the only one that it reads.
pub(crate) const FRAME_VERSION: u16 = 1;
/// Length of both halves of a frame header; the body follows at once.
pub const FRAME_HEADER_BYTES: usize = 2 * HALF_HEADER_BYTES;
/// Alignment of frame starts.
pub(crate) const FRAME_ALIGN_BYTES: u64 = 64;
/// The longest segment: every offset in it, rounded up to a frame start, is a `u32`.
pub(crate) const SEGMENT_BYTES_MAX: u64 = (4 << 30) - FRAME_ALIGN_BYTES;

/// Offset of the header checksum, and so the number of header bytes that it covers.
const HEADER_CRC_AT: usize = 124;
const INCARNATION_AT: usize = 48;
const SEGMENT_AT: usize = 96;
const OFFSET_AT: usize = 104;

const _: () = {
    assert!(FRAME_HEADER_BYTES == 128);
    assert!(HEADER_CRC_AT + 4 == FRAME_HEADER_BYTES);
    assert!(HALF_HEADER_BYTES as u64 == FRAME_ALIGN_BYTES);
    assert!(SEGMENT_BYTES_MAX.is_multiple_of(FRAME_ALIGN_BYTES));
    assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64);
    assert!(FRAME_HEADER_BYTES as u64 + codec::FRAME_BYTES_MAX as u64 <= SEGMENT_BYTES_MAX);
    assert!(codec::FRAME_BYTES_MAX <= u32::MAX as usize);
    assert!(LeaderTag::MAX_BYTES == 16);
};

/// Identity of a directory: drawn at random when it is made, and part of every header checksum.
pub type DatabaseId = [u8; 16];

/// Kind of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// The frame appends its entries.
    Entries,
    /// The frame removes every entry at or above its first index. It has no body.
    Truncation,
    /// The frame's entries are applied and are not of the log: the state jumps to the last of them.
    /// This kind exists only where indexes may have gaps.
    ApplyOnly,
}

impl FrameKind {
    const fn code(self) -> u8 {
        match self {
            Self::Entries => 1,
            Self::Truncation => 2,
            Self::ApplyOnly => 3,
        }
    }
}

/// The header fields that are known when a frame is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpeningHalf {
    /// The kind.
    pub kind: FrameKind,
    /// Index of the first entry; in a truncation, the first index removed.
    pub first_index: u64,
    /// Term of all its entries.
    pub term: u64,
    /// Leader tag of all its entries.
    pub leader: LeaderTag,
    /// Frame sequence: starts at 1, and rises by one for every frame, truncations included.
    pub sequence: FrameSequence,
    /// Incarnation of the writable open that wrote the frame.
    pub incarnation: u64,
}

impl OpeningHalf {
    /// Encodes the 64 bytes for
    /// [`ImageWriter::open_frame`](crate::image::ImageWriter::open_frame).
    pub(crate) fn to_bytes(self) -> [u8; HALF_HEADER_BYTES] {
        let mut out = [0; HALF_HEADER_BYTES];
        put(&mut out, 0, &FRAME_MAGIC.to_le_bytes());
        put(&mut out, 4, &FRAME_VERSION.to_le_bytes());
        put(&mut out, 6, &[self.kind.code(), self.leader.len()]);
        put(&mut out, 8, &self.first_index.to_le_bytes());
        put(&mut out, 16, &self.term.to_le_bytes());
        put(&mut out, 24, self.leader.padded());
        put(&mut out, 40, &self.sequence.get().to_le_bytes());
        put(&mut out, INCARNATION_AT, &self.incarnation.to_le_bytes());
        out
    }
}

/// A whole frame header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The first half.
    pub opening: OpeningHalf,
    /// Length of the body, which follows the header.
    pub body_bytes: u32,
    /// Number of entries in the body; 0 for a truncation.
    pub count: u32,
    /// The chain: [`FrameHeader::checksum`] of the frame before, in any segment.
    pub previous: u64,
    /// The highest frame sequence known to be durable when the header was written; 0 for none.
    pub durable_sequence: FrameSequence,
    /// The highest index known to be committed when the header was written.
    pub committed: Option<u64>,
    /// Number of the segment that contains the frame.
    pub segment: SegmentNumber,
    /// Offset of the frame in the segment.
    pub offset: u64,
    /// CRC-32C of the body; 0 for a frame without a body.
    pub body_crc: u32,
}

/// Reason why 128 bytes are not the header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HeaderError {
    /// The bytes do not start with the magic number.
    #[error("not a frame")]
    NotAFrame,
    /// The checksum does not fit, or belongs to another directory.
    #[error("the header checksum does not fit")]
    Checksum,
    /// The checksum fits, and the version is another one.
    #[error("frame version {0}")]
    Version(u16),
    /// The checksum fits, and the kind is unknown.
    #[error("frame kind {0} is not known")]
    Kind(u8),
    /// The checksum fits, and a field has a value that no writer gives it.
    #[error("a header field is out of its range: {0}")]
    Field(&'static str),
}

impl FrameHeader {
    /// Encodes the first 64 bytes.
    pub(crate) fn opening(&self) -> [u8; HALF_HEADER_BYTES] {
        self.opening.to_bytes()
    }

    /// Encodes the last 64 bytes, which contain the checksum of both halves.
    pub(crate) fn closing(&self, database_id: &DatabaseId) -> [u8; HALF_HEADER_BYTES] {
        let mut out = [0; HALF_HEADER_BYTES];
        let at = |offset: usize| offset - HALF_HEADER_BYTES;
        put(&mut out, at(64), &self.body_bytes.to_le_bytes());
        put(&mut out, at(68), &self.count.to_le_bytes());
        put(&mut out, at(72), &self.previous.to_le_bytes());
        put(&mut out, at(80), &self.durable_sequence.get().to_le_bytes());
        put(&mut out, at(88), &encode_option(self.committed).to_le_bytes());
        put(&mut out, at(SEGMENT_AT), &self.segment.stored().to_le_bytes());
        put(&mut out, at(OFFSET_AT), &self.offset.to_le_bytes());
        put(&mut out, at(112), &self.body_crc.to_le_bytes());
        let crc = crc32c_append(crc32c(database_id), &self.opening());
        let crc = crc32c_append(crc, &out[..at(HEADER_CRC_AT)]);
        put(&mut out, at(HEADER_CRC_AT), &crc.to_le_bytes());
        out
    }

    /// Encodes both halves.
    #[cfg(any(test, feature = "testing"))]
    pub fn to_bytes(self, database_id: &DatabaseId) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        put(&mut out, 0, &self.opening());
        put(&mut out, HALF_HEADER_BYTES, &self.closing(database_id));
        out
    }

    /// The value that the next frame names as its `previous`. The call computes a checksum over the
    /// header; [`chain_of`] reads it from a closing half instead.
    #[cfg(any(test, feature = "testing"))]
    pub fn checksum(&self, database_id: &DatabaseId) -> u64 {
        chain_of(&self.closing(database_id))
    }

    /// Parses the header in `bytes`: checks the checksum first, then the version, then each field's
    /// range.
    pub fn parse(
        bytes: &[u8; FRAME_HEADER_BYTES],
        database_id: &DatabaseId,
    ) -> Result<Self, HeaderError> {
        if u32_at(bytes, 0) != FRAME_MAGIC {
            return Err(HeaderError::NotAFrame);
        }
        let crc = crc32c_append(crc32c(database_id), &bytes[..HEADER_CRC_AT]);
        if u32_at(bytes, HEADER_CRC_AT) != crc {
            return Err(HeaderError::Checksum);
        }
        match u16_at(bytes, 4) {
            FRAME_VERSION => {}
            version => return Err(HeaderError::Version(version)),
        }
        let kind = match bytes[6] {
            1 => FrameKind::Entries,
            2 => FrameKind::Truncation,
            3 => FrameKind::ApplyOnly,
            kind => return Err(HeaderError::Kind(kind)),
        };
        let tag = bytes.get(24..24 + usize::from(bytes[7])).and_then(LeaderTag::new);
        let leader = tag.ok_or(HeaderError::Field("leader tag length"))?;
        let header = Self {
            opening: OpeningHalf {
                kind,
                first_index: u64_at(bytes, 8),
                term: u64_at(bytes, 16),
                leader,
                sequence: FrameSequence::new(u64_at(bytes, 40)),
                incarnation: u64_at(bytes, INCARNATION_AT),
            },
            body_bytes: u32_at(bytes, 64),
            count: u32_at(bytes, 68),
            previous: u64_at(bytes, 72),
            durable_sequence: FrameSequence::new(u64_at(bytes, 80)),
            committed: u64_at(bytes, 88).checked_sub(1),
            segment: SegmentNumber::of_stored(u64_at(bytes, SEGMENT_AT)),
            offset: u64_at(bytes, OFFSET_AT),
            body_crc: u32_at(bytes, 112),
        };
        if &bytes[24..40] != leader.padded() || u64_at(bytes, 56) != 0 || u64_at(bytes, 116) != 0 {
            return Err(HeaderError::Field("reserved bytes"));
        }
        header.check_ranges()?;
        Ok(header)
    }

    fn check_ranges(&self) -> Result<(), HeaderError> {
        let OpeningHalf { kind, first_index, sequence, .. } = self.opening;
        if sequence == FrameSequence::NONE || self.durable_sequence >= sequence {
            return Err(HeaderError::Field("frame sequence"));
        }
        let (body_bytes, count) = (self.body_bytes as usize, self.count as usize);
        let fits = match kind {
            FrameKind::Entries | FrameKind::ApplyOnly => {
                count >= 1
                    && body_bytes <= codec::FRAME_BYTES_MAX
                    && count <= body_bytes / codec::HEADER_BYTES
            }
            FrameKind::Truncation => count == 0 && body_bytes == 0 && self.body_crc == 0,
        };
        if !fits {
            return Err(HeaderError::Field("body length or entry count"));
        }
        // The submission refuses the index u64::MAX.
        if first_index == u64::MAX || first_index.checked_add(u64::from(self.count)).is_none() {
            return Err(HeaderError::Field("first index"));
        }
        let room = SEGMENT_BYTES_MAX - self.frame_bytes();
        if self.offset > room || !self.offset.is_multiple_of(FRAME_ALIGN_BYTES) {
            return Err(HeaderError::Field("offset"));
        }
        Ok(())
    }

    /// Length of header and body, without the padding after them. At most 32 MiB and 128 bytes once
    /// parsed.
    pub fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }

    /// Log id of the first entry.
    pub fn first(&self) -> LogId {
        let OpeningHalf { first_index, term, leader, .. } = self.opening;
        LogId { index: first_index, term, leader }
    }

    /// Log id of the last entry; `None` for a truncation.
    pub fn last(&self) -> Option<LogId> {
        let more = u64::from(self.count).checked_sub(1)?;
        Some(self.first().at(self.opening.first_index + more))
    }
}

/// Log id of the first entry of the frame with this opening half. The half is in memory, and so is
/// not checked.
pub(crate) fn opening_log_id(opening: &[u8]) -> Option<LogId> {
    let opening: &[u8; HALF_HEADER_BYTES] = opening.try_into().ok()?;
    let leader = LeaderTag::new(opening.get(24..24 + usize::from(opening[7]))?)?;
    Some(LogId { index: u64_at(opening, 8), term: u64_at(opening, 16), leader })
}

/// The value that the next frame names as its `previous`: header CRC, then body CRC, of this
/// closing half.
pub fn chain_of(closing: &[u8; HALF_HEADER_BYTES]) -> u64 {
    let header_crc = u32_at(closing, HEADER_CRC_AT - HALF_HEADER_BYTES);
    u64::from(header_crc) << 32 | u64::from(u32_at(closing, 112 - HALF_HEADER_BYTES))
}

/// Segment number, offset and incarnation of a header whose checksum fits, in any version.
pub(crate) fn position_of(bytes: &[u8; FRAME_HEADER_BYTES]) -> (SegmentNumber, u64, u64) {
    let segment = SegmentNumber::of_stored(u64_at(bytes, SEGMENT_AT));
    (segment, u64_at(bytes, OFFSET_AT), u64_at(bytes, INCARNATION_AT))
}

/// Encodes an optional number as one word: the number plus one, or 0. `u64::MAX` is no index.
pub(crate) fn encode_option(number: Option<u64>) -> u64 {
    // `u64::MAX` is no index, as the documentation says.
    number.map_or(0, |number| number.saturating_add(1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const ID: DatabaseId = *b"0123456789abcdef";

    fn header() -> FrameHeader {
        FrameHeader {
            opening: OpeningHalf {
                kind: FrameKind::Entries,
                first_index: 7,
                term: 3,
                leader: LeaderTag::new(b"node").unwrap(),
                sequence: FrameSequence::new(5),
                incarnation: 2,
            },
            body_bytes: 100,
            count: 4,
            previous: 0x1122_3344_5566_7788,
            durable_sequence: FrameSequence::new(4),
            committed: Some(0),
            segment: SegmentNumber::new(9),
            offset: 640,
            body_crc: 0xdead_beef,
        }
    }

    /// Replaces the bytes at `at` by `value`, and recomputes the checksum.
    fn resealed(mut bytes: [u8; FRAME_HEADER_BYTES], at: usize, value: &[u8]) -> [u8; 128] {
        put(&mut bytes, at, value);
        let crc = crc32c_append(crc32c(&ID), &bytes[..HEADER_CRC_AT]);
        put(&mut bytes, HEADER_CRC_AT, &crc.to_le_bytes());
        bytes
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let truncation = FrameHeader {
            opening: OpeningHalf { kind: FrameKind::Truncation, ..header().opening },
            body_bytes: 0,
            count: 0,
            committed: None,
            body_crc: 0,
            ..header()
        };
        for header in [header(), truncation] {
            assert_eq!(FrameHeader::parse(&header.to_bytes(&ID), &ID), Ok(header));
        }
        assert_eq!(header().last().map(|last| last.index), Some(10));
        assert_eq!(truncation.last(), None);
    }

    #[test]
    fn the_fields_are_where_the_document_says() {
        let bytes = header().to_bytes(&ID);
        assert_eq!(&bytes[..8], b"SPRG\x01\0\x01\x04");
        assert_eq!((u64_at(&bytes, 8), u64_at(&bytes, 16)), (7, 3));
        assert_eq!(&bytes[24..40], b"node\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!((u64_at(&bytes, 40), u64_at(&bytes, 48), u64_at(&bytes, 56)), (5, 2, 0));
        assert_eq!((u32_at(&bytes, 64), u32_at(&bytes, 68)), (100, 4));
        assert_eq!(u64_at(&bytes, 72), 0x1122_3344_5566_7788);
        assert_eq!((u64_at(&bytes, 80), u64_at(&bytes, 88)), (4, 1));
        assert_eq!((u64_at(&bytes, 96), u64_at(&bytes, 104)), (9, 640));
        assert_eq!((u32_at(&bytes, 112), u64_at(&bytes, 116)), (0xdead_beef, 0));
        let covered = [&ID[..], &bytes[..124]].concat();
        assert_eq!(u32_at(&bytes, 124), crc32c(&covered));
        let chain = u64::from(crc32c(&covered)) << 32 | 0xdead_beef;
        assert_eq!(header().checksum(&ID), chain);
    }

    #[test]
    fn no_flipped_bit_and_no_other_directory_passes() {
        let bytes = header().to_bytes(&ID);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = FrameHeader::parse(&flipped, &ID).unwrap_err();
            let expected = if bit < 32 { HeaderError::NotAFrame } else { HeaderError::Checksum };
            assert_eq!(error, expected, "bit {bit}");
        }
        assert_eq!(FrameHeader::parse(&bytes, &[0; 16]), Err(HeaderError::Checksum));
        assert_eq!(FrameHeader::parse(&[0; 128], &ID), Err(HeaderError::NotAFrame));
    }

    #[test]
    fn a_later_version_and_an_unknown_kind_are_named_when_the_checksum_fits() {
        let bytes = header().to_bytes(&ID);
        let parse = |at, value: &[u8]| FrameHeader::parse(&resealed(bytes, at, value), &ID);
        assert_eq!(parse(4, &[2, 0]), Err(HeaderError::Version(2)));
        assert_eq!(parse(6, &[4]), Err(HeaderError::Kind(4)));
        assert_eq!(parse(6, &[0]), Err(HeaderError::Kind(0)));
    }

    #[test]
    fn hostile_fields_are_refused_under_a_good_checksum() {
        let bytes = header().to_bytes(&ID);
        let max = u64::MAX.to_le_bytes();
        let cases: &[(usize, &[u8])] = &[
            (7, &[17]),
            (7, &[3]),
            (8, &max),
            (8, &(u64::MAX - 3).to_le_bytes()),
            (40, &0_u64.to_le_bytes()),
            (56, &[1]),
            (64, &max[..4]),
            (64, &0_u32.to_le_bytes()),
            (68, &max[..4]),
            (68, &0_u32.to_le_bytes()),
            (80, &5_u64.to_le_bytes()),
            (104, &max),
            (104, &641_u64.to_le_bytes()),
            (104, &SEGMENT_BYTES_MAX.to_le_bytes()),
            (116, &[1]),
            (123, &[1]),
        ];
        for (at, value) in cases {
            let parsed = FrameHeader::parse(&resealed(bytes, *at, value), &ID);
            assert!(matches!(parsed, Err(HeaderError::Field(_))), "{at}: {parsed:?}");
        }
    }
}
