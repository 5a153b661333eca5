//! Tests of waiters and wakers, on an engine without threads.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::apply::engine::Engine;
use crate::apply::manager::ApplyManager;
use crate::config::CommitMode;
use crate::error::{CloseError, Poison, WaitError};
use crate::numbers::{FrameSequence, Mark};
use crate::progress::waiter::Acknowledged;
use crate::progress::watermark::{AckRule, Progress, Stage, StartMarks};
use crate::snapshot::SnapshotSink;
use crate::testing::{Fault, FaultError, SimDisk, Stepped};
use crate::{
    ApplyConfig, Contiguity, Entry, MemoryConfig, MemoryStateMachine, PersistentConfig,
    PersistentStateMachine,
};

const LONG: Duration = Duration::from_secs(20);

fn poll(future: &mut Acknowledged, waker: &Waker) -> Poll<Result<(), WaitError>> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// A waker that checks which locks of the engine are held; only the test's thread runs.
struct Probe {
    engine: Mutex<Option<Arc<Engine<PersistentStateMachine>>>>,
    held: Mutex<Vec<&'static str>>,
    calls: AtomicUsize,
}

impl Wake for Probe {
    fn wake(self: Arc<Self>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let engine = self.engine.lock().unwrap();
        let engine = engine.as_ref().unwrap();
        let is_held = |locked: bool, name| (!locked).then_some(name);
        let found = [
            is_held(engine.pipeline().log_desk().try_appending().is_some(), "the appender"),
            is_held(engine.pipeline().pauses().turn_is_free(), "the turn of views"),
            is_held(engine.snapshots().is_free(), "the turn of snapshots"),
            is_held(engine.pipeline().workers().are_free(), "a worker's post"),
            is_held(
                engine.pipeline().log_desk().log().unwrap().writer_is_free(),
                "the log writer's post",
            ),
            is_held(engine.pipeline().in_flight().claims_are_free(), "the claims"),
        ];
        self.held.lock().unwrap().extend(found.into_iter().flatten());
        // A call of the manager takes them, which a debug build refuses under a higher rank.
        drop(engine.snapshots().turn());
        drop(engine.pipeline().pauses().turn());
        drop(engine.pipeline().log_desk().appending());
        drop(engine.pipeline().workers().take_posts());
        engine.pipeline().log_desk().log().unwrap().next_due();
    }
}

/// Leaves a probe for an index, lets `call` move the watermark, and checks what the probe saw.
fn probed(
    engine: &Stepped<PersistentStateMachine>,
    index: u64,
    name: &str,
    call: impl FnOnce(&Stepped<PersistentStateMachine>),
) {
    let probe = Arc::new(Probe {
        engine: Mutex::new(Some(Arc::clone(&engine.engine))),
        held: Mutex::default(),
        calls: AtomicUsize::new(0),
    });
    let waker = Waker::from(Arc::clone(&probe));
    let mut future = engine.acknowledged(index);
    assert!(poll(&mut future, &waker).is_pending(), "{name}: it is there already");
    call(engine);
    assert_eq!(probe.calls.load(Ordering::Relaxed), 1, "{name}: the waker was not called");
    assert_eq!(*probe.held.lock().unwrap(), [""; 0], "{name}: held while the waker ran");
    let panicked = engine.engine.pipeline().progress().waiters.panicked();
    assert_eq!(panicked, 0, "{name}: the waker could not take the locks");
    probe.engine.lock().unwrap().take();
}

fn stepped(config: PersistentConfig, apply: ApplyConfig) -> Stepped<PersistentStateMachine> {
    let disk = SimDisk::new(1).open(true).unwrap();
    let machine = PersistentStateMachine::open_on_disk(disk, config).unwrap();
    Stepped::new(machine, apply.worker_count(NonZeroUsize::MIN)).unwrap()
}

fn config() -> PersistentConfig {
    PersistentConfig::new("simulated").segment_bytes(64 << 10).expected_keys(16)
}

