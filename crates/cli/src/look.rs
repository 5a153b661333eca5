//! The `verify` and `inspect` commands: the content of the files.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use sprag::error::Corrupt;
use sprag::inspect::{FrameInfo, Inspection, MetaContent, SegmentInfo, SnapshotInfo};
use sprag::snapshot::SnapshotKind;
use sprag::{CommitMode, Contiguity, Cut, ForeignFiles};

use crate::args::Inspect;
use crate::dump::json_line;
use crate::error::{Failure, Outcome, opening};
use crate::foreign::{foreign_json, print_foreign};
use crate::progress::Progress;
use crate::snapshot_file;
use crate::text::{Maybe, hex, line, size, torn};

pub(crate) fn verify(dir: &Path, json: bool, out: &mut dyn Write) -> Outcome {
    if dir.is_file() {
        return snapshot_file::verify(dir, json, out);
    }
    let report = {
        let _spinner = Progress::new(json).spinner("reading every byte");
        sprag::inspect::verify(dir).map_err(opening(dir))?
    };
    let findings: Vec<FindingJson<'_>> = report
        .findings
        .iter()
        .map(|finding| FindingJson {
            file: &finding.place.file,
            offset: finding.place.offset,
            index: finding.place.index,
            what: finding.place.what,
            was_durable: finding.was_durable,
        })
        .collect();
    let damaged = findings.iter().filter(|finding| finding.was_durable).count();
    if json {
        let (frames, entries, snapshots) = (report.frames, report.entries, report.snapshots);
        let (clean, foreign) = (report.is_clean(), foreign_json(&report.foreign));
        line(out, &VerifyJson { clean, frames, entries, snapshots, findings, foreign })?;
    } else {
        for FindingJson { file, offset, index, what, was_durable } in &findings {
            let kind = if *was_durable { "DAMAGED" } else { "torn end, not known to be durable" };
            writeln!(out, "{kind}: {file} offset {offset} index {}: {what}", Maybe(*index))?;
        }
        print_foreign(&report.foreign, out)?;
        let state = if report.is_clean() { "clean" } else { "damaged" };
        let (frames, entries, snapshots) = (report.frames, report.entries, report.snapshots);
        writeln!(out, "{state}: {frames} frames, {entries} entries, {snapshots} snapshots read")?;
    }
    match report.findings.iter().find(|finding| finding.was_durable) {
        None => Ok(()),
        Some(first) => {
            let place = &first.place;
            let index = place.index.map_or(String::new(), |index| format!(", index {index}"));
            let (dir, file, offset) = (dir.display(), &place.file, place.offset);
            let more =
                if damaged > 1 { format!(" ({damaged} damaged places)") } else { String::new() };
            let what = place.what;
            let message =
                format!("{dir}: {file} is damaged at offset {offset}{index}: {what}{more}");
            Err(Failure::damage(message, file, offset, place.index).into())
        }
    }
}

#[derive(Serialize)]
struct VerifyJson<'a> {
    clean: bool,
    frames: u64,
    entries: u64,
    snapshots: u64,
    findings: Vec<FindingJson<'a>>,
    foreign: Option<&'a ForeignFiles>,
}

#[derive(Serialize)]
struct FindingJson<'a> {
    file: &'a str,
    offset: u64,
    index: Option<u64>,
    what: &'a str,
    was_durable: bool,
}

pub(crate) fn inspect(inspect: &Inspect, json: bool, out: &mut dyn Write) -> Outcome {
    let dir = &inspect.of.dir;
    if dir.is_file() {
        return snapshot_file::show(dir, json, out);
    }
    let found = {
        let _spinner = Progress::new(json).spinner("reading the directory");
        sprag::inspect::inspect(dir).map_err(opening(dir))?
    };
    if json {
        line(out, &InspectJson::new(&found))?;
    } else {
        print_inspection(dir, &found, out)?;
    }
    if inspect.frames {
        sprag::inspect::frames(dir, &mut |frame| print_frame(frame, json, out))
            .map_err(opening(dir))?;
    }
    whole(dir, found.damage.as_ref())
}

/// The failure of a command that could print only what is before the damage.
pub(crate) fn whole(dir: &Path, unreadable: Option<&Corrupt>) -> Outcome {
    match unreadable {
        None => Ok(()),
        Some(damage) => {
            let message = format!("{}: read only up to the damage: {damage}", dir.display());
            Err(Failure::about(message, damage))
        }
    }
}

