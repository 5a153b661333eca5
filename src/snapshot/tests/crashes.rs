//! Tests of writing a snapshot file over a disk that fails and loses power, at every operation.

use super::*;
use crate::disk::names::{is_temporary_name, snapshot_name, temporary_name};
use crate::disk::sim::{Fault, FaultError, SimDisk};
use crate::disk::{Access, Disk};
use crate::snapshot::file::write_snapshot_file;

fn state() -> State {
    (0..100_u8).map(|byte| (vec![byte, 1], vec![byte; usize::from(byte)])).collect()
}

fn old() -> Vec<u8> {
    file_of(&State::from([(b"old".to_vec(), b"1".to_vec())]), &meta(), 1000)
}

/// A disk with an older snapshot, one of the same index, and the rest of a write that crashed.
fn disk() -> SimDisk {
    let sim = SimDisk::new(1);
    {
        let disk = sim.open(true).unwrap();
        for name in [snapshot_name(3), snapshot_name(9), temporary_name(&snapshot_name(9))] {
            let file = disk.open(&name, Access::Create).unwrap();
            file.write_all_at(&old(), 0).unwrap();
            file.sync_data().unwrap();
        }
        disk.sync_dir().unwrap();
    }
    sim.reset_operations();
    sim
}

fn write(disk: &dyn Disk) -> Result<u64, SnapshotError> {
    let summary = write_snapshot_file(disk, &snapshot_name(9), false, |writer| {
        let mut writer = writer.with_chunk_bytes(1000);
        for (key, value) in &state() {
            writer.push(key, value)?;
        }
        writer.finish(&meta())
    })?;
    Ok(summary.bytes)
}

/// Whether the name has the new snapshot. It must have the old or the new one, and the older
/// snapshot must be there.
fn is_new(sim: &SimDisk) -> bool {
    assert_eq!(sim.read_file(&snapshot_name(3)), Some(old()), "what is older is not touched");
    let found = sim.read_file(&snapshot_name(9)).unwrap();
    let is_new = found == file_of(&state(), &meta(), 1000);
    assert!(is_new || found == old(), "the old snapshot or the whole new one");
    let known = [snapshot_name(3), snapshot_name(9)];
    assert!(sim.file_names().iter().all(|name| known.contains(name) || is_temporary_name(name)));
    is_new
}

#[test]
fn what_was_written_survives_a_power_cut_and_leaves_no_temporary_file() {
    let sim = disk();
    assert_eq!(
        write(&*sim.open(true).unwrap()).unwrap(),
        file_of(&state(), &meta(), 1000).len() as u64
    );
    sim.power_cut_keeping(0);
    assert!(is_new(&sim));
    assert_eq!(sim.file_names(), [snapshot_name(3), snapshot_name(9)]);
}

/// Proves DUR-22.
#[test]
fn a_power_cut_at_any_operation_leaves_the_old_snapshot_or_the_new_one() {
    let (mut number, mut outcomes) = (0, [0, 0]);
    loop {
        let sim = disk();
        sim.fail_at(number, Fault::PowerCut);
        let written = write(&*sim.open(true).unwrap());
        if !sim.is_power_off() {
            assert!(written.is_ok());
            break;
        }
        assert!(written.is_err());
        // Let nothing, everything, and a few mixtures of the unsynced items survive.
        for mask in [0, u64::MAX, 0x5555_5555_5555_5555, 0x3333_cccc_0f0f_9999, 1, 2, 4] {
            let sim = disk();
            sim.fail_at(number, Fault::PowerCut);
            write(&*sim.open(true).unwrap()).unwrap_err();
            let last = sim.unsynced();
            sim.power_cut(&mut |item| {
                mask >> (item % 64) & 1 == 1 || mask == 4 && item + 1 == last
            });
            outcomes[usize::from(is_new(&sim))] += 1;
            // The snapshot can be written after that.
            write(&*sim.open(true).unwrap()).unwrap();
            assert!(is_new(&sim));
            assert_eq!(sim.file_names(), [snapshot_name(3), snapshot_name(9)]);
        }
        number += 1;
    }
    assert!(number > 10, "{number} operations");
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}: both were met");
}

/// Proves DUR-22.
#[test]
fn an_error_at_any_operation_fails_the_call_and_leaves_the_old_snapshot() {
    let faults = [
        Fault::Error(FaultError::Eio),
        Fault::Error(FaultError::Enospc),
        Fault::ShortWriteThenError { bytes: 7 },
        Fault::SyncErrorThenClean,
    ];
    for fault in faults {
        let mut number = 0;
        loop {
            let sim = disk();
            sim.fail_at(number, fault);
            let disk = sim.open(true).unwrap();
            let Err(error) = write(&*disk) else { break };
            assert!(matches!(error, SnapshotError::Io { .. }), "{error}");
            assert_eq!(error.is_disk_full(), fault == Fault::Error(FaultError::Enospc));
            let trace = sim.trace();
            let at_last_sync = trace.last().is_some_and(|line| line == "sync_dir");
            assert_eq!(is_new(&sim), at_last_sync, "after {:?}", trace[number as usize]);
            let is_first_removal = trace[number as usize].starts_with("remove");
            let is_left = sim.file_names().iter().any(|name| is_temporary_name(name));
            assert_eq!(
                is_left, is_first_removal,
                "the temporary file after {:?}",
                trace[number as usize]
            );
            // The disk works again, and so does everything else.
            write(&*disk).unwrap();
            assert!(is_new(&sim));
            number += 1;
        }
        assert!(number > 10, "{number} operations");
    }
}

#[test]
fn a_snapshot_that_is_not_finished_does_not_come_to_be() {
    let sim = disk();
    let disk = sim.open(true).unwrap();
    let error = write_snapshot_file(&*disk, &snapshot_name(9), false, |mut writer| {
        writer.push(b"b", b"1")?;
        writer.push(b"a", b"2")?;
        writer.finish(&meta())
    });
    assert!(matches!(error, Err(SnapshotError::OutOfOrder { .. })));
    assert!(!is_new(&sim));
    assert_eq!(sim.file_names(), [snapshot_name(3), snapshot_name(9)]);
}
