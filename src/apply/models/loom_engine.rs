//! Models of a whole engine over a toy machine, where the models' threads replace the engine's.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::loom_parts::check;
use super::{FIRST, FOREVER, LAST, Toy, put};
use crate::apply::desks::views::{take_view, while_paused};
use crate::apply::engine::Engine;
use crate::apply::pipeline::direct::Out;
use crate::apply::pipeline::room::Attempt;
use crate::apply::pipeline::submit::{Mode, Submission};
use crate::apply::threads;
use crate::clock::Clock;
use crate::config::ApplyConfig;
use crate::entry::{Entry, Reply};
use crate::error::SubmitError;
use crate::numbers::Mark;
use crate::progress::watermark::Stage;
use crate::sync::canary;
use crate::threads::Step;

fn config(workers: usize) -> ApplyConfig {
    ApplyConfig::new()
        .worker_count(NonZeroUsize::new(workers).unwrap())
        .pipeline_depth(4)
        .batch_size(1)
        .pin_workers(false)
}

fn engine(workers: usize) -> Arc<Engine<Toy>> {
    Arc::new(Engine::new(Toy::new(workers), config(workers), workers).unwrap())
}

/// Makes an engine with one worker; a thread that waits for the worker takes its steps.
fn engine_by_hand() -> Arc<Engine<Toy>> {
    let config = config(1).by_hand(Clock::Manual(Arc::default()));
    Arc::new(Engine::new(Toy::new(1), config, 1).unwrap())
}

fn spawn(
    engine: &Arc<Engine<Toy>>,
    run: impl FnOnce(&Engine<Toy>) + 'static,
) -> thread::JoinHandle<()> {
    let engine = Arc::clone(engine);
    thread::spawn(move || run(&engine))
}

/// Steps a worker until it has finished `ranges` ranges.
fn work(engine: &Engine<Toy>, id: usize, ranges: usize) {
    let mut finished = 0;
    while finished < ranges {
        match engine.pipeline().step_worker(id) {
            Step::Worked => finished += 1,
            Step::Blocked | Step::Idle => {
                assert!(engine.pipeline().progress().poison.get().is_none());
                thread::yield_now();
            }
        }
    }
}

/// Submits an entry as a synchronous call does, which may apply it directly; returns the reply that
/// the call has by then.
fn submit_sync<'e>(engine: &'e Engine<Toy>, entry: Entry<'_>) -> (Submission<'e>, Option<Reply>) {
    let mut reply = Reply::Applied;
    let out = Some(&mut Out::One(&mut reply));
    let submitted = engine
        .pipeline()
        .submit_for(&[entry], (Mode::Sync, Attempt::AtTheDoor), out)
        .unwrap()
        .unwrap();
    let reply = submitted.has_replies.then_some(reply);
    assert!(reply.iter().all(|reply| *reply == Reply::Custom(entry.log_id.index)));
    (submitted, reply)
}

fn check_applied(engine: &Engine<Toy>, mark: Mark) {
    assert!(
        engine.pipeline().progress().poison.get().is_none(),
        "{:?}",
        engine.pipeline().progress().poison.get()
    );
    assert_eq!(engine.pipeline().progress().applied_mark(), mark);
}

fn two_workers_finish_the_same_range_together() {
    let engine = engine(2);
    engine.pipeline().submit(&[put(1, FIRST)], Mode::Async).unwrap();
    let other = spawn(&engine, |engine| assert_eq!(engine.pipeline().step_worker(1), Step::Worked));
    assert_eq!(engine.pipeline().step_worker(0), Step::Worked);
    other.join().unwrap();
    check_applied(&engine, Mark::before(2));
}

#[test]
fn the_applied_mark_is_the_least_cursor_whoever_moved_last() {
    check(3, two_workers_finish_the_same_range_together);
}

#[test]
#[should_panic(expected = "assertion `left == right` failed")]
fn canary_without_the_workers_fence_the_applied_mark_sticks() {
    let _canary = canary::leave_out("apply/pipeline/worker.rs");
    check(3, two_workers_finish_the_same_range_together);
}

fn two_workers_finish_the_entry_of_a_future_together() {
    let engine = engine(2);
    let submission = engine.pipeline().submit(&[put(1, FIRST)], Mode::Future).unwrap().unwrap();
    let cell = submission.cell.clone().unwrap();
    drop(submission);
    let other = spawn(&engine, |engine| assert_eq!(engine.pipeline().step_worker(1), Step::Worked));
    assert_eq!(engine.pipeline().step_worker(0), Step::Worked);
    if engine.pipeline().progress().applied_mark() == Mark::before(2) {
        assert!(cell.reply().is_some(), "applied, and its reply is lost");
    }
    other.join().unwrap();
    check_applied(&engine, Mark::before(2));
    assert_eq!(cell.reply(), Some(&Reply::Custom(1)));
}

