//! The log's reads: the last entries from memory, older ones from the log.

use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

use sprag::LogEntries;
use sprag::error::LogError;

use crate::consensus::{Consensus, RaftLogId};
use crate::failure::{Action, Failure, Subject};
use crate::node::{Node, blocking};

/// Most bytes of entries that one call reads from the log.
const READ_BYTES_MAX: usize = 4 << 20;

/// The last purged log id, and the last log id of the log.
type Ends<N> = (Option<RaftLogId<N>>, Option<RaftLogId<N>>);

impl<E: Consensus> Node<E> {
    /// The last purged log id, and the last log id of the log (or the last purged one).
    ///
    /// # Errors
    ///
    /// Returns [`Failure`].
    pub fn ends(&self) -> Result<Ends<E::NodeId>, Failure> {
        let unreadable = |error: LogError| Failure::new(Subject::Log, Action::Read, error);
        let state = self.manager.log().and_then(|log| log.state()).map_err(unreadable)?;
        let base = match state.purged {
            Some(index) => {
                self.manager.log().and_then(|log| log.log_id(index)).map_err(unreadable)?
            }
            None => None,
        };
        let foreign = Failure::of(Subject::Log, Action::Read);
        let base = base.map(RaftLogId::from_sprag).transpose().map_err(&foreign)?;
        let last = state.last.map(RaftLogId::from_sprag).transpose().map_err(&foreign)?;
        let purged = self.purged().max(base);
        let last = last.max(purged.clone());
        Ok((purged, last))
    }

    /// The entries of the log from `first` to before `end`.
    ///
    /// With `limited`, these are as many as one call reads. Entries that are purged and still there
    /// count. A sender takes the result for consecutive entries, so without the first entry there
    /// are none. Without `limited`, these are all that exist and are not purged.
    ///
    /// Entries of the last 16 MiB or so are clones from memory. Older ones are read and decoded on
    /// the blocking pool.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`].
    pub async fn read(
        self: &Arc<Self>,
        first: u64,
        end: u64,
        limited: bool,
    ) -> Result<Vec<E::Entry>, Failure> {
        // No entry has the index u64::MAX.
        let purged = self.purged().map_or(0, |purged| purged.index().saturating_add(1));
        let (first, bytes_max) =
            if limited { (first, READ_BYTES_MAX) } else { (first.max(purged), usize::MAX) };
        if first >= end {
            return Ok(Vec::new());
        }
        if let Some(found) = self.tail().read(first, end, bytes_max) {
            return Ok(found);
        }
        let node = Arc::clone(self);
        blocking(Subject::Log, move || node.read_blocking(first, end, limited)).await
    }

    fn read_blocking(&self, first: u64, end: u64, limited: bool) -> Result<Vec<E::Entry>, Failure> {
        let read = |range: RangeInclusive<u64>| {
            self.patiently(|_| self.manager.log()?.entries(range.clone(), READ_BYTES_MAX))
        };
        Self::decode(&self.pieces(first, end, limited, read)?)
    }

    /// Reads the entries in pieces, by `read`, which returns the first entries of a range. All
    /// pieces are of one log: no truncation came between them.
    fn pieces(
        &self,
        first: u64,
        end: u64,
        limited: bool,
        read: impl Fn(RangeInclusive<u64>) -> Result<LogEntries, LogError>,
    ) -> Result<Vec<LogEntries>, Failure> {
        loop {
            let cuts = self.tail().cuts();
            match self.try_read(first, end, limited, &read) {
                // The entry was purged or truncated after the log had reported its bounds.
                Err((_, LogError::NotInLog { .. })) => {}
                Err((at, error)) => {
                    return Err(Failure::new(Subject::Entry(at), Action::Read, error));
                }
                // A later piece may be of entries that replaced some of an earlier one.
                Ok(found) if found.len() > 1 && self.tail().cuts() != cuts => {}
                Ok(found) => return Ok(found),
            }
        }
    }

