//! The `put`, `delete`, `incr` and `cas` commands: one durable entry each.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use sprag::error::OpenError;
use sprag::{
    ApplyConfig, ApplyManager, Command, Entry, LogId, Payload, PersistentConfig,
    PersistentStateMachine, Rejection, Reply, StateMachine,
};

use crate::args::{Cas, Incr, KeyOf, Put};
use crate::error::{Failure, Kind, Outcome, about, opening};
use crate::recovered::say_recovered;
use crate::stored::{self, when_unlocked};
use crate::text::line;

/// The longest value.
const VALUE_BYTES_MAX: usize = 16 << 20;
/// The longest key.
const KEY_BYTES_MAX: usize = 64 << 10;
/// Timeout of a command, long enough for a slow disk. A command that gives up says so; its entry
/// may still become durable.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Number of keys to make room for at first; the tables grow with the log's content.
const EXPECTED_KEYS: usize = 1024;

pub(crate) fn put(put: &Put, json: bool, out: &mut dyn Write) -> Outcome {
    let key = key_of(&put.of)?;
    let read;
    let value = if put.value == "-" {
        read = value_of_input()?;
        &read
    } else {
        put.value.as_bytes()
    };
    let (index, reply) = apply(&put.of.dir, Command::Put { key, value })?;
    let Reply::Put { replaced } = reply else { return Err(unexpected(reply)) };
    if json {
        return line(out, &PutJson { index, replaced });
    }
    let what = if replaced { "replaced" } else { "new" };
    Ok(writeln!(out, "put at index {index} ({what})")?)
}

#[derive(Serialize)]
struct PutJson {
    index: u64,
    replaced: bool,
}

/// Reads all of standard input as a value.
fn value_of_input() -> Outcome<Vec<u8>> {
    let mut value = Vec::new();
    let most = VALUE_BYTES_MAX as u64;
    io::stdin().lock().take(most + 1).read_to_end(&mut value).map_err(about("standard input"))?;
    if value.len() > VALUE_BYTES_MAX {
        let message =
            format!("standard input: a value of more than {most} bytes; nothing was changed");
        return Err(Failure::new(Kind::Input, message).into());
    }
    Ok(value)
}

pub(crate) fn cas(cas: &Cas, json: bool, out: &mut dyn Write) -> Outcome {
    let key = key_of(&cas.of)?;
    let expected = cas.expected.as_ref().map(|value| value.as_bytes());
    let new = cas.new.as_ref().map(|value| value.as_bytes());
    let (index, reply) = apply(&cas.of.dir, Command::CompareAndSet { key, expected, new })?;
    let Reply::Swapped = reply else { return Err(unexpected(reply)) };
    if json {
        return line(out, &CasJson { index });
    }
    let what = if new.is_some() { "set" } else { "deleted" };
    Ok(writeln!(out, "{what} at index {index}")?)
}

#[derive(Serialize)]
struct CasJson {
    index: u64,
}

pub(crate) fn delete(delete: &KeyOf, json: bool, out: &mut dyn Write) -> Outcome {
    let (index, reply) = apply(&delete.dir, Command::Delete { key: key_of(delete)? })?;
    let Reply::Deleted { existed } = reply else { return Err(unexpected(reply)) };
    if json {
        return line(out, &DeleteJson { index, existed });
    }
    let what = if existed { "it had a value" } else { "it had no value" };
    Ok(writeln!(out, "deleted at index {index} ({what})")?)
}

#[derive(Serialize)]
struct DeleteJson {
    index: u64,
    existed: bool,
}

pub(crate) fn incr(incr: &Incr, json: bool, out: &mut dyn Write) -> Outcome {
    let command = Command::Increment { key: key_of(&incr.of)?, by: incr.by };
    let (index, reply) = apply(&incr.of.dir, command)?;
    let Reply::Counter(value) = reply else { return Err(unexpected(reply)) };
    if json {
        return line(out, &IncrJson { index, value });
    }
    Ok(writeln!(out, "{value}")?)
}

#[derive(Serialize)]
struct IncrJson {
    index: u64,
    value: i64,
}

/// The key argument of a call, checked.
pub(crate) fn key_of(of: &KeyOf) -> Outcome<&[u8]> {
    let key = of.key.as_bytes();
    check_key(key)?;
    Ok(key)
}

/// Refuses bytes that cannot be a key.
pub(crate) fn check_key(key: &[u8]) -> Outcome {
    match key.len() {
        0 => Err(Failure::usage("the key is empty: a key has at least 1 byte")),
        bytes if bytes > KEY_BYTES_MAX => Err(Failure::usage(format!(
            "the key has {bytes} bytes, more than the limit of {KEY_BYTES_MAX}"
        ))),
        _ => Ok(()),
    }
}

/// Applies one command after the last entry of the directory's log, under that entry's term.
pub(crate) fn apply(dir: &Path, command: Command<'_>) -> Outcome<(u64, Reply)> {
    if let Some(machine) = stored::open(dir)? {
        return machine.apply(dir, command);
    }
    let machine = open(dir).map_err(opening(dir))?;
    let last = machine.recovery().last;
    apply_to(machine, last, dir, command)
}

/// Applies one command to an open machine, after the entry `last`, and closes it.
pub(crate) fn apply_to<M: StateMachine>(
    machine: M,
    last: Option<LogId>,
    dir: &Path,
    command: Command<'_>,
) -> Outcome<(u64, Reply)> {
    let log_id = last.map_or(LogId::new(1, 1), LogId::next);
    let manager = ApplyManager::new(machine, ApplyConfig::new()).map_err(opening(dir))?;
    let entry = Entry::new(log_id, Payload::Command(command));
    let reply = manager.apply(&entry, TIMEOUT).map_err(about(dir.display()))?;
    manager.close(TIMEOUT).map_err(about(dir.display()))?;
    Ok((log_id.index, reply))
}

/// Opens the directory, waiting for a short time while another command has it open.
fn open(dir: &Path) -> Result<PersistentStateMachine, OpenError> {
    let open =
        || PersistentStateMachine::open(PersistentConfig::new(dir).expected_keys(EXPECTED_KEYS));
    let opened = when_unlocked(open, |error| matches!(error, OpenError::Locked { .. }));
    opened.inspect(|machine| say_recovered(dir, machine.recovery()))
}

/// The error for a reply that does not confirm the command.
pub(crate) fn unexpected(reply: Reply) -> Box<dyn std::error::Error> {
    let what = match reply {
        Reply::Rejected(Rejection::NotANumber) => {
            "the value under the key is not a decimal 64-bit number; nothing was changed"
        }
        Reply::Rejected(Rejection::Overflow) => {
            "the result does not fit a 64-bit number; nothing was changed"
        }
        Reply::Rejected(Rejection::Mismatch) => {
            "the key does not have the value that was expected; nothing was changed"
        }
        other => return format!("an unexpected reply: {other:?}").into(),
    };
    Failure::new(Kind::Rejected, what).into()
}
