//! Reads of entries from the log, for a consensus engine that sends them to a slow follower, and
//! for tools.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::appender::known::KnownPlaces;
use super::format::{DatabaseId, FRAME_HEADER_BYTES, FrameHeader, FrameKind, opening_log_id};
use super::index::Waypoint;
use crate::codec::{self, Encoded, PayloadRef};
use crate::disk::names::segment_name;
use crate::entry::LogId;
use crate::error::Corrupt;
use crate::numbers::FrameSequence;
use crate::places::table::{SegmentBytes, SegmentTable};
use crate::places::unmapped::NotRead;
use crate::ranges::index_range::IndexRange;

/// Entries copied out of the log.
#[derive(Clone, Default)]
pub struct LogEntries {
    bytes: Vec<u8>,
    /// Log ids of the entries, and the start of each in `bytes`.
    entries: Vec<(LogId, usize)>,
}

impl LogEntries {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Log id of the last entry.
    #[must_use]
    pub fn last(&self) -> Option<LogId> {
        self.entries.last().map(|(log_id, _)| *log_id)
    }

    /// Each entry's log id and payload, in order.
    pub fn iter(&self) -> impl Iterator<Item = (LogId, PayloadRef<'_>)> {
        self.entries.iter().filter_map(|(log_id, start)| {
            let (payload, _) = codec::decode(Encoded::elsewhere(self.bytes.get(*start..)?)).ok()?;
            Some((*log_id, payload))
        })
    }

    fn push(&mut self, log_id: LogId, encoded: &[u8]) {
        self.entries.push((log_id, self.bytes.len()));
        self.bytes.extend_from_slice(encoded);
    }
}

impl std::fmt::Debug for LogEntries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = self.entries.first().map(|(log_id, _)| *log_id);
        f.debug_struct("LogEntries").field("first", &first).field("last", &self.last()).finish()
    }
}

/// Copies entries of `wanted` from their places: as many as fit `bytes_max`, and at least one.
pub(crate) fn read_places(
    table: &SegmentTable,
    database_id: &DatabaseId,
    places: &KnownPlaces,
    wanted: RangeInclusive<u64>,
    bytes_max: usize,
) -> Result<LogEntries, NotRead> {
    let mut out = LogEntries::default();
    let mut next = *wanted.start();
    let waypoint_last = places.waypoint_last.map(|last| last.min(*wanted.end()));
    for from in &places.waypoints {
        let Some(last) = waypoint_last.filter(|last| next <= *last) else { break };
        if !read(table, database_id, *from, next..=last, bytes_max, &mut out)? {
            break;
        }
        next = from.1;
    }
    if waypoint_last.is_some_and(|last| {
        last >= *wanted.start() && out.last().is_none_or(|read| read.index < last)
    }) {
        // No more entries fit, or none of the next ones is wanted.
        return Ok(out);
    }
    let mut is_full = false;
    for (span, segment) in &places.spans {
        walk_span(span, segment, &mut |log_id, encoded| {
            if !wanted.contains(&log_id.index) {
                return log_id.index < *wanted.end();
            }
            let fits = out.is_empty() || out.bytes.len() + encoded.len() <= bytes_max;
            if fits {
                out.push(log_id, encoded);
            }
            is_full |= !fits;
            fits
        })?;
        if is_full {
            break;
        }
    }
    Ok(out)
}

/// Copies the entries of `wanted` in frames from `mark` on and below `until`, as many as fit
/// `bytes_max` (but at least one). Returns whether there may be more of them, from `until` on.
fn read(
    table: &SegmentTable,
    database_id: &DatabaseId,
    from: (Waypoint, u64),
    wanted: RangeInclusive<u64>,
    bytes_max: usize,
    out: &mut LogEntries,
) -> Result<bool, NotRead> {
    walk(table, database_id, from, wanted, &mut |log_id, encoded| {
        let fits = out.is_empty() || out.bytes.len() + encoded.len() <= bytes_max;
        if fits {
            out.push(log_id, encoded);
        }
        fits
    })
}

