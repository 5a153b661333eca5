//! Tests of counting, faults, damage, and a full disk.

use super::*;

type Operation = fn(&dyn Disk, &dyn DiskFile) -> io::Result<()>;

/// Every kind of operation, each of which must be possible after the others.
const OPERATIONS: [(&str, Operation); 7] = [
    ("create b", |disk, _| disk.open("b", Access::Create).map(drop)),
    ("write a offset=3 bytes=2", |_, file| file.write_all_at(b"xy", 3)),
    ("allocate a bytes=600", |_, file| file.allocate(600)),
    ("sync a", |_, file| file.sync_data()),
    ("rename b c", |disk, _| disk.rename("b", "c")),
    ("remove c", |disk, _| disk.remove("c")),
    ("sync_dir", |disk, _| disk.sync_dir()),
];

#[test]
fn every_kind_of_operation_is_counted_and_traced_and_reads_are_apart() {
    let (sim, disk, file) = with_file(1);
    for (number, (trace, operation)) in OPERATIONS.iter().enumerate() {
        assert_eq!(sim.operations(), number as u64);
        operation(&*disk, &*file).unwrap();
        assert_eq!(sim.trace()[number], *trace);
    }
    file.read_at(&mut [0], 0).unwrap();
    file.map(1).unwrap();
    assert_eq!((sim.operations(), sim.reads()), (7, 2));
    sim.reset_operations();
    assert_eq!((sim.operations(), sim.reads(), sim.trace().len()), (0, 0, 0));
}

#[test]
fn an_error_strikes_its_operation_once_and_changes_nothing() {
    for error in [FaultError::Eio, FaultError::Enospc] {
        let (sim, disk, file) = with_file(1);
        for (number, (name, operation)) in OPERATIONS.iter().enumerate() {
            let before = (sim.file_names(), sim.read_file("a"), sim.unsynced());
            sim.fail_at(2 * number as u64, Fault::Error(error));
            fails_with(&operation(&*disk, &*file).unwrap_err(), error);
            let after = (sim.file_names(), sim.read_file("a"), sim.unsynced());
            assert_eq!(before, after, "{name}");
            operation(&*disk, &*file).unwrap();
        }
    }
    assert!(is_disk_full(&FaultError::Enospc.into()));
}

#[test]
fn a_power_cut_stops_its_operation_and_everything_after_it() {
    for at in 0..OPERATIONS.len() {
        let (sim, disk, file) = with_file(1);
        sim.fail_at(at as u64, Fault::PowerCut);
        for (number, (name, operation)) in OPERATIONS.iter().enumerate() {
            let outcome = operation(&*disk, &*file);
            assert_eq!(outcome.is_err(), number >= at, "{name} cut at {at}");
        }
        file.read_at(&mut [0], 0).unwrap_err();
        assert!(sim.is_power_off());
        assert!(matches!(sim.open(true).unwrap_err(), OpenError::Io { .. }));
        sim.crash_process();
        assert!(matches!(sim.open(true).unwrap_err(), OpenError::Io { .. }));

        sim.power_cut(&mut |_| true);
        assert!(!sim.is_power_off());
        let written = sim.read_file("a").unwrap().starts_with(b"\0\0\0xy");
        assert_eq!(written, at > 1, "cut at {at}");
        sim.open(true).unwrap();
    }
}

#[test]
fn a_short_write_leaves_its_first_bytes() {
    let (sim, _disk, file) = with_file(1);
    sim.fail_at(0, Fault::ShortWriteThenError { bytes: 600 });
    let error = file.write_all_at(&[b'x'; 1000], 0).unwrap_err();
    fails_with(&error, FaultError::Eio);
    assert_eq!(sim.read_file("a").unwrap(), vec![b'x'; 600]);
    sim.fail_at(1, Fault::ShortWriteThenError { bytes: 0 });
    file.write_all_at(b"y", 5000).unwrap_err();
    assert_eq!(file.len().unwrap(), 600);
}

#[test]
fn a_lost_sync_claims_success_and_the_next_one_is_honest() {
    let (sim, disk, file) = with_file(1);
    let lost_twice = |sync: &dyn Fn() -> io::Result<()>| {
        let before = sim.unsynced();
        assert!(before > 0);
        sim.fail_at(sim.operations(), Fault::LostSync);
        sync().unwrap();
        assert_eq!(sim.unsynced(), before);
        sync().unwrap();
        assert_eq!(sim.unsynced(), 0);
    };
    file.write_all_at(b"abc", 0).unwrap();
    lost_twice(&|| file.sync_data());
    disk.open("b", Access::Create).unwrap();
    lost_twice(&|| disk.sync_dir());
    sim.fail_at(sim.operations(), Fault::LostSync);
    file.write_all_at(b"x", 0).unwrap();
    assert_eq!(sim.read_file("a").unwrap(), b"xbc", "it is for syncs only");
}

