//! The scan of a log at opening: every good frame in order, then where the log ends and why.

use crate::bytes::{filled, to_usize};
use crate::codec::{self, Encoded};
use crate::disk::names::segment_name;
use crate::disk::{Access, Disk};
use crate::entry::LogId;
use crate::error::{Corrupt, OpenError};
use crate::log::format::{FrameHeader, FrameKind};
use crate::log::meta::{Meta, MetaDamage};
use crate::log::recovery::decision::Outcome;
use crate::log::recovery::files::{Segment, Window, list_files};
use crate::log::recovery::found::Found;
use crate::log::recovery::survey::Survey;
use crate::log::recovery::walk::Walk;
use crate::numbers::{FrameSequence, SegmentNumber};

/// Options of a scan.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScanOptions {
    /// Whether to refuse a log with a torn end ([`OpenError::Torn`]) where it would be cut.
    pub(crate) strict: bool,
    /// Action at damage: refuse the log, or read up to the damage and report it.
    pub(crate) on_damage: OnDamage,
    /// Whether another process is writing: then an unfinished frame is the end, and no torn one.
    pub(crate) beside_a_writer: bool,
    /// Whether META, with both slots good, says that the log was closed. If the log ends at that
    /// place, and no later opening wrote behind it, the rest is not read.
    pub(crate) was_closed: bool,
    /// The entry of the newest snapshot: [`ScanResult::lacks_snapshot`] says whether the log has
    /// it.
    pub(crate) snapshot: Option<LogId>,
}

impl ScanOptions {
    /// The options for inspecting a directory: up to the damage, if there is any.
    pub(crate) fn looking_at(disk: &dyn Disk) -> Self {
        let beside_a_writer = disk.is_beside_a_writer();
        Self { on_damage: OnDamage::StopThere, beside_a_writer, ..Self::default() }
    }

    /// The options with META's record of the log's end, if both of its slots are good. A writer may
    /// already be behind that end.
    pub(crate) fn by_meta(self, meta: &Meta, damage: &MetaDamage) -> Self {
        let whole = damage.slot_offset.is_none();
        Self { was_closed: meta.clean_close && whole && !self.beside_a_writer, ..self }
    }
}

/// Action of a scan at damage of durable bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum OnDamage {
    /// The scan fails with [`OpenError::Corrupt`].
    #[default]
    Refuse,
    /// The scan ends there, and [`ScanResult::unreadable`] says where and why.
    StopThere,
}

/// A frame that is good in every respect. Its entries decode.
#[derive(Debug)]
pub struct GoodFrame<'a> {
    /// Header of the frame.
    pub header: FrameHeader,
    /// The segment of the frame.
    pub segment: SegmentNumber,
    /// Offset of the frame in the segment; the body follows the header.
    pub offset: u64,
    /// Header of the frame as it is on disk.
    pub header_bytes: &'a [u8],
    /// The encoded entries; empty for a truncation.
    pub body: &'a [u8],
}

/// The end of a log, from which it continues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tail {
    /// The segment of the last good frame, or of the log base. Its file may be missing if there is
    /// no frame yet.
    pub segment: SegmentNumber,
    /// End of the last good frame; the next one starts at the next multiple of 64.
    pub offset: u64,
    /// The sequence of the next frame.
    pub next_sequence: FrameSequence,
    /// The checksum of the last good frame, which the next one names as its previous.
    pub chain: u64,
    /// The last entry, after truncations.
    pub last: Option<LogId>,
    /// The incarnation of the last good frame, or META's where META proves that nothing is newer.
    pub incarnation: u64,
    /// The highest incarnation of any frame, including stale ones. The next incarnation is above
    /// this and META's.
    pub incarnation_seen_max: u64,
    /// The highest index known to be committed, by META or a good header, that is in the log (or
    /// before its base).
    pub committed: Option<u64>,
    /// The highest sequence known to be durable, from META or from a header.
    pub durable_sequence_known: FrameSequence,
}

