//! A survey of the bytes behind the last good frame: evidence of what was durable, and what a cut
//! would drop.

use crate::bytes::u32_at;
use crate::error::OpenError;
use crate::image::HALF_HEADER_BYTES;
use crate::log::format::{FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader};
use crate::log::recovery::files::{Segment, Window};
use crate::log::recovery::walk::Walk;
use crate::numbers::{FrameSequence, SegmentNumber};

/// Everything found after the end of the log.
#[derive(Debug, Default)]
pub(in crate::log) struct Survey {
    /// The highest durable sequence that a lost frame claims.
    pub(in crate::log) durable_sequence: FrameSequence,
    /// Number of lost frames: in their place, and not older than the last good frame.
    pub(in crate::log) frames: u64,
    /// Number of entries in them, by their headers.
    pub(in crate::log) entries: u64,
    /// Whether one of them is after the place where the next frame should be.
    pub(in crate::log) later_frame: bool,
    /// First and last index of their entries.
    pub(in crate::log) indexes: Option<(u64, u64)>,
    /// The highest incarnation of any header, including stale ones.
    pub(in crate::log) incarnation: u64,
    /// Bytes from the end of the log to the last byte that a later append may have written, over
    /// all segments.
    pub(in crate::log) bytes: u64,
    /// Segment and offset of the first such byte.
    pub(in crate::log) first: Option<(SegmentNumber, u64)>,
}

/// One segment's share of [`Survey::bytes`].
///
/// Non-zero bytes without a readable header may be a torn append, or the rest of a stale frame with
/// an overwritten header. They count, unless a stale frame follows: then the file was reused.
#[derive(Debug, Default)]
struct Remains {
    first: Option<u64>,
    end: u64,
    loose: Option<(u64, u64)>,
    lost_end: u64,
    stale_end: u64,
}

impl Remains {
    fn take_loose(&mut self) {
        if let Some((first, end)) = self.loose.take() {
            self.first = Some(self.first.map_or(first, |known| known.min(first)));
            self.end = self.end.max(end);
        }
    }

    fn lost(&mut self, offset: u64, bytes: u64) {
        self.take_loose();
        self.first.get_or_insert(offset);
        // The header is not zero, whatever the body is.
        self.end = self.end.max(offset + FRAME_HEADER_BYTES as u64);
        self.lost_end = offset + bytes;
    }

    fn stale(&mut self, offset: u64, bytes: u64) {
        self.loose = None;
        self.stale_end = self.stale_end.max(offset + bytes);
    }

    /// Notes a step of 64 bytes (fewer at the end of the file) whose last non-zero byte ends at
    /// `end`.
    fn non_zero(&mut self, offset: u64, end: u64) {
        if offset < self.lost_end {
            self.end = self.end.max(end.min(self.lost_end));
        } else if offset >= self.stale_end {
            let first = self.loose.map_or(offset, |(first, _)| first);
            self.loose = Some((first, end));
        }
    }
}

impl Survey {
    /// The survey of an end without any bytes.
    pub(in crate::log) fn of_nothing(walk: &Walk<'_>) -> Self {
        Self { incarnation: walk.chain.incarnation, ..Self::default() }
    }

    /// Surveys everything from the place of the next frame on: the rest of the current segment and
    /// all later ones.
    pub(in crate::log) fn of(walk: &mut Walk<'_>) -> Result<Self, OpenError> {
        let mut survey = Self::of_nothing(walk);
        let here = (walk.number, walk.next_offset());
        let each = each_step(walk, &mut |segment, offset, header, remains| {
            let Some((header, lost)) = header else { return };
            survey.incarnation = survey.incarnation.max(header.opening.incarnation);
            if !lost {
                return remains.stale(offset, header.frame_bytes());
            }
            remains.lost(offset, header.frame_bytes());
            survey.frames += 1;
            survey.entries += u64::from(header.count);
            survey.later_frame |= (segment.number, offset) != here;
            survey.durable_sequence = survey.durable_sequence.max(header.durable_sequence);
            if let Some(last) = header.last() {
                let first = header.opening.first_index;
                let (low, high) = survey.indexes.unwrap_or((first, last.index));
                survey.indexes = Some((low.min(first), high.max(last.index)));
            }
        })?;
        for (number, start, remains) in each {
            if let Some(first) = remains.first {
                // A segment that ends before its start in the survey adds no bytes.
                survey.bytes += remains.end.saturating_sub(start);
                survey.first.get_or_insert((number, first));
            }
        }
        Ok(survey)
    }
}

