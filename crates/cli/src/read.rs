//! The `get`, `keys`, `stats` and `export` commands: the state of a directory, opened read-only, or
//! of a snapshot file.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use sprag::RecoveryReport;

use crate::args::{Export, Format, Get, Keys};
use crate::disk::bytes_on_disk;
use crate::edit::key_of;
use crate::error::{Failure, Kind, Outcome, about};
use crate::foreign::print_foreign;
use crate::look::whole;
use crate::run::report::three_digits;
use crate::snapshot_file;
use crate::state::{State, open_directory};
use crate::stored;
use crate::text::{Bytes, Maybe, line, size, torn};

pub(crate) fn get(get: &Get, json: bool, out: &mut dyn Write) -> Outcome {
    if get.prefix {
        return get_prefix(get, json, out);
    }
    let key = key_of(&get.of)?;
    let (from, state) = (&get.of.dir, State::open(&get.of.dir, json)?);
    let Some(value) = state.get(key)? else {
        state.whole()?;
        let message = format!("{}: the key has no value", from.display());
        return Err(Failure::new(Kind::NoValue, message).into());
    };
    if json {
        line(out, &KeyValueJson { key: Bytes(key), value: Bytes(&value) })?;
    } else {
        out.write_all(&value)?;
        out.write_all(b"\n")?;
    }
    state.whole()
}

/// Prints every key that begins with the given one, and its value, as JSON lines.
fn get_prefix(get: &Get, json: bool, out: &mut dyn Write) -> Outcome {
    let state = State::open(&get.of.dir, json)?;
    let mut found = false;
    state.each(get.of.key.as_bytes(), &mut |key, value| {
        found = true;
        line(out, &KeyValueJson { key: Bytes(key), value: Bytes(value) })
    })?;
    state.whole()?;
    if !found {
        let message = format!("{}: no key begins with that", get.of.dir.display());
        return Err(Failure::new(Kind::NoValue, message).into());
    }
    Ok(())
}

pub(crate) fn keys(keys: &Keys, json: bool, out: &mut dyn Write) -> Outcome {
    let state = State::open(&keys.from, json)?;
    state.each(keys.prefix.as_bytes(), &mut |key, _| {
        if json {
            return line(out, &Bytes(key));
        }
        out.write_all(key)?;
        Ok(out.write_all(b"\n")?)
    })?;
    state.whole()
}

#[derive(Serialize)]
struct KeyValueJson<'a> {
    key: Bytes<'a>,
    value: Bytes<'a>,
}

pub(crate) fn stats(dir: &Path, json: bool, out: &mut dyn Write) -> Outcome {
    if dir.is_file() {
        return snapshot_file::show(dir, json, out);
    }
    if let Some(machine) = stored::open(dir)? {
        return machine.show(dir, json, out);
    }
    let began = Instant::now();
    let machine = open_directory(dir, json)?;
    let open_ms = three_digits(began.elapsed().as_secs_f64() * 1e3);
    let disk_bytes = bytes_on_disk(dir);
    let keys = machine.len().map_err(about(dir.display()))?;
    let recovery = machine.recovery();
    let memory_bytes = machine.memory_bytes();
    if json {
        line(
            out,
            &StatsJson {
                dir: &dir.display().to_string(),
                storage: "log",
                keys,
                recovery,
                disk_bytes,
                memory_bytes,
                open_ms,
            },
        )?;
        return whole(dir, recovery.unreadable.as_ref());
    }
    writeln!(out, "directory      {}", dir.display())?;
    writeln!(out, "last index     {}", Maybe(recovery.last))?;
    writeln!(out, "applied index  {}", Maybe(recovery.applied))?;
    writeln!(out, "snapshot       {}", Maybe(recovery.snapshot))?;
    writeln!(out, "purged         {}", Maybe(recovery.purged))?;
    for name in &recovery.damaged_snapshots {
        writeln!(out, "{name} is a snapshot that does not read back: see sprag verify")?;
    }
    writeln!(out, "keys           {keys}")?;
    writeln!(out, "frames         {}", recovery.frames)?;
    writeln!(out, "torn end       {}", torn(recovery.cut.as_ref()))?;
    if recovery.meta_slot_damaged {
        writeln!(out, "META           one of its two slots does not read back: see sprag verify")?;
    }
    if recovery.beside_a_writer {
        writeln!(out, "writer         at work: this is the log up to a moment ago")?;
    }
    print_foreign(&recovery.foreign, out)?;
    writeln!(out, "disk           {}", size(disk_bytes))?;
    writeln!(out, "memory         {}", size(memory_bytes as u64))?;
    writeln!(out, "opened in      {open_ms:.1} ms")?;
    whole(dir, recovery.unreadable.as_ref())
}

#[derive(Serialize)]
struct StatsJson<'a> {
    dir: &'a str,
    storage: &'static str,
    keys: usize,
    #[serde(flatten)]
    recovery: &'a RecoveryReport,
    disk_bytes: u64,
    memory_bytes: usize,
    open_ms: f64,
}

pub(crate) fn export(export: &Export, out: &mut dyn Write) -> Outcome {
    let from = &export.from;
    let mut print = |key: &[u8], value: &[u8]| match export.format {
        Format::Jsonl => line(out, &KeyValueJson { key: Bytes(key), value: Bytes(value) }),
        Format::Resp => resp_set(out, key, value),
    };
    let state = State::open(from, false)?;
    state.each(b"", &mut print)?;
    state.whole()
}

/// Writes `SET key value` as a Redis client sends it.
fn resp_set(out: &mut dyn Write, key: &[u8], value: &[u8]) -> Outcome {
    write!(out, "*3\r\n$3\r\nSET\r\n${}\r\n", key.len())?;
    out.write_all(key)?;
    write!(out, "\r\n${}\r\n", value.len())?;
    out.write_all(value)?;
    Ok(out.write_all(b"\r\n")?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    #[test]
    fn a_set_command_is_an_array_of_three_bulk_strings() {
        let mut out = Vec::new();
        super::resp_set(&mut out, b"k\r\n", b"").unwrap();
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$0\r\n\r\n");
    }
}
