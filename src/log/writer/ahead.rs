//! Zeros ahead of the log's end, in a file whose space is reserved and not written.
//!
//! The first write to a reserved block changes the file's extents, and the sync after it waits for
//! the journal of the file system. So the log writer writes zeros behind a small group, far enough
//! for many groups to come, and the sync of that group covers both. The next groups then write to
//! blocks that were written before. The reserved space reads as zeros already, so nothing that a
//! crash leaves of this can be told from what was there.

use std::io;
use std::ops::Range;

use crate::bytes::to_usize;
use crate::disk::DiskFile;

/// Bytes of zeros at a time. Measured with groups of 2 KiB to 132 KiB (`docs/benchmarks.md`).
const AHEAD_BYTES: u64 = 2 << 20;
/// Longest group that zeros are written for: a longer one writes many blocks with each sync, and
/// zeros would cost as much as they save.
const GROUP_BYTES_MAX: u64 = 64 << 10;
/// Number of such groups in a row after which zeros are written. A log that is written flat out
/// begins with a small group, and goes on with long ones.
const SHORT_GROUPS_MIN: u32 = 8;
/// Shortest segment that zeros are written for.
const SEGMENT_BYTES_MIN: u64 = 2 * AHEAD_BYTES;
/// Bytes of a write of zeros.
const ZEROS_BYTES: usize = 128 << 10;
/// Block of the file system.
const BLOCK_BYTES: u64 = 4096;

/// The zeros of the file that the log writer writes to.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Offset before which every block of the file was written; `None` if that holds for the whole
    /// file, or is not known.
    written_to: Option<u64>,
    /// Number of short groups since the last long one.
    short_groups: u32,
    /// Zeros; none if the segments are too short.
    zeros: Box<[u8]>,
}

impl Ahead {
    pub(super) fn new(segment_bytes: u64) -> Self {
        let len = if segment_bytes < SEGMENT_BYTES_MIN { 0 } else { ZEROS_BYTES };
        Self { written_to: None, short_groups: 0, zeros: vec![0; len].into() }
    }

    /// Begins another file.
    pub(super) fn begin(&mut self, is_blank: bool) {
        self.written_to = (is_blank && !self.zeros.is_empty()).then_some(0);
    }

    /// Writes zeros behind `group`, the offsets of a group about to be written, if that reaches
    /// blocks which were not written before. The file is `file_bytes` long.
    ///
    /// A refusal ends the zeros of the file. It is no failure of the log: the group meets the same
    /// disk, and reports it.
    pub(super) fn write(&mut self, file: &dyn DiskFile, group: Range<u64>, file_bytes: u64) {
        let is_short = group.end - group.start <= GROUP_BYTES_MAX;
        // A count at its end is above the limit.
        self.short_groups = if is_short { self.short_groups.saturating_add(1) } else { 0 };
        if let Some(due) = self.due(&group, file_bytes) {
            self.written_to = self.fill(file, &due).is_ok().then_some(due.end);
        }
    }

    fn fill(&self, file: &dyn DiskFile, due: &Range<u64>) -> io::Result<()> {
        let mut at = due.start;
        while at < due.end {
            let len = self.zeros.len().min(to_usize(due.end - at));
            file.write_all_at(&self.zeros[..len], at)?;
            at += len as u64;
        }
        Ok(())
    }

    fn due(&self, group: &Range<u64>, file_bytes: u64) -> Option<Range<u64>> {
        if self.written_to? >= group.end || self.short_groups < SHORT_GROUPS_MIN {
            return None;
        }
        // The group itself writes the block in which it ends.
        let start = group.end.next_multiple_of(BLOCK_BYTES);
        let end = file_bytes.min(start + AHEAD_BYTES);
        (start < end).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::disk::Access;
    use crate::testing::{Fault, FaultError, SimDisk};

    const FILE_BYTES: u64 = 8 << 20;

    fn due(ahead: &Ahead, group: Range<u64>) -> Option<Range<u64>> {
        ahead.due(&group, FILE_BYTES)
    }

    /// An `Ahead` of a new file, after enough short groups.
    fn begun() -> Ahead {
        let mut ahead = Ahead::new(FILE_BYTES);
        ahead.begin(true);
        ahead.short_groups = SHORT_GROUPS_MIN;
        ahead
    }

    #[test]
    fn zeros_are_written_behind_a_small_group_that_comes_to_new_blocks_and_never_over_one() {
        let sim = SimDisk::new(1);
        let file = sim.open(true).unwrap().open("a", Access::Create).unwrap();
        file.allocate(FILE_BYTES).unwrap();
        let mut ahead = begun();
        assert_eq!(due(&ahead, 0..100), Some(4096..4096 + AHEAD_BYTES));
        ahead.write(&*file, 0..100, FILE_BYTES);
        let next = AHEAD_BYTES..4096 + AHEAD_BYTES;
        assert_eq!(due(&ahead, next.clone()), None, "its blocks were written");
        let behind = next.start..next.end + 1;
        assert_eq!(due(&ahead, behind), Some(8192 + AHEAD_BYTES..8192 + 2 * AHEAD_BYTES));
        let last = FILE_BYTES - 5000..FILE_BYTES - 4999;
        assert_eq!(due(&ahead, last), Some(FILE_BYTES - 4096..FILE_BYTES), "the file ends");
        assert_eq!(due(&ahead, FILE_BYTES - 10..FILE_BYTES - 1), None, "no block is left");
        assert_eq!(sim.read_file("a").unwrap(), vec![0; to_usize(FILE_BYTES)]);
    }

    #[test]
    fn zeros_that_the_disk_refuses_are_given_up() {
        let sim = SimDisk::new(1);
        let file = sim.open(true).unwrap().open("a", Access::Create).unwrap();
        let mut ahead = begun();
        sim.reset_operations();
        sim.fail_at(0, Fault::Error(FaultError::Enospc));
        ahead.write(&*file, 0..100, FILE_BYTES);
        assert_eq!((sim.operations(), due(&ahead, 0..100)), (1, None));
    }

    #[test]
    fn a_log_that_is_written_in_long_groups_gets_no_zeros() {
        let sim = SimDisk::new(1);
        let file = sim.open(true).unwrap().open("a", Access::Create).unwrap();
        let mut ahead = Ahead::new(FILE_BYTES);
        ahead.begin(true);
        let mut at = 0;
        for _ in 0..3 {
            for len in [100, 100, 100, GROUP_BYTES_MAX + 1] {
                ahead.write(&*file, at..at + len, FILE_BYTES);
                at += len;
            }
        }
        assert_eq!(ahead.written_to, Some(0));
        (0..SHORT_GROUPS_MIN).for_each(|_| ahead.write(&*file, at..at + 1, FILE_BYTES));
        assert!(ahead.written_to > Some(at), "{ahead:?}");
    }

    #[test]
    fn a_file_that_was_written_before_and_a_short_segment_get_no_zeros() {
        let mut ahead = begun();
        ahead.begin(false);
        assert_eq!(due(&ahead, 0..100), None);
        let mut short = Ahead::new(SEGMENT_BYTES_MIN - 1);
        short.begin(true);
        short.short_groups = SHORT_GROUPS_MIN;
        assert_eq!(due(&short, 0..100), None);
    }
}