/// Proves ORD-17.
#[test]
fn no_lock_of_the_engine_is_held_while_a_waker_runs() {
    let puts = |first: u64, last: u64, term| -> Vec<Entry<'static>> {
        (first..=last).map(|index| Entry::put(index, term, b"key", b"value")).collect()
    };
    let by_commit = config().commit_mode(CommitMode::ByCommit);
    let engine = stepped(by_commit.clone().contiguity(Contiguity::Monotone), ApplyConfig::new());
    let append = |engine: &Stepped<PersistentStateMachine>, first, last, term| {
        let _ = engine.consensus().unwrap().append(&puts(first, last, term)).unwrap();
        engine.consensus().unwrap().commit(last).unwrap();
    };
    append(&engine, 1, 2, 1);
    probed(&engine, 2, "a step of the log writer", |engine| {
        while engine.step_worker(0) {}
        while engine.step_log_writer() {}
    });
    append(&engine, 3, 3, 1);
    probed(&engine, 3, "a step of a worker", |engine| {
        while engine.step_log_writer() {}
        while engine.step_worker(0) {}
    });
    append(&engine, 4, 4, 1);
    probed(&engine, 4, "a sync", |engine| {
        while engine.step_worker(0) {}
        engine.log().unwrap().sync(LONG).unwrap();
    });
    append(&engine, 5, 5, 1);
    probed(&engine, 5, "a hard state", |engine| {
        while engine.step_worker(0) {}
        engine.log().unwrap().save_hard_state(b"vote").unwrap();
    });
    append(&engine, 6, 6, 1);
    probed(&engine, 6, "a snapshot", |engine| {
        engine.snapshots().write().unwrap();
    });
    append(&engine, 7, 7, 1);
    probed(&engine, 7, "a compaction", |engine| {
        engine.snapshots().compact().unwrap();
    });
    append(&engine, 8, 8, 1);
    probed(&engine, 8, "a view", |engine| {
        while engine.step_log_writer() {}
        drop(engine.snapshots().view().unwrap());
    });
    let _ = engine.consensus().unwrap().append(&puts(9, 12, 1)).unwrap();
    probed(&engine, 11, "a truncation", |engine| {
        engine.consensus().unwrap().truncate_after(Some(9)).unwrap()
    });
    engine.consensus().unwrap().commit(9).unwrap();
    while engine.step_worker(0) {}
    probed(&engine, 9, "a purge", |engine| {
        assert!(engine.log().unwrap().purge(9).is_err(), "no snapshot covers it");
        engine.log().unwrap().purge(7).unwrap();
    });
    probed(&engine, 20, "apply_only", |engine| {
        engine.consensus().unwrap().apply_only(&puts(20, 20, 2), LONG, &mut Vec::new()).unwrap();
    });
    append(&engine, 21, 21, 3);
    probed(&engine, 21, "a flush", |engine| {
        while engine.step_worker(0) {}
        engine.flush_pending(LONG).unwrap();
    });
    let other = stepped(by_commit, ApplyConfig::new());
    append(&other, 1, 40, 4);
    other.snapshots().write().unwrap();
    let snapshot = other.snapshots().newest().unwrap().unwrap();
    probed(&engine, 30, "an installation", |engine| {
        engine.snapshots().restore(&snapshot, LONG).unwrap();
    });
    let _ = engine.consensus().unwrap().append(&puts(41, 41, 4)).unwrap();
    probed(&engine, 41, "a failure", |engine| {
        engine.engine.pipeline().signals().fail(Poison::Internal("of a test"));
        engine.step_worker(0);
    });
    probed(&stepped(config(), ApplyConfig::new()), 1, "the end", |engine| {
        engine.engine.pipeline().progress().end();
        engine.step_worker(0);
    });
}

