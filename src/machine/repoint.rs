//! Pointing keys to the snapshot that a compaction has written, so that the log before it may go.

use std::collections::VecDeque;

use super::cell::Cell;
use super::key_value::KeyValue;
use super::store::Change;
use crate::codec::{PieceNumber, PiecePlace};
use crate::error::SnapshotError;
use crate::numbers::SegmentNumber;
use crate::snapshot::Snapshot;

/// Number of keys between the prefetch of a slot and its change.
///
/// A snapshot has its keys in the order of the keys, and the store has them in the order of their
/// hashes. Each key would wait for three lines of memory.
const TOUCH_AHEAD: usize = 16;

/// A key of the snapshot, whose slot is on its way into the cache.
struct Touched<'a> {
    hash: u64,
    key: &'a [u8],
    place: PiecePlace,
}

impl<C: Cell> KeyValue<C> {
    /// Points every key whose value is in the log before segment `below`, or in an older snapshot,
    /// to `snapshot`, which has all of these values. Apply continues meanwhile.
    pub(crate) fn repoint(
        &self,
        snapshot: &Snapshot,
        pieces: &[PieceNumber],
        below: SegmentNumber,
    ) -> Result<(), SnapshotError> {
        let mut touched = VecDeque::with_capacity(TOUCH_AHEAD);
        for (chunk, piece) in pieces.iter().copied().enumerate() {
            for located in snapshot.chunk_records(chunk)? {
                let (key, offset, len) = located?;
                let hash = self.store.hash(key);
                self.store.prefetch(hash);
                if touched.len() == TOUCH_AHEAD
                    && let Some(first) = touched.pop_front()
                {
                    self.repoint_key(&first, below);
                }
                touched.push_back(Touched { hash, key, place: PiecePlace { piece, offset, len } });
            }
        }
        touched.iter().for_each(|key| self.repoint_key(key, below));
        Ok(())
    }

    fn repoint_key(&self, touched: &Touched<'_>, below: SegmentNumber) {
        self.store.update(touched.hash, touched.key, 0, |cell| {
            // A key written since then refers to the part of the log that stays.
            if let Some(cell) = cell {
                cell.repoint(touched.place, below);
            }
            (Change::Keep, ())
        });
    }
}
