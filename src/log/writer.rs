//! The log writer turns closed frames into checksummed, chained bytes on disk, a group at a time.
//!
//! Group commit is greedy: while one group is written and synced, the next gathers in the appender.
//! The writer is a step function. A thread loops over it, a caller that waits for durability may
//! also run it, and the simulator drives it from one thread.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::compact::SegmentStart;
use super::format::{DatabaseId, FrameHeader, FrameKind, chain_of};
use super::queue::{ClosedFrame, LogQueue};
use super::segment::{SegmentFile, SegmentFiles, io_poison};
use super::times::LogTimes;
use crate::clock::Clock;
use crate::config::Durability;
use crate::disk::names::segment_name;
use crate::disk::{Completion, DiskFile, LogWrite, RING_BACKEND, Watch, WriteFailure, WriteQueue};
use crate::error::{Poison, is_out_of_descriptors};
use crate::image::Image;
use crate::numbers::{FrameSequence, Mark, SegmentNumber};
use crate::places::table::{SegmentBytes, SegmentTable};
use crate::progress::watermark::Progress;

mod ahead;
mod shared;
use ahead::Ahead;
pub(crate) use shared::WriterShared;

/// Divisor of a segment: the next segment is made ready when this part of the current one is
/// written. That is early enough at full speed, and never happens for a directory with a few
/// entries.
const PREPARE_PART: u64 = 4;

/// Number of full segments' files that stay open for a later sync. Beyond it the oldest is synced
/// separately; the system has mostly written it by then. Without the limit, and without syncs, the
/// open files would reach the limit of the process.
const UNSYNCED_MAX: usize = 16;

/// Options of forming groups and making them durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterConfig {
    pub(crate) database_id: DatabaseId,
    pub(crate) durability: Durability,
    /// Most bytes of one write.
    pub(crate) group_bytes_max: usize,
    /// Time that fewer than `linger_entries` entries wait for more.
    pub(crate) linger: Duration,
    pub(crate) linger_entries: u64,
}

/// The position on disk from which the log continues.
#[derive(Debug)]
pub(crate) struct WriterPosition {
    pub(crate) segment: SegmentNumber,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Length of the file, for which space is reserved. The log's first file begins short.
    pub(crate) file_bytes: u64,
    /// Whether none of the file was written before.
    pub(crate) is_blank: bool,
    /// Number of written bytes of the segment.
    pub(crate) written_bytes: usize,
    /// Checksum of the last frame.
    pub(crate) chain: u64,
    /// Sequence of the last frame that was taken into a group. At the start all frames up to it are
    /// durable.
    pub(crate) sequence: FrameSequence,
}

/// A write in flight.
#[derive(Debug)]
struct Group {
    token: u64,
    sequence: FrameSequence,
    mark: Mark,
    bytes: u64,
    entries: u64,
    /// Start of its first entry's submission.
    submitted_ns: Option<u64>,
    /// Time at which the disk got the write.
    handed_at: Duration,
    synced: bool,
    done: bool,
}

impl Group {
    /// Records the times of a write that was done at `now`. Without `written_at`, write and sync
    /// were one request, and count as the sync.
    fn record_times(&self, written_at: Option<Duration>, now: Duration, times: &LogTimes) {
        if let Some(written_at) = written_at.or((!self.synced).then_some(now)) {
            // The clock of another core may be a little ahead; then no time has passed.
            times.write.record(written_at.saturating_sub(self.handed_at));
        }
        if self.synced {
            // As for the write.
            times.sync.record(now.saturating_sub(written_at.unwrap_or(self.handed_at)));
        }
    }
}

/// A segment whose frames are all written, and which is still in memory.
#[derive(Debug)]
struct Sealed {
    segment: SegmentNumber,
    file: Arc<dyn DiskFile>,
    bytes: usize,
}

