//! The walk from one good frame to the next, over segments.

use crc32c::crc32c;

use crate::disk::Disk;
use crate::disk::names::segment_name;
use crate::error::{Corrupt, OpenError};
use crate::image::HALF_HEADER_BYTES;
use crate::log::format::{
    DatabaseId, FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, FrameHeader, chain_of,
};
use crate::log::meta::Meta;
use crate::log::recovery::chain::Chain;
use crate::log::recovery::decision::Incarnation;
use crate::log::recovery::files::{Segment, Window, list_files};
use crate::log::recovery::found::{Found, FoundFrame, sight};
use crate::log::recovery::scan::SegmentSummary;
use crate::numbers::{FrameSequence, SegmentNumber};

const HEADER_BYTES: u64 = FRAME_HEADER_BYTES as u64;

/// A place in the log, and everything known before it.
#[derive(Debug)]
pub(in crate::log) struct Walk<'d> {
    disk: &'d dyn Disk,
    database_id: DatabaseId,
    pub(in crate::log) chain: Chain,
    /// Segment numbers from the log base on, rising.
    pub(in crate::log) numbers: Vec<SegmentNumber>,
    /// Segment numbers below the log base.
    pub(in crate::log) obsolete: Vec<SegmentNumber>,
    /// The current segment's number.
    pub(in crate::log) number: SegmentNumber,
    /// The current segment; `None` if its file is missing.
    segment: Option<Segment>,
    /// End of the last good frame in it; 0 if there is none.
    pub(in crate::log) end: u64,
    /// Summaries of the segments walked, the current one last.
    pub(in crate::log) summaries: Vec<SegmentSummary>,
    pub(in crate::log) window: Window,
    /// Whether to read past damage: unreadable bytes then count as missing.
    tolerant: bool,
    /// The first file that is no segment; nothing from it on is read. Set only in a tolerant walk.
    pub(in crate::log) barred: Option<Corrupt>,
}

impl<'d> Walk<'d> {
    pub(in crate::log) fn new(disk: &'d dyn Disk, meta: &Meta) -> Result<Self, OpenError> {
        let mut walk = Self::before(disk, meta)?;
        walk.enter(meta.base.segment, 0)?;
        Ok(walk)
    }

    /// Makes a walk as [`Walk::new`] does that reads as much as possible in spite of all damage.
    pub(in crate::log) fn tolerant(disk: &'d dyn Disk, meta: &Meta) -> Result<Self, OpenError> {
        let mut walk = Self { tolerant: true, ..Self::before(disk, meta)? };
        for (position, number) in walk.numbers.iter().enumerate() {
            match Segment::open(disk, *number) {
                Err(OpenError::Corrupt(place)) => {
                    walk.barred = Some(place);
                    walk.numbers.truncate(position);
                    break;
                }
                other => drop(other?),
            }
        }
        walk.enter(meta.base.segment, 0)?;
        Ok(walk)
    }

    /// A walk at the log base, with no file open.
    fn before(disk: &'d dyn Disk, meta: &Meta) -> Result<Self, OpenError> {
        let mut obsolete = list_files(disk)?.segments;
        let numbers = obsolete.split_off(obsolete.partition_point(|n| *n < meta.base.segment));
        Ok(Self {
            disk,
            database_id: meta.database_id,
            chain: Chain::new(meta),
            numbers,
            obsolete,
            number: meta.base.segment,
            segment: None,
            end: 0,
            summaries: Vec::new(),
            window: Window::default(),
            tolerant: false,
            barred: None,
        })
    }

    /// Whether a place that looked damaged is good by now. Beside a writer, a frame may be read
    /// before it is written, and the header that proves it durable after. Everything is read again.
    pub(in crate::log) fn is_whole_by_now(&mut self) -> Result<bool, OpenError> {
        let segments = list_files(self.disk)?.segments;
        self.numbers = segments.into_iter().filter(|number| *number >= self.number).collect();
        self.window = Window::default();
        self.segment = self.open(self.number)?;
        let (number, end, summaries) = (self.number, self.end, self.summaries.len());
        // A place that is damage by itself ends the first look, but not this one. The writer is
        // changing the place: it was not whole at either look, and the frames before it can be
        // read.
        let whole = match self.next() {
            Ok(found) => found.is_ok(),
            Err(OpenError::Corrupt(_)) => false,
            Err(other) => return Err(other),
        };
        // This was only a look: the walk stays where it is.
        if self.number != number {
            self.summaries.truncate(summaries);
            self.segment = self.open(number)?;
            (self.number, self.end) = (number, end);
        }
        Ok(whole)
    }

