//! The last entries of the log, kept in memory for readers.

use std::collections::VecDeque;

use sprag::{Command, LogId, Payload};

/// The last entries that were appended, without a gap, in the library's own form.
///
/// It begins anywhere and ends with the log. Its bytes are limited; older entries leave first.
#[derive(Debug)]
pub(crate) struct Tail<T> {
    /// Index of the first entry.
    first: u64,
    entries: VecDeque<Kept<T>>,
    bytes: usize,
    bytes_max: usize,
    /// Number of times that entries may have left the log's end.
    cuts: u64,
}

#[derive(Debug)]
struct Kept<T> {
    log_id: LogId,
    bytes: usize,
    entry: T,
}

/// Memory that an entry takes beside its payload, in bytes: allocations have headers.
const ENTRY_BYTES: usize = 64;

impl<T: Clone> Tail<T> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { first: 0, entries: VecDeque::new(), bytes: 0, bytes_max, cuts: 0 }
    }

    fn end(&self) -> u64 {
        // Indexes end before u64::MAX.
        self.first.saturating_add(self.entries.len() as u64)
    }

    /// Adds an entry that was appended to the log's end. After a gap, or entries that were not
    /// added, the tail begins anew.
    pub(crate) fn push(&mut self, log_id: LogId, payload_bytes: usize, entry: T) {
        if log_id.index != self.end() {
            self.empty();
        }
        if self.entries.is_empty() {
            self.first = log_id.index;
        }
        // A longer payload than fits memory is none.
        let bytes = payload_bytes.saturating_add(size_of::<Kept<T>>() + ENTRY_BYTES);
        // The limit is far below.
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.push_back(Kept { log_id, bytes, entry });
        while self.bytes > self.bytes_max
            && let Some(gone) = self.entries.pop_front()
        {
            self.bytes -= gone.bytes;
            self.first += 1;
        }
    }

    /// Removes the entries from `index` on, which the log has removed before.
    pub(crate) fn truncate_from(&mut self, index: u64) {
        self.cuts += 1;
        while self.end() > index
            && let Some(gone) = self.entries.pop_back()
        {
            self.bytes -= gone.bytes;
        }
    }

    /// Removes all entries, because the log may have begun anew before.
    pub(crate) fn clear(&mut self) {
        self.cuts += 1;
        self.empty();
    }

    fn empty(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// Number of times that entries may have left the log's end. A number that stays the same
    /// between two reads of the log means that both found entries of one log.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts
    }

    /// The entries from `first` to the tail's end, before `end`, as many as fit `bytes_max` and at
    /// least one. `None` if the tail has not the first one.
    pub(crate) fn read(&self, first: u64, end: u64, bytes_max: usize) -> Option<Vec<T>> {
        let skip = usize::try_from(first.checked_sub(self.first)?).ok()?;
        if first >= end || skip >= self.entries.len() {
            return None;
        }
        // The tail has fewer entries than that.
        let most = usize::try_from(end - first).unwrap_or(usize::MAX);
        let mut bytes = 0_usize;
        let entries = self.entries.range(skip..).take(most).take_while(|kept| {
            let is_first = bytes == 0;
            // The limit is far below.
            bytes = bytes.saturating_add(kept.bytes);
            is_first || bytes <= bytes_max
        });
        Some(entries.map(|kept| kept.entry.clone()).collect())
    }

    /// The log id at `index` and the bytes of its entry, if the tail has it.
    pub(crate) fn log_id(&self, index: u64) -> Option<(LogId, usize)> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get(at).map(|kept| (kept.log_id, kept.bytes))
    }
}

/// Number of bytes of a payload's parts.
pub(crate) fn payload_bytes(payload: &Payload<'_>) -> usize {
    match payload {
        Payload::Command(command) => command_bytes(command),
        Payload::Opaque(bytes) | Payload::Membership(bytes) => bytes.len(),
        _ => 0,
    }
}

fn command_bytes(command: &Command<'_>) -> usize {
    let optional = |bytes: &Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    match command {
        Command::Put { key, value } => key.len() + value.len(),
        Command::Delete { key } | Command::Increment { key, .. } => key.len(),
        Command::CompareAndSet { key, expected, new } => {
            key.len() + optional(expected) + optional(new)
        }
        Command::Batch { commands, note: _ } => {
            let parts = commands.iter().map(|command| ENTRY_BYTES + command_bytes(command));
            parts.sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(indexes: std::ops::Range<u64>) -> Tail<u64> {
        let mut tail = Tail::new(10 * (1000 + size_of::<Kept<u64>>() + ENTRY_BYTES));
        for index in indexes {
            tail.push(LogId::new(index, 1), 1000, index);
        }
        tail
    }

    #[test]
    fn the_tail_ends_with_the_log_and_its_bytes_are_limited() {
        let tail = tail(0..25);
        assert_eq!((tail.first, tail.end()), (15, 25));
        assert!(tail.bytes <= tail.bytes_max);
        assert_eq!(tail.read(14, 20, usize::MAX), None);
        assert_eq!(tail.read(15, 18, usize::MAX), Some(vec![15, 16, 17]));
        assert_eq!(tail.read(24, 99, usize::MAX), Some(vec![24]));
        assert_eq!(tail.read(25, 99, usize::MAX), None);
        assert_eq!(tail.read(20, 25, 0), Some(vec![20]), "at least one");
        assert_eq!(tail.read(20, 25, 2 * 1200), Some(vec![20, 21]));
        let log_id = |index| tail.log_id(index).map(|(log_id, _)| log_id);
        assert_eq!((log_id(25), log_id(24)), (None, Some(LogId::new(24, 1))));
    }

    #[test]
    fn an_entry_longer_than_the_limit_leaves_an_empty_tail_that_goes_on_after_it() {
        let mut tail = tail(0..5);
        tail.push(LogId::new(5, 1), 1 << 20, 5);
        assert_eq!((tail.entries.len(), tail.bytes, tail.first), (0, 0, 6));
        tail.push(LogId::new(6, 1), 1, 6);
        assert_eq!(tail.read(6, 7, 0), Some(vec![6]));
    }

    #[test]
    fn a_truncation_and_a_gap_leave_nothing_that_the_log_does_not_have() {
        let mut tail = tail(0..8);
        tail.truncate_from(6);
        assert_eq!(tail.read(4, 9, usize::MAX), Some(vec![4, 5]));
        tail.push(LogId::new(6, 2), 1, 60);
        assert_eq!(tail.read(5, 9, usize::MAX), Some(vec![5, 60]));
        tail.push(LogId::new(9, 2), 1, 90);
        assert_eq!(tail.read(5, 10, usize::MAX), None);
        assert_eq!(tail.read(9, 10, usize::MAX), Some(vec![90]));
        tail.truncate_from(3);
        assert_eq!((tail.entries.len(), tail.bytes), (0, 0));
    }
}
