//! The write queue of an io_uring: several groups in flight, past the page cache.
//!
//! Groups follow each other without a gap, so a group starts in the 4 KiB block in which the one
//! before ends. Two writes of one block must never be in flight together, because the later one
//! would win. So a group is one write if no other write is at its first block, and otherwise two.
//! The blocks after the first are written at once. The first, which begins with the end of the
//! group before, is written when that group is done. Nothing is padded on disk, and no group
//! finishes later than if it had waited.
//!
//! Each write is its own sync (`RWF_DSYNC`), so that groups are independent; the log writer only
//! moves over groups without a gap. A small group that is alone is written and then synced, one
//! after the other and never linked. In most measured rounds that was several times faster
//! (`docs/benchmarks.md`). Other writes go the way of [`pwrite`](super::pwrite), in their turn:
//! those to a file without direct I/O, and those outside of a segment's image.

use crate::hook::Hook;
use crate::sync::tell_under_locks;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::ring::{BLOCK_BYTES, Blocks, Done, Ring};
use super::limits::check_file_end;
use super::pwrite::perform;
use super::{Completion, LogWrite, RING_BACKEND, WriteFailure, WriteQueue};

mod ring;
#[cfg(test)]
mod tests;

/// Most groups in flight.
const DEPTH: u32 = 8;
/// Most requests in flight: a group is at most two writes at a time.
const SLOTS: u32 = 2 * DEPTH;
/// Bytes up to which a group that is alone is written, and then synced.
const APART_BYTES_MAX: u64 = 256 << 10;
/// Number of times that a request is submitted again after the kernel put it off, before it counts
/// as failed.
const RETRIES_MAX: u32 = 1000;

#[derive(Debug)]
pub(super) struct UringQueue {
    ring: Ring,
    /// The groups in order of submission.
    groups: VecDeque<Group>,
    /// Whether a write without a sync has happened: from then on every sync covers the whole file.
    unsynced: bool,
}

#[derive(Debug)]
struct Group {
    write: LogWrite,
    way: Way,
    parts: [Part; 2],
    /// Number of syncs that the kernel took back before it began them.
    sync_retries: u32,
    failure: Option<WriteFailure>,
    written_at: Option<Duration>,
}

/// The way in which a group is completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The group is done with its writes.
    Writes,
    /// A sync of the file follows the writes: the group is alone, or covers earlier writes too, or
    /// a write was short.
    ThenSync,
    /// A state in which that sync is in flight.
    Syncing { slot: usize },
    /// The group goes through the page cache, when it is the first in the queue.
    Plain,
    /// The group went through the page cache, and is done.
    PlainDone,
}

/// Whole blocks of the file; the last may end in zeros.
#[derive(Clone, Copy, Debug)]
struct Part {
    start: u64,
    end: u64,
    stage: Stage,
    retries: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Waiting,
    Running { slot: usize, len: usize },
    Over,
}

impl Part {
    fn over() -> Self {
        Self { start: 0, end: 0, stage: Stage::Over, retries: 0 }
    }

    fn waiting(start: u64, end: u64) -> Self {
        let stage = if start < end { Stage::Waiting } else { Stage::Over };
        Self { start, end, stage, retries: 0 }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.stage != Stage::Over && self.start < other.end && other.start < self.end
    }
}

impl Group {
    fn is_done(&self) -> bool {
        let running = |part: &Part| matches!(part.stage, Stage::Running { .. });
        if self.failure.is_some() {
            return !self.parts.iter().any(running);
        }
        match self.way {
            Way::Writes => self.is_written(),
            Way::PlainDone => true,
            Way::ThenSync | Way::Syncing { .. } | Way::Plain => false,
        }
    }

    fn is_written(&self) -> bool {
        self.parts.iter().all(|part| part.stage == Stage::Over)
    }

    fn fail(&mut self, failure: WriteFailure) {
        self.failure.get_or_insert(failure);
        for part in self.parts.iter_mut().filter(|part| part.stage == Stage::Waiting) {
            part.stage = Stage::Over;
        }
    }
}

impl UringQueue {
    /// Makes the queue; an error if the kernel refuses a ring.
    pub(super) fn new() -> io::Result<Self> {
        let (ring, groups) = (Ring::new(SLOTS)?, VecDeque::with_capacity(DEPTH as usize));
        Ok(Self { ring, groups, unsynced: false })
    }

