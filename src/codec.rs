//! The encoding of one entry: how a submission writes it into a frame, and how a worker reads it
//! there.
//!
//! ```text
//! offset  size  field
//!      0     1  kind: 1 noop, 2 membership, 3 opaque, 4 put, 5 delete, 6 increment, 7 compare-and-set, 8 batch
//!      1     1  flags: bit 0 expects a value (7), bit 1 sets a value (7), bit 2 has a note (8)
//!      2     2  key length - 1 (kinds 4 to 7), else 0
//!      4     4  area length
//!      8     k  key (kinds 4 to 7)
//!    8+k     a  area: the bytes (2, 3), the value (4), i64 (6), [u32 length, expected] new (7),
//!               u32 count [u16 name length - 1, u32 value length, name, value] commands (8)
//! ```
//!
//! All numbers are little-endian; nothing is aligned. A command of a batch is encoded like an
//! entry.

use thiserror::Error;

use crate::entry::{Command, Entry, Note, Payload};

mod given;
pub(crate) mod place;

pub(crate) use place::{Encoded, Extent, PieceNumber, PiecePlace, Place};

/// Number of bytes before the key.
pub const HEADER_BYTES: usize = 8;
/// The longest key the format can hold.
pub(crate) const KEY_BYTES_MAX: usize = 64 << 10;
/// The longest value the format may hold.
pub(crate) const VALUE_BYTES_MAX: usize = 16 << 20;
/// The most bytes of entries in one frame.
pub const FRAME_BYTES_MAX: usize = 32 << 20;

const NOOP: u8 = 1;
const MEMBERSHIP: u8 = 2;
const OPAQUE: u8 = 3;
const PUT: u8 = 4;
const DELETE: u8 = 5;
const INCREMENT: u8 = 6;
const COMPARE_AND_SET: u8 = 7;
const BATCH: u8 = 8;

const EXPECTS: u8 = 1;
const SETS: u8 = 2;
const HAS_NOTE: u8 = 4;

/// The largest key, value and entry that a submission may carry.
///
/// ```
/// use sprag::{Limits, PersistentConfig};
///
/// let limits = Limits::new().key_bytes_max(256).value_bytes_max(64 << 10);
/// let config = PersistentConfig::new("data").limits(limits);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Limits {
    pub(crate) key_bytes_max: usize,
    pub(crate) value_bytes_max: usize,
    pub(crate) entry_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes_max: KEY_BYTES_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
            entry_bytes_max: FRAME_BYTES_MAX,
        }
    }
}

impl Limits {
    /// Makes the limits of the format, which are the largest.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the length of the longest key, in bytes: 1 to 64 KiB. Default: 64 KiB.
    pub fn key_bytes_max(mut self, bytes: usize) -> Self {
        self.key_bytes_max = bytes;
        self
    }

    /// Sets the length of the longest value, in bytes: 0 to 16 MiB. Default: 16 MiB. It also holds
    /// for a membership, an opaque payload, and the value of a note.
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.value_bytes_max = bytes;
        self
    }

    /// Sets the length of the longest encoded entry, in bytes: 1 to 32 MiB. Default: 32 MiB. A
    /// batch is one entry.
    pub fn entry_bytes_max(mut self, bytes: usize) -> Self {
        self.entry_bytes_max = bytes;
        self
    }
}

