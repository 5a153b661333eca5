//! Whose turn it is with the snapshots of a directory, and the newest snapshot there.

use std::sync::Weak;
use std::time::Duration;

use crate::apply::desks::compaction::Compaction;
use crate::apply::pipeline::Pipeline;
use crate::numbers::{AtomicMark, Mark};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, Rank, Turn, TurnGuard};

/// The snapshots of one engine: the turn to write them, the one that is received, and the newest.
#[derive(Debug)]
pub(crate) struct SnapshotDesk {
    /// Admits one snapshot at a time; its holder may move the log's beginning.
    turn: Turn,
    /// The receiver of a snapshot, if there is one.
    receiving: Mutex<Weak<()>>,
    /// Mark of the newest durable snapshot's entry. Stored by the holder of the turn.
    newest_mark: AtomicMark,
    /// Length of the newest durable snapshot in bytes. Stored by the holder of the turn.
    newest_bytes: AtomicU64,
    compaction: Compaction,
}

/// The work of a call on the snapshots of one engine, and on the log that they cover.
pub(in crate::apply) struct SnapshotWork<'e, M> {
    pub(in crate::apply) pipeline: &'e Pipeline<M>,
    pub(in crate::apply) desk: &'e SnapshotDesk,
}

impl SnapshotDesk {
    /// `newest` is the index and the length of the snapshot that the directory was opened from.
    pub(in crate::apply) fn new(newest: Option<(u64, u64)>) -> Self {
        Self {
            turn: Turn::new(Rank::SnapshotTurn),
            receiving: Mutex::new(Rank::SnapshotReceiver, Weak::new()),
            newest_mark: AtomicMark::new(Mark::of(newest.map(|(index, _)| index))),
            newest_bytes: AtomicU64::new(newest.map_or(0, |(_, bytes)| bytes)),
            compaction: Compaction::new(),
        }
    }

    /// Waits until no other call writes a snapshot or gives up some of the log.
    #[track_caller]
    pub(in crate::apply) fn turn(&self) -> TurnGuard<'_> {
        self.turn.lock()
    }

    /// The turn of [`SnapshotDesk::turn`]; `None` if another call has it for all of `timeout`.
    #[track_caller]
    pub(in crate::apply) fn turn_within(&self, timeout: Duration) -> Option<TurnGuard<'_>> {
        self.turn.lock_within(timeout)
    }

    /// Whether no call has the turn.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(in crate::apply) fn is_free(&self) -> bool {
        self.turn.is_free()
    }

    /// The place of the one receiver that there may be.
    pub(in crate::apply) fn receiving(&self) -> &Mutex<Weak<()>> {
        &self.receiving
    }

    /// Mark of the newest snapshot's entry. Acquire: the file of that snapshot is durable.
    pub(in crate::apply) fn newest_mark(&self) -> Mark {
        self.newest_mark.load(Ordering::Acquire)
    }

    /// Length of the newest snapshot in bytes.
    pub(in crate::apply) fn newest_bytes(&self) -> u64 {
        self.newest_bytes.load(Ordering::Acquire)
    }

    /// A snapshot up to `mark` is durable and is the newest. The caller has the turn.
    pub(in crate::apply) fn note_newest(&self, mark: Mark) {
        self.newest_mark.store(mark, Ordering::Release);
    }

    /// The newest snapshot is so long. The caller has the turn.
    pub(in crate::apply) fn note_bytes(&self, bytes: u64) {
        self.newest_bytes.store(bytes, Ordering::Release);
    }

    pub(in crate::apply) fn compaction(&self) -> &Compaction {
        &self.compaction
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_desk_begins_with_the_snapshot_that_the_directory_was_opened_from() {
        let none = SnapshotDesk::new(None);
        assert_eq!((none.newest_mark(), none.newest_bytes()), (Mark::of(None), 0));
        let desk = SnapshotDesk::new(Some((9, 100)));
        assert_eq!((desk.newest_mark(), desk.newest_bytes()), (Mark::of(Some(9)), 100));
        let turn = desk.turn();
        assert!(!desk.is_free());
        desk.note_newest(Mark::of(Some(20)));
        desk.note_bytes(300);
        drop(turn);
        assert!(desk.is_free());
        assert_eq!((desk.newest_mark(), desk.newest_bytes()), (Mark::of(Some(20)), 300));
    }
}