/// Bytes after the end of the log that do not belong to it: none of them is known to have been
/// durable. A last group that was acknowledged and damaged later may be among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CutReport {
    /// The segment in which they start.
    pub file: String,
    /// End of the last good frame, or the first such byte where that is in a later segment.
    pub offset: u64,
    /// Number of bytes from there to the last one that is not zero, over all segments.
    pub bytes: u64,
    /// Number of readable frame headers among these bytes.
    pub frames_seen: u64,
    /// First and last index of those frames' entries.
    pub indexes: Option<(u64, u64)>,
}

/// A segment file of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSummary {
    /// Number of the segment.
    pub number: SegmentNumber,
    /// Length of the file.
    pub file_bytes: u64,
    /// End of its last good frame.
    pub used_bytes: u64,
    /// Number of good frames in it.
    pub frames: u64,
    /// Sequence of the last of them; 0 if there is none.
    pub last_sequence: FrameSequence,
    /// First index of its entries, including truncated ones.
    pub first_index: Option<u64>,
    /// Highest index of its entries, including truncated ones.
    pub last_index: Option<u64>,
}

impl SegmentSummary {
    pub(in crate::log) fn new(number: SegmentNumber, file_bytes: u64) -> Self {
        Self {
            number,
            file_bytes,
            used_bytes: 0,
            frames: 0,
            last_sequence: FrameSequence::NONE,
            first_index: None,
            last_index: None,
        }
    }

    pub(in crate::log) fn add(&mut self, header: &FrameHeader, end: u64) {
        self.used_bytes = end;
        self.frames += 1;
        self.last_sequence = header.opening.sequence;
        if let Some(last) = header.last().filter(|_| header.opening.kind == FrameKind::Entries) {
            let first = header.opening.first_index;
            self.first_index = Some(self.first_index.map_or(first, |known| known.min(first)));
            self.last_index = self.last_index.max(Some(last.index));
        }
    }
}

/// Findings of reading the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanResult {
    /// The position from which the log continues.
    pub tail: Tail,
    /// The bytes dropped after it, if any.
    pub cut: Option<CutReport>,
    /// Every segment file from the log base on; the ones after the tail's hold nothing good.
    pub segments: Vec<SegmentSummary>,
    /// Numbers of segment files below the log base: kept for reuse, or left by an interrupted
    /// purge. A writable open keeps them for reuse or removes them.
    pub obsolete: Vec<SegmentNumber>,
    /// The damage at which the scan stopped.
    pub unreadable: Option<Unreadable>,
    /// Error of a log that reads well and is not the one that META describes: see
    /// `Chain::begins_late`.
    pub begins_late: Option<Corrupt>,
    /// The snapshot's entry, if the log does not have it.
    pub lacks_snapshot: Option<LogId>,
}

/// Damage of durable bytes, and the part of the log behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    /// Place and kind of the damage.
    pub place: Corrupt,
    /// Number of bytes from the last good frame to the last one that is not zero, over all
    /// segments.
    pub bytes: u64,
    /// Number of readable frame headers among them.
    pub frames: u64,
    /// Number of entries in those frames, if the frames are whole.
    pub entries: u64,
    /// First and last index of those entries.
    pub indexes: Option<(u64, u64)>,
}

