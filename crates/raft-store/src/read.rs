//! The log's reads: the last entries from memory, older ones from the log.

use std::ops::{Bound, RangeBounds};
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
        loop {
            match self.try_read(first, end, limited) {
                // The entry was purged or truncated after the log had reported its bounds.
                Err((_, LogError::NotInLog { .. })) => {}
                Err((at, error)) => {
                    return Err(Failure::new(Subject::Entry(at), Action::Read, error));
                }
                Ok(found) => return Self::decode(&found),
            }
        }
    }

    fn try_read(
        &self,
        first: u64,
        end: u64,
        limited: bool,
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
            let read =
                self.patiently(|_| self.manager.log()?.entries(next..=end - 1, READ_BYTES_MAX));
            let read = read.map_err(|error| (next, error))?;
            let Some(last) = read.last() else { break };
            next = last.index + 1;
            found.push(read);
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