fn print_inspection(dir: &Path, found: &Inspection, out: &mut dyn Write) -> Outcome {
    writeln!(out, "directory         {}", dir.display())?;
    print_foreign(&found.foreign, out)?;
    let Some(meta) = &found.meta else {
        return Ok(writeln!(out, "empty: nothing was ever completed in it")?);
    };
    writeln!(out, "database id       {}", hex(&meta.database_id))?;
    writeln!(out, "commits           {}", mode(meta.commit_mode))?;
    writeln!(out, "contiguity        {}", contiguity(meta.contiguity))?;
    writeln!(out, "state machine     {}", machine(meta.state))?;
    writeln!(out, "closed cleanly    {}", if meta.clean_close { "yes" } else { "no" })?;
    writeln!(out, "incarnation       {}", meta.incarnation)?;
    writeln!(
        out,
        "log base          segment {}, sequence {}, after index {}",
        meta.base.segment,
        meta.base.sequence,
        Maybe(meta.base.last)
    )?;
    if let Some(offset) = meta.damaged_slot {
        writeln!(out, "META              the slot at offset {offset} does not read back")?;
    }
    writeln!(out, "hard state        {} bytes", Maybe(found.hard_state_bytes))?;
    writeln!(out, "last index        {}", Maybe(found.last))?;
    writeln!(out, "committed index   {}", Maybe(found.committed))?;
    writeln!(out, "last frame        {}", found.sequence)?;
    writeln!(out, "durable frame     {} (known of when it was written)", found.durable_sequence)?;
    writeln!(out, "torn end          {}", torn(found.cut.as_ref()))?;
    writeln!(out, "frames            {}", found.frames)?;
    writeln!(out)?;
    writeln!(
        out,
        "{:<22}{:>12}{:>12}{:>10}{:>14}{:>14}",
        "segment", "bytes", "used", "frames", "first index", "last index"
    )?;
    for segment in &found.segments {
        let SegmentInfo { file, file_bytes, used_bytes, frames, first_index, last_index, .. } =
            segment;
        let (file_bytes, used_bytes) =
            (size(*file_bytes).to_string(), size(*used_bytes).to_string());
        let (first, last) = (Maybe(*first_index), Maybe(*last_index));
        writeln!(
            out,
            "{file:<22}{file_bytes:>12}{used_bytes:>12}{frames:>10}{first:>14}{last:>14}"
        )?;
    }
    for file in &found.obsolete {
        writeln!(out, "{file:<22}given up, kept to be used again")?;
    }
    print_snapshots(&found.snapshots, out)
}

fn print_snapshots(snapshots: &[SnapshotInfo], out: &mut dyn Write) -> Outcome {
    if snapshots.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(
        out,
        "{:<22}{:>12}{:>12}{:>10}{:>14}{:>14}{:>8}",
        "snapshot", "bytes", "keys", "chunks", "index", "membership", "notes"
    )?;
    for snapshot in snapshots {
        let SnapshotInfo { file, bytes, keys, chunks, notes, damage, .. } = snapshot;
        if let Some(damage) = damage {
            writeln!(out, "{file:<22}damaged at offset {}: {}", damage.offset, damage.what)?;
            continue;
        }
        let (bytes, index) = (size(*bytes).to_string(), Maybe(snapshot.log_id.map(|id| id.index)));
        let membership = if snapshot.membership_bytes.is_some() { "yes" } else { "no" };
        writeln!(
            out,
            "{file:<22}{bytes:>12}{keys:>12}{chunks:>10}{index:>14}{membership:>14}{notes:>8}"
        )?;
    }
    Ok(())
}

fn mode(mode: CommitMode) -> &'static str {
    match mode {
        CommitMode::OnAppend => "on append",
        CommitMode::ByCommit => "by commit",
        _ => "another way",
    }
}

fn contiguity(contiguity: Contiguity) -> &'static str {
    match contiguity {
        Contiguity::Strict => "strict",
        Contiguity::Monotone => "monotone",
        _ => "another rule",
    }
}

/// Kind of the state machine of a directory.
fn machine(state: Option<SnapshotKind>) -> &'static str {
    match state {
        Some(SnapshotKind::KeyValue) => "key-value",
        Some(_) => "custom",
        None => "not recorded",
    }
}

#[derive(Serialize)]
struct InspectJson<'a> {
    meta: Option<MetaJson>,
    hard_state_bytes: Option<usize>,
    last_index: Option<u64>,
    last_term: Option<u64>,
    committed_index: Option<u64>,
    sequence: u64,
    durable_sequence: u64,
    frames: u64,
    cut: Option<&'a Cut>,
    segments: Vec<SegmentJson<'a>>,
    obsolete: &'a [String],
    snapshots: Vec<SnapshotJson<'a>>,
    damage: Option<String>,
    foreign: Option<&'a ForeignFiles>,
}

#[derive(Serialize)]
struct SnapshotJson<'a> {
    file: &'a str,
    kind: Option<&'static str>,
    index: Option<u64>,
    term: Option<u64>,
    bytes: u64,
    keys: u64,
    chunks: u64,
    membership_bytes: Option<usize>,
    notes: usize,
    damage: Option<String>,
}