/// Reads the log from its base, and calls `visit` for every good frame in order, including
/// truncations.
///
/// Nothing is written. The call costs one pass over the log and over the bytes behind its end. Its
/// memory is one buffer, as long as the longest frame or 4 MiB. An error of `visit` ends the scan.
pub(crate) fn scan(
    disk: &dyn Disk,
    meta: &Meta,
    options: ScanOptions,
    visit: &mut dyn FnMut(&GoodFrame<'_>) -> Result<(), OpenError>,
) -> Result<ScanResult, OpenError> {
    if options.on_damage == OnDamage::Refuse {
        let mut walk = Walk::new(disk, meta)?;
        walk.chain.watch(options.snapshot);
        let here = read_good_frames(&mut walk, visit)??;
        return finish(walk, &here, meta, options, None);
    }
    let mut walk = Walk::tolerant(disk, meta)?;
    walk.chain.watch(options.snapshot);
    match read_good_frames(&mut walk, visit)? {
        Ok(here) => {
            let barred = walk.barred.take();
            finish(walk, &here, meta, options, barred)
        }
        Err(damage) => {
            let here = Found::nothing(walk.next_offset(), false);
            finish(walk, &here, meta, options, Some(damage))
        }
    }
}

/// Reads the good frames, and returns what was found at the place of the next one. The inner error
/// is damage that needs no evidence, because a checksum proves that the bytes were meant.
fn read_good_frames(
    walk: &mut Walk<'_>,
    visit: &mut dyn FnMut(&GoodFrame<'_>) -> Result<(), OpenError>,
) -> Result<Result<Found, Corrupt>, OpenError> {
    loop {
        let frame = match walk.next() {
            Ok(Ok(frame)) => frame,
            Ok(Err(here)) => return Ok(Ok(here)),
            Err(OpenError::Corrupt(place)) => return Ok(Err(place)),
            Err(other) => return Err(other),
        };
        if let Some(what) = walk.chain.contradiction(&frame.header) {
            return Ok(Err(walk.corrupt_here(frame.offset, what)));
        }
        let (segment, header) = (walk.number, frame.header);
        let (header_bytes, body) = walk.bytes(&frame)?;
        if !decodes(body, header.count) {
            return Ok(Err(walk.corrupt_here(frame.offset, UNDECODABLE)));
        }
        visit(&GoodFrame { header, segment, offset: frame.offset, header_bytes, body })?;
        walk.accept(&frame);
    }
}

pub(in crate::log) const UNDECODABLE: &str = "an entry does not decode, though its checksum fits";

/// Whether `body` is exactly `count` entries.
pub(in crate::log) fn decodes(mut body: &[u8], count: u32) -> bool {
    for _ in 0..count {
        let rest =
            // The caller asks only whether it decodes.
            codec::decode_deep(Encoded::elsewhere(body)).ok().and_then(|(_, len)| body.get(len..));
        let Some(rest) = rest else { return false };
        body = rest;
    }
    body.is_empty()
}

fn finish(
    mut walk: Walk<'_>,
    here: &Found,
    meta: &Meta,
    options: ScanOptions,
    mut damage: Option<Corrupt>,
) -> Result<ScanResult, OpenError> {
    let expected = walk.chain.next_sequence();
    // META may be an older copy of itself; then the log continues behind the end that META knows.
    let ends_as_closed = options.was_closed
        && damage.is_none()
        && expected == meta.durable_sequence.next()
        && walk.ends_here(here, meta.incarnation)?;
    let survey = if ends_as_closed { Survey::of_nothing(&walk) } else { Survey::of(&mut walk)? };
    let durable = walk.chain.durable_sequence.max(survey.durable_sequence);
    // `here` is the finding if no good frame is there.
    let corrupt = here.outcome(survey.later_frame, durable >= expected) == Outcome::Corrupt;
    if corrupt && damage.is_none() && !(options.beside_a_writer && walk.is_whole_by_now()?) {
        let lost_here = survey.first.is_some_and(|(number, _)| number == walk.number);
        match (walk.blame(here, lost_here), options.on_damage) {
            (Ok(place) | Err(OpenError::Corrupt(place)), OnDamage::StopThere) => {
                damage = Some(place);
            }
            (place, _) => return Err(place?.into()),
        }
    }
    let unreadable = damage.map(|place| Unreadable {
        place,
        bytes: survey.bytes,
        frames: survey.frames,
        entries: survey.entries,
        indexes: survey.indexes,
    });
    let cut = survey.first.filter(|_| unreadable.is_none() && !options.beside_a_writer).map(
        |(number, first)| CutReport {
            file: segment_name(number),
            offset: if number == walk.number { walk.end } else { first },
            bytes: survey.bytes,
            frames_seen: survey.frames,
            indexes: survey.indexes,
        },
    );
    if let Some(CutReport { file, offset, bytes, .. }) = &cut
        && options.strict
    {
        return Err(OpenError::Torn { file: file.clone(), offset: *offset, bytes: *bytes });
    }
    for number in walk.numbers.iter().copied().filter(|number| *number > walk.number) {
        if let Some(segment) = walk.open(number)? {
            walk.summaries.push(SegmentSummary::new(number, segment.bytes));
        }
    }
    let chain = &walk.chain;
    let committed = chain.committed.max(meta.committed);
    let index = |log_id: Option<LogId>| log_id.map(|log_id| log_id.index);
    let applied_only = index(chain.applied_only);
    let known = index(chain.last).max(applied_only);
    let tail = Tail {
        segment: walk.number,
        offset: walk.end,
        next_sequence: expected,
        chain: chain.checksum,
        last: chain.last,
        incarnation: chain.incarnation,
        incarnation_seen_max: survey.incarnation,
        // A quorum may have committed entries that only our disk lost. No later frame may change
        // what a record applied.
        committed: committed.max(applied_only).min(known),
        durable_sequence_known: durable,
    };
    let is_read = unreadable.is_none();
    let begins_late = chain.begins_late(meta).filter(|_| is_read);
    let lacks_snapshot = chain.lacks_snapshot(meta).filter(|_| is_read);
    let (segments, obsolete) = (walk.summaries, walk.obsolete);
    Ok(ScanResult { tail, cut, segments, obsolete, unreadable, begins_late, lacks_snapshot })
}

/// Overwrites everything non-zero after the tail with zeros, in all segments, and syncs each.
/// Returns the length of the files affected. A writable open that cuts calls it before its first
/// append. Later findings behind a tail are then of that incarnation, or of a recycled segment's
/// past.
///
/// A crash during it leaves a log that is cut at the same place.
pub(crate) fn erase_after(disk: &dyn Disk, tail: &Tail) -> Result<u64, OpenError> {
    let mut window = Window::default();
    let mut erased = 0;
    for number in list_files(disk)?.segments.into_iter().filter(|n| *n >= tail.segment) {
        let segment = Segment::open(disk, number)?;
        let start = if number == tail.segment { tail.offset } else { 0 };
        erased += erase_from(disk, &segment, start, &mut window)?;
    }
    Ok(erased)
}

/// Writes the first `used_bytes` of a segment again, unchanged, and syncs it.
///
/// A failed sync may have left pages that read well and are not on disk, and no later sync would
/// write them.
pub(crate) fn rewrite(disk: &dyn Disk, name: &str, used_bytes: u64) -> Result<(), OpenError> {
    let error = |action| move |source| OpenError::io(action, name, source);
    let file = disk.open(name, Access::Write).map_err(error("opening"))?;
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < used_bytes {
        let want = to_usize(used_bytes - offset).min(buffer.len());
        let Some(chunk) = buffer.get_mut(..want) else { break };
        let read = file.read_at(chunk, offset).map_err(error("reading"))?;
        if read == 0 {
            break;
        }
        let chunk = filled(chunk, read).map_err(error("reading"))?;
        file.write_all_at(chunk, offset).map_err(error("writing"))?;
        offset += read as u64;
    }
    file.sync_data().map_err(error("syncing"))
}

fn erase_from(
    disk: &dyn Disk,
    segment: &Segment,
    start: u64,
    window: &mut Window,
) -> Result<u64, OpenError> {
    const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
    let failed = |action| move |source| OpenError::io(action, &*segment.name, source);
    let (mut offset, mut erased, mut writing) = (start, 0, None);
    while offset < segment.bytes {
        let end = (offset + 1).next_multiple_of(ZEROS.len() as u64).min(segment.bytes);
        let bytes = window.read(segment, offset, end - offset)?;
        // The file was as long when it was opened.
        let shorter = || failed("clearing")(std::io::ErrorKind::UnexpectedEof.into());
        let bytes = bytes.ok_or_else(shorter)?;
        if bytes.iter().any(|byte| *byte != 0) {
            let file = match writing.take() {
                Some(file) => file,
                None => disk.open(&segment.name, Access::Write).map_err(failed("opening"))?,
            };
            file.write_all_at(&ZEROS[..bytes.len()], offset).map_err(failed("clearing"))?;
            writing = Some(file);
            erased += end - offset;
        }
        offset = end;
    }
    if let Some(file) = writing {
        file.sync_data().map_err(failed("syncing"))?;
    }
    Ok(erased)
}