#[test]
fn no_lock_is_held_while_a_waker_runs_in_a_synchronous_call() {
    let disk = SimDisk::new(2).open(true).unwrap();
    let machine = PersistentStateMachine::open_on_disk(disk, config()).unwrap();
    let manager = ApplyManager::without_threads(machine, ApplyConfig::new()).unwrap();
    let probe = Arc::new(Probe {
        engine: Mutex::new(Some(Arc::clone(&manager.engine))),
        held: Mutex::default(),
        calls: AtomicUsize::new(0),
    });
    let waker = Waker::from(Arc::clone(&probe));
    let mut future = manager.acknowledged(1);
    assert!(poll(&mut future, &waker).is_pending());
    manager.apply(&Entry::put(1, 1, b"key", b"value"), LONG).unwrap();
    assert_eq!(probe.calls.load(Ordering::Relaxed), 1);
    assert_eq!(*probe.held.lock().unwrap(), [""; 0]);
    probe.engine.lock().unwrap().take();
}

/// A subscriber of `tracing` that has its probe look at each event.
struct Hears(Arc<Probe>);

impl tracing::Subscriber for Hears {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        Arc::clone(&self.0).wake();
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_subscriber_hears_of_a_failure_once_while_no_lock_of_the_engine_is_held() {
    let simulated = SimDisk::new(4);
    let disk = simulated.open(true).unwrap();
    let machine = PersistentStateMachine::open_on_disk(disk, config()).unwrap();
    let apply = ApplyConfig::new().worker_count(NonZeroUsize::MIN);
    let engine = Stepped::new(machine, apply).unwrap();
    let probe = Arc::new(Probe {
        engine: Mutex::new(Some(Arc::clone(&engine.engine))),
        held: Mutex::default(),
        calls: AtomicUsize::new(0),
    });
    let calls = || probe.calls.load(Ordering::Relaxed);
    tracing::subscriber::with_default(Hears(Arc::clone(&probe)), || {
        let _ = engine.apply_entries(&[Entry::put(1, 1, b"key", b"value")]).unwrap();
        simulated.reset_operations();
        (0..10).for_each(|at| simulated.fail_at(at, Fault::Error(FaultError::Eio)));
        // The log writer poisons in its post, when the frame is closed and taken.
        (0..10).for_each(|_| _ = engine.step_log_writer());
        assert!(engine.poison().is_some());
        assert_eq!(calls(), 1);
        engine.engine.pipeline().signals().fail(Poison::Internal("of a test"));
        engine.step_worker(0);
        engine.step_log_writer();
        assert_eq!(calls(), 1, "the first failure counts, and it is told");
    });
    assert_eq!(*probe.held.lock().unwrap(), [""; 0], "held while the subscriber ran");
    probe.engine.lock().unwrap().take();
}

/// Takes each lock of the engine by a call of the manager, when it is called. A debug build refuses
/// a lock that its thread holds, because that breaks the ranks.
struct CallsBack {
    manager: Arc<ApplyManager<PersistentStateMachine>>,
    calls: AtomicUsize,
}

impl Wake for CallsBack {
    fn wake(self: Arc<Self>) {
        let manager = &self.manager;
        let engine = &manager.engine;
        assert!(manager.applied().is_some());
        manager.log().unwrap().state().unwrap();
        manager.log().unwrap().hard_state().unwrap();
        manager.wait_for_apply(1, Duration::ZERO).unwrap();
        drop(manager.stats());
        drop(engine.pipeline().workers().take_posts());
        engine.pipeline().log_desk().log().unwrap().next_due();
        // The first call closes, and this one waits for its outcome: not for long, as it is its own
        // thread's.
        let closed = manager.shutdown(Duration::from_millis(1));
        assert!(closed.is_ok() || matches!(closed, Err(CloseError::Wait(_))), "{closed:?}");
        assert!(manager.threads_are_free(), "the lock of the threads is held");
        // Last: none of these calls panicked.
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_waker_that_is_due_while_the_manager_closes_is_called_with_no_lock_and_may_call_the_manager() {
    let disk = SimDisk::new(3).open(true).unwrap();
    let machine = PersistentStateMachine::open_on_disk(disk, config()).unwrap();
    let apply = ApplyConfig::new().batch_size(1);
    let manager = Arc::new(ApplyManager::without_threads(machine, apply).unwrap());
    let calls = Arc::new(CallsBack { manager: Arc::clone(&manager), calls: AtomicUsize::new(0) });
    let waker = Waker::from(Arc::clone(&calls));
    let puts = [1, 2].map(|index| Entry::put(index, 1, b"key", b"value"));
    let _ = manager.apply_entries(&puts).unwrap();
    let mut future = manager.acknowledged(1);
    assert!(poll(&mut future, &waker).is_pending());
    manager.engine.pipeline().step_worker(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The close makes entry 1 acknowledged, and then waits for entry 2.
            while manager.engine.pipeline().progress().durable_mark() < Mark::before(3) {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(20));
            while manager.engine.pipeline().progress().applied_mark() < Mark::before(3) {
                manager.engine.pipeline().step_worker(0);
            }
        });
        manager.shutdown(LONG).unwrap();
    });
    assert_eq!(manager.engine.pipeline().progress().waiters.panicked(), 0);
    assert_eq!(calls.calls.load(Ordering::Relaxed), 1);
    assert!(poll(&mut future, &waker).is_ready());
}