/// Reason why an entry cannot be encoded. The caller can mend it, and nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EntryError {
    /// A key (or the name of a note) has no bytes.
    #[error("the key is empty; keys have at least one byte")]
    EmptyKey,
    /// A key (or the name of a note) is longer than the limit.
    #[error("the key has {bytes} bytes, more than the limit of {limit}")]
    KeyTooLong {
        /// Length of the key in bytes.
        bytes: usize,
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// A value is longer than the limit.
    #[error("the value has {bytes} bytes, more than the limit of {limit}")]
    ValueTooLong {
        /// Length of the value in bytes.
        bytes: usize,
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// The whole entry is longer than the limit.
    #[error("the entry has {bytes} bytes encoded, more than the limit of {limit}")]
    EntryTooLong {
        /// Encoded length of the entry in bytes.
        bytes: usize,
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// A batch holds a batch.
    #[error("a batch holds a batch at position {position}; batches do not nest")]
    NestedBatch {
        /// Position in the outer batch, from 0.
        position: usize,
    },
}

impl EntryError {
    /// Whether no engine takes such an entry, whatever its [`Limits`] are.
    ///
    /// An adapter may leave out only such an entry. An entry that another node has, and that this
    /// node's limits refuse, must stop this node.
    #[must_use]
    pub fn is_never_an_entry(&self) -> bool {
        match *self {
            Self::EmptyKey | Self::NestedBatch { .. } => true,
            Self::KeyTooLong { bytes, .. } => bytes > KEY_BYTES_MAX,
            Self::ValueTooLong { bytes, .. } => bytes > VALUE_BYTES_MAX,
            Self::EntryTooLong { bytes, .. } => bytes > FRAME_BYTES_MAX,
        }
    }
}

/// Reason why bytes are not an encoded entry. The bytes have passed a checksum by then, so the
/// writer was wrong or has another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an entry: {0}")]
pub struct DecodeError(&'static str);

/// A value, and its place.
#[derive(Clone, Copy, Debug)]
pub struct ValueRef<'a> {
    /// The value's bytes.
    pub bytes: &'a [u8],
    /// Place of the bytes in the log, for the machine that keeps places instead of bytes.
    pub(crate) place: Place,
}

/// A decoded entry's payload, borrowed from its frame.
#[derive(Clone, Copy, Debug)]
pub enum PayloadRef<'a> {
    /// See [`Payload::Noop`].
    Noop,
    /// See [`Payload::Membership`].
    Membership(&'a [u8]),
    /// See [`Payload::Opaque`].
    Opaque(&'a [u8]),
    /// See [`Payload::Command`].
    Command(CommandRef<'a>),
}

/// A decoded command, borrowed from its frame.
#[derive(Clone, Copy, Debug)]
pub enum CommandRef<'a> {
    /// See [`Command::Put`].
    Put {
        /// The key.
        key: &'a [u8],
        /// The new value.
        value: ValueRef<'a>,
    },
    /// See [`Command::Delete`].
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// See [`Command::Increment`].
    Increment {
        /// The key.
        key: &'a [u8],
        /// The number to add.
        by: i64,
    },
    /// See [`Command::CompareAndSet`].
    CompareAndSet {
        /// The key.
        key: &'a [u8],
        /// The expected value; `None`: the key must be absent.
        expected: Option<&'a [u8]>,
        /// The new value; `None` removes the key.
        new: Option<ValueRef<'a>>,
    },
    /// See [`Command::Batch`].
    Batch(BatchRef<'a>),
}

impl<'a> CommandRef<'a> {
    /// The key of the command; `None` for a batch.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Put { key, .. }
            | Self::Delete { key }
            | Self::Increment { key, .. }
            | Self::CompareAndSet { key, .. } => Some(key),
            Self::Batch(_) => None,
        }
    }
}

/// A decoded batch, whose iterator decodes the commands one by one.
#[derive(Clone, Copy, Debug)]
pub struct BatchRef<'a> {
    count: u32,
    note: Option<Note<'a>>,
    commands: Encoded<'a>,
}

impl<'a> BatchRef<'a> {
    /// Number of commands.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether it holds no command.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The note that the batch keeps beside the state.
    #[must_use]
    pub fn note(&self) -> Option<Note<'a>> {
        self.note
    }

    /// The commands in order. The iterator ends early at a command that cannot be decoded, which
    /// decoding the batch has ruled out.
    pub fn commands(&self) -> impl Iterator<Item = CommandRef<'a>> + use<'a> {
        let mut rest = self.commands;
        (0..self.count).map_while(move |_| {
            // The whole batch was decoded before; bytes that changed since end the iteration.
            let (command, bytes) = decode_command(rest).ok()?;
            rest = rest.skip(bytes)?;
            Some(command)
        })
    }
}

/// Checks `entry` against `limits`, and returns its encoded length in bytes.
#[inline]
pub fn encoded_len(entry: &Entry<'_>, limits: &Limits) -> Result<usize, EntryError> {
    // A submission asks this twice for each entry. Most entries are puts within all limits.
    if let Payload::Command(Command::Put { key, value }) = &entry.payload {
        let bytes = HEADER_BYTES + key.len() + value.len();
        if !key.is_empty()
            && key.len() <= limits.key_bytes_max.min(KEY_BYTES_MAX)
            && value.len() <= limits.value_bytes_max.min(VALUE_BYTES_MAX)
            && bytes <= limits.entry_bytes_max.min(FRAME_BYTES_MAX)
        {
            return Ok(bytes);
        }
    }
    any_encoded_len(entry, limits)
}

