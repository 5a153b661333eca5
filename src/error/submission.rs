//! Reasons why entries were not taken, and why a call that waits for them failed.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use thiserror::Error;

use super::{Corrupt, EntryError, Poison, WaitError, what_limit};
use crate::entry::LogId;

/// Reason why entries were not taken. A submission is taken as a whole or not at all; with any of
/// these errors but [`Poisoned`](SubmitError::Poisoned), not at all. After that one, only a new
/// opening tells.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// There is no room in the pipeline or the log's buffers at the moment. Nothing was taken. Try
    /// again when some entries are acknowledged or, of those that are only appended, written
    /// ([`apply_with_retry`](crate::ApplyManager::apply_with_retry) does).
    #[error("the pipeline is full ({pending} entries pending); nothing was taken, try again")]
    Full {
        /// Number of pending entries.
        pending: u64,
    },
    /// The submission can never fit at once. Where [`Excess::fits_in_parts`] says so, split it, or
    /// call [`apply_batch`](crate::ApplyManager::apply_batch), which splits. A log that has used
    /// all its [segments](Excess::Segments) continues in a directory made
    /// ([`restore`](fn@crate::restore)) from a snapshot of this one.
    #[error("{what}: {size} is more than ever fits ({limit}); {}", what.advice())]
    TooLarge {
        /// The thing that does not fit.
        what: Excess,
        /// The requested size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// An index is missing.
    #[error("gap: expected index {expected}, got {got}")]
    Gap {
        /// The next index.
        expected: u64,
        /// The index submitted.
        got: u64,
    },
    /// Another entry has the index. It has another log id or, if `known` and `got` are equal, the
    /// same log id and another payload. Nothing of the submission was taken. Read the existing
    /// entry, and submit at the next index.
    #[error("conflict: index {index} {}", conflict(known, got))]
    Conflict {
        /// The index.
        index: u64,
        /// Log id of the existing entry.
        known: LogId,
        /// Log id of the submitted entry.
        got: LogId,
    },
    /// The log has an entry at an index of the submission, but its bytes cannot be read back, so
    /// the two cannot be compared.
    #[error("what is submitted again cannot be compared: {0}")]
    Corrupt(#[from] Corrupt),
    /// The operating system failed to read an entry that the submission was to be compared with.
    /// Nothing was taken.
    #[error(
        "what is submitted again cannot be compared: reading {file} failed{}: {source}",
        what_limit(source)
    )]
    Io {
        /// The file.
        file: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The term is below the one of the entry before.
    #[error("the term falls from {last} to {got} at index {index}")]
    TermRegression {
        /// Index of the entry.
        index: u64,
        /// The term of the entry before.
        last: u64,
        /// Term of the entry.
        got: u64,
    },
    /// The index is `u64::MAX`, which is none.
    #[error("the index u64::MAX cannot be used")]
    IndexExhausted,
    /// An entry is malformed.
    #[error("the entry of index {index} was refused: {source}")]
    Entry {
        /// Index of the entry.
        index: u64,
        /// Error of the entry.
        source: EntryError,
    },
    /// The call numbers or commits entries, and the log belongs to a consensus engine, which does
    /// that itself. Append and commit through
    /// [`ApplyManager::consensus`](crate::ApplyManager::consensus). Every `apply*` call of the
    /// manager, `propose` and `propose_async` fail with this error, and with no other for this
    /// reason.
    #[error("{call} is not for a log that commits {mode}; use manager.{instead}")]
    CommitMode {
        /// Name of the call.
        call: &'static str,
        /// Commit mode of the log.
        mode: &'static str,
        /// The calls of the manager that such a log has.
        instead: &'static str,
    },
    /// The call is only for a log whose indexes may have gaps
    /// ([`Contiguity::Monotone`](crate::Contiguity::Monotone)), which an adapter opens. Any other
    /// log takes committed entries through
    /// [`apply_committed`](crate::ConsensusLog::apply_committed).
    #[error(
        "{call} is only for a log whose indexes may have gaps (Contiguity::Monotone); use \
         apply_committed"
    )]
    Contiguity {
        /// Name of the call.
        call: &'static str,
    },
    /// `commit` was called with an index past the end of the log.
    #[error("cannot commit {index}: the last appended index is {last:?}")]
    NotAppended {
        /// The requested index.
        index: u64,
        /// The last index of the log.
        last: Option<u64>,
    },
    /// The manager is closed.
    #[error("the apply manager is closed")]
    Closed,
    /// The engine has failed, before this call or in it.
    #[error("the engine is poisoned: {0}")]
    Poisoned(#[from] Poison),
}

