//! Errors of a node's storage: what a call was about, and why it failed.

use std::error::Error;
use std::fmt;

use thiserror::Error;

/// Part of the storage that a failed call was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// The log.
    Log,
    /// The entry of the log at an index.
    Entry(u64),
    /// The hard state.
    Vote,
    /// The state machine.
    StateMachine,
    /// A snapshot.
    Snapshot,
}

/// Kind of a failed call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The call read.
    Read,
    /// The call wrote.
    Write,
    /// The call removed entries.
    Delete,
}

/// Failure of a call on a node's storage. The node's Raft library is to stop the node.
///
/// Sprag's errors carry indexes and lengths, never keys or values.
#[derive(Debug, Error)]
#[error("{action} {subject}: {source}")]
pub struct Failure {
    /// Part of the storage.
    pub subject: Subject,
    /// Kind of the call.
    pub action: Action,
    /// The error of the engine.
    pub source: Box<dyn Error + Send + Sync>,
}

impl Failure {
    pub(crate) fn new(
        subject: Subject,
        action: Action,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { subject, action, source: source.into() }
    }

    /// Makes a converter of errors, for `map_err`.
    pub(crate) fn of<E: Into<Box<dyn Error + Send + Sync>>>(
        subject: Subject,
        action: Action,
    ) -> impl Fn(E) -> Self {
        move |source| Self::new(subject, action, source)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str("the log"),
            Self::Entry(index) => write!(f, "entry {index}"),
            Self::Vote => f.write_str("the vote"),
            Self::StateMachine => f.write_str("the state machine"),
            Self::Snapshot => f.write_str("a snapshot"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reading",
            Self::Write => "writing",
            Self::Delete => "removing from",
        })
    }
}
