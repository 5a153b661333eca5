//! Tests of bytes that change behind the engine's back: a torn end is cut and reported, and other
//! damage is refused and left alone.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use std::fs;

use crate::common::frames::{Frame, HEADER_BYTES, flip, forge, frames};
use crate::common::generate::Dice;
use crate::common::machines::compare;
use crate::common::model::Model;
use crate::common::ops::{Logged, Op, log_of, with_entries};
use crate::common::{LONG, Persistent, Scratch, child, child_directory, dir_bytes, open, refused};
use sprag::error::{Corrupt, LogError, OpenError};
use sprag::{Durability, PersistentStateMachine};

/// The corruption that opening refused, after a check that no byte was changed.
fn corrupt(scratch: &Scratch) -> Corrupt {
    let before = dir_bytes(&scratch.path());
    for strict in [false, true] {
        match refused(scratch.config().strict(strict)) {
            OpenError::Corrupt(corrupt) => drop(corrupt),
            error => panic!("{error}"),
        }
    }
    // Without META nothing can be read. Otherwise reading goes up to the damage, and reports it.
    if let Ok(read_only) = PersistentStateMachine::open_read_only(scratch.path()) {
        assert!(read_only.recovery().unreadable.is_some());
    }
    let OpenError::Corrupt(corrupt) = refused(scratch.config()) else { unreachable!() };
    assert!(dir_bytes(&scratch.path()) == before, "a refused open changed a byte");
    corrupt
}

fn log(last: u64) -> Vec<Logged> {
    let put = |index: u64| Op::put((index % 9).to_be_bytes(), vec![index.to_le_bytes()[0]; 300]);
    log_of(1, 1, (1..=last).map(put))
}

/// Makes one frame for each entry, by one synchronous call after another.
fn apply_each(manager: &Persistent, log: &[Logged]) {
    with_entries(log, |entries| {
        for entry in entries {
            manager.apply(entry, LONG).unwrap();
        }
    });
}

/// Twenty entries in twenty frames, as a `kill -9` leaves them.
fn killed(durability: Durability) -> (Scratch, Vec<Frame>) {
    let scratch = Scratch::new();
    let manager = open(scratch.config().durability(durability));
    apply_each(&manager, &log(20));
    let image = scratch.crash_image();
    let found = frames(&image.path());
    assert_eq!(found.iter().map(|frame| frame.first_index).collect::<Vec<_>>(), {
        (1..=20).collect::<Vec<_>>()
    });
    (image, found)
}

/// Proves DUR-12.
#[test]
fn a_torn_last_frame_is_cut_and_said() {
    let (_, example) = killed(Durability::Sync);
    let last_bytes = example[19].bytes();
    for at in [0, 5, 64, 100, 127, HEADER_BYTES, last_bytes - 1] {
        let (scratch, found) = killed(Durability::Sync);
        found[19].flip(at, 0x40);
        let before = dir_bytes(&scratch.path());
        match refused(scratch.config().strict(true)) {
            OpenError::Torn { file, offset, bytes } => {
                let start = offset.next_multiple_of(64);
                assert_eq!((file, start), (found[19].name(), found[19].offset as u64));
                assert!((1..=last_bytes as u64).contains(&bytes), "{bytes} torn bytes");
            }
            error => panic!("byte {at}: {error}"),
        }
        assert!(dir_bytes(&scratch.path()) == before, "a strict open changed a byte");
        let manager = scratch.open();
        let report = manager.machine().recovery();
        assert_eq!(report.last.map(|last| last.index), Some(19));
        let cut = report.cut.clone().unwrap();
        let start = cut.offset.next_multiple_of(64);
        assert_eq!((cut.file, start), (found[19].name(), found[19].offset as u64));
        compare(manager.machine(), &Model::after(&log(19))).unwrap();
        // The engine continues from there, and the cut is not reported again.
        apply_each(&manager, &log(22)[19..]);
        manager.close(LONG).unwrap();
        let manager = open(scratch.config().strict(true));
        assert!(manager.machine().recovery().cut.is_none());
        compare(manager.machine(), &Model::after(&log(22))).unwrap();
    }
}

