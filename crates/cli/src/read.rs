//! `get`, `stats` and `export`: the state of a directory, opened read-only.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use sprag::error::SnapshotError;
use sprag::snapshot::SnapshotKind;
use sprag::{PersistentStateMachine, Snapshot};

use crate::args::{Export, Format, KeyOf};
use crate::edit::key_of;
use crate::error::{Failure, Kind, Outcome, about, opening};
use crate::foreign::{ForeignJson, print_foreign};
use crate::look::whole;
use crate::progress::Progress;
use crate::text::{Bytes, CutJson, Maybe, line, size, torn};

fn open(dir: &Path, json: bool) -> Outcome<PersistentStateMachine> {
    let _spinner = Progress::new(json).spinner("reading the log");
    PersistentStateMachine::open_read_only(dir).map_err(opening(dir))
}

pub(crate) fn get(get: &KeyOf, json: bool, out: &mut dyn Write) -> Outcome {
    let key = key_of(get)?;
    let machine = open(&get.dir, json)?;
    let value = machine.get(key).map_err(about(get.dir.display()))?;
    let unreadable = machine.recovery().unreadable.as_ref();
    let Some(value) = value else {
        whole(&get.dir, unreadable)?;
        let message = format!("{}: the key has no value", get.dir.display());
        return Err(Failure::new(Kind::NoValue, message).into());
    };
    if json {
        line(out, &KeyValueJson { key: Bytes(key), value: Bytes(&value) })?;
    } else {
        out.write_all(&value)?;
        out.write_all(b"\n")?;
    }
    whole(&get.dir, unreadable)
}

#[derive(Serialize)]
struct KeyValueJson<'a> {
    key: Bytes<'a>,
    value: Bytes<'a>,
}

pub(crate) fn stats(dir: &Path, json: bool, out: &mut dyn Write) -> Outcome {
    let machine = open(dir, json)?;
    let keys = machine.len().map_err(about(dir.display()))?;
    let recovery = machine.recovery();
    let last = recovery.last;
    let memory_bytes = machine.memory_bytes();
    if json {
        line(
            out,
            &StatsJson {
                dir: &dir.display().to_string(),
                last_index: last.map(|last| last.index),
                last_term: last.map(|last| last.term),
                applied_index: recovery.applied,
                snapshot_index: recovery.snapshot.map(|log_id| log_id.index),
                purged_index: recovery.purged.map(|log_id| log_id.index),
                damaged_snapshots: &recovery.damaged_snapshots,
                keys,
                frames: recovery.frames,
                cut: recovery.cut.as_ref().map(CutJson::new),
                meta_slot_damaged: recovery.meta_slot_damaged,
                unreadable: recovery.unreadable.as_ref().map(ToString::to_string),
                beside_a_writer: recovery.beside_a_writer,
                foreign: ForeignJson::new(&recovery.foreign),
                memory_bytes,
            },
        )?;
        return whole(dir, recovery.unreadable.as_ref());
    }
    writeln!(out, "directory      {}", dir.display())?;
    writeln!(out, "last index     {}", Maybe(last))?;
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
    writeln!(out, "memory         {}", size(memory_bytes as u64))?;
    whole(dir, recovery.unreadable.as_ref())
}

#[derive(Serialize)]
struct StatsJson<'a> {
    dir: &'a str,
    last_index: Option<u64>,
    last_term: Option<u64>,
    applied_index: Option<u64>,
    snapshot_index: Option<u64>,
    purged_index: Option<u64>,
    damaged_snapshots: &'a [String],
    keys: usize,
    frames: u64,
    cut: Option<CutJson<'a>>,
    meta_slot_damaged: bool,
    unreadable: Option<String>,
    beside_a_writer: bool,
    foreign: Option<ForeignJson<'a>>,
    memory_bytes: usize,
}

pub(crate) fn export(export: &Export, out: &mut dyn Write) -> Outcome {
    let from = &export.from;
    let print = |out: &mut dyn Write, key: &[u8], value: &[u8]| match export.format {
        Format::Jsonl => line(out, &KeyValueJson { key: Bytes(key), value: Bytes(value) }),
        Format::Resp => resp_set(out, key, value),
    };
    if from.is_file() {
        let snapshot = Snapshot::open(from).map_err(one)?;
        if snapshot.kind() != SnapshotKind::KeyValue {
            let what =
                "a snapshot of a state machine of somebody's own: only its program can read it";
            return Err(format!("{}: {what}", from.display()).into());
        }
        for entry in &snapshot {
            let (key, value) = entry.map_err(one)?;
            print(out, key, value)?;
        }
        return Ok(());
    }
    let machine = open(from, false)?;
    let view = machine.view_read_only().map_err(about(from.display()))?;
    for entry in &view {
        let (key, value) = entry.map_err(about(from.display()))?;
        print(out, key, &value)?;
    }
    whole(from, machine.recovery().unreadable.as_ref())
}

/// As it is: it names the file.
fn one(error: SnapshotError) -> Box<dyn Error> {
    error.into()
}

/// `SET key value` as a Redis client sends it.
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