    /// Moves to a place of the log.
    fn enter(&mut self, number: SegmentNumber, end: u64) -> Result<(), OpenError> {
        if self.segment.as_ref().is_none_or(|segment| segment.number != number) {
            self.segment = self.open(number)?;
            if let Some(segment) = &self.segment {
                self.summaries.push(SegmentSummary::new(number, segment.bytes));
            }
        }
        self.number = number;
        self.end = end;
        Ok(())
    }

    /// Opens a segment from the log base on; `None` if there is no such file.
    pub(in crate::log) fn open(&self, number: SegmentNumber) -> Result<Option<Segment>, OpenError> {
        match self.numbers.binary_search(&number) {
            Ok(_) => Segment::open(self.disk, number).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Offset of the next frame in the current segment.
    pub(in crate::log) fn next_offset(&self) -> u64 {
        self.end.next_multiple_of(FRAME_ALIGN_BYTES)
    }

    /// The next good frame, here or at the start of the next segment, to which the walk then moves.
    /// Otherwise, the finding here.
    pub(in crate::log) fn next(&mut self) -> Result<Result<FoundFrame, Found>, OpenError> {
        let here = self.examine_here()?;
        if let Some(frame) = FoundFrame::if_good(&here) {
            return Ok(Ok(frame));
        }
        let next = self.open(self.number.next())?;
        let Some(next) = next else { return Ok(Err(here)) };
        let there = self.examine(&next, 0)?;
        let Some(frame) = FoundFrame::if_good(&there) else { return Ok(Err(here)) };
        self.enter(next.number, 0)?;
        Ok(Ok(frame))
    }

    /// Whether a header fits at the offset in the current segment. A segment that was cut off is
    /// examined to its end.
    pub(in crate::log) fn has_room_at(&self, offset: u64) -> bool {
        let bytes = self.segment.as_ref().map_or(0, |segment| segment.bytes);
        offset + HEADER_BYTES <= bytes || !bytes.is_multiple_of(4096)
    }

    /// The finding at the place of the next frame in the current segment.
    pub(in crate::log) fn examine_here(&mut self) -> Result<Found, OpenError> {
        let offset = self.next_offset();
        let Some(segment) = self.segment.take() else { return Ok(Found::nothing(offset, true)) };
        let found = self.examine(&segment, offset);
        self.segment = Some(segment);
        found
    }

    fn examine(&mut self, segment: &Segment, offset: u64) -> Result<Found, OpenError> {
        // Behind the end of a file that is too short there is nothing to read.
        let left = segment.bytes.saturating_sub(offset);
        let Some(bytes) = self.window.read(segment, offset, left.min(HEADER_BYTES))? else {
            return Ok(Found::nothing(offset, true));
        };
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        let Some(bytes) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(Found::nothing(offset, is_zero));
        };
        let place = (segment.number, offset);
        let Some(header) =
            sight(bytes, &self.database_id, segment, offset, self.chain.incarnation)?
        else {
            return Ok(Found::nothing(offset, is_zero));
        };
        let checksum = bytes.last_chunk::<HALF_HEADER_BYTES>().map_or(0, chain_of);
        let body = self.window.read(segment, offset, header.frame_bytes())?;
        let body_ok = body.is_some_and(|frame| {
            let body = frame.get(FRAME_HEADER_BYTES..);
            body.is_some_and(|body| crc32c(body) == header.body_crc)
        });
        let older = header.opening.incarnation < self.chain.incarnation;
        Ok(Found {
            offset,
            checksum,
            body: body_ok.into(),
            chain: self.chain.continues(&header, place).into(),
            incarnation: if older { Incarnation::Older } else { Incarnation::NotOlder },
            header: Some(header),
            is_zero,
        })
    }

    /// Whether nothing was written behind the end of the log, where a clean close by an opening of
    /// `incarnation` is the last known event. `here` is the finding at the place of the next frame.
    ///
    /// A later opening's frames begin there, or at the start of a later segment. The call reads one
    /// header a segment.
    pub(in crate::log) fn ends_here(
        &self,
        here: &Found,
        incarnation: u64,
    ) -> Result<bool, OpenError> {
        if self.has_room_at(here.offset) && !here.is_vacant_in(self.number) {
            return Ok(false);
        }
        for number in self.numbers.iter().copied().filter(|number| *number > self.number) {
            let Some(segment) = self.open(number)? else { continue };
            let Some(bytes) = segment.first_header()? else { continue };
            let is_begun = |header: FrameHeader| {
                (header.segment, header.offset) == (number, 0)
                    && header.opening.incarnation >= incarnation
            };
            if self.sight(&bytes, &segment, 0)?.is_some_and(is_begun) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The bytes of a good frame: its header and its body.
    pub(in crate::log) fn bytes(
        &mut self,
        frame: &FoundFrame,
    ) -> Result<(&[u8], &[u8]), OpenError> {
        let (offset, bytes) = (frame.offset, frame.header.frame_bytes());
        let lost = || Corrupt {
            file: segment_name(self.number),
            offset,
            index: Some(frame.header.opening.first_index),
            what: "a frame that was found does not read back",
        };
        let Some(segment) = &self.segment else { return Err(lost().into()) };
        let parts = self.window.read(segment, offset, bytes)?;
        let parts = parts.and_then(|bytes| bytes.split_at_checked(FRAME_HEADER_BYTES));
        parts.ok_or_else(|| lost().into())
    }

    /// Moves past a frame of the current segment.
    pub(in crate::log) fn accept(&mut self, frame: &FoundFrame) {
        self.chain.accept(&frame.header, frame.checksum);
        self.end = frame.offset + frame.header.frame_bytes();
        if let Some(summary) = self.summaries.last_mut() {
            summary.add(&frame.header, self.end);
        }
    }

    /// Moves to a frame out of the chain's order, to look for more damage.
    pub(in crate::log) fn resume_at(&mut self, header: &FrameHeader) -> Result<(), OpenError> {
        self.chain.resume_before(header);
        self.enter(header.segment, header.offset)
    }

    /// An error that names a place in the current segment, or the whole file if it is missing.
    pub(in crate::log) fn corrupt_here(&self, offset: u64, what: &'static str) -> Corrupt {
        self.corrupt_at(self.number, offset, what)
    }

    /// The error for the finding in place of the next frame. `lost_here`: lost frames follow in
    /// this segment.
    pub(in crate::log) fn blame(
        &mut self,
        here: &Found,
        lost_here: bool,
    ) -> Result<Corrupt, OpenError> {
        let missing = "the file is missing";
        if self.segment.is_none() {
            return Ok(self.corrupt_at(self.number, 0, missing));
        }
        let next = self.number.next();
        if !lost_here && self.numbers.last().is_some_and(|last| *last >= next) {
            // If the current segment ends here, the frame was in the next one.
            let ends_here = here.is_vacant_in(self.number);
            match self.open(next)? {
                None if ends_here => return Ok(self.corrupt_at(next, 0, missing)),
                None => {}
                Some(segment) => {
                    let there = self.examine(&segment, 0)?;
                    let sequence = there.header.map(|header| header.opening.sequence);
                    let was_there = match (here.is_zero, ends_here) {
                        (true, _) => !there.is_zero,
                        (false, true) => !there.is_vacant_in(next),
                        // The rest may be of an overwritten frame.
                        (false, false) => sequence == Some(self.chain.next_sequence()),
                    };
                    if was_there {
                        return Ok(self.corrupt_as(next, &there));
                    }
                }
            }
        }
        Ok(self.corrupt_as(self.number, here))
    }

    /// The error for a finding in a segment. Nothing before the first frame of a log tells its
    /// index; then a good header does.
    fn corrupt_as(&self, number: SegmentNumber, found: &Found) -> Corrupt {
        let place = self.corrupt_at(number, found.offset, found.complaint());
        let header = found.header.filter(|_| found.only_body_bad());
        let index = place.index.or(header.map(|header| header.opening.first_index));
        Corrupt { index, ..place }
    }

    fn corrupt_at(&self, number: SegmentNumber, offset: u64, what: &'static str) -> Corrupt {
        Corrupt { file: segment_name(number), offset, index: self.chain.next_index(), what }
    }

    /// The header of [`sight`], for this directory.
    pub(in crate::log) fn sight(
        &self,
        bytes: &[u8; FRAME_HEADER_BYTES],
        segment: &Segment,
        offset: u64,
    ) -> Result<Option<FrameHeader>, OpenError> {
        let seen = sight(bytes, &self.database_id, segment, offset, self.chain.incarnation);
        match seen {
            Err(OpenError::Corrupt(_)) if self.tolerant => Ok(None),
            seen => seen,
        }
    }
}

/// Reads the log from its base through the frame `sequence`, and fails at the first bad one. Ends
/// early, with success, once `stopping` is set.
///
/// The call costs one pass over the frames, with the memory of a scan.
pub(in crate::log) fn check_frames(
    disk: &dyn Disk,
    meta: &Meta,
    sequence: FrameSequence,
    stopping: &dyn Fn() -> bool,
) -> Result<(), OpenError> {
    let mut walk = Walk::new(disk, meta)?;
    while walk.chain.next_sequence() <= sequence && !stopping() {
        match walk.next()? {
            Ok(frame) => walk.accept(&frame),
            Err(here) => return Err(walk.blame(&here, false)?.into()),
        }
    }
    Ok(())
}