    fn try_read(
        &self,
        first: u64,
        end: u64,
        limited: bool,
        read: impl Fn(RangeInclusive<u64>) -> Result<LogEntries, LogError>,
    ) -> Result<Vec<LogEntries>, (u64, LogError)> {
        let state =
            self.manager.log().and_then(|log| log.state()).map_err(|error| (first, error))?;
        // An empty log has no entry at or after any index.
        let begin = state.first.unwrap_or(u64::MAX);
        let end = end.min(state.last.map_or(0, |last| last.index + 1));
        let mut found = Vec::new();
        if limited && begin > first {
            return Ok(found);
        }
        let mut next = first.max(begin);
        while next < end {
            let piece = read(next..=end - 1).map_err(|error| (next, error))?;
            let Some(last) = piece.last() else { break };
            next = last.index + 1;
            found.push(piece);
            if limited {
                break;
            }
        }
        Ok(found)
    }

    fn decode(found: &[LogEntries]) -> Result<Vec<E::Entry>, Failure> {
        let entries = found.iter().flat_map(LogEntries::iter);
        let decoded = entries.map(|(log_id, payload)| {
            let failed = Failure::of(Subject::Entry(log_id.index), Action::Read);
            let log_id = RaftLogId::from_sprag(log_id).map_err(&failed)?;
            E::entry(log_id, &payload).map_err(&failed)
        });
        decoded.collect()
    }
}

/// The first index of a range, and the index after its last.
#[must_use]
pub fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let first = match range.start_bound() {
        Bound::Included(first) => *first,
        // No entry has the index u64::MAX.
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        // No entry has the index u64::MAX.
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (first, end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::cell::Cell;

    use sprag::testing::SimDisk;
    use sprag::{ApplyConfig, Payload, PayloadRef, PersistentStateMachine};

    use super::*;
    use crate::data::{DataError, Scratch};
    use crate::node::{PATIENCE, config};

    /// A library whose entries are log ids.
    struct Plain;

    impl Consensus for Plain {
        type NodeId = u64;
        type LogId = RaftLogId<u64>;
        type Entry = RaftLogId<u64>;
        type Machine = PersistentStateMachine;

        fn log_id(log_id: &RaftLogId<u64>) -> RaftLogId<u64> {
            *log_id
        }

        fn log_id_of(entry: &RaftLogId<u64>) -> RaftLogId<u64> {
            *entry
        }

        fn payload<'a>(
            _: &'a RaftLogId<u64>,
            _: &'a mut Scratch<'a>,
        ) -> Result<Payload<'a>, DataError> {
            Ok(Payload::Noop)
        }

        fn entry(log_id: RaftLogId<u64>, _: &PayloadRef<'_>) -> Result<RaftLogId<u64>, DataError> {
            Ok(log_id)
        }
    }

    fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<RaftLogId<u64>> {
        indexes.map(|index| RaftLogId::new(term, 1, index)).collect()
    }

    #[test]
    fn a_read_in_pieces_puts_no_truncated_entries_before_those_that_replaced_them() {
        let disk = SimDisk::new(1).open(true).unwrap();
        let options = config("simulated").segment_bytes(64 << 10).expected_keys(256);
        let machine = PersistentStateMachine::open_on_disk(disk, options).unwrap();
        let apply = ApplyConfig::new().pin_workers(false);
        let node = Node::<Plain>::open(machine, apply, PATIENCE).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let append = |entries| runtime.block_on(node.append(entries, |_| ())).unwrap();
        append(entries(1, 0..10));
        let reads = Cell::new(0);
        let found = node.pieces(0, 10, false, |range| {
            if reads.replace(reads.get() + 1) == 3 {
                runtime.block_on(node.truncate_after(Some(0))).unwrap();
                append(entries(2, 1..10));
            }
            // At most one entry at a time.
            node.manager.log()?.entries(range, 0)
        });
        let found = Node::<Plain>::decode(&found.unwrap()).unwrap();
        assert_eq!(found, [entries(1, 0..1), entries(2, 1..10)].concat());
        assert_eq!(reads.get(), 10 + 10, "from the front once more");
    }
}
