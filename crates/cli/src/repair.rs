//! The `repair` command: what a damaged directory would lose and, with `--yes`, cutting its log at
//! the damage.

use std::io::Write;

use serde::Serialize;
use sprag::{LostLog, RepairOptions, RepairReport};

use crate::args::Repair;
use crate::error::{Failure, Kind, Outcome, opening};
use crate::progress::Progress;
use crate::text::{Maybe, line, size, torn};

pub(crate) fn repair(repair: &Repair, json: bool, out: &mut dyn Write) -> Outcome {
    let dir = &repair.of.dir;
    let look = sprag::repair(dir, RepairOptions::new()).map_err(opening(dir))?;
    let blocked = look.hard.is_some() && !repair.forget_hard_state;
    let report = if repair.yes && look.is_damaged() && !blocked {
        let _spinner = Progress::new(json).spinner("copying and repairing");
        let options = RepairOptions::new().write(true).forget_hard_state(repair.forget_hard_state);
        sprag::repair(dir, options).map_err(opening(dir))?
    } else {
        look
    };
    if json {
        line(out, &RepairJson { damaged: report.is_damaged(), report: &report })?;
    } else {
        print(&report, out)?;
    }
    let dir = dir.display();
    if !report.is_damaged() || report.repaired {
        return Ok(());
    }
    if repair.yes {
        // HARD holds a vote, so dropping it takes its own option.
        let message = format!(
            "{dir}: HARD is damaged, and without it a node may vote twice: nothing was changed; \
             --forget-hard-state repairs it all the same"
        );
        return Err(Failure::new(Kind::Damaged, message).into());
    }
    let message = format!(
        "{dir}: damaged; nothing was changed, --yes repairs it and loses what is said above"
    );
    Err(Failure::new(Kind::Damaged, message).into())
}

fn print(report: &RepairReport, out: &mut dyn Write) -> Outcome {
    if let Some(lost) = &report.log {
        print_lost(lost, report.repaired, out)?;
    }
    if let Some(snapshot) = &report.snapshot {
        let index = snapshot.index;
        writeln!(
            out,
            "a snapshot has everything up to index {index}, and the log goes on behind it"
        )?;
    }
    if let Some(offset) = report.meta_slot {
        let done = if report.repaired { "was" } else { "would be" };
        writeln!(
            out,
            "META: the slot at offset {offset} does not read back; it {done} stored anew"
        )?;
    }
    if let Some(place) = &report.meta {
        let done = if report.repaired { "was" } else { "would be" };
        writeln!(out, "META: {}; it {done} stored anew", place.what)?;
    }
    if let Some(place) = &report.hard {
        let done = if report.repaired { "was" } else { "would be" };
        writeln!(
            out,
            "HARD: damaged at offset {}: {}; it {done} taken back to the hard state before, or to none",
            place.offset, place.what
        )?;
    }
    for place in &report.damaged_snapshots {
        let done = if report.repaired { "was removed" } else { "would be removed" };
        let (file, offset, what) = (&place.file, place.offset, place.what);
        writeln!(out, "{file}: damaged at offset {offset}: {what}; it {done}")?;
    }
    if report.torn_end.is_some() {
        let torn = torn(report.torn_end.as_ref());
        writeln!(out, "torn end, no damage, cut by the next open: {torn}")?;
    }
    writeln!(out, "last whole entry: {}", Maybe(report.last))?;
    if let Some(backup) = &report.backup {
        writeln!(out, "as they were: {} in {}", report.backed_up.join(", "), backup.display())?;
    }
    let state = match (report.is_damaged(), report.repaired) {
        (false, _) => "not damaged: nothing to repair",
        (true, true) => "repaired",
        (true, false) => "damaged: nothing was changed",
    };
    Ok(writeln!(out, "{state}")?)
}

fn print_lost(lost: &LostLog, repaired: bool, out: &mut dyn Write) -> Outcome {
    let place = &lost.damage;
    writeln!(
        out,
        "{}: damaged at offset {}, index {}: {}",
        place.file,
        place.offset,
        Maybe(place.index),
        place.what
    )?;
    let done = if repaired { "lost" } else { "would be lost" };
    let indexes =
        lost.indexes.map_or(String::new(), |(first, last)| format!(", indexes {first} to {last}"));
    writeln!(
        out,
        "{done}: {} behind the last whole frame; {} entries in {} frames whose headers read back{indexes}",
        size(lost.bytes),
        lost.entries,
        lost.frames
    )?;
    if !lost.segments.is_empty() {
        writeln!(out, "{done}: as a whole, {}", lost.segments.join(", "))?;
    }
    Ok(())
}

/// The report, and whether anything is damaged.
#[derive(Serialize)]
struct RepairJson<'a> {
    damaged: bool,
    #[serde(flatten)]
    report: &'a RepairReport,
}