/// Calls `visit` with the entries of `wanted` in frames from `mark` on and below `until`, in order,
/// until it returns false. Returns whether there may be more of them, from `until` on.
pub(crate) fn walk(
    table: &SegmentTable,
    database_id: &DatabaseId,
    (waypoint, until): (Waypoint, u64),
    wanted: RangeInclusive<u64>,
    visit: &mut dyn FnMut(LogId, &[u8]) -> bool,
) -> Result<bool, NotRead> {
    let mut at = waypoint;
    let mut sequence = None;
    loop {
        let bad = |what| Corrupt {
            file: segment_name(at.segment),
            offset: u64::from(at.offset),
            index: Some(*wanted.start()),
            what,
        };
        let segment = table.get(at.segment).ok_or_else(|| bad("the segment is gone"))?;
        let Some((header, body)) = frame(&segment, at, database_id, sequence)? else {
            // The segment ends here, and the next one continues. A waypoint always names a written
            // frame.
            if at.offset == 0 || sequence.is_none() {
                return Err(bad("a frame that was written does not read back").into());
            }
            at = Waypoint { segment: at.segment.next(), offset: 0, ..at };
            continue;
        };
        if crc32c::crc32c(&body) != header.body_crc {
            return Err(bad("the checksum of a frame's body does not fit").into());
        }
        sequence = Some(header.opening.sequence);
        let mut rest = &*body;
        let of_log = header.opening.kind == FrameKind::Entries;
        for position in 0..if of_log { header.count } else { 0 } {
            let index = header.opening.first_index + u64::from(position);
            let (_, len) = codec::decode(Encoded::elsewhere(rest))
                .map_err(|_| bad("an entry does not decode"))?;
            let (encoded, after) = rest.split_at(len);
            rest = after;
            if index >= until || index > *wanted.end() {
                return Ok(index >= until);
            }
            if index < *wanted.start() {
                continue;
            }
            if !visit(header.first().at(index), encoded) {
                return Ok(false);
            }
            if index == *wanted.end() || index + 1 == until {
                return Ok(index + 1 == until);
            }
        }
        let end = header.offset + header.frame_bytes();
        at.offset = u32::try_from(end.next_multiple_of(64)).map_err(|_| bad("past 4 GiB"))?;
    }
}

/// Calls `visit` with the entries of a frame that the log writer may not have completed, in order,
/// until it returns false.
pub(crate) fn walk_span(
    span: &IndexRange,
    segment: &SegmentBytes,
    visit: &mut dyn FnMut(LogId, &[u8]) -> bool,
) -> Result<(), NotRead> {
    let bad = |what| Corrupt {
        file: segment_name(span.extent.segment()),
        offset: u64::from(span.extent.start()),
        index: Some(span.first),
        what,
    };
    let undecoded = || bad("a frame in memory does not decode");
    let opening = segment.opening(span.extent).map_err(|error| error.or_corrupt(undecoded))?;
    let log_id = opening_log_id(&opening).ok_or_else(undecoded)?;
    let bytes = segment.entries(span.extent);
    let unpublished = || bad("a frame in memory is not published");
    let bytes = bytes.map_err(|error| error.or_corrupt(unpublished))?;
    let mut rest = &*bytes;
    for index in (span.first..).take(span.count as usize) {
        let (_, len) =
            codec::decode(Encoded::elsewhere(rest)).map_err(|_| bad("an entry does not decode"))?;
        let (encoded, after) = rest.split_at(len);
        rest = after;
        if !visit(log_id.at(index), encoded) {
            break;
        }
    }
    Ok(())
}

/// A frame's header and its body.
type Frame<'a> = (FrameHeader, Cow<'a, [u8]>);

/// The frame at a position, if it follows the frame `after`.
fn frame<'a>(
    segment: &'a SegmentBytes,
    at: Waypoint,
    database_id: &DatabaseId,
    after: Option<FrameSequence>,
) -> Result<Option<Frame<'a>>, NotRead> {
    let there = |bytes| match bytes {
        Ok(bytes) => Ok(Some(bytes)),
        Err(NotRead::Gone) => Ok(None),
        Err(error) => Err(error),
    };
    let start = at.offset as usize;
    let Some(head) = there(segment.frames(start, FRAME_HEADER_BYTES))? else { return Ok(None) };
    let Some(header) =
        head.first_chunk().and_then(|head| FrameHeader::parse(head, database_id).ok())
    else {
        return Ok(None);
    };
    let follows = after.is_none_or(|after| after.is_before(header.opening.sequence));
    let is_here = header.segment == at.segment && header.offset == u64::from(at.offset);
    if !follows || !is_here {
        return Ok(None);
    }
    let body = segment.frames(start + FRAME_HEADER_BYTES, header.body_bytes as usize);
    let Some(body) = there(body)? else { return Ok(None) };
    debug_assert!(header.opening.kind != FrameKind::Truncation || body.is_empty());
    Ok(Some((header, body)))
}
