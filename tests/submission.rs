//! Tests of submissions that are taken or refused: contiguity, all or nothing, timeouts, and the
//! future.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use crate::common::machines::{Gate, Hooked, KeyValueReads, compare, gated, memory};
use crate::common::model::Model;
use crate::common::ops::{Logged, Op, log_of, with_entries};
use crate::common::{
    CountingWaker, LONG, Persistent, SHORT, Scratch, Watch, apply_config, block_on, eventually,
    manage, within,
};
use sprag::error::{ApplyError, EntryError, SubmitError, WaitError};
use sprag::testing::Stepped;
use sprag::{
    ApplyManager, Command, Entry, EntryRange, LeaderTag, LogId, MemoryStateMachine, Note, Payload,
    PersistentStateMachine, Reply, StateMachine,
};

type Refusal = SubmitError;

fn submit<M: StateMachine>(
    manager: &ApplyManager<M>,
    entries: &[Entry<'_>],
) -> Result<(), Refusal> {
    let outcome = manager.apply_entries(entries).map(|_taken| ());
    // Every call gives the same result.
    if let Err(error) = &outcome
        && !matches!(error, SubmitError::Full { .. })
    {
        let same = |other: &ApplyError| match other {
            ApplyError::Submit { source, submitted_through: None } => {
                assert_eq!(source.to_string(), error.to_string());
            }
            other => panic!("{other:?}, not {error:?}"),
        };
        same(&manager.apply_entries_sync(entries, LONG, &mut vec![]).unwrap_err());
        if let [entry] = entries {
            same(&manager.apply(entry, LONG).unwrap_err());
            let batch = manager.apply_batch(entries.iter().copied(), LONG, |_, _| ());
            same(&batch.unwrap_err());
        }
    }
    outcome
}

fn noops(indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry<'static>> {
    indexes.map(|index| Entry::noop(index, 1)).collect()
}

/// Runs a check on both built-in machines.
fn on_both(check: impl Fn(&dyn Engine)) {
    check(&manage(memory(), apply_config(2)));
    let scratch = Scratch::new();
    check(&scratch.open());
}

/// An apply manager of either machine.
trait Engine {
    fn submit(&self, entries: &[Entry<'_>]) -> Result<(), Refusal>;
    fn apply(&self, entry: &Entry<'_>) -> Result<Reply, ApplyError>;
    fn sync(&self, entries: &[Entry<'_>]) -> Result<Vec<Reply>, ApplyError>;
    fn batch(&self, entries: &[Entry<'_>]) -> Result<u64, ApplyError>;
    fn flush(&self);
    fn submitted(&self) -> Option<u64>;
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
}

impl<M: StateMachine + KeyValueReads> Engine for ApplyManager<M> {
    fn submit(&self, entries: &[Entry<'_>]) -> Result<(), Refusal> {
        submit(self, entries)
    }
    fn apply(&self, entry: &Entry<'_>) -> Result<Reply, ApplyError> {
        self.apply(entry, LONG)
    }
    fn sync(&self, entries: &[Entry<'_>]) -> Result<Vec<Reply>, ApplyError> {
        let mut replies = vec![Reply::Custom(1)];
        self.apply_entries_sync(entries, LONG, &mut replies).map(|()| replies)
    }
    fn batch(&self, entries: &[Entry<'_>]) -> Result<u64, ApplyError> {
        self.apply_batch(entries.iter().copied(), LONG, |_, _| ())
    }
    fn flush(&self) {
        self.flush_pending(LONG).unwrap();
    }
    fn submitted(&self) -> Option<u64> {
        self.stats().submitted
    }
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.machine().value_of(key).unwrap().map(|value| value.to_vec())
    }
}

// ---- Contiguity ----

/// Proves ORD-2.
#[test]
fn a_log_may_start_at_0_or_at_1_and_nowhere_else() {
    for first in [0, 1] {
        on_both(|engine| {
            assert_eq!(engine.submitted(), None);
            engine.submit(&noops(first..=first + 4)).unwrap();
            engine.flush();
            assert_eq!(engine.submitted(), Some(first + 4));
        });
    }
    on_both(|engine| {
        for first in [2, 3, 1000, u64::MAX - 1] {
            let error = engine.submit(&noops(first..=first)).unwrap_err();
            assert!(matches!(error, SubmitError::Gap { got, .. } if got == first), "{error:?}");
        }
        assert_eq!(engine.submitted(), None);
    });
}

/// Proves ORD-2, ORD-5.
#[test]
fn a_gap_is_refused_with_both_indexes_and_nothing_is_taken() {
    on_both(|engine| {
        engine.submit(&noops(1..=5)).unwrap();
        let error = engine.submit(&noops(7..=9)).unwrap_err();
        assert!(matches!(error, SubmitError::Gap { expected: 6, got: 7 }), "{error:?}");
        // The gap may be inside of a submission, too: entries before it are not taken.
        let mut torn = noops(6..=7);
        torn.extend(noops(9..=10));
        let error = engine.submit(&torn).unwrap_err();
        assert!(matches!(error, SubmitError::Gap { expected: 8, got: 9 }), "{error:?}");
        let twice = [Entry::noop(6, 1), Entry::noop(6, 1)];
        assert!(engine.submit(&twice).is_err());
        let back = [Entry::noop(6, 1), Entry::noop(5, 1)];
        assert!(engine.submit(&back).is_err());
        assert_eq!(engine.submitted(), Some(5));
        engine.submit(&noops(6..=6)).unwrap();
    });
}

#[test]
fn the_largest_index_is_refused_and_may_be_waited_for() {
    on_both(|engine| {
        let error = engine.submit(&noops(u64::MAX..=u64::MAX)).unwrap_err();
        assert!(matches!(error, SubmitError::IndexExhausted | SubmitError::Gap { .. }));
        engine.submit(&noops(1..=3)).unwrap();
        let error = engine.submit(&noops(u64::MAX..=u64::MAX)).unwrap_err();
        assert!(matches!(error, SubmitError::IndexExhausted | SubmitError::Gap { .. }));
        engine.flush();
    });
    let manager = manage(memory(), apply_config(1));
    manager.apply(&Entry::noop(0, 1), LONG).unwrap();
    for index in [u64::MAX - 1, u64::MAX] {
        match manager.wait_for_apply(index, SHORT) {
            Err(WaitError::Timeout { index: named, .. }) => assert_eq!(named, index),
            outcome => panic!("{outcome:?}"),
        }
    }
}

/// Proves ORD-5.
#[test]
fn what_was_applied_before_is_skipped_and_said() {
    on_both(|engine| {
        let increments: Vec<_> = (1..=4).map(|at| Entry::increment(at, 1, b"c", 1)).collect();
        let counter = |number| Reply::Counter(number);
        assert_eq!(engine.sync(&increments[..3]).unwrap(), [1, 2, 3].map(counter));
        assert_eq!(engine.sync(&increments[..3]).unwrap(), vec![Reply::AlreadyApplied; 3]);
        assert_eq!(engine.apply(&increments[1]).unwrap(), Reply::AlreadyApplied);
        // The entries are known at the front, and new at the end.
        let replies = engine.sync(&increments[1..]).unwrap();
        assert_eq!(replies, [Reply::AlreadyApplied, Reply::AlreadyApplied, counter(4)]);
        engine.submit(&increments).unwrap();
        engine.flush();
        assert_eq!(engine.get(b"c").unwrap(), b"4");
    });
}

/// Proves ORD-5.
#[test]
fn a_pending_entry_with_the_same_log_id_is_joined() {
    let gate = Gate::shut();
    let manager = Arc::new(manage(gated(memory(), &gate), apply_config(2)));
    let _opener = gate.opener();
    let increments = || -> Vec<_> { (1..=5).map(|at| Entry::increment(at, 1, b"c", 1)).collect() };
    let _ = manager.apply_entries(&increments()).unwrap();
    gate.wait_for_somebody();
    let before = manager.pending_count();
    let _ = manager.apply_entries(&increments()).unwrap();
    assert_eq!(manager.pending_count(), before, "joined entries count once");
    let watch = Watch::default();
    let joined = thread::spawn({
        let (manager, watch) = (Arc::clone(&manager), watch.clone());
        move || {
            watch.here();
            let mut replies = Vec::new();
            let (mut entries, more) = (increments(), Entry::increment(6, 1, b"c", 10));
            entries.push(more);
            manager.apply_entries_sync(&entries, LONG, &mut replies).map(|()| replies)
        }
    });
    watch.until_asleep();
    gate.open();
    let replies = joined.join().unwrap().unwrap();
    assert_eq!(replies, [1, 2, 3, 4, 5, 15].map(Reply::Counter));
    assert_eq!(manager.machine().get(b"c").unwrap().as_deref(), Some(&b"15"[..]));
}

/// Proves ORD-4, ORD-5.
#[test]
fn another_log_id_at_a_known_index_is_a_conflict_and_nothing_is_taken() {
    let tagged = |index, term, tag: &[u8]| {
        let log_id = LogId { index, term, leader: LeaderTag::new(tag).unwrap() };
        Entry::new(log_id, Payload::Noop)
    };
    let scratch = Scratch::new();
    let manager = scratch.open();
    submit(&manager, &[tagged(1, 2, b"a"), tagged(2, 2, b"a"), tagged(3, 5, b"b")]).unwrap();
    manager.flush_pending(LONG).unwrap();
    let check = |manager: &Persistent| {
        for (index, term, tag) in
            [(1, 1, b"a"), (1, 3, b"a"), (2, 2, b"b"), (3, 2, b"a"), (3, 6, b"b"), (3, 5, b"c")]
        {
            let other = tagged(index, term, tag);
            match submit(manager, &[other]).unwrap_err() {
                SubmitError::Conflict { index: at, known, got } => {
                    assert_eq!((at, known.index, got), (index, index, other.log_id));
                    assert_ne!(known, got);
                }
                error => panic!("{error:?}"),
            }
            // New entries follow it.
            let mut more: Vec<_> = vec![other];
            more.extend((index + 1..=6).map(|index| tagged(index, 6, b"z")));
            assert!(matches!(submit(manager, &more), Err(SubmitError::Conflict { .. })));
        }
        assert_eq!(manager.stats().submitted, Some(3));
    };
    check(&manager);
    manager.close(LONG).unwrap();
    check(&scratch.open());

    // Without a log, at least pending entries are known.
    let gate = Gate::shut();
    let manager = manage(gated(memory(), &gate), apply_config(1));
    let _opener = gate.opener();
    let _ = manager.apply_entries(&[tagged(1, 2, b"a"), tagged(2, 2, b"a")]).unwrap();
    for other in [tagged(2, 3, b"a"), tagged(2, 2, b"b"), tagged(1, 1, b"a")] {
        let outcome = manager.apply_entries(&[other]);
        assert!(matches!(outcome, Err(SubmitError::Conflict { .. })), "{outcome:?}");
    }
}

/// Proves ORD-5.
#[test]
fn a_term_that_falls_is_refused() {
    on_both(|engine| {
        engine.submit(&[Entry::noop(1, 4), Entry::noop(2, 7)]).unwrap();
        let error = engine.submit(&[Entry::noop(3, 6)]).unwrap_err();
        assert!(
            matches!(error, SubmitError::TermRegression { index: 3, last: 7, got: 6 }),
            "{error:?}"
        );
        let inside = [Entry::noop(3, 9), Entry::noop(4, 8)];
        let error = engine.submit(&inside).unwrap_err();
        assert!(
            matches!(error, SubmitError::TermRegression { index: 4, last: 9, got: 8 }),
            "{error:?}"
        );
        assert_eq!(engine.submitted(), Some(2));
        engine.submit(&[Entry::noop(3, 7), Entry::noop(4, u64::MAX)]).unwrap();
        engine.flush();
    });
}

#[test]
fn an_empty_submission_is_nothing() {
    on_both(|engine| {
        for _ in 0..2 {
            engine.submit(&[]).unwrap();
            assert_eq!(engine.sync(&[]).unwrap(), [], "earlier replies are cleared");
            assert_eq!(engine.batch(&[]).unwrap(), 0);
            engine.apply(&Entry::noop(1, 1)).unwrap();
        }
        assert_eq!(engine.submitted(), Some(1));
    });
}

// ---- Malformed entries ----

#[test]
fn keys_of_1_byte_to_64_kib_are_taken_and_others_refused() {
    let (longest, too_long) = (vec![7; 64 << 10], vec![7; (64 << 10) + 1]);
    let scratch = Scratch::new();
    let config = scratch.config().segment_bytes(1 << 20);
    let persistent = manage(PersistentStateMachine::open(config).unwrap(), apply_config(2));
    let memory = manage(memory(), apply_config(2));
    let engines: [&dyn Engine; 2] = [&persistent, &memory];
    for engine in engines {
        let empty = EntryError::EmptyKey;
        let long = EntryError::KeyTooLong { bytes: (64 << 10) + 1, limit: 64 << 10 };
        for (key, why) in [(&[][..], empty), (&too_long, long)] {
            let none = Command::Put { key: b"k", value: b"" };
            let inner = [none, Command::Delete { key }];
            let note = Some(Note { name: key, value: b"" });
            let commands = [
                Command::Put { key, value: b"v" },
                Command::Delete { key },
                Command::Increment { key, by: 1 },
                Command::CompareAndSet { key, expected: None, new: None },
                Command::Batch { commands: &inner, note: None },
                Command::Batch { commands: &[], note },
            ];
            for command in commands {
                let entries = [Entry::noop(1, 1), Entry::command(2, 1, command)];
                match engine.submit(&entries).unwrap_err() {
                    SubmitError::Entry { index: 2, source } => assert_eq!(source, why),
                    error => panic!("{error:?}"),
                }
            }
        }
        assert_eq!(engine.submitted(), None);
        engine.apply(&Entry::put(1, 1, &longest, b"v")).unwrap();
        engine.apply(&Entry::put(2, 1, &[0], b"")).unwrap();
        assert_eq!(engine.get(&longest).unwrap(), b"v");
        assert_eq!(engine.get(&[0]).unwrap(), b"");
        assert_eq!(engine.get(&too_long), None);
        assert_eq!(engine.get(&[]), None);
    }
}

#[test]
fn a_batch_in_a_batch_is_refused() {
    let none = Command::Put { key: b"k", value: b"" };
    let inner = Command::Batch { commands: &[], note: None };
    let commands = [none, inner];
    on_both(|engine| {
        let nested = Command::Batch { commands: &commands, note: None };
        match engine.submit(&[Entry::command(1, 1, nested)]).unwrap_err() {
            SubmitError::Entry { index: 1, source } => {
                assert_eq!(source, EntryError::NestedBatch { position: 1 });
            }
            error => panic!("{error:?}"),
        }
    });
}

#[test]
fn values_over_16_mib_and_entries_over_32_mib_are_refused_and_the_limit_itself_is_taken() {
    let value = vec![3; (16 << 20) + 1];
    let manager = manage(memory(), apply_config(1));
    match submit(&manager, &[Entry::put(1, 1, b"k", &value)]).unwrap_err() {
        SubmitError::Entry { index: 1, source: EntryError::ValueTooLong { bytes, limit } } => {
            assert_eq!((bytes, limit), ((16 << 20) + 1, 16 << 20));
        }
        error => panic!("{error:?}"),
    }
    let put = Command::Put { key: b"k", value: &value[1..] };
    let batch = Command::Batch { commands: &[put, put, put], note: None };
    match submit(&manager, &[Entry::command(1, 1, batch)]).unwrap_err() {
        SubmitError::Entry { index: 1, source: EntryError::EntryTooLong { limit, .. } } => {
            assert_eq!(limit, 32 << 20);
        }
        error => panic!("{error:?}"),
    }
    manager.apply(&Entry::put(1, 1, b"k", &value[1..]), LONG).unwrap();
    assert_eq!(manager.machine().get(b"k").unwrap().unwrap(), value[1..]);
}

// ---- All or nothing ----

/// Proves ORD-5.
#[test]
fn what_can_never_fit_is_too_large_and_what_the_limit_says_fits() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    let value = vec![9; 70 << 10];
    match submit(&manager, &[Entry::put(1, 1, b"k", &value)]).unwrap_err() {
        SubmitError::TooLarge { size, limit, .. } => assert!(size > limit && limit < 64 << 10),
        error => panic!("{error:?}"),
    }
    // There are too many small entries at once: by bytes, and by frames.
    for frame_entries in [128, 1] {
        let scratch = Scratch::new();
        let config = scratch.config().segment_bytes(8 << 20).batch_size(frame_entries);
        let manager = manage(PersistentStateMachine::open(config).unwrap(), apply_config(2));
        let mut next = 1;
        for count in [10, 100, 1000, 2000, 4000, 8000, 16_000, 32_000, 65_000] {
            let entries = noops(next..=next + count - 1);
            match submit(&manager, &entries) {
                Ok(()) => next += count,
                Err(SubmitError::TooLarge { .. }) => {}
                // With nothing pending, it must not be "try again" forever.
                Err(error) => panic!("{count} entries of {frame_entries} a frame: {error}"),
            }
            manager.flush_pending(LONG).unwrap();
        }
        assert!(next > 1000);
    }
}

/// Proves ORD-4.
#[test]
fn full_takes_nothing_of_a_submission_of_many_ranges() {
    let gate = Gate::shut();
    let scratch = Scratch::new();
    let machine = PersistentStateMachine::open(scratch.config()).unwrap();
    let config = apply_config(4).pipeline_depth(64).batch_size(4);
    let manager = manage(gated(machine, &gate), config);
    let _opener = gate.opener();
    let put = |index: u64| Op::put(index.to_be_bytes(), "x");
    let log = log_of(1, 1, (1..=100).map(put));
    let part = |from: usize, to: usize| &log[from..to];
    let submit = |part: &[Logged]| with_entries(part, |entries| manager.apply_entries(entries));
    let _ = submit(part(0, 50)).unwrap();
    for _ in 0..3 {
        // There is room for 14, and 30 are requested: eight ranges, over four workers and several
        // frames.
        assert!(matches!(submit(part(50, 80)), Err(SubmitError::Full { .. })));
        assert_eq!(manager.log().unwrap().state().unwrap().last, Some(LogId::new(50, 1)));
        assert_eq!(manager.stats().submitted, Some(50));
    }
    gate.open();
    manager.flush_pending(LONG).unwrap();
    compare(manager.machine(), &Model::after(part(0, 50))).unwrap();
    let _ = submit(part(50, 80)).unwrap();
    manager.flush_pending(LONG).unwrap();
    compare(manager.machine(), &Model::after(part(0, 80))).unwrap();
}

#[test]
fn a_log_without_memory_left_takes_nothing_and_goes_on_when_there_is_some() {
    let scratch = Scratch::new();
    let machine = PersistentStateMachine::open(scratch.config()).unwrap();
    let engine = Stepped::new(machine, apply_config(2)).unwrap();
    let put = |index: u64| Op::put((index % 8).to_be_bytes(), vec![index.to_le_bytes()[0]; 9000]);
    let log = log_of(1, 1, (1..=300).map(put));
    let (mut taken, mut refused) = (0, 0);
    while taken < log.len() {
        let part = &log[taken..(taken + 5).min(log.len())];
        match with_entries(part, |entries| engine.apply_entries(entries)) {
            Ok(_) => taken += part.len(),
            Err(SubmitError::Full { .. }) => {
                refused += 1;
                assert_eq!(engine.stats().submitted, Some(taken as u64));
                engine.run_until_idle();
                compare(engine.machine(), &Model::after(&log[..taken])).unwrap();
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    engine.run_until_idle();
    compare(engine.machine(), &Model::after(&log)).unwrap();
    assert!(refused >= 10, "2.7 MB through 256 KiB of images, and full {refused} times only");
}

// ---- Timeouts ----

/// Proves ORD-13.
#[test]
fn a_timeout_says_what_is_under_way_and_cancels_nothing() {
    let gate = Gate::shut();
    let manager = manage(gated(memory(), &gate), apply_config(1));
    let _opener = gate.opener();
    let _ = manager.apply_entries(&noops(1..=2)).unwrap();
    gate.wait_for_somebody();
    let entries = [Entry::increment(3, 1, b"c", 1), Entry::increment(4, 1, b"c", 1)];
    let mut replies = vec![Reply::Applied];
    match manager.apply_entries_sync(&entries, SHORT, &mut replies).unwrap_err() {
        ApplyError::Wait {
            source: WaitError::Timeout { index: 4, reached: None, submitted: Some(4), waited },
            submitted_through: Some(4),
        } => assert!(waited >= SHORT && waited < LONG),
        error => panic!("{error:?}"),
    }
    assert!(replies.is_empty());
    assert!(matches!(
        manager.flush_pending(SHORT),
        Err(WaitError::Timeout { index: 4, submitted: Some(4), .. })
    ));
    assert!(matches!(manager.wait_for_apply(2, Duration::ZERO), Err(WaitError::Timeout { .. })));
    gate.open();
    manager.wait_for_apply(4, LONG).unwrap();
    assert_eq!(manager.machine().get(b"c").unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn replies_given_up_make_room_again() {
    // Each call gives up while its entry is held; its slot must still become free.
    let gate = Gate::shut();
    let manager = manage(gated(memory(), &gate), apply_config(1).pipeline_depth(4));
    let _opener = gate.opener();
    let mut next = 1;
    for _ in 0..10 {
        gate.close();
        let _ = manager.apply_entries(&noops(next..=next)).unwrap();
        let outcome = manager.apply(&Entry::noop(next + 1, 1), Duration::from_millis(5));
        assert!(matches!(outcome, Err(ApplyError::Wait { .. })), "{outcome:?}");
        gate.open();
        manager.flush_pending(LONG).unwrap();
        next += 2;
    }
}

// ---- The future ----

fn poll(future: &mut (impl Future + Unpin), waker: &Arc<CountingWaker>) -> bool {
    let waker = Waker::from(Arc::clone(waker));
    Pin::new(future).poll(&mut Context::from_waker(&waker)).is_ready()
}

#[test]
fn a_future_completes_when_its_index_is_acknowledged() {
    fn is_free<T: Future + Send + Unpin + 'static>(future: T) -> T {
        future
    }
    let gate = Gate::shut();
    let held = Arc::clone(&gate);
    let machine = Hooked::new(memory(), move |range: &EntryRange<'_>, _| {
        if range.first().index >= 3 {
            held.pass();
        }
        Ok(())
    });
    let manager = manage(machine, apply_config(1).batch_size(1));
    let _opener = gate.opener();
    let mut futures: Vec<_> =
        [1, 2, 2, 3, 4].map(|index| is_free(manager.acknowledged(index))).into();
    let wakers: Vec<_> = (0..futures.len()).map(|_| Arc::new(CountingWaker::default())).collect();
    for (future, waker) in futures.iter_mut().zip(&wakers) {
        assert!(!poll(future, waker), "ready before anything was submitted");
    }
    let _ = manager.apply_entries(&noops(1..=4)).unwrap();
    gate.wait_for_somebody();
    assert!(eventually(LONG, || wakers[..3].iter().all(|waker| waker.count() > 0)));
    assert!(wakers[3..].iter().all(|waker| waker.count() == 0), "woken for nothing");
    for future in futures.drain(..3) {
        block_on(future).unwrap();
    }
    let rest = std::mem::take(&mut futures);
    gate.open();
    within(LONG, "futures on another thread", move || {
        rest.into_iter().for_each(|future| block_on(future).unwrap());
    });
    block_on(manager.acknowledged(3)).unwrap();
}

#[test]
fn a_future_wakes_only_the_last_waker_it_was_polled_with() {
    let manager = manage(memory(), apply_config(1));
    let mut future = manager.acknowledged(1);
    let wakers = [(); 3].map(|()| Arc::new(CountingWaker::default()));
    for waker in &wakers {
        assert!(!poll(&mut future, waker));
    }
    manager.apply(&Entry::noop(1, 1), LONG).unwrap();
    assert!(eventually(LONG, || wakers[2].count() == 1));
    assert_eq!(wakers[..2].iter().map(|waker| waker.count()).sum::<usize>(), 0);
    assert!(poll(&mut future, &wakers[2]));
}

#[test]
fn dropping_a_future_cancels_only_the_waiting() {
    let manager = manage(memory(), apply_config(1));
    let waker = Arc::new(CountingWaker::default());
    let mut dropped = manager.acknowledged(1);
    assert!(!poll(&mut dropped, &waker));
    let other = manager.acknowledged(1);
    drop(dropped);
    drop(manager.acknowledged(1));
    let _ = manager.apply_entries(&noops(1..=1)).unwrap();
    block_on(other).unwrap();
    assert_eq!(waker.count(), 0, "a dropped future was woken");
    assert_eq!(manager.stats().applied, Some(1));
}

#[test]
fn a_future_ends_when_the_manager_does() {
    let manager: ApplyManager<MemoryStateMachine> = manage(memory(), apply_config(1));
    let future = manager.acknowledged(7);
    let waiting = thread::spawn(move || block_on(future));
    thread::sleep(SHORT);
    drop(manager);
    let outcome = within(LONG, "the future", move || waiting.join().unwrap());
    assert!(matches!(outcome, Err(WaitError::Closed { index: 7 })), "{outcome:?}");
}