#[test]
fn the_reply_of_a_future_is_in_its_cell_before_the_mark_says_applied() {
    check(3, two_workers_finish_the_entry_of_a_future_together);
}

#[test]
#[should_panic(expected = "its reply is lost")]
fn canary_without_the_cells_fence_a_future_finds_no_reply() {
    let _canary = canary::leave_out("apply/pipeline/cells.rs");
    check(3, two_workers_finish_the_entry_of_a_future_together);
}

#[test]
fn ranges_come_to_each_worker_in_order_while_they_are_submitted() {
    check(2, || {
        let engine = engine(2);
        let other = spawn(&engine, |engine| work(engine, 1, 2));
        engine.pipeline().submit(&[put(1, LAST)], Mode::Async).unwrap();
        engine.pipeline().submit(&[put(2, LAST)], Mode::Async).unwrap();
        work(&engine, 0, 2);
        other.join().unwrap();
        check_applied(&engine, Mark::before(3));
        assert_eq!(engine.pipeline().machine().applied_in(1), [1, 2]);
    });
}

/// Proves ORD-11.
#[test]
fn a_barrier_comes_after_all_before_it_and_before_all_after_it() {
    check(2, || {
        let engine = engine(2);
        let entries = [put(1, LAST), Entry::noop(2, 1), put(3, LAST)];
        engine.pipeline().submit(&entries, Mode::Async).unwrap();
        let other = spawn(&engine, |engine| {
            work(engine, 1, 2);
            assert_eq!(
                engine.pipeline().machine().applied_in(0),
                [2],
                "the barrier is run before worker 1 goes on"
            );
            work(engine, 1, 1);
        });
        work(&engine, 0, 1);
        while engine.pipeline().step_worker(0) != Step::Worked {
            thread::yield_now();
        }
        assert!(
            engine.pipeline().machine().applied_in(1).contains(&1),
            "worker 1 has come to the barrier"
        );
        work(&engine, 0, 1);
        other.join().unwrap();
        check_applied(&engine, Mark::before(4));
    });
}

/// A synchronous caller finds an empty ring while the worker that emptied it still applies.
///
/// Proves ORD-1.
#[test]
fn inline_apply_never_overtakes_or_meets_the_worker() {
    check(3, || {
        let engine = engine(1);
        engine.pipeline().submit(&[put(1, FIRST)], Mode::Async).unwrap();
        let worker = spawn(&engine, |engine| {
            engine.pipeline().step_worker(0);
            engine.pipeline().step_worker(0);
        });
        let submission = submit_sync(&engine, put(2, FIRST));
        worker.join().unwrap();
        while engine.pipeline().step_worker(0) == Step::Worked {}
        check_applied(&engine, Mark::before(3));
        assert_eq!(engine.pipeline().machine().applied_in(0), [1, 2]);
        drop(submission);
    });
}

#[test]
fn inline_apply_never_meets_any_of_two_workers() {
    check(2, || {
        let engine = engine(2);
        engine.pipeline().submit(&[put(1, LAST)], Mode::Async).unwrap();
        let other = spawn(&engine, |engine| work(engine, 1, 1));
        assert_eq!(engine.pipeline().step_worker(0), Step::Worked);
        drop(submit_sync(&engine, put(2, LAST)));
        other.join().unwrap();
        while (0..2).any(|id| engine.pipeline().step_worker(id) == Step::Worked) {}
        check_applied(&engine, Mark::before(3));
        assert_eq!(engine.pipeline().machine().applied_in(1), [1, 2]);
    });
}

/// An entry is applied inline, or by the worker, while another thread takes a view.
fn a_view_is_taken_while_entries_are_applied() {
    let engine = engine_by_hand();
    engine.pipeline().submit(&[put(1, FIRST)], Mode::Async).unwrap();
    let other = spawn(&engine, |engine| {
        drop(submit_sync(engine, put(2, FIRST)));
    });
    drop(take_view(engine.pipeline()).unwrap());
    other.join().unwrap();
    while engine.pipeline().step_worker(0) == Step::Worked {}
    check_applied(&engine, Mark::before(3));
    assert_eq!(engine.pipeline().machine().applied_in(0), [1, 2]);
    let at_token = engine.pipeline().machine().at_token();
    assert!(at_token == [Some(1)] || at_token == [Some(2)], "{at_token:?}");
}

#[test]
fn the_mark_of_a_view_is_in_its_place_beside_inline_apply() {
    check(2, a_view_is_taken_while_entries_are_applied);
}