/// The log writer; see the module.
#[derive(Debug)]
pub(crate) struct LogWriter {
    config: WriterConfig,
    frames: Arc<LogQueue>,
    shared: Arc<WriterShared>,
    queue: Box<dyn WriteQueue>,
    files: Arc<SegmentFiles>,
    table: Arc<SegmentTable>,
    clock: Clock,
    position: WriterPosition,
    ahead: Ahead,
    /// A frame taken off the queue that belongs to the next group.
    carried: Option<ClosedFrame>,
    in_flight: VecDeque<Group>,
    next_token: u64,
    /// Mark of the log's end after the last submitted frame, whose sequence is the position's. Some
    /// frames up to it may be in flight.
    written_mark: Mark,
    /// Sequence and mark of the last frame such that it and all before it are in the kernel's
    /// hands: a sync covers these.
    completed: (FrameSequence, Mark),
    sealed: Vec<Sealed>,
    /// Files of sealed segments with writes that no sync has covered.
    unsynced: VecDeque<(SegmentNumber, Arc<dyn DiskFile>)>,
    /// Start of the submission whose entry has been written and not synced for the longest.
    unsynced_ns: Option<u64>,
    synced_at: Duration,
    gathering_since: Option<Duration>,
}

impl LogWriter {
    #[allow(clippy::too_many_arguments, reason = "one caller: opening the log")]
    pub(crate) fn new(
        config: WriterConfig,
        frames: Arc<LogQueue>,
        shared: Arc<WriterShared>,
        queue: Box<dyn WriteQueue>,
        files: Arc<SegmentFiles>,
        table: Arc<SegmentTable>,
        clock: Clock,
        position: WriterPosition,
        mark: Mark,
    ) -> Self {
        shared.durable_sequence.store(position.sequence, Ordering::Release);
        shared.segment.store(position.segment, Ordering::Release);
        let completed = (position.sequence, mark);
        let synced_at = clock.now();
        let mut ahead = Ahead::new(files.segment_bytes());
        ahead.begin(position.is_blank);
        Self {
            config,
            ahead,
            frames,
            shared,
            queue,
            files,
            table,
            clock,
            position,
            carried: None,
            in_flight: VecDeque::with_capacity(16),
            next_token: 0,
            written_mark: mark,
            completed,
            sealed: Vec::with_capacity(4),
            unsynced: VecDeque::with_capacity(UNSYNCED_MAX + 1),
            unsynced_ns: None,
            synced_at,
            gathering_since: None,
        }
    }

    pub(crate) fn set_clock(&mut self, clock: Clock) {
        self.synced_at = clock.now();
        self.clock = clock;
    }

