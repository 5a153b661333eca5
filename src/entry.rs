//! Inputs of an engine (entries and commands) and the output of each entry (a reply).
//!
//! Entries and commands borrow from the caller: none of these types owns bytes. A submission
//! encodes them once, into the frame that workers apply from and that the log writes (see
//! `src/codec.rs`).

use crate::bytes::to_usize;
use std::fmt;

/// The opaque tag some consensus engines carry beside the term, such as the id of the leader's
/// node.
///
/// A tag has at most [`LeaderTag::MAX_BYTES`] bytes. sprag stores and returns it, and never
/// interprets it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LeaderTag {
    len: u8,
    bytes: [u8; Self::MAX_BYTES],
}

impl LeaderTag {
    /// The most bytes a tag holds.
    pub const MAX_BYTES: usize = 16;

    /// The tag of an engine that has none.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; Self::MAX_BYTES] };

    /// Makes a tag of up to 16 bytes; `None` if `bytes` is longer.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let len = u8::try_from(bytes.len()).ok()?;
        let mut tag = Self { len, bytes: [0; Self::MAX_BYTES] };
        tag.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(tag)
    }

    /// The bytes of the tag.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }

    /// Number of bytes of the tag, as formats keep it.
    pub(crate) fn len(&self) -> u8 {
        self.len
    }

    pub(crate) fn padded(&self) -> &[u8; Self::MAX_BYTES] {
        &self.bytes
    }
}

impl fmt::Debug for LeaderTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The identity of one log entry: its index, the term it was proposed in, and the leader's tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct LogId {
    /// Position in the log. Engines that start at 0 work, and so do engines that start at 1.
    /// `u64::MAX` is refused.
    pub index: u64,
    /// The term (or epoch) of the leader that proposed the entry; never falls along the log.
    pub term: u64,
    /// The leader tag of the consensus engine; [`LeaderTag::EMPTY`] without one.
    pub leader: LeaderTag,
}

impl LogId {
    /// Makes a log id without a leader tag.
    #[must_use]
    pub const fn new(index: u64, term: u64) -> Self {
        Self { index, term, leader: LeaderTag::EMPTY }
    }

    /// The log id of another index of the same term and leader.
    #[must_use]
    pub const fn at(self, index: u64) -> Self {
        Self { index, term: self.term, leader: self.leader }
    }

    /// The log id of the next entry of the same term and leader.
    #[must_use]
    pub const fn next(self) -> Self {
        // The engine refuses the index u64::MAX, so no entry follows the one before it.
        self.at(self.index.saturating_add(1))
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (term {}", self.index, self.term)?;
        if self.leader != LeaderTag::EMPTY {
            write!(f, ", leader {:?}", self.leader)?;
        }
        f.write_str(")")
    }
}

/// One committed (or, for [`append`](crate::ConsensusLog::append), proposed) item of the replicated
/// log.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The identity of the entry.
    pub log_id: LogId,
    /// The content of the entry.
    pub payload: Payload<'a>,
}

impl<'a> Entry<'a> {
    /// Makes an entry of any payload.
    #[must_use]
    pub const fn new(log_id: LogId, payload: Payload<'a>) -> Self {
        Self { log_id, payload }
    }

    /// Makes an entry that runs `command`.
    #[must_use]
    pub const fn command(index: u64, term: u64, command: Command<'a>) -> Self {
        Self { log_id: LogId::new(index, term), payload: Payload::Command(command) }
    }

    /// Makes an entry that sets `key` to `value`.
    #[must_use]
    pub const fn put(index: u64, term: u64, key: &'a [u8], value: &'a [u8]) -> Self {
        Self::command(index, term, Command::put(key, value))
    }

    /// Makes an entry that removes `key`.
    #[must_use]
    pub const fn delete(index: u64, term: u64, key: &'a [u8]) -> Self {
        Self::command(index, term, Command::delete(key))
    }

    /// Makes an entry that adds `by` to the decimal number under `key`.
    #[must_use]
    pub const fn increment(index: u64, term: u64, key: &'a [u8], by: i64) -> Self {
        Self::command(index, term, Command::increment(key, by))
    }

