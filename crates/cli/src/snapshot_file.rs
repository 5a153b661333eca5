//! The `stats`, `verify` and `inspect` commands for a snapshot file.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use sprag::Snapshot;
use sprag::snapshot::SnapshotKind;

use crate::error::Outcome;
use crate::progress::Progress;
use crate::text::{Maybe, line, size};

/// Prints the header of the file, for `stats` and `inspect`.
pub(crate) fn show(file: &Path, json: bool, out: &mut dyn Write) -> Outcome {
    let snapshot = Snapshot::open(file)?;
    print(file, &snapshot, None, json, out)
}

/// Reads every byte of the file.
pub(crate) fn verify(file: &Path, json: bool, out: &mut dyn Write) -> Outcome {
    let snapshot = Snapshot::open(file)?;
    {
        let _spinner = Progress::new(json).spinner("reading every byte");
        snapshot.verify()?;
    }
    print(file, &snapshot, Some(true), json, out)
}

fn print(
    file: &Path,
    snapshot: &Snapshot,
    clean: Option<bool>,
    json: bool,
    out: &mut dyn Write,
) -> Outcome {
    let log_id = snapshot.log_id();
    let kind = match snapshot.kind() {
        SnapshotKind::KeyValue => "key-value",
        _ => "blob",
    };
    let notes = snapshot.notes().count();
    let has_membership = snapshot.membership().is_some();
    if json {
        let file = file.display().to_string();
        let (index, term) = (log_id.map(|id| id.index), log_id.map(|id| id.term));
        let (keys, bytes) = (snapshot.len(), snapshot.bytes());
        return line(
            out,
            &SnapshotJson { file, kind, index, term, keys, bytes, has_membership, notes, clean },
        );
    }
    writeln!(out, "snapshot       {}", file.display())?;
    writeln!(out, "state machine  {kind}")?;
    writeln!(out, "state at       {}", Maybe(log_id))?;
    writeln!(out, "keys           {}", snapshot.len())?;
    writeln!(out, "bytes          {}", size(snapshot.bytes()))?;
    writeln!(out, "membership     {}", if has_membership { "yes" } else { "no" })?;
    writeln!(out, "notes          {notes}")?;
    if clean == Some(true) {
        writeln!(out, "clean: every byte was read")?;
    }
    Ok(())
}

#[derive(Serialize)]
struct SnapshotJson {
    file: String,
    kind: &'static str,
    index: Option<u64>,
    term: Option<u64>,
    keys: u64,
    bytes: u64,
    has_membership: bool,
    notes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    clean: Option<bool>,
}
