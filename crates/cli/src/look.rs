//! The `verify` and `inspect` commands: the content of the files.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use sprag::error::Corrupt;
use sprag::inspect::{Finding, FrameInfo, Inspection, SegmentInfo, SnapshotInfo, VerifyReport};
use sprag::snapshot::SnapshotKind;
use sprag::{CommitMode, Contiguity};

use crate::args::Inspect;
use crate::dump::json_line;
use crate::error::{Failure, Outcome, opening};
use crate::foreign::print_foreign;
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
    let damaged = report.findings.iter().filter(|finding| finding.was_durable).count();
    if json {
        line(out, &VerifyJson { clean: report.is_clean(), report: &report })?;
    } else {
        for Finding { place, was_durable, .. } in &report.findings {
            let Corrupt { file, offset, index, what } = place;
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

/// The report, and its answer.
#[derive(Serialize)]
struct VerifyJson<'a> {
    clean: bool,
    #[serde(flatten)]
    report: &'a VerifyReport,
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
        line(out, &found)?;
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

fn print_frame(frame: &FrameInfo, json: bool, out: &mut dyn Write) -> io::Result<()> {
    let FrameInfo { file, offset, bytes, sequence, incarnation, first, .. } = frame;
    if json {
        let kind = match frame.entries {
            Some(_) if frame.apply_only => "apply_only",
            Some(_) => "entries",
            None => "truncation",
        };
        return json_line(out, &FrameJson { kind, frame });
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

/// A frame, and its kind in a word.
#[derive(Serialize)]
struct FrameJson<'a> {
    kind: &'static str,
    #[serde(flatten)]
    frame: &'a FrameInfo,
}