/// A waker that applies one entry when it is called, if there is one left.
struct Applies(Arc<ApplyManager<MemoryStateMachine>>, Arc<AtomicUsize>);

impl Wake for Applies {
    fn wake(self: Arc<Self>) {
        let next = self.1.fetch_add(1, Ordering::Relaxed) as u64;
        self.0.apply(&Entry::noop(next, 1), LONG).unwrap();
    }
}

/// Proves ORD-17.
#[test]
fn wakers_that_apply_are_called_one_after_the_other_and_not_inside_of_each_other() {
    const WAKERS: u64 = 20_000;
    let machine = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
    let manager = Arc::new(ApplyManager::without_threads(machine, ApplyConfig::new()).unwrap());
    let next = Arc::new(AtomicUsize::new(2));
    let waker = Waker::from(Arc::new(Applies(Arc::clone(&manager), Arc::clone(&next))));
    let mut futures: Vec<_> = (1..=WAKERS).map(|index| manager.acknowledged(index)).collect();
    for future in &mut futures {
        assert!(poll(future, &waker).is_pending());
    }
    // Each waker applies what the next future waits for. Nested calls would need all of the stack.
    manager.apply(&Entry::noop(1, 1), LONG).unwrap();
    assert_eq!(next.load(Ordering::Relaxed) as u64, WAKERS + 2);
    assert!(futures.iter_mut().all(|future| poll(future, &waker).is_ready()));
}

#[test]
fn registering_and_waking_keep_their_memory_and_take_no_more() {
    let progress = Arc::new(Progress::new(AckRule::Applied, StartMarks::default(), Arc::default()));
    let mut submitted = 0;
    let mut round = |count: u64| {
        let mut futures: Vec<_> = (submitted..submitted + count)
            .map(|index| Acknowledged::new(Arc::clone(&progress), index))
            .collect();
        for future in &mut futures {
            assert!(poll(future, Waker::noop()).is_pending());
        }
        // Some of the futures are dropped before.
        let left = futures.split_off(futures.len() / 2);
        submitted += count;
        progress.submit_to(Mark::before(submitted)).unwrap();
        progress.commit_to(Mark::before(submitted)).unwrap();
        progress.apply_to(Mark::before(submitted - count / 2)).unwrap();
        progress.wake_tasks();
        drop(left);
        progress.apply_to(Mark::before(submitted)).unwrap();
        progress.wake_tasks();
        assert!(futures.iter_mut().all(|future| poll(future, Waker::noop()).is_ready()));
        progress.waiters.capacity()
    };
    for _warm_up in 0..4 {
        round(1000);
    }
    let before = round(1000);
    for _round in 0..200 {
        assert_eq!(round(1000), before);
    }
}