    /// Makes an entry that only moves the applied index (a new leader's first entry, for instance).
    #[must_use]
    pub const fn noop(index: u64, term: u64) -> Self {
        Self { log_id: LogId::new(index, term), payload: Payload::Noop }
    }
}

/// The content of an entry.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// No content: only the applied index moves.
    Noop,
    /// A membership of the consensus group, kept with the state and returned by `membership()`.
    Membership(&'a [u8]),
    /// Bytes for a state machine that the embedder wrote; a key-value machine replies with a
    /// rejection.
    Opaque(&'a [u8]),
    /// A command of the built-in key-value machines.
    Command(Command<'a>),
}

/// A command of the built-in key-value state machines.
///
/// Keys are 1 byte to 64 KiB and values 0 bytes to 16 MiB, with any bytes. A configuration may set
/// lower limits.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// Set `key` to `value`. Replies [`Reply::Put`].
    Put {
        /// The key.
        key: &'a [u8],
        /// The new value.
        value: &'a [u8],
    },
    /// Remove `key`. Replies [`Reply::Deleted`].
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Add `by` to the number under `key` (a missing key counts as 0). Replies [`Reply::Counter`].
    ///
    /// The value is a decimal `i64`, written as Redis writes it: an optional minus sign and digits
    /// without leading zeros. Anything else is [`Rejection::NotANumber`]; a result outside of `i64`
    /// is [`Rejection::Overflow`].
    Increment {
        /// The key.
        key: &'a [u8],
        /// The number to add; negative to subtract.
        by: i64,
    },
    /// Replace the value of `key` if it is the expected one. Replies [`Reply::Swapped`] or
    /// [`Rejection::Mismatch`].
    CompareAndSet {
        /// The key.
        key: &'a [u8],
        /// The expected value; `None`: the key must be absent.
        expected: Option<&'a [u8]>,
        /// The new value; `None` removes the key.
        new: Option<&'a [u8]>,
    },
    /// Several commands as one: all of them happen or, if one is rejected, none. Replies
    /// [`Reply::Batch`] or [`Rejection::InBatch`]. A batch cannot hold a batch.
    Batch {
        /// The commands, in order; each sees the effects of the ones before it.
        commands: &'a [Command<'a>],
        /// A note that is kept beside the state, atomically with the batch (the position of an
        /// import, for instance).
        note: Option<Note<'a>>,
    },
}

impl<'a> Command<'a> {
    /// See [`Command::Put`].
    #[must_use]
    pub const fn put(key: &'a [u8], value: &'a [u8]) -> Self {
        Self::Put { key, value }
    }

    /// See [`Command::Delete`].
    #[must_use]
    pub const fn delete(key: &'a [u8]) -> Self {
        Self::Delete { key }
    }

    /// See [`Command::Increment`].
    #[must_use]
    pub const fn increment(key: &'a [u8], by: i64) -> Self {
        Self::Increment { key, by }
    }

    /// See [`Command::CompareAndSet`].
    #[must_use]
    pub const fn compare_and_set(
        key: &'a [u8],
        expected: Option<&'a [u8]>,
        new: Option<&'a [u8]>,
    ) -> Self {
        Self::CompareAndSet { key, expected, new }
    }
}

impl<'a> From<Command<'a>> for Payload<'a> {
    fn from(command: Command<'a>) -> Self {
        Self::Command(command)
    }
}

/// A small named value kept beside the state; a batch sets it, and `note(name)` reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// Name of the note: 1 byte to 64 KiB. Notes and keys have separate names.
    pub name: &'a [u8],
    /// Value of the note.
    pub value: &'a [u8],
}

