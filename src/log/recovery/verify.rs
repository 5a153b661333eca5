//! Verification: reads every byte of a directory to name all damage, where opening stops at the
//! first.

use std::cell::Cell;

use crate::disk::Disk;
use crate::disk::names::META_FILE;
use crate::entry::LogId;
use crate::error::{Corrupt, OpenError};
use crate::log::hard::HardFile;
use crate::log::meta::{Meta, MetaFile};
use crate::log::recovery::found::FoundFrame;
use crate::log::recovery::freeze::look_again;
use crate::log::recovery::older::OlderMeta;
use crate::log::recovery::scan::{UNDECODABLE, decodes};
use crate::log::recovery::survey::{Survey, next_lost_frame};
use crate::log::recovery::walk::Walk;

/// One damaged place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyFinding {
    /// Place and kind of the damage.
    pub place: Corrupt,
    /// Whether the bytes were durable. If not, the place is a torn end, and opening for writing
    /// cuts it.
    pub was_durable: bool,
}

/// Figures of the bytes read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VerifySummary {
    /// Number of good frames.
    pub frames: u64,
    /// Number of entries in them, including truncated ones.
    pub entries: u64,
    /// Number of damaged places reported.
    pub findings: u64,
}

/// Reads META, HARD and the whole log, and calls `report` for every damaged place. Behind damage,
/// reading continues with the next readable frame header; the frames between are one finding.
/// `snapshot` is the entry of the newest whole snapshot.
///
/// # Errors
///
/// Returns only errors that hide the rest: an I/O error, an unknown version, a path that is no
/// directory.
pub fn verify(
    disk: &dyn Disk,
    meta: &Meta,
    snapshot: Option<LogId>,
    report: &mut dyn FnMut(VerifyFinding),
) -> Result<VerifySummary, OpenError> {
    let mut summary = VerifySummary::default();
    let (mut reported, lost) = (None, Cell::new(false));
    let mut found = |place: Corrupt, was_durable| {
        // The first frame of a segment is met twice: from the end of the segment before, and at its
        // own place.
        let here = (place.file.clone(), place.offset);
        if reported.replace(here.clone()) == Some(here) {
            return;
        }
        summary.findings += 1;
        lost.set(lost.get() || was_durable);
        report(VerifyFinding { place, was_durable });
    };
    let slots_hold = verify_slots(disk, meta, &mut found)?;
    lost.set(false);
    let (mut frames, mut entries) = (0, 0);
    let mut walk = Walk::new(disk, meta)?;
    walk.chain.watch(snapshot);
    let (mut durable, mut incarnation) = (None, 0);
    loop {
        let here = match walk.next()? {
            Ok(frame) => {
                if let Some(what) = walk.chain.contradiction(&frame.header) {
                    found(walk.corrupt_here(frame.offset, what), true);
                }
                if !decodes(walk.bytes(&frame)?.1, frame.header.count) {
                    found(walk.corrupt_here(frame.offset, UNDECODABLE), true);
                }
                frames += 1;
                entries += u64::from(frame.header.count);
                walk.accept(&frame);
                continue;
            }
            Err(here) => here,
        };
        let expected = walk.chain.next_sequence();
        if durable.max(Some(walk.chain.durable_sequence)) < Some(expected) {
            let survey = Survey::of(&mut walk)?;
            incarnation = survey.incarnation;
            durable = durable.max(Some(survey.durable_sequence));
            if durable < Some(expected) {
                if survey.first.is_some() && !disk.is_beside_a_writer() {
                    found(walk.corrupt_here(here.offset, "a torn end"), false);
                }
                break;
            }
        }
        if disk.is_beside_a_writer() && walk.is_whole_by_now()? {
            // A writer is writing this place, so it is the end of this reading.
            break;
        }
        let next = next_lost_frame(&mut walk)?;
        let lost_here = next.is_some_and(|next| next.segment == walk.number);
        found(walk.blame(&here, lost_here)?, true);
        match (FoundFrame::unchecked(&here).filter(|_| here.only_body_bad()), next) {
            (Some(frame), _) => walk.accept(&frame),
            (None, Some(next)) => walk.resume_at(&next)?,
            (None, None) => break,
        }
    }
    // Behind damage the start and content of the log are unknown.
    if !lost.get() {
        let lacks_snapshot = walk.chain.lacks_snapshot(meta);
        let incarnation = incarnation.max(walk.chain.incarnation);
        let older = OlderMeta::of(meta, slots_hold, incarnation, lacks_snapshot);
        let begins_late = walk.chain.begins_late(meta);
        for place in begins_late.into_iter().chain(older.map(OlderMeta::place)) {
            summary.findings += 1;
            report(VerifyFinding { place, was_durable: true });
        }
    }
    Ok(VerifySummary { frames, entries, ..summary })
}

/// Whether both slots of META are good.
fn verify_slots(
    disk: &dyn Disk,
    meta: &Meta,
    found: &mut dyn FnMut(Corrupt, bool),
) -> Result<bool, OpenError> {
    let corrupt_only = |error| match error {
        OpenError::Corrupt(place) => Ok(place),
        other => Err(other),
    };
    let slots = look_again(disk, &mut || {
        let slots = MetaFile::open(disk, false)?;
        let torn = slots.as_ref().is_some_and(|(.., damage)| damage.slot_offset.is_some());
        Ok((slots, torn))
    });
    let mut hold = true;
    match slots {
        Ok(Some((_, _, damage))) => {
            if let Some(offset) = damage.slot_offset {
                hold = false;
                let (file, what) = (META_FILE.to_owned(), "a slot does not read back");
                found(Corrupt { file, offset, index: None, what }, true);
            }
        }
        Ok(None) => {}
        Err(error) => found(corrupt_only(error)?, true),
    }
    let hard = look_again(disk, &mut || HardFile::open(disk, meta, false).map(|_| ((), false)));
    if let Err(error) = hard {
        found(corrupt_only(error)?, true);
    }
    Ok(hold)
}