    /// The name of the back-end in use.
    pub(crate) fn backend(&self) -> &'static str {
        self.queue.backend()
    }

    /// Reason why it is not the one asked for.
    pub(crate) fn io_fallback(&self) -> Option<&str> {
        self.queue.fallback()
    }

    /// Writes the queued frames (and syncs them, as the mode asks). Returns whether there was
    /// anything to do.
    ///
    /// A failure is final. It poisons the engine here, in the writer's post, so that no other
    /// thread takes a step after it. The caller fails the engine with it, which wakes all waiters.
    pub(crate) fn step(&mut self, progress: &Progress) -> Result<bool, Poison> {
        progress.poison.check()?;
        let stepped = self.step_on(progress);
        self.shared.waits_for_time.store(self.waits_for_time(), Ordering::Release);
        if let Err(poison) = &stepped {
            progress.poison.set(poison.clone());
        }
        stepped
    }

    fn step_on(&mut self, progress: &Progress) -> Result<bool, Poison> {
        if self.frames.has_lost() {
            return Err(Poison::Internal(
                "a closed frame found no place in the log writer's queue",
            ));
        }
        let lingers = self.lingers(progress);
        self.shared.lingering.store(lingers, Ordering::Release);
        if lingers && self.in_flight.is_empty() {
            return Ok(false);
        }
        while !lingers && self.in_flight.len() < self.queue.depth() && self.submit_group()? {}
        // Block only if nothing is left to submit, or no depth to submit it in; frames closed
        // meanwhile gather.
        let mut worked = self.complete(progress, true)?;
        while self.complete(progress, false)? {}
        self.shared.in_flight.store(!self.in_flight.is_empty(), Ordering::Release);
        self.shared.by_ring.store(self.queue.backend() == RING_BACKEND, Ordering::Relaxed);
        if !worked {
            self.frames.want_close();
        }
        // There may be more frames to take.
        worked |= self.sync_if_due(progress)?;
        self.map_sealed()?;
        Ok(worked)
    }

    /// Time that the thread may sleep if no call wakes it; `None`: until a call does.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        if let Some(since) = self.gathering_since {
            let waited = self.clock.now().saturating_sub(since);
            // No time is left once the group has gathered long enough.
            return Some(self.config.linger.saturating_sub(waited));
        }
        match self.config.durability {
            Durability::Periodic(interval) if self.is_unsynced() => {
                Some(interval.saturating_sub(self.clock.now().saturating_sub(self.synced_at)))
            }
            _ => None,
        }
    }

    /// Whether [`LogWriter::next_due`] returns a time.
    fn waits_for_time(&self) -> bool {
        let periodic = matches!(self.config.durability, Durability::Periodic(_));
        self.gathering_since.is_some() || (periodic && self.is_unsynced())
    }

    fn is_unsynced(&self) -> bool {
        self.position.sequence > self.shared.durable_sequence.load(Ordering::Relaxed)
    }

    fn sync_is_wanted(&self) -> bool {
        self.shared.sync_is_wanted()
    }

    /// Whether less than a full group should wait for more entries.
    fn lingers(&mut self, progress: &Progress) -> bool {
        if self.config.linger.is_zero() {
            return false;
        }
        // Apply-only records may have moved the state past the log, and nothing is written for such
        // entries.
        let written = self.written_mark.max(progress.written_mark()).max(progress.base());
        let waiting = progress.submitted_mark().since(written);
        let full = waiting >= self.config.linger_entries;
        if waiting == 0 || full || self.sync_is_wanted() {
            self.gathering_since = None;
            return false;
        }
        let now = self.clock.now();
        let since = *self.gathering_since.get_or_insert(now);
        // The linger ends when a group is taken: the frame in which entries waited may have to be
        // closed first.
        now.saturating_sub(since) < self.config.linger
    }

    /// Starts the next write; returns false if no frame is closed.
    fn submit_group(&mut self) -> Result<bool, Poison> {
        // Load this before the look at the queue, which then had all frames of the segment before.
        let wanted = self.shared.segment_wanted.load(Ordering::Acquire);
        let Some(first) = self.carried.take().or_else(|| self.frames.pop()) else {
            if wanted > self.position.segment && self.in_flight.is_empty() {
                self.roll_to(wanted)?;
            }
            return Ok(false);
        };
        self.gathering_since = None;
        let image = Arc::clone(first.closing.image());
        if image.segment() != self.position.segment {
            if !self.in_flight.is_empty() {
                // The writes in flight belong to the segment that ends here.
                self.carried = Some(first);
                return Ok(false);
            }
            self.roll_to(image.segment())?;
        }
        let start = self.position.written_bytes;
        let (mut entries, mut submitted_ns) = (0, None);
        let mut next = Some(first);
        while let Some(frame) = next {
            let other_segment = frame.closing.image().segment() != self.position.segment;
            // If its end is in another segment's bytes, there is nothing to compare.
            let full = !other_segment
                && frame.end() - start > self.config.group_bytes_max
                && self.position.written_bytes > start;
            if other_segment || full {
                self.carried = Some(frame);
                break;
            }
            entries += u64::from(frame.count);
            submitted_ns = submitted_ns.or(frame.submitted_ns);
            self.complete_frame(frame, &image)?;
            next = self.frames.pop();
        }
        let end = self.position.written_bytes;
        if end as u64 > self.position.file_bytes {
            let WriterPosition { segment, file, .. } = &self.position;
            self.position.file_bytes = self.files.grow(*segment, &**file, end as u64);
        }
        if end as u64 * PREPARE_PART > self.files.segment_bytes() {
            self.files.want(self.position.segment.next());
        }
        self.write_ahead(start as u64..end as u64);
        let bytes = Image::slice(&image, start, end)
            .ok_or_else(|| Poison::internal("a group reaches past its completed frames"))?;
        let synced = match self.config.durability {
            Durability::Sync => true,
            Durability::Periodic(_) | Durability::Os => false,
        };
        let token = self.next_token;
        self.next_token += 1;
        let (sequence, mark) = (self.position.sequence, self.written_mark);
        let written = (end - start) as u64;
        self.in_flight.push_back(Group {
            token,
            sequence,
            mark,
            bytes: written,
            entries,
            submitted_ns,
            handed_at: self.clock.now(),
            synced,
            done: false,
        });
        let file = Arc::clone(&self.position.file);
        let (offset, watch) = (start as u64, Watch(self.clock.clone()));
        self.queue.submit(LogWrite { token, file, offset, bytes, sync: synced, watch });
        Ok(true)
    }

    /// Writes zeros behind a group that is about to be written, if it is time for that. The group's
    /// sync covers them.
    fn write_ahead(&mut self, group: Range<u64>) {
        // A write in flight may not be waited for, and without a sync no group waits for extents.
        if self.in_flight.is_empty() && self.config.durability == Durability::Sync {
            self.ahead.write(&*self.position.file, group, self.position.file_bytes);
        }
    }

    /// Sets the closing half of a frame's header: length, chain, watermarks, checksums.
    fn complete_frame(&mut self, frame: ClosedFrame, image: &Arc<Image>) -> Result<(), Poison> {
        let body = image.entries(frame.body);
        let body = body.ok_or_else(|| Poison::internal("a closed frame is not published"))?;
        let is_empty = frame.opening.kind == FrameKind::Truncation;
        if frame.opening.kind == FrameKind::ApplyOnly {
            let mark = Mark::before(frame.opening.first_index + u64::from(frame.count));
            self.shared.starts.record(image.segment(), mark);
        }
        if is_empty {
            self.shared.starts.truncated(frame.opening.first_index);
        }
        let header = FrameHeader {
            opening: frame.opening,
            body_bytes: frame.body.end() - frame.body.start(),
            count: frame.count,
            previous: self.position.chain,
            durable_sequence: self.shared.durable_sequence.load(Ordering::Relaxed),
            committed: frame.committed_mark.last(),
            segment: image.segment(),
            offset: u64::from(frame.body.frame()),
            body_crc: if is_empty { 0 } else { crc32c::crc32c(body) },
        };
        let closing = header.closing(&self.config.database_id);
        let end = frame.end();
        frame.closing.fill(&closing, end)?;
        self.position.chain = chain_of(&closing);
        self.position.written_bytes = end;
        self.position.sequence = header.opening.sequence;
        self.written_mark = frame.mark;
        Ok(())
    }

    /// Takes a completion, if there is one or, with `wait`, if any write is in flight. Marks move
    /// over the finished groups at the front, and over no gap.
    fn complete(&mut self, progress: &Progress, wait: bool) -> Result<bool, Poison> {
        if self.in_flight.is_empty() {
            return Ok(false);
        }
        let Some(Completion { token, result, written_at }) = self.queue.complete(wait) else {
            let forgotten = Poison::Internal("a write in flight was forgotten");
            return if wait { Err(forgotten) } else { Ok(false) };
        };
        result.map_err(|failure| self.failure(failure))?;
        let now = self.clock.now();
        let times = &self.shared.times;
        for group in self.in_flight.iter_mut().filter(|group| group.token == token) {
            group.done = true;
            group.record_times(written_at, now, times);
        }
        while let Some(group) = self.in_flight.front()
            && group.done
        {
            self.completed = (group.sequence, group.mark);
            // Count before the watermarks wake their waiters.
            self.shared.groups.fetch_add(1, Ordering::Relaxed);
            self.shared.syncs.fetch_add(u64::from(group.synced), Ordering::Relaxed);
            self.shared.bytes.fetch_add(group.bytes, Ordering::Relaxed);
            times.group_entries.record(group.entries);
            times.group_bytes.record(group.bytes);
            self.unsynced_ns = self.unsynced_ns.or(group.submitted_ns);
            if group.synced {
                times.durable_at(now, self.unsynced_ns.take());
            }
            progress.logged_to(group.sequence, group.mark, group.synced)?;
            if group.synced {
                self.shared.durable_to(group.sequence)?;
            }
            self.in_flight.pop_front();
        }
        Ok(true)
    }

    fn failure(&self, failure: WriteFailure) -> Poison {
        let file = segment_name(self.position.segment);
        let (action, source) = match failure {
            WriteFailure::Write(source) => ("writing", source),
            WriteFailure::Sync(source) => ("syncing", source),
        };
        Poison::io(action, file, source)
    }

    /// Syncs what was only written, if the interval has passed or a thread asked for it.
    fn sync_if_due(&mut self, progress: &Progress) -> Result<bool, Poison> {
        if self.config.durability == Durability::Sync {
            // Each group is synced by its own write, also those in flight.
            return Ok(false);
        }
        let asked = self.sync_is_wanted();
        let unsynced = self.completed.0 > self.shared.durable_sequence.load(Ordering::Relaxed);
        if !unsynced || !(asked || self.interval_is_over()) {
            return Ok(false);
        }
        // A sync covers only writes that ended before it starts.
        while self.complete(progress, true)? {}
        self.shared.in_flight.store(false, Ordering::Release);
        // Read after draining. A drained group may be a truncation; an older mark would count
        // removed entries as durable.
        let (sequence, mark) = self.completed;
        let current = (self.position.segment, Arc::clone(&self.position.file));
        for (segment, file) in self.unsynced.drain(..).chain([current]) {
            self.shared.sync_file(segment, &*file, &self.clock)?;
        }
        self.synced_at = self.clock.now();
        self.shared.times.durable_at(self.synced_at, self.unsynced_ns.take());
        progress.logged_to(sequence, mark, true)?;
        self.shared.durable_to(sequence)?;
        Ok(true)
    }

    fn interval_is_over(&self) -> bool {
        let since = || self.clock.now().saturating_sub(self.synced_at);
        matches!(self.config.durability, Durability::Periodic(interval) if since() >= interval)
    }

    /// Gives up the current segment, all of whose frames are durable, and continues in `segment`.
    /// The log now ends at `mark`.
    pub(crate) fn start_over(
        &mut self,
        segment: SegmentNumber,
        mark: Mark,
    ) -> Result<SegmentStart, Poison> {
        if !self.in_flight.is_empty() || self.carried.is_some() || !self.frames.is_empty() {
            return Err(Poison::Internal("the log starts over while frames are on their way"));
        }
        self.roll_to(segment)?;
        self.sealed.clear();
        self.unsynced.clear();
        self.unsynced_ns = None;
        self.written_mark = mark;
        self.completed = (self.position.sequence, mark);
        Ok(SegmentStart {
            segment: self.position.segment,
            sequence: self.position.sequence,
            chain: self.position.chain,
            mark,
        })
    }

    /// Completes the segment, and continues in the next file.
    fn roll_to(&mut self, segment: SegmentNumber) -> Result<(), Poison> {
        let began = self.clock.now();
        let next = loop {
            match self.files.take(segment) {
                // Files that wait for a sync give up their descriptors, the oldest first.
                Err(Poison::Io { source, .. })
                    if is_out_of_descriptors(&source) && self.sync_oldest()? =>
                {
                    self.map_sealed()?;
                }
                taken => break taken?,
            }
        };
        self.shared.times.segment_wait.record(self.clock.now().saturating_sub(began));
        let SegmentFile { file: next, is_blank } = next;
        let file = std::mem::replace(&mut self.position.file, next);
        self.position.is_blank = is_blank;
        self.ahead.begin(is_blank);
        self.position.file_bytes = self.files.segment_bytes();
        let ended = std::mem::replace(&mut self.position.segment, segment);
        let bytes = std::mem::replace(&mut self.position.written_bytes, 0);
        if self.config.durability != Durability::Sync {
            self.unsynced.push_back((ended, Arc::clone(&file)));
        }
        while self.unsynced.len() > UNSYNCED_MAX && self.sync_oldest()? {}
        self.sealed.push(Sealed { segment: ended, file, bytes });
        self.shared.starts.push(SegmentStart {
            segment,
            sequence: self.position.sequence,
            chain: self.position.chain,
            mark: self.written_mark,
        });
        // Stored last, so that a thread that sees it also finds the segment's start.
        self.shared.segment.store(segment, Ordering::Release);
        Ok(())
    }

    /// Syncs the oldest file that waits for it, and closes it. Returns whether there was one. This
    /// early sync only frees the descriptor; no watermark moves by it.
    fn sync_oldest(&mut self) -> Result<bool, Poison> {
        let Some((segment, file)) = self.unsynced.pop_front() else { return Ok(false) };
        self.shared.sync_file(segment, &*file, &self.clock)?;
        Ok(true)
    }

    /// Switches sealed segments from their images to their files, which frees the images.
    fn map_sealed(&mut self) -> Result<(), Poison> {
        for sealed in self.sealed.drain(..) {
            let Sealed { segment, file, bytes } = sealed;
            let bytes = SegmentBytes::sealed(self.files.disk(), segment, file, bytes);
            let bytes = bytes.map_err(|error| io_poison("mapping", segment, error))?;
            self.table.replace(segment, bytes);
        }
        Ok(())
    }
}
