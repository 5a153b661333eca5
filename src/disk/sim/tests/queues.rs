//! Tests of several writes in flight.

use super::*;

/// Submits eight one-sector writes, the last with a sync, and takes all completions.
fn run(seed: u64) -> (Vec<u64>, Vec<String>) {
    let (sim, disk, file) = with_file(seed);
    sim.set_queue_depth(8);
    let mut queue = disk.queue().unwrap();
    assert_eq!((queue.backend(), queue.depth()), ("simulated", 8));
    for token in 0..8 {
        let bytes = [u8::try_from(token).unwrap() + 1; SECTOR];
        let offset = token * SECTOR as u64;
        queue.submit(log_write(token, &file, offset, &bytes, token == 7));
    }
    let mut tokens = Vec::new();
    while let Some(completion) = queue.complete(true) {
        completion.result.unwrap();
        tokens.push(completion.token);
        if completion.token == 7 {
            assert_eq!(sim.unsynced(), 0, "the sync covers all that was submitted before");
        }
    }
    assert_eq!(read_all(&*file), sectors(&[1, 2, 3, 4, 5, 6, 7, 8]));
    (tokens, sim.trace())
}

#[test]
fn a_deep_queue_completes_everything_in_an_order_of_the_seeds() {
    let orders: BTreeSet<Vec<u64>> = (0..20).map(|seed| run(seed).0).collect();
    assert!(orders.len() > 10, "{} orders", orders.len());
    for mut order in orders {
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
    assert_eq!(run(3), run(3));
}

#[test]
fn each_write_and_each_sync_is_one_operation() {
    let (_, trace) = run(1);
    assert_eq!(trace.len(), 9);
    assert_eq!(trace.iter().filter(|line| line.starts_with("sync a")).count(), 1);
}

#[test]
fn a_sync_waits_for_no_other_file() {
    let reordered = (0..20).any(|seed| {
        let (sim, disk, file) = with_file(seed);
        let other = disk.open("b", Access::Create).unwrap();
        sim.reset_operations();
        sim.set_queue_depth(2);
        let mut queue = disk.queue().unwrap();
        queue.submit(log_write(0, &other, 0, b"x", false));
        queue.submit(log_write(1, &file, 0, b"x", true));
        while queue.complete(true).is_some() {}
        sim.trace()[0].starts_with("write a")
    });
    assert!(reordered);
}

#[test]
fn polling_finds_the_completions_of_a_deep_queue() {
    let (sim, disk, file) = with_file(1);
    sim.set_queue_depth(2);
    let mut queue = disk.queue().unwrap();
    queue.submit(log_write(0, &file, 0, b"x", true));
    assert!((0..100).any(|_| queue.complete(false).is_some()));
    assert!(queue.complete(true).is_none());
}

#[test]
fn a_failed_write_and_a_failed_sync_are_told_apart() {
    for depth in [1, 4] {
        for (at, write_failed) in [(0, true), (1, false)] {
            let (sim, disk, file) = with_file(1);
            sim.set_queue_depth(depth);
            sim.fail_at(at, Fault::Error(FaultError::Eio));
            let mut queue = disk.queue().unwrap();
            queue.submit(log_write(0, &file, 0, b"x", true));
            let failure = queue.complete(true).unwrap().result.unwrap_err();
            assert_eq!(matches!(failure, WriteFailure::Write(_)), write_failed);
            assert_eq!(sim.operations(), at + 1, "no sync follows a failed write");
        }
    }
}

#[test]
fn a_sync_over_a_failed_write_in_flight_fails() {
    for seed in 0..20 {
        let (sim, disk, file) = with_file(seed);
        sim.set_queue_depth(2);
        sim.fail_at(0, Fault::Error(FaultError::Eio));
        let mut queue = disk.queue().unwrap();
        queue.submit(log_write(0, &file, 0, b"x", false));
        queue.submit(log_write(1, &file, SECTOR as u64, b"x", true));
        let mut failed = Vec::new();
        while let Some(completion) = queue.complete(true) {
            if completion.result.is_err() {
                failed.push(completion.token);
            }
        }
        failed.sort_unstable();
        assert!(failed == [0, 1] || failed == [0], "seed {seed}: {failed:?}");
    }
}

#[test]
fn writes_in_flight_are_on_the_disk_or_not_when_the_power_goes() {
    let lengths: BTreeSet<u64> = (0..40)
        .map(|seed| {
            let (sim, disk, file) = with_file(seed);
            sim.set_queue_depth(4);
            let mut queue = disk.queue().unwrap();
            for token in 0..3 {
                queue.submit(log_write(token, &file, token * 10, b"0123456789", false));
            }
            sim.power_cut(&mut |_| true);
            sim.read_file("a").unwrap().len() as u64
        })
        .collect();
    assert_eq!(lengths, BTreeSet::from([0, 10, 20, 30]));
}

#[test]
#[should_panic(expected = "more writes in flight than the depth")]
fn more_writes_than_the_depth_are_a_defect_of_the_caller() {
    let (_sim, disk, file) = with_file(1);
    let mut queue = disk.queue().unwrap();
    queue.submit(log_write(0, &file, 0, b"x", false));
    queue.submit(log_write(1, &file, 0, b"x", false));
}
