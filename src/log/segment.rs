//! Segment files, made ready before they are needed, so that neither opening nor a commit waits for
//! them.
//!
//! The file of a segment that left the log is kept under its old name, below the log's base, and is
//! reused. All its bytes were written before, so a sync has no extents to convert, and waits for no
//! journal of the file system. The old bytes are not cleared. Every old frame names its own
//! segment, so none is taken for a frame of the new one. The rest of an overwritten frame lies
//! before such a frame, which tells recovery that it is no torn end. For that purpose the last
//! bytes of the file become an old frame: a copy of the file's first frame header, behind
//! everything.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{DatabaseId, FRAME_HEADER_BYTES, FrameHeader};
use super::recovery::files::is_no_segment;
use crate::disk::names::segment_name;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::Poison;
use crate::numbers::{AtomicSegmentNumber, SegmentNumber};
use crate::sync::{Mutex, Rank, tell, tell_under_locks};

/// Initial length of a log's first file, so that a directory of few entries takes little space.
const FIRST_BYTES: u64 = 64 << 10;
/// Factor by which a short file grows, until it is as long as a segment. Each growth costs one
/// change of the file system's metadata. With the defaults a log has five of them.
const GROWTH: u64 = 4;

/// Stands for no segment to make ready: a log on disk makes no file of this number.
const NONE_WANTED: SegmentNumber = SegmentNumber::LOWEST;

/// Maker of the files of a log, the next one ahead of time.
#[derive(Debug)]
pub(crate) struct SegmentFiles {
    disk: Arc<dyn Disk>,
    database_id: DatabaseId,
    segment_bytes: u64,
    /// Numbers of files that may be reused: all are below the log's base, and no thread reads them.
    spares: Mutex<Vec<SegmentNumber>>,
    spares_max: usize,
    /// Number of reused files.
    recycled: AtomicU64,
    /// The number of the log's last segment, for the figures.
    last_taken: AtomicSegmentNumber,
    /// The number of the segment to make ready, or [`NONE_WANTED`].
    wanted: AtomicSegmentNumber,
    /// The last number that was asked for.
    asked: AtomicSegmentNumber,
    ready: Mutex<Ready>,
}

/// The file of a segment, to be written to.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) file: Arc<dyn DiskFile>,
    /// Whether its space is reserved only: none of it was written before.
    pub(crate) is_blank: bool,
}

#[derive(Debug, Default)]
struct Ready {
    next: Option<(SegmentNumber, SegmentFile)>,
    /// Highest segment number taken. A late `prepare` for it or a lower one does nothing.
    taken: Option<SegmentNumber>,
}