/// Entries submitted during a pause reach the workers by the later of two threads: neither leaves
/// it to the other.
#[test]
fn what_comes_during_a_hold_is_given_to_the_workers_when_it_is_over() {
    check(2, || {
        let engine = engine_by_hand();
        engine.pipeline().submit(&[put(1, FIRST)], Mode::Async).unwrap();
        let other = spawn(&engine, |engine| {
            drop(submit_sync(engine, put(2, FIRST)));
        });
        let held =
            while_paused(engine.pipeline(), |machine, _applied, _places| machine.applied_in(0))
                .unwrap();
        assert!(held == [1] || held == [1, 2], "{held:?}");
        other.join().unwrap();
        let given = engine.pipeline().progress().applied_mark() == Mark::before(3)
            || !engine.pipeline().workers().rings().is_empty(0);
        assert!(given, "no thread applies entry 2");
        while engine.pipeline().step_worker(0) == Step::Worked {}
        check_applied(&engine, Mark::before(3));
        assert_eq!(engine.pipeline().machine().applied_in(0), [1, 2]);
    });
}

#[test]
fn whatever_is_accepted_is_accepted_before_the_close() {
    check(3, || {
        let engine = engine(1);
        let submitter = spawn(&engine, |engine| {
            let accepted = match engine.pipeline().submit(&[put(1, FIRST)], Mode::Async) {
                Ok(_) => true,
                Err(SubmitError::Closed) => false,
                Err(other) => panic!("{other}"),
            };
            assert_eq!(accepted, engine.pipeline().progress().submitted_mark() == Mark::before(2));
        });
        engine.pipeline().refuse_submissions();
        let (submitted, committed) = (
            engine.pipeline().progress().submitted_mark(),
            engine.pipeline().progress().committed_mark(),
        );
        assert_eq!(submitted, committed);
        submitter.join().unwrap();
        assert_eq!(
            submitted,
            engine.pipeline().progress().submitted_mark(),
            "nothing came after the close"
        );
        while engine.pipeline().step_worker(0) == Step::Worked {}
        check_applied(&engine, submitted);
    });
}

/// The real loop of a worker's thread runs against a submission, a wait, and its end.
#[test]
fn a_worker_thread_wakes_for_a_submission_and_for_its_end() {
    check(2, || {
        let engine = engine(1);
        let worker = spawn(&engine, |engine| threads::worker(engine, 0));
        engine.pipeline().submit(&[put(1, FIRST)], Mode::Async).unwrap();
        engine.pipeline().wait(1, Stage::Applied, FOREVER).unwrap();
        engine.pipeline().lifecycle().begin_stopping();
        engine.pipeline().signals().notify_workers();
        worker.join().unwrap();
        check_applied(&engine, Mark::before(2));
    });
}

/// An entry is held back for a linger while a worker, which saw none, goes to sleep without a time.
#[test]
fn a_worker_does_not_sleep_for_good_while_an_entry_is_held_back() {
    check(3, || {
        let config = ApplyConfig::new()
            .worker_count(NonZeroUsize::MIN)
            .pipeline_depth(4)
            .batch_size(2)
            .batch_timeout(Duration::from_secs(1 << 30))
            .pin_workers(false);
        let engine = Arc::new(Engine::new(Toy::new(1), config, 1).unwrap());
        let worker = spawn(&engine, |engine| {
            let signal = engine.pipeline().signals().worker(0).unwrap();
            signal.attach();
            // With a time it would wake without a signal.
            while threads::worker_sleeps(engine).is_none() {
                signal.sleep(None, || threads::worker_wakes(engine, 0, None));
            }
        });
        engine.pipeline().submit(&[put(1, FIRST)], Mode::Async).unwrap();
        assert!(engine.pipeline().workers().rings().is_empty(0), "it is held back");
        worker.join().unwrap();
    });
}

#[test]
fn a_synchronous_caller_sees_its_own_reply() {
    check(2, || {
        let engine = engine(1);
        let worker = spawn(&engine, |engine| work(engine, 0, 1));
        let entry = put(1, FIRST);
        engine.pipeline().submit(&[entry], Mode::Async).unwrap();
        let second = put(2, FIRST);
        let (submission, reply) = submit_sync(&engine, second);
        worker.join().unwrap();
        while engine.pipeline().step_worker(0) == Step::Worked {}
        engine.pipeline().wait(2, Stage::Acknowledged, FOREVER).unwrap();
        let reply = reply.unwrap_or_else(|| engine.pipeline().reply(&second, &submission));
        assert_eq!(reply, Reply::Custom(2));
    });
}