/// The first frame from there on that is in its place, not stale, and of a later sequence.
pub(in crate::log) fn next_lost_frame(
    walk: &mut Walk<'_>,
) -> Result<Option<FrameHeader>, OpenError> {
    let mut found: Option<FrameHeader> = None;
    let sequence = walk.chain.sequence;
    for (number, start) in places(walk) {
        let Some(segment) = walk.open(number)? else { continue };
        let mut window = std::mem::take(&mut walk.window);
        let result = steps(&mut window, &segment, start, &mut |offset, bytes| {
            let header = header_at(walk, &segment, offset, bytes)?;
            let later =
                |(header, lost): &(FrameHeader, bool)| *lost && header.opening.sequence > sequence;
            found = header.filter(later).map(|(header, _)| header);
            Ok(found.is_none())
        });
        walk.window = window;
        result?;
        if found.is_some() {
            break;
        }
    }
    Ok(found)
}

/// The segments from the current one on, and the start of the survey in each.
fn places(walk: &Walk<'_>) -> Vec<(SegmentNumber, u64)> {
    let (here, offset) = (walk.number, walk.next_offset());
    let later = walk.numbers.iter().filter(|number| **number >= here);
    let places = later.map(|number| (*number, if *number == here { offset } else { 0 }));
    // No frame can begin where a header does not fit; bytes there are the rest of an overwritten
    // frame.
    places.filter(|(number, start)| *number != here || walk.has_room_at(*start)).collect()
}

type OnHeader<'a> = dyn FnMut(&Segment, u64, Option<(FrameHeader, bool)>, &mut Remains) + 'a;

/// Calls `on_header` for every step that is not zero. Returns each segment's number, start and
/// remains.
fn each_step(
    walk: &mut Walk<'_>,
    on_header: &mut OnHeader<'_>,
) -> Result<Vec<(SegmentNumber, u64, Remains)>, OpenError> {
    let mut all = Vec::new();
    for (number, start) in places(walk) {
        let Some(segment) = walk.open(number)? else { continue };
        let mut remains = Remains::default();
        let mut window = std::mem::take(&mut walk.window);
        let result = steps(&mut window, &segment, start, &mut |offset, bytes| {
            let header = header_at(walk, &segment, offset, bytes)?;
            let is_header = header.is_some();
            on_header(&segment, offset, header, &mut remains);
            let step = &bytes[..bytes.len().min(HALF_HEADER_BYTES)];
            if let Some(last) = step.iter().rposition(|byte| *byte != 0)
                && !is_header
            {
                remains.non_zero(offset, offset + last as u64 + 1);
            }
            Ok(true)
        });
        walk.window = window;
        result?;
        remains.take_loose();
        all.push((number, start, remains));
    }
    Ok(all)
}

/// Callback for a step; returns whether to continue.
type OnStep<'a> = dyn FnMut(u64, &[u8]) -> Result<bool, OpenError> + 'a;

/// Goes over a segment in steps of 64 bytes. Calls `on_step` with up to 128 bytes for each step
/// that is not all zero, until it returns `false`.
fn steps(
    window: &mut Window,
    segment: &Segment,
    start: u64,
    on_step: &mut OnStep<'_>,
) -> Result<(), OpenError> {
    let mut offset = start;
    while offset < segment.bytes {
        let len = (segment.bytes - offset).min(FRAME_HEADER_BYTES as u64);
        let Some(bytes) = window.read(segment, offset, len)? else { break };
        let step = &bytes[..bytes.len().min(HALF_HEADER_BYTES)];
        if step.iter().any(|byte| *byte != 0) && !on_step(offset, bytes)? {
            break;
        }
        offset += FRAME_ALIGN_BYTES;
    }
    Ok(())
}

/// The valid header at a step, and whether it belongs to a lost frame (otherwise to a stale one).
fn header_at(
    walk: &Walk<'_>,
    segment: &Segment,
    offset: u64,
    bytes: &[u8],
) -> Result<Option<(FrameHeader, bool)>, OpenError> {
    let Some(bytes) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
    if u32_at(bytes, 0) != FRAME_MAGIC {
        return Ok(None);
    }
    let header = walk.sight(bytes, segment, offset)?;
    Ok(header.map(|header| {
        let in_place = (header.segment, header.offset) == (segment.number, offset);
        (header, in_place && header.opening.incarnation >= walk.chain.incarnation)
    }))
}