fn any_encoded_len(entry: &Entry<'_>, limits: &Limits) -> Result<usize, EntryError> {
    let bytes = match &entry.payload {
        Payload::Noop => HEADER_BYTES,
        Payload::Membership(bytes) | Payload::Opaque(bytes) => {
            HEADER_BYTES + checked_value(bytes, limits)?
        }
        Payload::Command(command) => command_len(command, limits)?,
    };
    let limit = limits.entry_bytes_max.min(FRAME_BYTES_MAX);
    if bytes > limit {
        return Err(EntryError::EntryTooLong { bytes, limit });
    }
    Ok(bytes)
}

#[inline]
fn command_len(command: &Command<'_>, limits: &Limits) -> Result<usize, EntryError> {
    Ok(HEADER_BYTES
        + match *command {
            Command::Put { key, value } => {
                checked_key(key, limits)? + checked_value(value, limits)?
            }
            Command::Delete { key } => checked_key(key, limits)?,
            Command::Increment { key, .. } => checked_key(key, limits)? + 8,
            Command::CompareAndSet { key, expected, new } => {
                let expected = match expected {
                    Some(bytes) => 4 + checked_value(bytes, limits)?,
                    None => 0,
                };
                let new = new.map_or(Ok(0), |bytes| checked_value(bytes, limits))?;
                checked_key(key, limits)? + expected + new
            }
            Command::Batch { commands, note } => batch_len(commands, note, limits)?,
        })
}

fn batch_len(
    commands: &[Command<'_>],
    note: Option<Note<'_>>,
    limits: &Limits,
) -> Result<usize, EntryError> {
    let note_bytes = match note {
        Some(note) => 6 + checked_key(note.name, limits)? + checked_value(note.value, limits)?,
        None => 0,
    };
    let mut bytes = 4 + note_bytes;
    for (position, command) in commands.iter().enumerate() {
        if matches!(command, Command::Batch { .. }) {
            return Err(EntryError::NestedBatch { position });
        }
        bytes += command_len(command, limits)?;
    }
    Ok(bytes)
}

#[inline]
fn checked_key(key: &[u8], limits: &Limits) -> Result<usize, EntryError> {
    let limit = limits.key_bytes_max.min(KEY_BYTES_MAX);
    match key.len() {
        0 => Err(EntryError::EmptyKey),
        bytes if bytes > limit => Err(EntryError::KeyTooLong { bytes, limit }),
        bytes => Ok(bytes),
    }
}

#[inline]
fn checked_value(value: &[u8], limits: &Limits) -> Result<usize, EntryError> {
    let limit = limits.value_bytes_max.min(VALUE_BYTES_MAX);
    match value.len() {
        bytes if bytes > limit => Err(EntryError::ValueTooLong { bytes, limit }),
        bytes => Ok(bytes),
    }
}

/// Encodes `entry` into `out`, whose length must be the result of [`encoded_len`].
#[inline(always)]
pub fn encode(entry: &Entry<'_>, out: &mut [u8]) {
    let mut cursor = Cursor { out };
    match &entry.payload {
        Payload::Noop => cursor.header(NOOP, 0, 0, 0),
        Payload::Membership(bytes) => cursor.blob(MEMBERSHIP, bytes),
        Payload::Opaque(bytes) => cursor.blob(OPAQUE, bytes),
        Payload::Command(command) => cursor.command(command),
    }
}

/// A writer into a buffer that is known to be large enough.
struct Cursor<'a> {
    out: &'a mut [u8],
}