impl SegmentFiles {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        database_id: DatabaseId,
        segment_bytes: u64,
        spares_max: usize,
    ) -> Self {
        Self {
            disk,
            database_id,
            segment_bytes,
            spares: Mutex::new(Rank::SpareSegments, Vec::new()),
            spares_max,
            recycled: AtomicU64::new(0),
            last_taken: AtomicSegmentNumber::default(),
            wanted: AtomicSegmentNumber::default(),
            asked: AtomicSegmentNumber::default(),
            ready: Mutex::new(Rank::ReadySegment, Ready::default()),
        }
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Releases the file of a segment below the log's base: keeps it for reuse, or removes it if
    /// there are enough. `META` names the base durably, and nothing maps or reads the file. A file
    /// that cannot be removed is left to the next open.
    pub(crate) fn let_go(&self, number: SegmentNumber) {
        let mut spares = self.spares.lock();
        if spares.len() < self.spares_max {
            spares.push(number);
        } else {
            drop(spares);
            self.remove(number);
        }
    }

    /// Removes the file of a segment that does not belong to the log.
    pub(crate) fn remove(&self, number: SegmentNumber) {
        let name = segment_name(number);
        if let Err(error) = self.disk.remove(&name) {
            tell_under_locks(|| {
                tracing::warn!(
                    %error,
                    name,
                    "a segment that is no longer needed could not be removed"
                );
            });
        }
    }

    /// Number of segments in reused files.
    pub(crate) fn recycled(&self) -> u64 {
        self.recycled.load(Ordering::Relaxed)
    }

    /// The number of the log's last segment. Unlike `ready`, it is not locked while a file is made.
    pub(crate) fn last_taken(&self) -> SegmentNumber {
        self.last_taken.load(Ordering::Relaxed)
    }

    /// Number of files kept for reuse, without the one that is ready for the next segment.
    pub(crate) fn spares(&self) -> u64 {
        self.spares.lock().len() as u64
    }

    /// The file of segment `number`, durable with its directory entry and all of its space.
    pub(crate) fn take(&self, number: SegmentNumber) -> Result<SegmentFile, Poison> {
        let mut ready = self.ready.lock();
        ready.taken = Some(number);
        self.last_taken.store(number, Ordering::Relaxed);
        match ready.next.take() {
            Some((prepared, file)) if prepared == number => Ok(file),
            _ => {
                let file = self.reserve(number, self.segment_bytes);
                let file = file.map_err(|source| io_poison("creating", number, source))?;
                self.settle(number, file)
            }
        }
    }

    /// The file of segment `number`, in which the log ends at opening, and its length. An existing
    /// file keeps its length, and a new one is short: see [`SegmentFiles::grow`].
    pub(crate) fn take_last(&self, number: SegmentNumber) -> Result<(SegmentFile, u64), Poison> {
        self.ready.lock().taken = Some(number);
        self.last_taken.store(number, Ordering::Relaxed);
        let file = self.reserve(number, FIRST_BYTES.min(self.segment_bytes));
        let creating = |source| io_poison("creating", number, source);
        let file = self.settle(number, file.map_err(creating)?)?;
        let bytes = file.file.len().map_err(creating)?;
        Ok((file, bytes))
    }

    /// Reserves space in the file of segment `number` up to `end`, and more. Returns the new
    /// length. Without space, the next write reports it, or still fits.
    pub(crate) fn grow(&self, number: SegmentNumber, file: &dyn DiskFile, end: u64) -> u64 {
        let mut bytes = FIRST_BYTES;
        while bytes < end {
            // A length that saturates ends the loop; the file's limit refuses it.
            bytes = bytes.saturating_mul(GROWTH);
        }
        let bytes = bytes.min(self.segment_bytes).max(end);
        match file.allocate(bytes) {
            Ok(()) => bytes,
            Err(error) => {
                tell_under_locks(|| {
                    tracing::debug!(
                        %error,
                        %number,
                        bytes,
                        "a segment's file could not be made longer"
                    );
                });
                end
            }
        }
    }

    /// Asks, once, for segment `number` to be made ready by [`SegmentFiles::prepare`].
    pub(crate) fn want(&self, number: SegmentNumber) {
        if self.asked.swap(number, Ordering::Relaxed) != number {
            self.wanted.store(number, Ordering::Release);
        }
    }

    /// Length of a segment file, in bytes.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Makes the file of segment `number` ready, unless it is. The inner error says why it cannot
    /// be made yet; a failed sync ends the engine.
    pub(crate) fn have_ready(&self, number: SegmentNumber) -> Result<io::Result<()>, Poison> {
        self.asked.store(number, Ordering::Relaxed);
        self.make_ready(number)
    }

    fn make_ready(&self, number: SegmentNumber) -> Result<io::Result<()>, Poison> {
        // Hold the lock while the file is made. A log writer that needs the file meanwhile waits,
        // and does not make it too.
        let mut ready = self.ready.lock();
        let is_there = ready.next.as_ref().is_some_and(|(prepared, _)| *prepared == number);
        if is_there || Some(number) <= ready.taken {
            return Ok(Ok(()));
        }
        match self.reserve(number, self.segment_bytes) {
            Ok(file) => ready.next = Some((number, self.settle(number, file)?)),
            Err(error) => return Ok(Err(error)),
        }
        Ok(Ok(()))
    }

    /// Whether [`SegmentFiles::prepare`] has something to do.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire) != NONE_WANTED
    }

    /// Makes the requested segment ready. The log writer reports a file that cannot be made when it
    /// gets there. A failed sync ends the engine, because another attempt would prove nothing.
    pub(crate) fn prepare(&self) -> Result<(), Poison> {
        let number = self.wanted.swap(NONE_WANTED, Ordering::AcqRel);
        if number == NONE_WANTED {
            return Ok(());
        }
        if let Err(error) = self.make_ready(number)? {
            tell(|| tracing::warn!(%error, "the next segment could not be made ready"));
        }
        Ok(())
    }

    /// Space is reserved, not written. Zero-filling the next segment beside the log writer cost
    /// half of the throughput (`docs/benchmarks.md`). The log writer writes zeros ahead of small
    /// groups itself.
    ///
    /// A new file has `bytes` bytes, and an existing one has no fewer.
    fn reserve(&self, number: SegmentNumber, bytes: u64) -> io::Result<SegmentFile> {
        let name = segment_name(number);
        let file = match self.disk.open(&name, Access::Write) {
            // The file does not exist. Otherwise it was made ready before and not used, or the log
            // ends in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.recycle(&name) {
                Some(file) => file,
                None => return self.create(&name, bytes),
            },
            other => other?,
        };
        if is_no_segment(&*file, &self.database_id)? {
            let what = "it is not a file of sprag; move it out of the directory";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        // A recycled file may have holes after a sparse copy. `allocate` fills them.
        file.allocate(bytes.max(file.len()?))?;
        Ok(SegmentFile { file, is_blank: false })
    }

    /// Makes a new file with all of its space, or none. A full file system may have given a part,
    /// to the last block.
    fn create(&self, name: &str, bytes: u64) -> io::Result<SegmentFile> {
        let (file, is_blank) = match self.disk.open(name, Access::Create) {
            // A spare has this name, and could not be opened by it: see `recycle_one`.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (self.disk.open(name, Access::Write)?, false)
            }
            other => (other?, true),
        };
        let reserved = file.allocate(bytes);
        if reserved.is_err()
            && let Err(error) = self.disk.remove(name)
        {
            tell_under_locks(|| {
                tracing::warn!(%error, name, "a segment without its space could not be removed");
            });
        }
        reserved.map(|()| SegmentFile { file, is_blank })
    }

    /// Removes all spare files but one, which the log itself may need next. Returns whether there
    /// were any.
    pub(crate) fn free_spares(&self) -> bool {
        let spares: Vec<SegmentNumber> = {
            let mut spares = self.spares.lock();
            let kept = spares.len().min(1);
            spares.drain(kept..).collect()
        };
        spares.iter().for_each(|number| self.remove(*number));
        !spares.is_empty()
    }

    /// A spare file under its new name; `None` without a usable one.
    fn recycle(&self, name: &str) -> Option<Arc<dyn DiskFile>> {
        loop {
            let spare = self.spares.lock().pop()?;
            match self.recycle_one(spare, name) {
                Ok(Some(file)) => {
                    self.recycled.fetch_add(1, Ordering::Relaxed);
                    return Some(file);
                }
                Ok(None) => self.remove(spare),
                Err(error) => {
                    tell_under_locks(|| {
                        tracing::warn!(
                            %error,
                            segment = %spare,
                            "a segment could not be used again"
                        );
                    });
                    self.remove(spare);
                }
            }
        }
    }

    fn recycle_one(
        &self,
        spare: SegmentNumber,
        name: &str,
    ) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let old_name = segment_name(spare);
        let file = self.disk.open(&old_name, Access::Write)?;
        let mut first = [0; FRAME_HEADER_BYTES];
        let read = file.read_at(&mut first, 0)?;
        let header = FrameHeader::parse(&first, &self.database_id);
        let is_its_first = |header: &FrameHeader| (header.segment, header.offset) == (spare, 0);
        if file.len()? != self.segment_bytes
            || read < FRAME_HEADER_BYTES
            || !header.as_ref().is_ok_and(is_its_first)
        {
            return Ok(None);
        }
        file.write_all_at(&first, self.segment_bytes - FRAME_HEADER_BYTES as u64)?;
        // The new name must not survive a power cut without the copied header.
        file.sync_data()?;
        drop(file);
        self.disk.rename(&old_name, name)?;
        // Open the file again, because a file keeps the name by which it was opened.
        self.disk.open(name, Access::Write).map(Some)
    }

    /// Makes a file durable, with its directory entry.
    fn settle(&self, number: SegmentNumber, file: SegmentFile) -> Result<SegmentFile, Poison> {
        let synced = file.file.sync_data().and_then(|()| self.disk.sync_dir());
        synced.map_err(|source| io_poison("syncing", number, source))?;
        Ok(file)
    }
}

