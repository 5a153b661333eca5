//! Tests of latency: every entry is measured, or counted as not measured, and waker calls are
//! measured.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use sprag::error::SubmitError;
use sprag::testing::SimDisk;
use sprag::{ApplyManager, CommitMode, Entry, PersistentStateMachine, StateMachine};

use super::{Own, one_worker, run, stepped, stepped_with};
use crate::common::{LONG, Scratch, apply_config, manage};

#[test]
fn latency_counts_every_entry_with_the_time_it_took() {
    let engine = stepped(&SimDisk::new(1), one_worker());
    // Of 1,000 entries, 500 wait for 1 ms, 400 for 2, 90 for 4, 9 for 8, and one for 16.
    let mut first = 1;
    for (count, millis) in [(500, 1), (400, 2), (90, 4), (9, 8), (1, 16)] {
        let puts: Vec<_> =
            (first..first + count).map(|index| Entry::put(index, 1, b"k", b"v")).collect();
        for some in puts.chunks(100) {
            let _ = engine.apply_entries(some).unwrap();
        }
        engine.advance(Duration::from_millis(millis));
        engine.run_until_idle();
        first += count;
    }
    let stats = engine.stats();
    let latency = stats.latency;
    let near = |ns: u64, millis: u64| {
        let exact = millis * 1_000_000;
        assert!((exact..=exact + exact / 50).contains(&ns), "{ns} ns for {millis} ms");
    };
    assert_eq!((latency.count, latency.unmeasured), (1000, 0));
    near(latency.p50_ns, 1);
    near(latency.p90_ns, 2);
    near(latency.p99_ns, 4);
    near(latency.p999_ns, 8);
    assert_eq!(latency.max_ns, 16_000_000);
    assert_eq!(latency.mean_ns, (500 + 400 * 2 + 90 * 4 + 9 * 8 + 16) * 1000);
    assert_eq!(stats.average_latency_ms, 1.748);
    engine.reset_latency();
    assert_eq!(engine.stats().latency.count, 0);
}

fn submit_when_there_is_room<M: StateMachine>(manager: &ApplyManager<M>, entry: &[Entry<'_>]) {
    let submitted = loop {
        match manager.apply_entries(entry) {
            Err(SubmitError::Full { .. }) => std::thread::yield_now(),
            submitted => break submitted,
        }
    };
    assert_eq!(submitted.unwrap().new, 1);
}

#[test]
fn latency_counts_entries_of_every_call_also_flat_out() {
    let config = |workers| apply_config(workers).pipeline_depth(1 << 16);
    let in_memory = manage(Own::default(), config(2));
    let scratch = Scratch::new();
    let machine = PersistentStateMachine::open(scratch.config()).unwrap();
    let on_disk = manage(machine, config(1));
    let flat_out = |submit: &dyn Fn(&[Entry<'_>])| {
        // More than 4,096 submissions of one entry are in flight.
        for index in 201..=30_000 {
            submit(&[Entry::noop(index, 1)]);
        }
    };
    run(&in_memory, 1, 200);
    flat_out(&|entry| submit_when_there_is_room(&in_memory, entry));
    in_memory.flush_pending(LONG).unwrap();
    run(&on_disk, 1, 200);
    flat_out(&|entry| submit_when_there_is_room(&on_disk, entry));
    on_disk.flush_pending(LONG).unwrap();
    for stats in [in_memory.stats(), on_disk.stats()] {
        assert_eq!((stats.latency.count, stats.latency.unmeasured), (30_000, 0));
    }
    in_memory.close(LONG).unwrap();
    on_disk.close(LONG).unwrap();
}

#[test]
fn submissions_beyond_the_stamps_are_counted_as_unmeasured() {
    let config = one_worker().pipeline_depth(64);
    let engine =
        stepped_with(&SimDisk::new(1), config, |config| config.commit_mode(CommitMode::ByCommit));
    for first in (1..=200).step_by(2) {
        let _ = engine
            .consensus()
            .unwrap()
            .append(&[Entry::noop(first, 1), Entry::noop(first + 1, 1)])
            .unwrap();
    }
    engine.consensus().unwrap().commit(200).unwrap();
    engine.run_until_idle();
    let latency = engine.stats().latency;
    assert_eq!((latency.count, latency.unmeasured), (128, 72));
}

/// A slow waker, which then panics or not.
struct Slow {
    panics: bool,
}

/// Time that it takes at least.
const SLOW: Duration = Duration::from_millis(3);

impl Wake for Slow {
    fn wake(self: Arc<Self>) {
        std::thread::sleep(SLOW);
        assert!(!self.panics, "on purpose");
    }
}

#[test]
fn wakers_are_timed_and_their_panics_counted() {
    let engine = stepped(&SimDisk::new(1), one_worker());
    let shown = || (engine.stats().waker_longest, engine.stats().wakers_panicked);
    assert_eq!(shown(), (Duration::ZERO, 0));
    for (index, panics, panicked) in [(1, false, 0), (2, true, 1), (3, false, 1), (4, true, 2)] {
        let mut future = pin!(engine.acknowledged(index));
        let waker = Waker::from(Arc::new(Slow { panics }));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let _ = engine.apply_entries(&[Entry::noop(index, 1)]).unwrap();
        engine.run_until_idle();
        let (longest, found) = shown();
        assert!(longest >= SLOW, "{longest:?}");
        assert_eq!(found, panicked);
    }
}