impl Cursor<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let (head, tail) = std::mem::take(&mut self.out).split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        self.out = tail;
    }

    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "encoded_len has checked: keys are 1..=65536 bytes, areas at most 32 MiB"
    )]
    fn header(&mut self, kind: u8, flags: u8, key_bytes: usize, area_bytes: usize) {
        let word = u64::from(kind)
            | u64::from(flags) << 8
            // An entry without a key has 0 here, and its kind says so.
            | (key_bytes.saturating_sub(1) as u64) << 16
            | (area_bytes as u64) << 32;
        self.put(&word.to_le_bytes());
    }

    fn blob(&mut self, kind: u8, bytes: &[u8]) {
        self.header(kind, 0, 0, bytes.len());
        self.put(bytes);
    }

    #[allow(clippy::cast_possible_truncation, reason = "encoded_len has checked every length")]
    #[inline]
    fn command(&mut self, command: &Command<'_>) {
        match *command {
            Command::Put { key, value } => {
                self.header(PUT, 0, key.len(), value.len());
                self.put(key);
                self.put(value);
            }
            Command::Delete { key } => {
                self.header(DELETE, 0, key.len(), 0);
                self.put(key);
            }
            Command::Increment { key, by } => {
                self.header(INCREMENT, 0, key.len(), 8);
                self.put(key);
                self.put(&by.to_le_bytes());
            }
            Command::CompareAndSet { key, expected, new } => {
                let expects = expected.map_or(0, |bytes| 4 + bytes.len());
                let flags = if expected.is_some() { EXPECTS } else { 0 }
                    | if new.is_some() { SETS } else { 0 };
                let area = expects + new.map_or(0, <[u8]>::len);
                self.header(COMPARE_AND_SET, flags, key.len(), area);
                self.put(key);
                if let Some(expected) = expected {
                    self.put(&(expected.len() as u32).to_le_bytes());
                    self.put(expected);
                }
                self.put(new.unwrap_or_default());
            }
            Command::Batch { commands, note } => {
                let area = self.out.len() - HEADER_BYTES;
                self.header(BATCH, if note.is_some() { HAS_NOTE } else { 0 }, 0, area);
                self.put(&(commands.len() as u32).to_le_bytes());
                if let Some(note) = note {
                    self.put(&((note.name.len() - 1) as u16).to_le_bytes());
                    self.put(&(note.value.len() as u32).to_le_bytes());
                    self.put(note.name);
                    self.put(note.value);
                }
                for command in commands {
                    self.command(command);
                }
            }
        }
    }
}

/// Decodes the entry at the start of `bytes`. Returns the entry and its length.
///
/// Every length is checked against the existing bytes before it is used, also in commands of a
/// batch.
#[inline]
pub fn decode(bytes: Encoded<'_>) -> Result<(PayloadRef<'_>, usize), DecodeError> {
    let raw = Raw::read(bytes)?;
    let payload = match raw.kind {
        PUT | DELETE | INCREMENT | COMPARE_AND_SET | BATCH => PayloadRef::Command(raw.command()?),
        NOOP if raw.area.is_empty() => PayloadRef::Noop,
        MEMBERSHIP => PayloadRef::Membership(raw.area.bytes()),
        OPAQUE => PayloadRef::Opaque(raw.area.bytes()),
        _ => return Err(DecodeError("unknown kind")),
    };
    Ok((payload, raw.len()))
}

/// Decodes a put; `None` for any other entry. A large [`PayloadRef`] is not moved.
#[inline]
pub(crate) fn decode_put(bytes: Encoded<'_>) -> Option<CommandRef<'_>> {
    // `decode` says what is wrong with bytes that are no entry.
    Raw::read(bytes).ok().filter(|raw| raw.kind == PUT).map(|raw| raw.put())
}

/// Decodes as [`decode`] does, and also decodes every command of a batch once. Recovery calls it
/// before it trusts a frame.
pub fn decode_deep(bytes: Encoded<'_>) -> Result<(PayloadRef<'_>, usize), DecodeError> {
    let (payload, len) = decode(bytes)?;
    if let PayloadRef::Command(CommandRef::Batch(batch)) = payload {
        let mut rest = batch.commands;
        for _ in 0..batch.count {
            let (command, bytes) = decode_command(rest)?;
            if matches!(command, CommandRef::Batch(_)) {
                return Err(DecodeError("a batch in a batch"));
            }
            rest = rest.skip(bytes).ok_or(DecodeError("a batch cut short"))?;
        }
        if !rest.is_empty() {
            return Err(DecodeError("bytes after the last command of a batch"));
        }
    }
    Ok((payload, len))
}

fn decode_command(bytes: Encoded<'_>) -> Result<(CommandRef<'_>, usize), DecodeError> {
    let raw = Raw::read(bytes)?;
    Ok((raw.command()?, raw.len()))
}

/// The parts that every kind of entry has.
struct Raw<'a> {
    kind: u8,
    flags: u8,
    key: &'a [u8],
    area: Encoded<'a>,
}

