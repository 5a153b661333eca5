//! Why entries were not taken, and why a call that waits for them failed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::{Corrupt, EntryError, Poison, WaitError, what_limit};
use crate::entry::LogId;

/// Why entries were not taken. All of a submission is taken or, with any of these, none of it.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// No room in the pipeline or the log's buffers right now. Nothing was taken; try again when some are acknowledged
    /// ([`apply_with_retry`](crate::ApplyManager::apply_with_retry) does).
    #[error("the pipeline is full ({pending} entries pending); nothing was taken, try again")]
    Full {
        /// How many entries are pending.
        pending: u64,
    },
    /// More than can ever fit at once. Split it, or use [`apply_batch`](crate::ApplyManager::apply_batch), which does. Not so
    /// for `segments`: the log has had all that it can have in its life, and goes on in a directory made
    /// ([`restore`](fn@crate::restore)) from a snapshot of this one.
    #[error("{what}: {size} is more than ever fits ({limit}); {}", instead_of(what))]
    TooLarge {
        /// What does not fit.
        what: &'static str,
        /// How much was asked for.
        size: u64,
        /// The most there can be.
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
    /// The index is taken by another entry: one with another log id or, if `known` and `got` are equal, one with the same
    /// log id and another payload. Nothing of the submission was taken. Read what is there, and submit at the next index.
    #[error("conflict: index {index} {}", conflict(known, got))]
    Conflict {
        /// The index.
        index: u64,
        /// What is there.
        known: LogId,
        /// What was submitted.
        got: LogId,
    },
    /// The log has an entry at an index of the submission, and its bytes do not read back, so the two cannot be compared.
    #[error("what is submitted again cannot be compared: {0}")]
    Corrupt(#[from] Corrupt),
    /// The operating system refused to read an entry that the submission was to be compared with. Nothing was taken.
    #[error(
        "what is submitted again cannot be compared: reading {file} failed{}: {source}",
        what_limit(source)
    )]
    Io {
        /// Which file.
        file: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The term is below the one of the entry before.
    #[error("the term falls from {last} to {got} at index {index}")]
    TermRegression {
        /// The entry.
        index: u64,
        /// The term of the entry before.
        last: u64,
        /// Its own term.
        got: u64,
    },
    /// `u64::MAX` is no index.
    #[error("the index u64::MAX cannot be used")]
    IndexExhausted,
    /// An entry is malformed.
    #[error("the entry of index {index} was refused: {source}")]
    Entry {
        /// Which entry.
        index: u64,
        /// What is wrong with it.
        source: EntryError,
    },
    /// The call belongs to the other way of committing.
    #[error("{call} is not for a log that commits {mode}")]
    CommitMode {
        /// Which call.
        call: &'static str,
        /// How the log commits.
        mode: &'static str,
    },
    /// The call is only for a log whose indexes may have gaps
    /// ([`Contiguity::Monotone`](crate::Contiguity::Monotone)), which an adapter opens.
    #[error("{call} is only for a log whose indexes may have gaps")]
    Contiguity {
        /// Which call.
        call: &'static str,
    },
    /// `commit` was asked to go past what was appended.
    #[error("cannot commit {index}: the last appended index is {last:?}")]
    NotAppended {
        /// The index asked for.
        index: u64,
        /// The last index of the log.
        last: Option<u64>,
    },
    /// The manager is closed.
    #[error("the apply manager is closed")]
    Closed,
    /// The engine has failed before.
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

/// What to do with what is too large.
fn instead_of(what: &str) -> &'static str {
    match what {
        "segments" => "restore a snapshot of the directory into a new one",
        _ => "split the submission",
    }
}

/// Why a synchronous call (`apply`, `apply_entries_sync`, `apply_batch`, `apply_with_retry`) failed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Nothing of the last submission was taken.
    #[error("{source}{}", through(*submitted_through))]
    Submit {
        /// Why.
        source: SubmitError,
        /// The last index of this call that had been taken before, if any: it is under way.
        submitted_through: Option<u64>,
    },
    /// It was taken, and this ended the wait for it.
    #[error("{source}{}", through(*submitted_through))]
    Wait {
        /// Why.
        source: WaitError,
        /// The last index of this call that was taken: it is under way.
        submitted_through: Option<u64>,
    },
}

fn through(index: Option<u64>) -> String {
    index.map_or(String::new(), |index| format!(" (taken through index {index})"))
}

/// Why [`propose`](crate::ApplyManager::propose) gives no reply.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Nothing was taken. Never for [`SubmitError::Full`].
    #[error("nothing was taken: {0}")]
    Refused(SubmitError),
    /// The pipeline had no room until the timeout was over. Nothing was taken; propose again, or with more time.
    #[error("nothing was taken: the pipeline was full for {waited:?} ({pending} entries pending)")]
    NoRoom {
        /// How many entries were pending.
        pending: u64,
        /// How long the call waited for room.
        waited: Duration,
    },
    /// The entry was taken, and this ended the wait for it. What becomes of the entry,
    /// [`wait_for_log_id`](crate::ApplyManager::wait_for_log_id) tells, if need be after the directory was opened again.
    #[error("the entry {log_id} was taken, and is not known to be done: {source}")]
    Taken {
        /// The entry.
        log_id: LogId,
        /// Why.
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