    /// Whether another write is at these blocks, or will be before `group`.
    fn is_taken(&self, group: usize, file: &LogWrite, part: &Part) -> bool {
        self.groups.iter().take(group).any(|earlier| {
            Arc::ptr_eq(&earlier.write.file, &file.file)
                && earlier.parts.iter().any(|other| other.overlaps(part))
        })
    }

    /// Submits every write that may go.
    fn advance(&mut self) {
        for index in 0..self.groups.len() {
            for at in 0..2 {
                self.start_part(index, at);
            }
            let earlier_done = self.groups.iter().take(index).all(Group::is_done);
            let Some(group) = self.groups.get_mut(index) else { return };
            let due = group.way == Way::ThenSync && group.is_written() && group.failure.is_none();
            if due && earlier_done {
                match self.ring.sync(Arc::clone(&group.write.file)) {
                    Ok(slot) => {
                        group.way = Way::Syncing { slot };
                        group.written_at = Some(group.write.watch.now());
                    }
                    Err(error) => group.fail(WriteFailure::Sync(error)),
                }
            }
        }
    }

    fn start_part(&mut self, index: usize, at: usize) {
        let Some(group) = self.groups.get(index) else { return };
        let Some(part) = group.parts.get(at).copied() else { return };
        let ready = part.stage == Stage::Waiting && group.way != Way::Plain;
        if !ready || self.is_taken(index, &group.write, &part) {
            return;
        }
        let Some(group) = self.groups.get_mut(index) else { return };
        let started = blocks(&group.write, &part, group.way == Way::Writes)
            .ok_or_else(|| io::Error::other("bytes of a group that are not in its image"))
            .and_then(|blocks| self.ring.write(blocks));
        match started {
            Ok((slot, len)) => {
                if let Some(part) = group.parts.get_mut(at) {
                    part.stage = Stage::Running { slot, len };
                }
            }
            Err(error) => group.fail(WriteFailure::Write(error)),
        }
    }

    /// Records the result of a request.
    fn settle(&mut self, done: &Done) {
        for group in &mut self.groups {
            if group.way == (Way::Syncing { slot: done.slot }) {
                if done.result == -libc::ECANCELED && group.sync_retries < RETRIES_MAX {
                    // The kernel took the request back before it called the file system, for
                    // example because signals kept it from starting a thread. No error of the disk
                    // was reported, so none is lost by another sync.
                    group.sync_retries += 1;
                    group.way = Way::ThenSync;
                    return;
                }
                group.way = Way::Writes;
                if done.result < 0 {
                    // A failed sync is final, also when interrupted: a second, successful sync
                    // would prove nothing.
                    group.fail(WriteFailure::Sync(io::Error::from_raw_os_error(-done.result)));
                }
                return;
            }
            let running = |part: &&mut Part| matches!(part.stage, Stage::Running { slot, .. } if slot == done.slot);
            let Some(part) = group.parts.iter_mut().find(running) else { continue };
            let Stage::Running { len, .. } = part.stage else { continue };
            let written = usize::try_from(done.result).unwrap_or(0);
            if written >= len {
                part.stage = Stage::Over;
                return;
            }
            part.stage = Stage::Waiting;
            match -done.result {
                // The write was not tried, or was cut off; all of it is submitted again, and synced
                // with that. A thread that ends takes back requests that the kernel has not begun.
                libc::EINTR | libc::EAGAIN | libc::ECANCELED if part.retries < RETRIES_MAX => {
                    part.retries += 1;
                }
                libc::EINVAL | libc::EOPNOTSUPP => {
                    tell_under_locks(|| {
                        tracing::warn!(
                            "a write past the page cache is refused, and goes through it"
                        )
                    });
                    group.way = Way::Plain;
                }
                error if error > 0 => {
                    part.stage = Stage::Over;
                    group.fail(WriteFailure::Write(io::Error::from_raw_os_error(error)));
                }
                _ => {
                    // The write was short, so it continues at the last whole block. The sync that
                    // went with it does not count.
                    let whole = written - written % BLOCK_BYTES;
                    part.start += whole as u64;
                    part.retries = if whole == 0 { part.retries + 1 } else { 0 };
                    if part.retries > RETRIES_MAX {
                        group.fail(WriteFailure::Write(io::ErrorKind::WriteZero.into()));
                    } else if group.write.sync {
                        group.way = Way::ThenSync;
                    }
                }
            }
            return;
        }
    }