/// The poison for a failure on a segment's file.
pub(crate) fn io_poison(action: &'static str, segment: SegmentNumber, source: io::Error) -> Poison {
    Poison::io(action, segment_name(segment), source)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::log::test_disk::MemoryDisk;
    use crate::testing::{Fault, FaultError, SimDisk};

    fn segment(number: u32) -> SegmentNumber {
        SegmentNumber::new(number)
    }

    #[test]
    fn who_comes_late_to_make_a_segment_ready_makes_none_that_was_taken() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let files = SegmentFiles::new(Arc::clone(&disk), [0; 16], 4096, 4);
        files.want(segment(2));
        let number = files.wanted.swap(NONE_WANTED, Ordering::AcqRel);
        drop(files.take(segment(2)).unwrap());
        drop(files.take(segment(3)).unwrap());
        // The segment was given up meanwhile.
        files.remove(segment(2));
        files.make_ready(number).unwrap().unwrap();
        assert_eq!(disk.list().unwrap(), [segment_name(segment(3))]);
        files.have_ready(segment(4)).unwrap().unwrap();
        assert!(disk.list().unwrap().contains(&segment_name(segment(4))));
    }

    #[test]
    fn the_file_that_a_log_begins_in_is_short_and_grows_up_to_a_segment() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let files = SegmentFiles::new(disk, [0; 16], 4 << 20, 4);
        let (file, bytes) = files.take_last(segment(1)).unwrap();
        assert_eq!(bytes, FIRST_BYTES);
        let ends = [1, FIRST_BYTES + 1, 300 << 10, 2 << 20, 4 << 20];
        let lengths = ends.map(|end| files.grow(segment(1), &*file.file, end));
        assert_eq!(lengths, [64 << 10, 256 << 10, 1 << 20, 4 << 20, 4 << 20]);
        assert_eq!(file.file.len().unwrap(), 4 << 20);
        assert_eq!(files.take(segment(2)).unwrap().file.len().unwrap(), 4 << 20);
    }

    #[test]
    fn a_segment_for_which_there_is_no_space_leaves_no_file_that_has_what_there_is() {
        let mut refused = 0;
        for at in 0..8 {
            let sim = SimDisk::new(1);
            let disk = sim.open(true).unwrap();
            let files = SegmentFiles::new(Arc::clone(&disk), [0; 16], 4096, 4);
            sim.reset_operations();
            sim.fail_at(at, Fault::Error(FaultError::Enospc));
            if matches!(files.have_ready(segment(2)), Ok(Err(_))) {
                refused += 1;
                let left = disk.list().unwrap();
                assert!(
                    !left.contains(&segment_name(segment(2))),
                    "before operation {at}: {left:?}"
                );
                files.have_ready(segment(2)).unwrap().unwrap();
            }
        }
        assert!(refused > 0);
    }
}