/// Proves DUR-4.
#[test]
fn a_cut_keeps_everything_before_it_and_drops_everything_after() {
    // Nothing was ever synced, so any frame may be missing.
    for lost in [0, 1, 7, 18] {
        let (scratch, found) = killed(Durability::Os);
        found[lost].flip(HEADER_BYTES + 30, 1);
        let manager = scratch.open();
        let report = manager.machine().recovery();
        assert_eq!(report.last.map(|last| last.index).unwrap_or(0), lost as u64);
        let cut = report.cut.clone().unwrap();
        assert_eq!(cut.offset.next_multiple_of(64), found[lost].offset as u64);
        let (_, to) = cut.indexes.unwrap_or((20, 20));
        assert_eq!(to, 20, "the whole frames behind the torn one are named");
        compare(manager.machine(), &Model::after(&log(20)[..lost])).unwrap();
    }
}

#[test]
fn entries_are_read_back_whole_or_not_at_all_from_behind_a_damaged_header() {
    let scratch = Scratch::new();
    let manager = open(scratch.config().segment_bytes(1 << 20).compaction(None));
    // A read begins at a frame every 64 KiB, so the first segment has several of these.
    apply_each(&manager, &log_of(1, 1, (1..=400_u64).map(|at| Op::put([at as u8], vec![1; 4000]))));
    let found = frames(&scratch.path());
    let sealed: Vec<_> = found.iter().filter(|frame| frame.name() == found[100].name()).collect();
    assert!(sealed.len() > 30 && found.last().unwrap().name() != sealed[0].name());
    for frame in &sealed[1..] {
        frame.flip(20, 1);
        for from in [frame.first_index, frame.first_index - 1] {
            let read = manager.log().unwrap().entries(from..=400, usize::MAX);
            assert!(matches!(read, Err(LogError::Corrupt(_))), "{} {read:?}", frame.first_index);
        }
        frame.flip(20, 1);
    }
    assert_eq!(manager.log().unwrap().entries(1..=400, usize::MAX).unwrap().len(), 400);
}

/// Proves DUR-14.
#[test]
fn a_cut_tail_never_comes_back() {
    let (scratch, found) = killed(Durability::Os);
    found[7].flip(HEADER_BYTES + 3, 1);
    let manager = open(scratch.config().durability(Durability::Os));
    assert_eq!(manager.stats().applied, Some(7));
    // The consensus engine sends the lost entries again; they encode to the same bytes at the same
    // place.
    for resent in 8..=12 {
        apply_each(&manager, &log(resent)[usize::try_from(resent).unwrap() - 1..]);
        let image = scratch.crash_image();
        let again = open(image.config().durability(Durability::Os));
        assert_eq!(again.stats().applied, Some(resent), "an old frame chained on");
        compare(again.machine(), &Model::after(&log(resent))).unwrap();
    }
}

/// Proves DUR-14.
#[test]
fn an_old_frame_put_back_over_what_was_cut_is_not_taken() {
    let (scratch, found) = killed(Durability::Os);
    let old = fs::read(&found[0].file).unwrap();
    found[7].flip(HEADER_BYTES + 3, 1);
    let manager = open(scratch.config().durability(Durability::Os));
    apply_each(&manager, &log(8)[7..]);
    let image = scratch.crash_image();
    drop(manager);
    // A disk may leave this: it has written one block, and not yet the erased ones behind it.
    let file = image.path().join(found[0].name());
    let mut bytes = fs::read(&file).unwrap();
    let from = found[8].offset;
    let end = bytes.len();
    bytes[from..].copy_from_slice(&old[from..end]);
    fs::write(&file, bytes).unwrap();
    let again = open(image.config().durability(Durability::Os));
    assert_eq!(again.stats().applied, Some(8), "frames of an earlier incarnation chained on");
    compare(again.machine(), &Model::after(&log(8))).unwrap();
}