#[test]
fn a_wait_that_began_before_its_entry_was_replaced_is_told_also_if_it_registers_after() {
    let progress = Progress::new(AckRule::Applied, StartMarks::default(), Arc::default());
    let replace = |index: u64| {
        progress.truncate_to(FrameSequence::new(0), Mark::before(index)).unwrap();
        progress.submit_to(Mark::before(index + 1)).unwrap();
        progress.commit_to(Mark::before(index + 1)).unwrap();
        progress.apply_to(Mark::before(index + 1)).unwrap();
    };
    progress.submit_to(Mark::before(3)).unwrap();
    progress.commit_to(Mark::before(2)).unwrap();
    progress.apply_to(Mark::before(2)).unwrap();
    let mut kept = crate::progress::waiter::Wait::begin(&progress, 1, Stage::Applied);
    let mut replaced = crate::progress::waiter::Wait::begin(&progress, 2, Stage::Applied);
    let mut registers = crate::progress::waiter::Wait::begin(&progress, 2, Stage::Applied);
    let mut not_there = crate::progress::waiter::Wait::begin(&progress, 3, Stage::Applied);
    progress.truncate_to(FrameSequence::new(0), Mark::before(2)).unwrap();
    let outcome = registers.look_as_thread();
    assert!(matches!(outcome, Some(Err(WaitError::Truncated { index: 2 }))), "{outcome:?}");
    replace(2);
    let outcome = replaced.settle();
    assert!(matches!(outcome, Some(Err(WaitError::Truncated { index: 2 }))), "{outcome:?}");
    kept.settle().unwrap().unwrap();
    assert!(not_there.settle().is_none());
    let mut later = crate::progress::waiter::Wait::begin(&progress, 2, Stage::Applied);
    later.settle().unwrap().unwrap();
    progress.submit_to(Mark::before(4)).unwrap();
    progress.commit_to(Mark::before(4)).unwrap();
    progress.apply_to(Mark::before(4)).unwrap();
    not_there.settle().unwrap().unwrap();
}

#[test]
fn what_the_probe_looks_at_tells_a_held_lock() {
    let engine = stepped(config(), ApplyConfig::new());
    let engine = &engine.engine;
    let place = engine.pipeline().workers().take_posts();
    assert!(!engine.pipeline().workers().are_free());
    drop(place);
    let held = engine.pipeline().log_desk().try_appending();
    assert!(held.is_some() && engine.pipeline().log_desk().try_appending().is_none());
    assert!(engine.pipeline().log_desk().log().unwrap().while_writing(|log| !log.writer_is_free()));
}

/// A sink that calls the manager at its first write.
struct CallingSink<'m>(&'m ApplyManager<PersistentStateMachine>, Option<u64>);

impl SnapshotSink for CallingSink<'_> {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<()> {
        if self.1.is_none() {
            let report = self.0.snapshots().write().map_err(std::io::Error::other)?;
            drop(self.0.snapshots().view().map_err(std::io::Error::other)?);
            self.1 = report.log_id.map(|log_id| log_id.index);
        }
        Ok(())
    }
}

#[test]
fn the_sink_of_a_snapshot_may_call_the_manager() {
    let disk = SimDisk::new(6).open(true).unwrap();
    let machine = PersistentStateMachine::open_on_disk(disk, config()).unwrap();
    let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
    manager.apply(&Entry::put(1, 1, b"key", b"value"), LONG).unwrap();
    let mut sink = CallingSink(&manager, None);
    manager.snapshots().write_to(&mut sink).unwrap();
    assert_eq!(sink.1, Some(1));
}