    /// Performs the first group in the queue if it must go through the page cache; everything
    /// before it is done.
    fn perform_plain(&mut self) {
        let Some(group) = self.groups.front_mut() else { return };
        let running = |part: &Part| matches!(part.stage, Stage::Running { .. });
        if group.way == Way::Plain && group.failure.is_none() && !group.parts.iter().any(running) {
            let (result, written_at) = perform(&group.write);
            (group.failure, group.written_at) = (result.err(), written_at);
            group.way = Way::PlainDone;
            group.parts = [Part::over(); 2];
        }
    }
}

fn failed(token: u64, error: io::Error) -> Completion {
    Completion { token, result: Err(WriteFailure::Write(error)), written_at: None }
}

/// The blocks of a part, in the image.
fn blocks(write: &LogWrite, part: &Part, alone: bool) -> Option<Blocks> {
    let start = usize::try_from(part.start).ok()?;
    let end = usize::try_from(part.end).ok()?.min(write.bytes.end());
    Some(Blocks {
        file: Arc::clone(&write.file),
        bytes: write.bytes.within(start, end)?,
        offset: part.start,
        sync: write.sync && alone,
    })
}

impl WriteQueue for UringQueue {
    fn backend(&self) -> &'static str {
        RING_BACKEND
    }

    fn depth(&self) -> usize {
        DEPTH as usize
    }

    fn submit(&mut self, write: LogWrite) {
        debug_assert!(self.groups.len() < DEPTH as usize, "more writes in flight than the depth");
        let block = BLOCK_BYTES as u64;
        let start = write.offset - write.offset % block;
        let end = (write.offset + write.bytes.as_ref().len() as u64).next_multiple_of(block);
        let is_image =
            write.bytes.start() as u64 == write.offset && !write.bytes.as_ref().is_empty();
        let apart = self.unsynced || (self.groups.is_empty() && end - start <= APART_BYTES_MAX);
        // A write past the limit of a file's size goes through the page cache, which writes no more
        // than fits.
        let is_direct =
            is_image && check_file_end(end).is_ok() && write.file.direct(Hook::ENGINE).is_some();
        let way = match (is_direct, write.sync && apart) {
            (false, _) => Way::Plain,
            (true, false) => Way::Writes,
            (true, true) => Way::ThenSync,
        };
        let whole = Part::waiting(start, end);
        let parts = if self.is_taken(self.groups.len(), &write, &whole) && way != Way::Plain {
            let first_end = end.min(start + block);
            [Part::waiting(start, first_end), Part::waiting(first_end, end)]
        } else {
            [whole, Part::over()]
        };
        self.unsynced |= !write.sync;
        let (failure, written_at) = (None, None);
        self.groups.push_back(Group { write, way, parts, sync_retries: 0, failure, written_at });
        self.advance();
    }

    fn complete(&mut self, wait: bool) -> Option<Completion> {
        loop {
            while let Some(done) = self.ring.take() {
                self.settle(&done);
            }
            if wait {
                self.perform_plain();
            }
            self.advance();
            if let Some(at) = self.groups.iter().position(Group::is_done)
                && let Some(group) = self.groups.remove(at)
            {
                let Group { write, failure, written_at, .. } = group;
                let result = failure.map_or(Ok(()), Err);
                return Some(Completion { token: write.token, result, written_at });
            }
            let first = self.groups.front()?.write.token;
            if wait && self.ring.busy() == 0 {
                if self.groups.front().is_some_and(|group| group.way == Way::Plain) {
                    continue;
                }
                let stuck = io::Error::other("a write that nothing is done about");
                return Some(failed(first, stuck));
            }
            let entered = self.ring.enter(wait);
            if let Err(error) = entered {
                // Requests in flight stay with the ring until it is dropped.
                return Some(failed(first, error));
            }
            if !wait {
                // The next call takes the completion.
                return None;
            }
        }
    }
}