/// The deterministic result of one entry.
///
/// A reply is a function of the log up to its entry, and so the same on every node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Reply {
    /// A [`Payload::Noop`] or [`Payload::Membership`] took its place in the order.
    Applied,
    /// A put is done.
    Put {
        /// Whether the key had a value before.
        replaced: bool,
    },
    /// A delete is done.
    Deleted {
        /// Whether the key had a value before.
        existed: bool,
    },
    /// An increment is done; this is the new number.
    Counter(i64),
    /// A compare-and-set found the expected value.
    Swapped,
    /// Every command of a batch is done.
    Batch {
        /// Number of commands.
        commands: u32,
    },
    /// A number that an embedder's state machine replies.
    Custom(u64),
    /// Bytes that an embedder's state machine replies: at most its
    /// [`reply_bytes_max`](crate::StateMachine::reply_bytes_max). The copy for the caller allocates
    /// them.
    Bytes(Box<[u8]>),
    /// The entry was applied before this submission; its first reply is not kept.
    AlreadyApplied,
    /// The entry changed nothing, for this reason. A rejection is a result, not an error: every
    /// node gets the same one.
    Rejected(Rejection),
}

/// Reason why a command changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Rejection {
    /// The value under the key is not a decimal `i64`.
    NotANumber,
    /// The result of the increment does not fit an `i64`.
    Overflow,
    /// The key did not have the expected value.
    Mismatch,
    /// The machine does not run this kind of payload (an opaque one on a key-value machine, for
    /// instance).
    Unsupported,
    /// A code that an embedder's state machine gives as its reason.
    Custom(u32),
    /// A command of a batch was rejected, and with it the batch.
    InBatch {
        /// Position of the command in the batch, from 0.
        position: u32,
        /// Reason of the rejection.
        reason: BatchRejection,
    },
}

/// Reason why a command inside of a batch was rejected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum BatchRejection {
    /// See [`Rejection::NotANumber`].
    NotANumber,
    /// See [`Rejection::Overflow`].
    Overflow,
    /// See [`Rejection::Mismatch`].
    Mismatch,
}

impl From<BatchRejection> for Rejection {
    fn from(reason: BatchRejection) -> Self {
        match reason {
            BatchRejection::NotANumber => Self::NotANumber,
            BatchRejection::Overflow => Self::Overflow,
            BatchRejection::Mismatch => Self::Mismatch,
        }
    }
}

/// The tag of [`Reply::Bytes`] in the first word. Its length takes the place of a position.
const BYTES_TAG: u64 = 11;

impl Reply {
    /// The bytes of a [`Reply::Bytes`].
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The reply as two words, for two atomics: tag, detail and position in the first, a number in
    /// the second. The bytes of a [`Reply::Bytes`] are kept beside them.
    pub(crate) fn to_words(&self) -> [u64; 2] {
        let head = |tag: u64, detail: u64, position: u64| tag | detail << 8 | position << 32;
        match *self {
            Self::Applied => [head(1, 0, 0), 0],
            Self::Put { replaced } => [head(2, u64::from(replaced), 0), 0],
            Self::Deleted { existed } => [head(3, u64::from(existed), 0), 0],
            Self::Counter(number) => [head(4, 0, 0), number.cast_unsigned()],
            Self::Swapped => [head(5, 0, 0), 0],
            Self::Batch { commands } => [head(6, 0, u64::from(commands)), 0],
            Self::Custom(word) => [head(7, 0, 0), word],
            Self::Bytes(ref bytes) => Self::words_of_bytes(bytes.len()),
            Self::AlreadyApplied => [head(8, 0, 0), 0],
            Self::Rejected(rejection) => match rejection {
                Rejection::NotANumber => [head(9, 0, 0), 0],
                Rejection::Overflow => [head(9, 1, 0), 0],
                Rejection::Mismatch => [head(9, 2, 0), 0],
                Rejection::Unsupported => [head(9, 3, 0), 0],
                Rejection::Custom(code) => [head(9, 4, u64::from(code)), 0],
                Rejection::InBatch { position, reason } => {
                    [head(10, reason as u64, u64::from(position)), 0]
                }
            },
        }
    }

    /// The words of a reply of `bytes` bytes, at most [`REPLY_BYTES_MAX`].
    ///
    /// [`REPLY_BYTES_MAX`]: crate::ranges::in_flight_ring::REPLY_BYTES_MAX
    pub(crate) fn words_of_bytes(len: usize) -> [u64; 2] {
        [BYTES_TAG | (len as u64) << 32, 0]
    }