fn conflict(known: &LogId, got: &LogId) -> String {
    if known == got {
        format!("has the log id {known} already, with another payload")
    } else {
        format!("is {known} here, submitted as {got}")
    }
}

/// Part of a submission, or of the log, that is more than ever fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Excess {
    /// The entries of one submission are more than the pipeline has places for.
    Entries,
    /// The entries of one submission take more frames than ever wait for the log writer.
    Frames,
    /// The bytes of one submission are more than a segment has room for.
    Bytes,
    /// The log has had all segments that it can have in its life.
    Segments,
}

impl Excess {
    /// Whether parts of the submission may fit where the whole does not.
    #[must_use]
    pub fn fits_in_parts(self) -> bool {
        self != Self::Segments
    }

    fn advice(self) -> &'static str {
        if self.fits_in_parts() {
            "split the submission"
        } else {
            "restore a snapshot of the directory into a new one"
        }
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entries => "entries of one submission",
            Self::Frames => "frames of one submission",
            Self::Bytes => "bytes of one submission",
            Self::Segments => "segments",
        })
    }
}

/// Reason why a synchronous call (`apply`, `apply_entries_sync`, `apply_batch`, `apply_with_retry`)
/// failed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Nothing of the last submission was taken.
    #[error("{source}{}", through(*submitted_through))]
    Submit {
        /// The reason.
        source: SubmitError,
        /// The last index of this call that was taken before, if any: it is in progress.
        submitted_through: Option<u64>,
    },
    /// The submission was taken, and this error ended the wait for it.
    #[error("{source}{}", through(*submitted_through))]
    Wait {
        /// The reason.
        source: WaitError,
        /// The last index of this call that was taken: it is in progress.
        submitted_through: Option<u64>,
    },
}

fn through(index: Option<u64>) -> String {
    index.map_or(String::new(), |index| format!(" (taken through index {index})"))
}

/// Reason why [`propose`](crate::ApplyManager::propose) returned no reply.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Nothing was taken. This is never [`SubmitError::Full`].
    #[error("nothing was taken: {0}")]
    Refused(SubmitError),
    /// The pipeline had no room until the timeout was over. Nothing was taken; propose again, or
    /// with more time.
    #[error("nothing was taken: the pipeline was full for {waited:?} ({pending} entries pending)")]
    NoRoom {
        /// Number of pending entries.
        pending: u64,
        /// Time that the call waited for room.
        waited: Duration,
    },
    /// The entry was taken, and this error ended the wait for it.
    /// [`wait_for_log_id`](crate::ApplyManager::wait_for_log_id) tells whether the entry is
    /// applied, even after the directory was opened again.
    #[error("the entry {log_id} was taken, and is not known to be done: {source}")]
    Taken {
        /// Log id of the entry.
        log_id: LogId,
        /// The reason.
        source: WaitError,
    },
}

impl ProposeError {
    /// The log id of the entry, if it was taken.
    #[must_use]
    pub fn log_id(&self) -> Option<LogId> {
        match self {
            Self::Taken { log_id, .. } => Some(*log_id),
            Self::Refused(_) | Self::NoRoom { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_told_to_split_unless_the_log_has_had_all_its_segments() {
        for what in [Excess::Entries, Excess::Frames, Excess::Bytes, Excess::Segments] {
            let said = SubmitError::TooLarge { what, size: 11, limit: 10 }.to_string();
            assert!(
                said.starts_with(&format!("{what}: 11 is more than ever fits (10); ")),
                "{said}"
            );
            assert_eq!(said.ends_with("split the submission"), what.fits_in_parts(), "{said}");
            assert_eq!(said.ends_with("into a new one"), what == Excess::Segments, "{said}");
        }
    }
}
