//! Parsing of one command: from words to a request.

use super::decisive;
use super::set::{Condition, Options};
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
    /// A command that reads or changes data.
    Data(Request),
    /// MULTI.
    Begin,
    /// EXEC.
    Execute,
    /// DISCARD.
    Discard,
    /// SELECT 0, which changes nothing.
    SelectZero,
    /// A command that is not imported, and may be left out with `--skip-unknown`. `part` is the
    /// request that must still be done then.
    Unknown { name: Name, why: What, part: Option<Request> },
}

/// A change of the data. All of a request happens, or nothing of it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: Name,
    pub(super) action: Action,
}

/// Kind of a request.
#[derive(Debug)]
pub(super) enum Action {
    /// SET, MSET, GETSET.
    Set(Vec<(Bytes, Bytes)>),
    /// SETNX, MSETNX, SET with NX or XX: puts all pairs if every key is there (`present`) or if no
    /// key is there, and otherwise nothing.
    SetIf { pairs: Vec<(Bytes, Bytes)>, present: bool },
    /// DEL, UNLINK, GETDEL.
    Delete(Vec<Bytes>),
    /// FLUSHALL, FLUSHDB: every key there is.
    DeleteAll,
    /// INCR, INCRBY, DECR, DECRBY.
    Increment(Bytes, i64),
    /// APPEND.
    Append(Bytes, Bytes),
}

/// Parses the words of a command.
pub(super) fn parse(words: Words<'_>) -> Result<Parsed, What> {
    const NO_NAME: What = What::Malformed("a word that is no command's name");
    let name = Name::new(words.name()).ok_or(NO_NAME)?;
    let arguments = words.arguments();
    let action = match (name.as_str(), arguments.as_slice()) {
        ("MULTI", []) => return Ok(Parsed::Begin),
        ("EXEC", []) => return Ok(Parsed::Execute),
        ("DISCARD", []) => return Ok(Parsed::Discard),
        ("SELECT", [database]) => return select(database),
        ("SET", [key, value, options @ ..]) => return set(name.clone(), key, value, options),
        ("SETEX" | "PSETEX", [key, time, value]) => {
            let seconds = decimal(time).filter(|time| *time > 0);
            let reason = "the expiry is not a positive number";
            seconds.ok_or_else(|| What::Rejected { name: name.clone(), reason })?;
            let action = Action::Set(vec![(checked(&name, key)?, value.to_vec())]);
            return Ok(expiring(name, action));
        }
        ("GETSET", [key, value]) => Action::Set(vec![(checked(&name, key)?, value.to_vec())]),
        ("SETNX", [key, value]) => {
            Action::SetIf { pairs: vec![(checked(&name, key)?, value.to_vec())], present: false }
        }
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
        ("GETDEL", [key]) => Action::Delete(vec![checked(&name, key)?]),
        ("FLUSHALL" | "FLUSHDB", []) => Action::DeleteAll,
        ("FLUSHALL" | "FLUSHDB", [how])
            if how.eq_ignore_ascii_case(b"SYNC") || how.eq_ignore_ascii_case(b"ASYNC") =>
        {
            Action::DeleteAll
        }
        ("MSET", [_, _, ..]) if arguments.len().is_multiple_of(2) => {
            Action::Set(pairs(&name, &arguments)?)
        }
        ("MSETNX", [_, _, ..]) if arguments.len().is_multiple_of(2) => {
            Action::SetIf { pairs: pairs(&name, &arguments)?, present: false }
        }
        (
            "MULTI" | "EXEC" | "DISCARD" | "SELECT" | "SET" | "SETEX" | "PSETEX" | "SETNX"
            | "GETSET" | "GETDEL" | "APPEND" | "INCR" | "DECR" | "INCRBY" | "DECRBY" | "DEL"
            | "UNLINK" | "MSET" | "MSETNX" | "FLUSHALL" | "FLUSHDB",
            _,
        ) => return Err(What::Arguments(name)),
        (_, [key, ..]) if decisive::replaces_first_key(name.as_str()) => {
            let request = Request { action: Action::Delete(vec![checked(&name, key)?]), name };
            let (name, why) = (request.name.clone(), What::Replaces(request.name.clone()));
            return Ok(Parsed::Unknown { name, why, part: Some(request) });
        }
        _ => return unknown(name, &arguments),
    };
    Ok(Parsed::Data(Request { name, action }))
}

/// A command that is not imported. `--skip-unknown` leaves it out, unless later commands would mean
/// something else without it.
fn unknown(name: Name, arguments: &[&[u8]]) -> Result<Parsed, What> {
    let why = decisive::why(name.as_str());
    match why.or_else(|| decisive::why_it_stores(name.as_str(), arguments)) {
        Some(why) => Err(What::Decisive { name, why }),
        None => Ok(Parsed::Unknown { why: What::Unsupported(name.clone()), name, part: None }),
    }
}

fn set(name: Name, key: &[u8], value: &[u8], options: &[&[u8]]) -> Result<Parsed, What> {
    let pair = (checked(&name, key)?, value.to_vec());
    // Leaving the command out would keep an older value, and later commands may build on that.
    let Some(options) = Options::parse(options) else { return Err(What::UnsupportedOptions(name)) };
    let action = match options.condition {
        Condition::Always => Action::Set(vec![pair]),
        Condition::IfAbsent => Action::SetIf { pairs: vec![pair], present: false },
        Condition::IfPresent => Action::SetIf { pairs: vec![pair], present: true },
    };
    match options.expires {
        true => Ok(expiring(name, action)),
        false => Ok(Parsed::Data(Request { name, action })),
    }
}

/// A put whose expiry may be left out. The put itself must stay, because an older value would
/// remain otherwise.
fn expiring(name: Name, action: Action) -> Parsed {
    let part = Some(Request { name: name.clone(), action });
    Parsed::Unknown { why: What::Expiry(name.clone()), name, part }
}

fn pairs(name: &Name, arguments: &[&[u8]]) -> Result<Vec<(Bytes, Bytes)>, What> {
    let pairs = arguments.chunks_exact(2);
    pairs.map(|pair| Ok((checked(name, pair[0])?, pair[1].to_vec()))).collect()
}

fn select(database: &[u8]) -> Result<Parsed, What> {
    // This command stops the import even with `--skip-unknown`: later commands would reach the
    // wrong database.
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
    /// Approximate number of bytes that the action takes in an entry.
    pub(super) fn bytes(&self) -> usize {
        match &self.action {
            Action::Set(pairs) | Action::SetIf { pairs, .. } => {
                pairs.iter().map(|(key, value)| OVERHEAD_BYTES + key.len() + value.len()).sum()
            }
            Action::Append(key, value) => OVERHEAD_BYTES + key.len() + value.len(),
            Action::Delete(keys) => keys.iter().map(|key| OVERHEAD_BYTES + key.len()).sum(),
            Action::Increment(key, _) => OVERHEAD_BYTES + key.len(),
            // The number of keys is known only when the state is read.
            Action::DeleteAll => OVERHEAD_BYTES,
        }
    }
}

/// Upper limit of the bytes a command takes in an entry beside key and value: its header, and the
/// number of an increment.
pub(super) const OVERHEAD_BYTES: usize = 16;