impl<'a> Raw<'a> {
    #[inline]
    fn read(bytes: Encoded<'a>) -> Result<Self, DecodeError> {
        let cut = DecodeError("a header cut short");
        let (head, rest) = bytes.split_at(HEADER_BYTES).ok_or(cut)?;
        let [kind, flags, k0, k1, a0, a1, a2, a3] = *head.bytes().first_chunk().ok_or(cut)?;
        let has_key = matches!(kind, PUT | DELETE | INCREMENT | COMPARE_AND_SET);
        let key_bytes = usize::from(u16::from_le_bytes([k0, k1])) + usize::from(has_key);
        let area_bytes = u32::from_le_bytes([a0, a1, a2, a3]) as usize;
        let (key, rest) = rest.split_at(key_bytes).ok_or(DecodeError("a key cut short"))?;
        let area = rest.first(area_bytes).ok_or(DecodeError("an area cut short"))?;
        if !has_key && key_bytes != 0 {
            return Err(DecodeError("a key where none belongs"));
        }
        Ok(Self { kind, flags, key: key.bytes(), area })
    }

    #[inline]
    fn len(&self) -> usize {
        HEADER_BYTES + self.key.len() + self.area.len()
    }

    #[inline]
    fn put(&self) -> CommandRef<'a> {
        CommandRef::Put { key: self.key, value: self.area.value() }
    }

    #[inline]
    fn command(&self) -> Result<CommandRef<'a>, DecodeError> {
        let key = self.key;
        match self.kind {
            PUT => Ok(self.put()),
            DELETE if self.area.is_empty() => Ok(CommandRef::Delete { key }),
            INCREMENT => {
                let by = self.area.bytes().try_into();
                let by = by.map_err(|_| DecodeError("an increment's size"))?;
                Ok(CommandRef::Increment { key, by: i64::from_le_bytes(by) })
            }
            COMPARE_AND_SET => self.compare_and_set(),
            BATCH => self.batch(),
            _ => Err(DecodeError("unknown kind")),
        }
    }

    fn compare_and_set(&self) -> Result<CommandRef<'a>, DecodeError> {
        let (expected, rest) = if self.flags & EXPECTS != 0 {
            let cut = DecodeError("a length cut short");
            let (head, rest) = self.area.split_at(4).ok_or(cut)?;
            let bytes = u32::from_le_bytes(*head.bytes().first_chunk().ok_or(cut)?) as usize;
            let cut = DecodeError("an expected value cut short");
            let (expected, rest) = rest.split_at(bytes).ok_or(cut)?;
            (Some(expected.bytes()), rest)
        } else {
            (None, self.area)
        };
        if self.flags & SETS == 0 && !rest.is_empty() {
            return Err(DecodeError("a new value where none belongs"));
        }
        let new = (self.flags & SETS != 0).then(|| rest.value());
        Ok(CommandRef::CompareAndSet { key: self.key, expected, new })
    }

    fn batch(&self) -> Result<CommandRef<'a>, DecodeError> {
        let cut = DecodeError("a batch cut short");
        let (count, mut rest) = self.area.split_at(4).ok_or(cut)?;
        let mut note = None;
        if self.flags & HAS_NOTE != 0 {
            let (lengths, after) = rest.split_at(6).ok_or(cut)?;
            let [n0, n1, v0, v1, v2, v3] = *lengths.bytes().first_chunk().ok_or(cut)?;
            let name_bytes = usize::from(u16::from_le_bytes([n0, n1])) + 1;
            let value_bytes = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
            let (name, after) = after.split_at(name_bytes).ok_or(cut)?;
            let (value, after) = after.split_at(value_bytes).ok_or(cut)?;
            note = Some(Note { name: name.bytes(), value: value.bytes() });
            rest = after;
        }
        let count = u32::from_le_bytes(*count.bytes().first_chunk().ok_or(cut)?);
        if count as usize > rest.len() / HEADER_BYTES {
            return Err(cut);
        }
        Ok(CommandRef::Batch(BatchRef { count, note, commands: rest }))
    }
}

#[cfg(test)]
mod tests;
