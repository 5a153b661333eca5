//! The finding at a place where a frame may be.

use crate::error::{Corrupt, OpenError};
use crate::log::format::{
    DatabaseId, FRAME_HEADER_BYTES, FRAME_VERSION, FrameHeader, HeaderError, position_of,
};
use crate::log::recovery::decision::{Check, Finding, Incarnation, Outcome, decide};
use crate::log::recovery::files::Segment;
use crate::numbers::SegmentNumber;

/// The finding at a place where a frame may be.
#[derive(Clone, Copy, Debug)]
pub(in crate::log) struct Found {
    pub(in crate::log) offset: u64,
    pub(in crate::log) header: Option<FrameHeader>,
    /// Checksum of the header, for the chain.
    pub(in crate::log) checksum: u64,
    pub(super) body: Check,
    pub(super) chain: Check,
    pub(super) incarnation: Incarnation,
    /// Whether all bytes of a header are zero, or past the end of the file.
    pub(in crate::log) is_zero: bool,
}

impl Found {
    pub(in crate::log) const fn nothing(offset: u64, is_zero: bool) -> Self {
        Self {
            offset,
            header: None,
            checksum: 0,
            body: Check::Bad,
            chain: Check::Bad,
            incarnation: Incarnation::NotOlder,
            is_zero,
        }
    }

    /// The outcome of the finding, by the recovery table.
    pub(in crate::log) fn outcome(&self, later_valid: bool, at_or_below_durable: bool) -> Outcome {
        decide(&Finding {
            header: self.header.is_some().into(),
            body: self.body,
            chain: self.chain,
            incarnation: self.incarnation,
            later_valid_frame: later_valid,
            at_or_below_durable,
        })
    }

    /// Whether only the body is bad: the chain can be followed past it.
    pub(in crate::log) fn only_body_bad(&self) -> bool {
        self.header.is_some()
            && self.chain == Check::Ok
            && self.incarnation == Incarnation::NotOlder
            && self.body == Check::Bad
    }

    /// Whether nothing that was written to segment `number` stands there: only zeros, or the file's
    /// earlier content.
    pub(super) fn is_vacant_in(&self, number: SegmentNumber) -> bool {
        let is_stale = |header: FrameHeader| {
            self.incarnation == Incarnation::Older
                || (header.segment, header.offset) != (number, self.offset)
        };
        self.is_zero || self.header.is_some_and(is_stale)
    }

    /// The error of the finding, in words.
    pub(in crate::log) fn complaint(&self) -> &'static str {
        match (self.header, self.chain, self.incarnation, self.body) {
            (None, ..) if self.is_zero => "there are zeros where a frame was",
            (None, ..) => "a frame header does not read back",
            (Some(_), Check::Bad, ..) => "a frame is not the one that belongs here",
            (Some(_), _, Incarnation::Older, _) => "a frame is of an earlier incarnation",
            (Some(_), .., Check::Bad) => "a frame body does not read back",
            (Some(_), ..) => "a frame",
        }
    }
}

/// A frame with a valid header.
#[derive(Clone, Copy, Debug)]
pub(in crate::log) struct FoundFrame {
    pub(in crate::log) header: FrameHeader,
    pub(in crate::log) checksum: u64,
    pub(in crate::log) offset: u64,
}

impl FoundFrame {
    pub(super) fn if_good(found: &Found) -> Option<Self> {
        // For a good frame no other fact matters: see the table.
        if found.outcome(false, false) == Outcome::Replay { Self::unchecked(found) } else { None }
    }

    /// The frame of a valid header, whatever became of its body.
    pub(in crate::log) fn unchecked(found: &Found) -> Option<Self> {
        let header = found.header?;
        Some(Self { header, checksum: found.checksum, offset: found.offset })
    }
}

/// The valid header in `bytes`, wherever it belongs. An undamaged header that belongs here and is
/// not stale, but cannot be read, is an error. A later or a wrong release wrote it.
pub(super) fn sight(
    bytes: &[u8; FRAME_HEADER_BYTES],
    database_id: &DatabaseId,
    segment: &Segment,
    offset: u64,
    incarnation_min: u64,
) -> Result<Option<FrameHeader>, OpenError> {
    let error = match FrameHeader::parse(bytes, database_id) {
        Ok(header) => return Ok(Some(header)),
        Err(error) => error,
    };
    let (number, at, incarnation) = position_of(bytes);
    let stale = (number, at) != (segment.number, offset) || incarnation < incarnation_min;
    let what = match error {
        HeaderError::NotAFrame | HeaderError::Checksum => return Ok(None),
        _ if stale => return Ok(None),
        HeaderError::Version(found) => {
            let file = segment.name.clone();
            return Err(OpenError::UnknownVersion { file, found, supported: FRAME_VERSION });
        }
        HeaderError::Kind(_) => "a frame is of an unknown kind",
        HeaderError::Field(what) => what,
    };
    Err(Corrupt { file: segment.name.clone(), offset, index: None, what }.into())
}