impl<'a> SnapshotJson<'a> {
    fn new(snapshot: &'a SnapshotInfo) -> Self {
        let kind = |kind| if kind == SnapshotKind::KeyValue { "key-value" } else { "blob" };
        Self {
            file: &snapshot.file,
            kind: snapshot.kind.map(kind),
            index: snapshot.log_id.map(|log_id| log_id.index),
            term: snapshot.log_id.map(|log_id| log_id.term),
            bytes: snapshot.bytes,
            keys: snapshot.keys,
            chunks: snapshot.chunks,
            membership_bytes: snapshot.membership_bytes,
            notes: snapshot.notes,
            damage: snapshot.damage.as_ref().map(ToString::to_string),
        }
    }
}

#[derive(Serialize)]
struct MetaJson {
    database_id: String,
    commit_mode: &'static str,
    contiguity: &'static str,
    state_machine: &'static str,
    clean_close: bool,
    base_segment: u64,
    base_sequence: u64,
    base_index: Option<u64>,
    incarnation: u64,
    durable_sequence: u64,
    committed_index: Option<u64>,
    damaged_slot: Option<u64>,
}

#[derive(Serialize)]
struct SegmentJson<'a> {
    file: &'a str,
    file_bytes: u64,
    used_bytes: u64,
    frames: u64,
    first_index: Option<u64>,
    last_index: Option<u64>,
}

impl<'a> InspectJson<'a> {
    fn new(found: &'a Inspection) -> Self {
        let segment = |segment: &'a SegmentInfo| SegmentJson {
            file: &segment.file,
            file_bytes: segment.file_bytes,
            used_bytes: segment.used_bytes,
            frames: segment.frames,
            first_index: segment.first_index,
            last_index: segment.last_index,
        };
        Self {
            meta: found.meta.as_ref().map(MetaJson::new),
            hard_state_bytes: found.hard_state_bytes,
            last_index: found.last.map(|last| last.index),
            last_term: found.last.map(|last| last.term),
            committed_index: found.committed,
            sequence: found.sequence,
            durable_sequence: found.durable_sequence,
            frames: found.frames,
            cut: found.cut.as_ref(),
            segments: found.segments.iter().map(segment).collect(),
            obsolete: &found.obsolete,
            snapshots: found.snapshots.iter().map(SnapshotJson::new).collect(),
            damage: found.damage.as_ref().map(ToString::to_string),
            foreign: foreign_json(&found.foreign),
        }
    }
}

impl MetaJson {
    fn new(meta: &MetaContent) -> Self {
        Self {
            database_id: hex(&meta.database_id),
            commit_mode: mode(meta.commit_mode),
            contiguity: contiguity(meta.contiguity),
            state_machine: machine(meta.state),
            clean_close: meta.clean_close,
            base_segment: meta.base.segment,
            base_sequence: meta.base.sequence,
            base_index: meta.base.last.map(|last| last.index),
            incarnation: meta.incarnation,
            durable_sequence: meta.durable_sequence,
            committed_index: meta.committed,
            damaged_slot: meta.damaged_slot,
        }
    }
}

fn print_frame(frame: &FrameInfo, json: bool, out: &mut dyn Write) -> io::Result<()> {
    let FrameInfo { file, offset, bytes, sequence, incarnation, first, .. } = frame;
    if json {
        return json_line(
            out,
            &FrameJson {
                sequence: *sequence,
                file,
                offset: *offset,
                bytes: *bytes,
                incarnation: *incarnation,
                kind: match frame.entries {
                    Some(_) if frame.apply_only => "apply_only",
                    Some(_) => "entries",
                    None => "truncation",
                },
                first_index: first.index,
                term: first.term,
                entries: frame.entries.unwrap_or(0),
                durable_sequence: frame.durable_sequence,
                committed_index: frame.committed,
            },
        );
    }
    let what = match frame.entries {
        Some(entries) if frame.apply_only => {
            format!("{entries} entries from {first} for the state only, not of the log")
        }
        Some(entries) => format!("{entries} entries from {first}"),
        None => format!("truncation from index {}", first.index),
    };
    let (durable, committed) = (frame.durable_sequence, Maybe(frame.committed));
    writeln!(
        out,
        "frame {sequence}: {file} offset {offset}, {bytes} bytes, {what}; incarnation {incarnation}, durable frame \
         {durable}, committed index {committed}"
    )
}

#[derive(Serialize)]
struct FrameJson<'a> {
    sequence: u64,
    file: &'a str,
    offset: u64,
    bytes: u64,
    incarnation: u64,
    kind: &'static str,
    first_index: u64,
    term: u64,
    entries: u32,
    durable_sequence: u64,
    committed_index: Option<u64>,
}