    /// Length of the bytes, if the words are those of a [`Reply::Bytes`].
    pub(crate) fn bytes_len([head, _]: [u64; 2]) -> Option<usize> {
        (head & 0xff == BYTES_TAG).then(|| to_usize(head >> 32))
    }

    /// Whether the first word belongs to a rejection.
    pub(crate) fn is_rejection(head: u64) -> bool {
        matches!(head & 0xff, 9 | 10)
    }

    /// Decodes the result of [`Reply::to_words`], except for [`Reply::Bytes`]; `None` for words
    /// that no reply has.
    pub(crate) fn from_words([head, number]: [u64; 2]) -> Option<Self> {
        let detail = head >> 8 & 0xff;
        let position = u32::try_from(head >> 32).ok()?;
        Some(match head & 0xff {
            1 => Self::Applied,
            2 => Self::Put { replaced: detail == 1 },
            3 => Self::Deleted { existed: detail == 1 },
            4 => Self::Counter(number.cast_signed()),
            5 => Self::Swapped,
            6 => Self::Batch { commands: position },
            7 => Self::Custom(number),
            8 => Self::AlreadyApplied,
            9 => Self::Rejected(match detail {
                0 => Rejection::NotANumber,
                1 => Rejection::Overflow,
                2 => Rejection::Mismatch,
                3 => Rejection::Unsupported,
                4 => Rejection::Custom(position),
                _ => return None,
            }),
            10 => Self::Rejected(Rejection::InBatch {
                position,
                reason: match detail {
                    0 => BatchRejection::NotANumber,
                    1 => BatchRejection::Overflow,
                    2 => BatchRejection::Mismatch,
                    _ => return None,
                },
            }),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_survives_its_two_words() {
        let reasons =
            [BatchRejection::NotANumber, BatchRejection::Overflow, BatchRejection::Mismatch];
        let mut replies = vec![
            Reply::Applied,
            Reply::Put { replaced: true },
            Reply::Put { replaced: false },
            Reply::Deleted { existed: true },
            Reply::Deleted { existed: false },
            Reply::Counter(i64::MIN),
            Reply::Counter(-1),
            Reply::Counter(i64::MAX),
            Reply::Swapped,
            Reply::Batch { commands: u32::MAX },
            Reply::Custom(u64::MAX),
            Reply::AlreadyApplied,
            Reply::Rejected(Rejection::NotANumber),
            Reply::Rejected(Rejection::Overflow),
            Reply::Rejected(Rejection::Mismatch),
            Reply::Rejected(Rejection::Unsupported),
            Reply::Rejected(Rejection::Custom(u32::MAX)),
        ];
        replies.extend(
            reasons
                .map(|reason| Reply::Rejected(Rejection::InBatch { position: u32::MAX, reason })),
        );
        for reply in replies {
            let words = reply.to_words();
            let rejected = matches!(reply, Reply::Rejected(_));
            assert_eq!((Reply::is_rejection(words[0]), Reply::bytes_len(words)), (rejected, None));
            assert_eq!(Reply::from_words(words), Some(reply));
        }
        let bytes = Reply::Bytes(vec![7; 300].into()).to_words();
        assert_eq!((Reply::bytes_len(bytes), Reply::is_rejection(bytes[0])), (Some(300), false));
        assert_eq!(Reply::from_words(bytes), None, "its bytes are not in its words");
        assert_eq!(Reply::from_words([0, 0]), None);
        assert_eq!(Reply::from_words([12, 0]), None);
    }

    #[test]
    fn a_leader_tag_holds_sixteen_bytes_and_no_more() {
        assert_eq!(LeaderTag::new(&[7; 16]).map(|tag| tag.as_bytes().to_vec()), Some(vec![7; 16]));
        assert_eq!(LeaderTag::new(&[7; 17]), None);
        assert_eq!(LeaderTag::new(&[]), Some(LeaderTag::EMPTY));
    }
}
