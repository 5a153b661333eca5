//! The comparison of resubmitted entries with the log: log id and payload, in one forward pass.

use super::appender::known::KnownPlaces;
use super::format::DatabaseId;
use super::reader;
use crate::codec::{self, Limits};
use crate::entry::{Entry, LogId};
use crate::places::table::SegmentTable;
use crate::places::unmapped::NotRead;

/// A pass over known entries, with its position. Entries that the log does not return are passed
/// over.
#[derive(Debug)]
pub(crate) struct Comparison<'c, 'e> {
    entries: &'c [Entry<'e>],
    /// Position of the next entry to compare.
    at: usize,
    /// Number of equal entries.
    same: u64,
    conflict: Option<Difference>,
    /// Buffer for the encoding of one entry.
    scratch: Vec<u8>,
}

/// The log's entry at an index, and the submitted one. If the two log ids are equal, the payloads
/// differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Difference {
    pub(crate) known: LogId,
    pub(crate) got: LogId,
}

impl<'c, 'e> Comparison<'c, 'e> {
    /// Begins a comparison of `entries`, whose indexes rise and which are within the log's limits.
    pub(crate) fn new(entries: &'c [Entry<'e>]) -> Self {
        Self { entries, at: 0, same: 0, conflict: None, scratch: Vec::new() }
    }

    /// Reads the entries at `places`. Returns the number of equal entries, or the first difference.
    pub(crate) fn run(
        mut self,
        table: &SegmentTable,
        database_id: &DatabaseId,
        places: &KnownPlaces,
    ) -> Result<Result<u64, Difference>, NotRead> {
        for from in &places.waypoints {
            let before = self.entries.partition_point(|entry| entry.log_id.index < from.1);
            let (Some(next), Some(last)) = (
                self.entries.get(self.at),
                before.checked_sub(1).and_then(|at| self.entries.get(at)),
            ) else {
                continue;
            };
            let wanted = next.log_id.index..=last.log_id.index;
            if !wanted.is_empty() {
                let visit = &mut |log_id, encoded: &[u8]| self.visit(log_id, encoded);
                reader::walk(table, database_id, *from, wanted, visit)?;
            }
        }
        for (span, segment) in &places.spans {
            reader::walk_span(span, segment, &mut |log_id, encoded| self.visit(log_id, encoded))?;
        }
        Ok(self.conflict.map_or(Ok(self.same), Err))
    }

    /// Compares an entry of the log. Returns whether there is more to compare.
    fn visit(&mut self, log_id: LogId, encoded: &[u8]) -> bool {
        // Nothing is left to compare at the end.
        let rest = self.entries.get(self.at..).unwrap_or_default();
        self.at += rest.iter().take_while(|entry| entry.log_id.index < log_id.index).count();
        let Some(entry) = self.entries.get(self.at) else { return false };
        if self.conflict.is_some() || entry.log_id.index > log_id.index {
            return self.conflict.is_none();
        }
        self.at += 1;
        if entry.log_id != log_id || !self.is_same_payload(entry, encoded) {
            self.conflict = Some(Difference { known: log_id, got: entry.log_id });
            return false;
        }
        self.same += 1;
        true
    }

    /// Whether an entry has this payload: each entry has only one encoding, so equal bytes mean
    /// equal payloads.
    fn is_same_payload(&mut self, entry: &Entry<'_>, encoded: &[u8]) -> bool {
        let is_as_long = codec::encoded_len(entry, &Limits::new()) == Ok(encoded.len());
        is_as_long && {
            self.scratch.resize(encoded.len(), 0);
            codec::encode(entry, &mut self.scratch);
            self.scratch == encoded
        }
    }
}