/// Proves DUR-11.
#[test]
fn a_flipped_byte_below_a_later_durable_frame_is_corruption_and_nothing_is_cut() {
    let (scratch, found) = killed(Durability::Sync);
    for lost in [0, 4, 17] {
        for at in [0, 4, 70, 125, HEADER_BYTES, found[lost].bytes() - 1] {
            found[lost].flip(at, 0x10);
            let corrupt = corrupt(&scratch);
            assert_eq!(corrupt.file, found[lost].name());
            assert_eq!(corrupt.offset, found[lost].offset as u64);
            // Before the first frame nothing tells its index; its own header does, if it is good.
            let known = lost > 0 || at >= HEADER_BYTES;
            assert_eq!(corrupt.index, known.then_some(lost as u64 + 1));
            found[lost].flip(at, 0x10);
        }
    }
    compare(scratch.open().machine(), &Model::after(&log(20))).unwrap();
}

/// Proves DUR-11.
#[test]
fn any_flipped_byte_of_any_frame_after_a_clean_close_is_refused() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    let all = log(400);
    with_entries(&all, |entries| {
        let batch = entries.iter().copied();
        manager.apply_batch(batch, LONG, |_, _| ()).unwrap();
    });
    manager.close(LONG).unwrap();
    let found = frames(&scratch.path());
    assert!(found.last().unwrap().file != found[0].file, "more than one segment");
    let mut dice = Dice::new(3);
    for _ in 0..40 {
        let frame = &found[usize::try_from(dice.below(found.len() as u64)).unwrap()];
        let span = if dice.below(2) == 0 { HEADER_BYTES } else { frame.bytes() };
        let at = usize::try_from(dice.below(span as u64)).unwrap();
        let xor = 1 << dice.below(8);
        frame.flip(at, xor);
        let corrupt = corrupt(&scratch);
        assert_eq!(
            (corrupt.file, corrupt.offset),
            (frame.name(), frame.offset as u64),
            "byte {at}"
        );
        frame.flip(at, xor);
    }
    // This includes the last frame: nothing behind it says that it was durable, but the close does.
    let last = found.last().unwrap();
    last.flip(last.bytes() - 1, 1);
    assert_eq!(corrupt(&scratch).offset, last.offset as u64);
    last.flip(last.bytes() - 1, 1);
    compare(scratch.open().machine(), &Model::after(&all)).unwrap();
}

#[test]
fn a_segment_that_was_durable_and_is_gone_or_short_is_refused() {
    for truncate in [false, true] {
        let scratch = Scratch::new();
        let manager = scratch.open();
        with_entries(&log(400), |entries| {
            let batch = entries.iter().copied();
            manager.apply_batch(batch, LONG, |_, _| ()).unwrap();
        });
        manager.close(LONG).unwrap();
        let segments = crate::common::frames::segments(&scratch.path());
        assert!(segments.len() > 2);
        for segment in &segments[..segments.len() - 1] {
            let bytes = fs::read(segment).unwrap();
            if truncate {
                fs::write(segment, &bytes[..1000]).unwrap();
            } else {
                fs::remove_file(segment).unwrap();
            }
            corrupt(&scratch);
            fs::write(segment, bytes).unwrap();
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(segment, fs::Permissions::from_mode(0o600)).unwrap();
        }
        compare(scratch.open().machine(), &Model::after(&log(400))).unwrap();
    }
}

#[test]
fn one_damaged_slot_of_meta_is_reported_and_two_are_refused() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    apply_each(&manager, &log(5));
    manager.close(LONG).unwrap();
    let meta = scratch.path().join("META");
    for slot in [0, 4096] {
        let image = scratch.crash_image();
        flip(&image.path().join("META"), slot + 70, 1);
        let manager = image.open();
        assert!(manager.machine().recovery().meta_slot_damaged);
        compare(manager.machine(), &Model::after(&log(5))).unwrap();
    }
    flip(&meta, 70, 1);
    flip(&meta, 4096 + 70, 1);
    assert_eq!(corrupt(&scratch).file, "META");
    let image = scratch.crash_image();
    fs::remove_file(image.path().join("META")).unwrap();
    let before = dir_bytes(&image.path());
    assert!(matches!(refused(image.config()), OpenError::Corrupt(_)));
    assert!(dir_bytes(&image.path()) == before);
}

