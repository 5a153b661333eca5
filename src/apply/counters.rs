//! What an engine counts, and the memory that it was made with.

use crate::log::figures::MemoryStats;
use crate::numbers::Mark;
use crate::progress::watermark::Progress;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The counts of one engine. Only the methods here change them.
#[derive(Debug)]
pub(crate) struct Counters {
    /// Number of replies that were rejections.
    rejected: AtomicU64,
    /// Number of indexes that an installed snapshot or a record took the applied mark past.
    jumped: AtomicU64,
    /// Mark of the entries applied before the engine was made.
    start_mark: Mark,
    /// Number of entries that replay gave to the machine.
    replayed: u64,
    memory: MemoryStats,
}

impl Counters {
    pub(super) fn new(start_mark: Mark, replayed: u64, memory: MemoryStats) -> Self {
        let (rejected, jumped) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { rejected, jumped, start_mark, replayed, memory }
    }

    /// Counts replies that are rejections. Relaxed: no other memory is read by the count.
    #[inline]
    pub(super) fn reject(&self, replies: u64) {
        if replies > 0 {
            self.rejected.fetch_add(replies, Ordering::Relaxed);
        }
    }

    /// Number of rejections, of `applied` entries at most.
    pub(super) fn rejected(&self, applied: u64) -> u64 {
        self.rejected.load(Ordering::Relaxed).min(applied)
    }

    /// Notes that the applied mark will jump to `mark`, with `applied` entries. The caller holds
    /// the appender, and no entry is in the rings.
    pub(super) fn note_jump(&self, progress: &Progress, mark: Mark, applied: u64) {
        let before = progress.applied_mark().max(progress.base());
        // The entries are among the indexes of the jump.
        let jumped = mark.since(before).saturating_sub(applied);
        self.jumped.fetch_add(jumped, Ordering::Release);
    }

    /// Number of entries that the engine has applied.
    pub(super) fn applied(&self, progress: &Progress) -> u64 {
        loop {
            let jumped = self.jumped.load(Ordering::Acquire);
            let before = self.start_mark.max(progress.base());
            let applied = progress.applied_mark().since(before);
            // A jump is noted before the mark moves, so indexes it passes never count as applied.
            if self.jumped.load(Ordering::Acquire) == jumped {
                // The indexes of a jump are among those that the mark has passed, or will pass.
                return applied.saturating_sub(jumped);
            }
        }
    }

    pub(super) fn replayed(&self) -> u64 {
        self.replayed
    }

    pub(super) fn memory(&self) -> MemoryStats {
        self.memory
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use super::*;
    use crate::progress::watermark::{AckRule, StartMarks};

    #[test]
    fn indexes_that_a_jump_passes_are_not_counted_as_applied() {
        let progress = Progress::new(AckRule::Applied, StartMarks::default(), Arc::default());
        progress.set_base(1);
        let counters = Counters::new(progress.applied_mark(), 7, MemoryStats::default());
        assert_eq!((counters.applied(&progress), counters.replayed()), (0, 7));
        // A snapshot of the entry at index 10, and then two records up to index 20.
        counters.note_jump(&progress, Mark::of(Some(10)), 0);
        progress.jump_to(Mark::of(Some(10))).unwrap();
        assert_eq!(counters.applied(&progress), 0);
        counters.note_jump(&progress, Mark::of(Some(20)), 2);
        progress.jump_to(Mark::of(Some(20))).unwrap();
        assert_eq!(counters.applied(&progress), 2);
        counters.reject(3);
        assert_eq!((counters.rejected(9), counters.rejected(2)), (3, 2));
    }
}