#[test]
fn after_a_plain_sync_error_a_later_sync_covers_the_data() {
    let (sim, _disk, file) = with_file(1);
    file.write_all_at(b"abc", 0).unwrap();
    sim.fail_at(1, Fault::Error(FaultError::Eio));
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    sim.power_cut_keeping(0);
    assert_eq!(sim.read_file("a").unwrap(), b"abc");
}

/// Two sectors: the first is written before the failed sync, the second after it. Then a sync
/// succeeds.
fn after_a_failed_sync_left_pages_clean() -> SimDisk {
    let (sim, _disk, file) = with_file(1);
    file.allocate(2 * SECTOR as u64).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(b"first", 0).unwrap();
    sim.fail_at(sim.operations(), Fault::SyncErrorThenClean);
    fails_with(&file.sync_data().unwrap_err(), FaultError::Eio);
    file.write_all_at(b"second", SECTOR as u64).unwrap();
    file.sync_data().unwrap();
    assert_eq!(&read_all(&*file)[..5], b"first", "reads show what is not durable");
    sim
}

#[test]
fn after_a_failed_sync_that_left_pages_clean_no_later_sync_covers_them() {
    let seen = outcomes(1, after_a_failed_sync_left_pages_clean, |sim| {
        let content = sim.read_file("a").unwrap();
        (content[..5].to_vec(), content[SECTOR..][..6].to_vec())
    });
    let second = b"second".to_vec();
    assert_eq!(seen, [(vec![0; 5], second.clone()), (b"first".to_vec(), second)]);
}

#[test]
fn what_a_failed_sync_left_clean_becomes_durable_when_it_is_written_again() {
    let sim = after_a_failed_sync_left_pages_clean();
    sim.crash_process();
    let file = sim.open(true).unwrap().open("a", Access::Write).unwrap();
    file.write_all_at(b"F", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(sim.unsynced(), 0, "what was left clean is superseded");
    sim.power_cut_keeping(u64::MAX);
    assert_eq!(&sim.read_file("a").unwrap()[..5], b"First");
}

#[test]
fn reads_fail_by_their_own_numbers() {
    let (sim, _disk, file) = with_file(1);
    file.write_all_at(b"abc", 0).unwrap();
    sim.fail_read_at(1, Fault::Error(FaultError::Eio));
    sim.fail_read_at(3, Fault::PowerCut);
    let mut buffer = [0; 3];
    file.read_at(&mut buffer, 0).unwrap();
    fails_with(&file.map(3).unwrap_err(), FaultError::Eio);
    file.map(3).unwrap();
    file.read_at(&mut buffer, 0).unwrap_err();
    assert!(sim.is_power_off());
}

#[test]
fn faults_are_forgotten_by_a_reset() {
    let (sim, _disk, file) = with_file(1);
    sim.fail_at(0, Fault::PowerCut);
    sim.fail_read_at(0, Fault::PowerCut);
    sim.reset_operations();
    file.write_all_at(b"abc", 0).unwrap();
    assert_eq!(read_all(&*file), b"abc");
}

#[test]
fn corruption_shows_at_once_and_survives_every_cut() {
    for mask in 0..4 {
        let (sim, _disk, file) = with_file(1);
        file.write_all_at(b"abc", 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(b"c", 2).unwrap();
        file.write_all_at(b"c", 2).unwrap();
        assert!(sim.corrupt("a", 1, 0x01));
        assert_eq!(read_all(&*file), b"acc");
        sim.power_cut_keeping(mask);
        assert_eq!(sim.read_file("a").unwrap(), b"acc");
        assert!(!sim.corrupt("a", 3, 0x01), "beyond the end");
        assert!(!sim.corrupt("b", 0, 0x01), "no such file");
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_removing_makes_room() {
    let (sim, disk, file) = with_file(1);
    let other = disk.open("b", Access::Create).unwrap();
    sim.set_capacity(Some(1000));
    other.allocate(600).unwrap();
    assert!(is_disk_full(&file.allocate(401).unwrap_err()));
    assert_eq!(file.len().unwrap(), 0);
    assert!(is_disk_full(&file.write_all_at(&[b'x'; 500], 0).unwrap_err()));
    assert_eq!(file.len().unwrap(), 400);
    file.write_all_at(&[b'y'; 400], 0).unwrap();

    disk.remove("b").unwrap();
    file.allocate(401).unwrap_err();
    drop(other);
    file.allocate(1000).unwrap();
    file.allocate(1001).unwrap_err();
    sim.set_capacity(None);
    file.allocate(1001).unwrap();
}
