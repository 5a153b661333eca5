//! Entries that own their bytes, and their conversion to the library's borrowed ones.

use std::fmt;

use sprag::{Command, CommandRef, Entry, LeaderTag, LogId, Note, Payload, PayloadRef};

#[derive(Clone, PartialEq, Eq)]
pub enum Cmd {
    Put { key: Vec<u8>, value: Vec<u8> },
    Delete { key: Vec<u8> },
    Increment { key: Vec<u8>, by: i64 },
    CompareAndSet { key: Vec<u8>, expected: Option<Vec<u8>>, new: Option<Vec<u8>> },
}

#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    Noop,
    Membership(Vec<u8>),
    Opaque(Vec<u8>),
    One(Cmd),
    Batch { commands: Vec<Cmd>, note: Option<(Vec<u8>, Vec<u8>)> },
}

/// Bytes in the form that a failing property shows: on one line, long ones by their length.
struct Short<'a>(&'a [u8]);

impl fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0..=24 => write!(f, "b\"{}\"", self.0.escape_ascii()),
            len => write!(f, "{len} bytes from {}", self.0[0]),
        }
    }
}

impl fmt::Debug for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value } => write!(f, "put({:?}, {:?})", Short(key), Short(value)),
            Self::Delete { key } => write!(f, "delete({:?})", Short(key)),
            Self::Increment { key, by } => write!(f, "increment({:?}, {by})", Short(key)),
            Self::CompareAndSet { key, expected, new } => {
                let [expected, new] = [expected, new].map(|value| value.as_deref().map(Short));
                write!(f, "compare_and_set({:?}, ", Short(key))?;
                match (expected, new) {
                    (None, None) => write!(f, "None, None)"),
                    (Some(expected), None) => write!(f, "{expected:?}, None)"),
                    (None, Some(new)) => write!(f, "None, {new:?})"),
                    (Some(expected), Some(new)) => write!(f, "{expected:?}, {new:?})"),
                }
            }
        }
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noop => write!(f, "noop"),
            Self::Membership(bytes) => write!(f, "membership({:?})", Short(bytes)),
            Self::Opaque(bytes) => write!(f, "opaque({:?})", Short(bytes)),
            Self::One(command) => write!(f, "{command:?}"),
            Self::Batch { commands, note } => {
                write!(f, "batch[")?;
                commands.iter().try_for_each(|command| write!(f, "{command:?}; "))?;
                match note {
                    Some((name, value)) => write!(f, "note {:?} {:?}]", Short(name), Short(value)),
                    None => write!(f, "]"),
                }
            }
        }
    }
}

impl Cmd {
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self::Put { key: key.into(), value: value.into() }
    }

    pub fn increment(key: impl Into<Vec<u8>>, by: i64) -> Self {
        Self::Increment { key: key.into(), by }
    }

    fn borrow(&self) -> Command<'_> {
        match self {
            Self::Put { key, value } => Command::Put { key, value },
            Self::Delete { key } => Command::Delete { key },
            Self::Increment { key, by } => Command::Increment { key, by: *by },
            Self::CompareAndSet { key, expected, new } => {
                Command::CompareAndSet { key, expected: expected.as_deref(), new: new.as_deref() }
            }
        }
    }
}

impl Op {
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self::One(Cmd::put(key, value))
    }

    pub fn delete(key: impl Into<Vec<u8>>) -> Self {
        Self::One(Cmd::Delete { key: key.into() })
    }

    pub fn increment(key: impl Into<Vec<u8>>, by: i64) -> Self {
        Self::One(Cmd::increment(key, by))
    }

    pub fn compare_and_set(key: &[u8], expected: Option<&[u8]>, new: Option<&[u8]>) -> Self {
        Self::One(Cmd::CompareAndSet {
            key: key.to_vec(),
            expected: expected.map(<[u8]>::to_vec),
            new: new.map(<[u8]>::to_vec),
        })
    }
}

/// An operation with its log id.
pub type Logged = (LogId, Op);

/// A log of one term with the operations `ops`, from index `first` on.
pub fn log_of(first: u64, term: u64, ops: impl IntoIterator<Item = Op>) -> Vec<Logged> {
    (first..).zip(ops).map(|(index, op)| (LogId::new(index, term), op)).collect()
}

/// A log with a rising term and a leader that sometimes changes.
pub fn log_of_many_leaders(first: u64, ops: impl IntoIterator<Item = Op>) -> Vec<Logged> {
    let log_id = |index: u64| {
        let term = 1 + index / 23;
        let tag = match term % 3 {
            0 => LeaderTag::EMPTY,
            1 => LeaderTag::new(&term.to_le_bytes()).unwrap(),
            _ => LeaderTag::new(&[0xfe; 16]).unwrap(),
        };
        LogId { index, term, leader: tag }
    };
    (first..).zip(ops).map(|(index, op)| (log_id(index), op)).collect()
}

/// Calls `run` with the library's entries of `log`.
pub fn with_entries<R>(log: &[Logged], run: impl FnOnce(&[Entry<'_>]) -> R) -> R {
    let batches: Vec<Vec<Command<'_>>> = log
        .iter()
        .map(|(_, op)| match op {
            Op::Batch { commands, .. } => commands.iter().map(Cmd::borrow).collect(),
            _ => Vec::new(),
        })
        .collect();
    let entries: Vec<Entry<'_>> = log
        .iter()
        .zip(&batches)
        .map(|((log_id, op), batch)| Entry::new(*log_id, payload(op, batch)))
        .collect();
    run(&entries)
}

fn payload<'a>(op: &'a Op, batch: &'a [Command<'a>]) -> Payload<'a> {
    match op {
        Op::Noop => Payload::Noop,
        Op::Membership(bytes) => Payload::Membership(bytes),
        Op::Opaque(bytes) => Payload::Opaque(bytes),
        Op::One(command) => Payload::Command(command.borrow()),
        Op::Batch { note, .. } => Payload::Command(Command::Batch {
            commands: batch,
            note: note.as_ref().map(|(name, value)| Note { name, value }),
        }),
    }
}

/// Converts an entry of the log back to an operation.
pub fn op_of(payload: &PayloadRef<'_>) -> Op {
    match payload {
        PayloadRef::Noop => Op::Noop,
        PayloadRef::Membership(bytes) => Op::Membership(bytes.to_vec()),
        PayloadRef::Opaque(bytes) => Op::Opaque(bytes.to_vec()),
        PayloadRef::Command(CommandRef::Batch(batch)) => Op::Batch {
            commands: batch.commands().map(|command| cmd_of(&command)).collect(),
            note: batch.note().map(|note| (note.name.to_vec(), note.value.to_vec())),
        },
        PayloadRef::Command(command) => Op::One(cmd_of(command)),
    }
}

fn cmd_of(command: &CommandRef<'_>) -> Cmd {
    match *command {
        CommandRef::Put { key, value } => Cmd::put(key, value.bytes),
        CommandRef::Delete { key } => Cmd::Delete { key: key.to_vec() },
        CommandRef::Increment { key, by } => Cmd::increment(key, by),
        CommandRef::CompareAndSet { key, expected, new } => Cmd::CompareAndSet {
            key: key.to_vec(),
            expected: expected.map(<[u8]>::to_vec),
            new: new.map(|value| value.bytes.to_vec()),
        },
        CommandRef::Batch(_) => unreachable!("a batch holds no batch"),
    }
}
