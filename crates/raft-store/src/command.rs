//! A key-value command and its response as owned, serializable types, for clients of a key-value
//! node.

use std::fmt;

use serde::{Deserialize, Serialize};
use sprag::{BatchRejection, Command, CommandRef, Rejection, Reply};

use crate::data::KeyValueData;

/// A [`Command`] that owns its bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// See [`Command::Put`].
    Put {
        /// The key.
        key: Vec<u8>,
        /// The new value.
        value: Vec<u8>,
    },
    /// See [`Command::Delete`].
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// See [`Command::Increment`].
    Increment {
        /// The key.
        key: Vec<u8>,
        /// The number to add.
        by: i64,
    },
    /// See [`Command::CompareAndSet`].
    CompareAndSet {
        /// The key.
        key: Vec<u8>,
        /// The expected value; `None`: the key must be absent.
        expected: Option<Vec<u8>>,
        /// The new value; `None` removes the key.
        new: Option<Vec<u8>>,
    },
    /// See [`Command::Batch`]. A batch with another batch inside is rejected.
    Batch {
        /// The commands, in order.
        commands: Vec<Request>,
    },
}

impl Request {
    /// Puts `value` under `key`.
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self::Put { key: key.into(), value: value.into() }
    }

    /// Adds `by` to the number under `key`.
    pub fn increment(key: impl Into<Vec<u8>>, by: i64) -> Self {
        Self::Increment { key: key.into(), by }
    }

    /// The command, unless it is a batch.
    fn single(&self) -> Option<Command<'_>> {
        Some(match self {
            Self::Put { key, value } => Command::Put { key, value },
            Self::Delete { key } => Command::Delete { key },
            Self::Increment { key, by } => Command::Increment { key, by: *by },
            Self::CompareAndSet { key, expected, new } => {
                Command::CompareAndSet { key, expected: expected.as_deref(), new: new.as_deref() }
            }
            Self::Batch { .. } => return None,
        })
    }
}

/// Shows the kind and lengths, and no key or value.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value } => {
                write!(f, "put, key of {} bytes, value of {}", key.len(), value.len())
            }
            Self::Delete { key } => write!(f, "delete, key of {} bytes", key.len()),
            Self::Increment { key, .. } => write!(f, "increment, key of {} bytes", key.len()),
            Self::CompareAndSet { key, .. } => {
                write!(f, "compare-and-set, key of {} bytes", key.len())
            }
            Self::Batch { commands } => write!(f, "batch of {}", commands.len()),
        }
    }
}

impl KeyValueData for Request {
    fn command<'a>(&'a self, batch: &'a mut Vec<Command<'a>>) -> Command<'a> {
        let Self::Batch { commands } = self else {
            // The match above has handled batches.
            return self.single().unwrap_or(Command::Batch { commands: &[], note: None });
        };
        // A nested batch becomes a batch that sprag refuses.
        let nested = Command::Batch { commands: &[], note: None };
        batch.extend(commands.iter().map(|command| command.single().unwrap_or(nested)));
        Command::Batch { commands: batch, note: None }
    }

    fn from_command(command: &CommandRef<'_>) -> Option<Self> {
        Some(match *command {
            CommandRef::Put { key, value } => Self::put(key, value.bytes),
            CommandRef::Delete { key } => Self::Delete { key: key.into() },
            CommandRef::Increment { key, by } => Self::increment(key, by),
            CommandRef::CompareAndSet { key, expected, new } => Self::CompareAndSet {
                key: key.into(),
                expected: expected.map(Into::into),
                new: new.map(|new| new.bytes.into()),
            },
            CommandRef::Batch(batch) => {
                let commands = batch.commands().map(|command| Self::from_command(&command));
                Self::Batch { commands: commands.collect::<Option<_>>()? }
            }
        })
    }
}

/// A [`Reply`] as an owned, serializable type.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Response {
    /// See [`Reply::Applied`].
    Applied,
    /// See [`Reply::Put`].
    Put {
        /// Whether the key had a value before.
        replaced: bool,
    },
    /// See [`Reply::Deleted`].
    Deleted {
        /// Whether the key had a value before.
        existed: bool,
    },
    /// See [`Reply::Counter`].
    Counter(i64),
    /// See [`Reply::Swapped`].
    Swapped,
    /// See [`Reply::Batch`].
    Batch {
        /// Number of commands.
        commands: u32,
    },
    /// See [`Reply::Custom`].
    Custom(u64),
    /// See [`Reply::Bytes`].
    Bytes(Vec<u8>),
    /// See [`Reply::AlreadyApplied`].
    AlreadyApplied,
    /// See [`Reply::Rejected`].
    Rejected {
        /// The reason.
        reason: Reason,
        /// Position of the rejected command in its batch.
        position: Option<u32>,
    },
}

/// Reasons of rejections; see [`Rejection`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// See [`Rejection::NotANumber`].
    NotANumber,
    /// See [`Rejection::Overflow`].
    Overflow,
    /// See [`Rejection::Mismatch`].
    Mismatch,
    /// See [`Rejection::Unsupported`]. It also stands for a reason that this release does not know,
    /// and for a command that cannot be in a log. Such a command has an empty key, a batch in a
    /// batch, or a value that is too long.
    Unsupported,
    /// See [`Rejection::Custom`].
    Custom(u32),
}

impl From<Reply> for Response {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Put { replaced } => Self::Put { replaced },
            Reply::Deleted { existed } => Self::Deleted { existed },
            Reply::Counter(number) => Self::Counter(number),
            Reply::Swapped => Self::Swapped,
            Reply::Batch { commands } => Self::Batch { commands },
            Reply::Custom(word) => Self::Custom(word),
            Reply::Bytes(bytes) => Self::Bytes(bytes.into()),
            Reply::AlreadyApplied => Self::AlreadyApplied,
            Reply::Rejected(Rejection::InBatch { position, reason }) => {
                Self::Rejected { reason: reason.into(), position: Some(position) }
            }
            Reply::Rejected(reason) => Self::Rejected { reason: reason.into(), position: None },
            _ => Self::Applied,
        }
    }
}

impl From<Rejection> for Reason {
    fn from(reason: Rejection) -> Self {
        match reason {
            Rejection::NotANumber => Self::NotANumber,
            Rejection::Overflow => Self::Overflow,
            Rejection::Mismatch => Self::Mismatch,
            Rejection::Custom(code) => Self::Custom(code),
            _ => Self::Unsupported,
        }
    }
}

impl From<BatchRejection> for Reason {
    fn from(reason: BatchRejection) -> Self {
        Rejection::from(reason).into()
    }
}