#[test]
fn a_damaged_hard_state_is_refused_and_not_forgotten() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    manager.log().unwrap().save_hard_state(b"vote for 1").unwrap();
    manager.log().unwrap().save_hard_state(b"vote for 2").unwrap();
    manager.close(LONG).unwrap();
    for slot in [0, 4096] {
        let image = scratch.crash_image();
        flip(&image.path().join("HARD"), slot + 66, 1);
        let before = dir_bytes(&image.path());
        match refused(image.config()) {
            OpenError::Corrupt(corrupt) => assert_eq!(corrupt.file, "HARD"),
            error => panic!("slot at {slot}: {error}"),
        }
        assert!(dir_bytes(&image.path()) == before);
    }
}

#[test]
fn an_unknown_version_is_named_as_such() {
    let (scratch, found) = killed(Durability::Sync);
    let first = found[0].clone();
    forge(&scratch.path(), &first, |frame| frame[4..6].copy_from_slice(&9_u16.to_le_bytes()));
    let before = dir_bytes(&scratch.path());
    match refused(scratch.config()) {
        OpenError::UnknownVersion { file, found, supported } => {
            assert_eq!((file, found, supported), (first.name(), 9, 1));
        }
        error => panic!("{error}"),
    }
    assert!(dir_bytes(&scratch.path()) == before);
}

// ---- Forged lengths ----

/// Address space of this process in KiB, which counts allocations even if they are untouched.
fn address_space_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// This runs in a separate process, where no other test takes address space.
#[test]
fn a_length_read_from_disk_is_checked_before_it_is_allocated() {
    let name = "a_length_read_from_disk_is_checked_before_it_is_allocated";
    if child_directory().is_some() {
        return lengths_that_lie();
    }
    let mut command = child(module_path!(), name, Scratch::new().path().as_path());
    // The allocator may take an arena for each thread.
    let output = command.env("MALLOC_ARENA_MAX", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

fn lengths_that_lie() {
    let before = address_space_kib();
    for length in [u32::MAX, 0x7fff_ffff, 0x4000_0000] {
        let length = length.to_le_bytes();
        // Forge the body's length, with a right header checksum.
        let (scratch, found) = killed(Durability::Sync);
        forge(&scratch.path(), &found[19], |frame| frame[64..68].copy_from_slice(&length));
        drop(PersistentStateMachine::open(scratch.config()));
        // Forge the number of entries.
        let (scratch, found) = killed(Durability::Sync);
        forge(&scratch.path(), &found[19], |frame| frame[68..72].copy_from_slice(&length));
        drop(PersistentStateMachine::open(scratch.config()));
        // Forge the length of an entry's value, with both checksums right.
        let (scratch, found) = killed(Durability::Sync);
        forge(&scratch.path(), &found[4], |frame| {
            frame[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&length);
        });
        drop(refused(scratch.config()));
        // Forge the payload's length in META and in HARD.
        for name in ["META", "HARD"] {
            let scratch = Scratch::new();
            let manager = scratch.open();
            manager.log().unwrap().save_hard_state(b"vote").unwrap();
            manager.close(LONG).unwrap();
            let file = scratch.path().join(name);
            let mut bytes = fs::read(&file).unwrap();
            for slot in [0, 4096] {
                let slot = &mut bytes[slot..slot + 512];
                slot[32..36].copy_from_slice(&length);
                let rest = crc32c::crc32c_append(crc32c::crc32c(&slot[..60]), &slot[64..]);
                slot[60..64].copy_from_slice(&rest.to_le_bytes());
            }
            fs::write(&file, bytes).unwrap();
            drop(refused(scratch.config()));
        }
    }
    let grown = address_space_kib() - before;
    assert!(grown < 256 << 10, "{grown} KiB more for lengths that lie");
}
