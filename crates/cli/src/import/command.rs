//! What the words of a command ask for.

use super::stop::{Name, What};
use super::stream::{ARGUMENT_BYTES_MAX, Words, decimal};

/// The longest key.
const KEY_BYTES_MAX: usize = 64 << 10;
/// The longest value.
pub(super) const VALUE_BYTES_MAX: usize = ARGUMENT_BYTES_MAX;

type Bytes = Vec<u8>;

/// One command of the stream.
#[derive(Debug)]
pub(super) enum Parsed {
    /// One that reads or changes data.
    Data(Request),
    /// MULTI.
    Begin,
    /// EXEC.
    Execute,
    /// DISCARD.
    Discard,
    /// SELECT 0, which changes nothing.
    SelectZero,
    /// One that is not imported, and may be left out if so asked.
    Unknown { name: Name, why: What },
}

/// What is done to the data. All of a request happens or nothing of it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: Name,
    pub(super) action: Action,
}

/// What a request does.
#[derive(Debug)]
pub(super) enum Action {
    /// SET, MSET.
    Set(Vec<(Bytes, Bytes)>),
    /// SETNX.
    SetIfAbsent(Bytes, Bytes),
    /// DEL, UNLINK.
    Delete(Vec<Bytes>),
    /// INCR, INCRBY, DECR, DECRBY.
    Increment(Bytes, i64),
    /// APPEND.
    Append(Bytes, Bytes),
}

/// Understands a command.
pub(super) fn parse(words: Words<'_>) -> Result<Parsed, What> {
    const NO_NAME: What = What::Malformed("a word that is no command's name");
    let name = Name::new(words.name()).ok_or(NO_NAME)?;
    let arguments = words.arguments();
    let action = match (name.as_str(), arguments.as_slice()) {
        ("MULTI", []) => return Ok(Parsed::Begin),
        ("EXEC", []) => return Ok(Parsed::Execute),
        ("DISCARD", []) => return Ok(Parsed::Discard),
        ("SELECT", [database]) => return select(database),
        ("SET", [key, value]) => Action::Set(vec![(checked(&name, key)?, value.to_vec())]),
        ("SET", [_, _, _, ..]) => {
            return Ok(Parsed::Unknown { why: What::UnsupportedOptions(name.clone()), name });
        }
        ("SETNX", [key, value]) => Action::SetIfAbsent(checked(&name, key)?, value.to_vec()),
        ("APPEND", [key, value]) => Action::Append(checked(&name, key)?, value.to_vec()),
        ("INCR", [key]) => Action::Increment(checked(&name, key)?, 1),
        ("DECR", [key]) => Action::Increment(checked(&name, key)?, -1),
        ("INCRBY", [key, by]) => Action::Increment(checked(&name, key)?, number(&name, by)?),
        ("DECRBY", [key, by]) => {
            let by = number(&name, by)?.checked_neg();
            let reason = "the decrement is out of range";
            let by = by.ok_or_else(|| What::Rejected { name: name.clone(), reason })?;
            Action::Increment(checked(&name, key)?, by)
        }
        ("DEL" | "UNLINK", [_, ..]) => Action::Delete(
            arguments.iter().map(|key| checked(&name, key)).collect::<Result<_, _>>()?,
        ),
        ("MSET", [_, _, ..]) if arguments.len().is_multiple_of(2) => {
            let pairs = arguments.chunks_exact(2);
            let pairs = pairs.map(|pair| Ok((checked(&name, pair[0])?, pair[1].to_vec())));
            Action::Set(pairs.collect::<Result<_, What>>()?)
        }
        (
            "MULTI" | "EXEC" | "DISCARD" | "SELECT" | "SET" | "SETNX" | "APPEND" | "INCR" | "DECR"
            | "INCRBY" | "DECRBY" | "DEL" | "UNLINK" | "MSET",
            _,
        ) => return Err(What::Arguments(name)),
        _ => return Ok(Parsed::Unknown { why: What::Unsupported(name.clone()), name }),
    };
    Ok(Parsed::Data(Request { name, action }))
}

fn select(database: &[u8]) -> Result<Parsed, What> {
    // Not to be left out like an unknown command: what follows would land in the wrong database.
    if database == b"0" { Ok(Parsed::SelectZero) } else { Err(What::Database) }
}

fn checked(name: &Name, key: &[u8]) -> Result<Bytes, What> {
    match key.len() {
        0 => Err(What::EmptyKey { name: name.clone() }),
        bytes if bytes > KEY_BYTES_MAX => {
            Err(What::KeyTooLong { name: name.clone(), bytes, limit: KEY_BYTES_MAX })
        }
        _ => Ok(key.to_vec()),
    }
}

fn number(name: &Name, text: &[u8]) -> Result<i64, What> {
    let reason = "the argument is not a decimal 64-bit number";
    decimal(text).ok_or_else(|| What::Rejected { name: name.clone(), reason })
}

impl Request {
    /// About the bytes it takes in an entry.
    pub(super) fn bytes(&self) -> usize {
        match &self.action {
            Action::Set(pairs) => {
                pairs.iter().map(|(key, value)| OVERHEAD_BYTES + key.len() + value.len()).sum()
            }
            Action::SetIfAbsent(key, value) | Action::Append(key, value) => {
                OVERHEAD_BYTES + key.len() + value.len()
            }
            Action::Delete(keys) => keys.iter().map(|key| OVERHEAD_BYTES + key.len()).sum(),
            Action::Increment(key, _) => OVERHEAD_BYTES + key.len(),
        }
    }
}

/// What a command takes in an entry beside key and value, at most: its header, and the number of an increment.
pub(super) const OVERHEAD_BYTES: usize = 16;
