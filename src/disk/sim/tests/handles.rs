//! Tests of open handles after a cut or crash.

use super::*;

#[test]
fn a_cut_and_a_crash_kill_what_was_open_and_release_the_lock() {
    let cuts: [fn(&SimDisk); 3] =
        [SimDisk::crash_process, SimDisk::power_cut_random, |sim| sim.power_cut_keeping(0)];
    for cut in cuts {
        let (sim, disk, file) = with_file(1);
        let mut queue = disk.queue().unwrap();
        queue.submit(log_write(1, &file, 0, b"late", true));
        cut(&sim);
        disk.list().unwrap_err();
        disk.open("a", Access::Read).unwrap_err();
        disk.open("b", Access::Create).unwrap_err();
        disk.rename("a", "b").unwrap_err();
        disk.remove("a").unwrap_err();
        disk.sync_dir().unwrap_err();
        disk.queue().unwrap_err();
        file.len().unwrap_err();
        file.read_at(&mut [0], 0).unwrap_err();
        file.write_all_at(b"x", 0).unwrap_err();
        file.allocate(1).unwrap_err();
        file.sync_data().unwrap_err();
        file.map(0).unwrap_err();
        queue.complete(true).unwrap().result.unwrap_err();

        let again = sim.open(true).unwrap();
        drop((disk, file, queue));
        let error = sim.open(true).unwrap_err();
        assert!(matches!(error, OpenError::Locked { .. }), "the dead do not release the lock");
        assert_eq!(read_all(&*again.open("a", Access::Read).unwrap()), b"");
    }
}

#[test]
fn a_crash_of_the_process_loses_nothing_and_makes_nothing_durable() {
    let (sim, disk, file) = with_file(1);
    disk.open("b", Access::Create).unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    sim.crash_process();
    assert_eq!(sim.read_file("a").unwrap(), b"abc");
    assert_eq!(sim.file_names(), ["a", "b"]);
    sim.power_cut_keeping(0);
    assert_eq!(sim.read_file("a").unwrap(), b"");
    assert_eq!(sim.file_names(), ["a"]);
}

#[test]
fn a_sync_after_a_crash_covers_what_was_written_before_it() {
    let (sim, _disk, file) = with_file(1);
    file.write_all_at(b"abc", 0).unwrap();
    sim.crash_process();
    sim.open(true).unwrap().open("a", Access::Write).unwrap().sync_data().unwrap();
    sim.power_cut_keeping(0);
    assert_eq!(sim.read_file("a").unwrap(), b"abc");
}

#[test]
fn a_clone_is_the_same_disk() {
    let (sim, _disk, file) = with_file(1);
    let clone = sim.clone();
    file.write_all_at(b"abc", 0).unwrap();
    assert_eq!(clone.read_file("a").unwrap(), b"abc");
    assert_eq!(clone.operations(), 1);
}
