//! The watermarks of an engine, and the one place where they move.
//!
//! A watermark covers every entry up to its index. It is kept as index + 1, so that 0 is "none yet"
//! and a log that starts at index 0 works. This file keeps `applied <= committed <= submitted` and
//! `durable <= written <= submitted`; of the latter, `written` may be above `submitted` for a
//! moment. `purged <= snapshot <= applied` is kept where those two move.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::lifecycle::Lifecycle;
use super::room::Room;
use super::waiters::Waiters;
use crate::error::Poison;
use crate::numbers::{AtomicMark, FrameSequence, Mark};
use crate::poison::{PoisonCell, invariant};
use crate::sync::atomic::{Ordering, fence};
use crate::sync::{Mutex, Rank};

/// A watermark that callers can wait for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Stage {
    /// The kernel has the entry.
    Written,
    /// The entry is on stable storage.
    Durable,
    /// The entry is in the state, for every partition.
    Applied,
    /// The entry may be reported as done. Under [`Durability::Sync`](crate::Durability::Sync) it is
    /// applied and durable, and under `Periodic` and `Os` applied and written. For a machine
    /// without a log it is applied.
    Acknowledged,
}

impl Stage {
    pub(crate) const ALL: [Self; 4] =
        [Self::Written, Self::Durable, Self::Applied, Self::Acknowledged];
    /// The stages that applying moves.
    const OF_APPLY: &[Self] = &[Self::Applied, Self::Acknowledged];
    /// The stages that the log writer moves.
    const OF_LOG: &[Self] = &[Self::Written, Self::Durable, Self::Acknowledged];

    /// Position of the stage in [`Stage::ALL`].
    pub(crate) fn at(self) -> usize {
        self as usize
    }
}

/// The condition of an acknowledgement beside apply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AckRule {
    /// No condition: the machine keeps no log.
    Applied,
    /// The entry is written.
    Written,
    /// The entry is durable.
    Durable,
}

/// The marks with which an engine starts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StartMarks {
    pub(crate) submitted: Option<u64>,
    pub(crate) committed: Option<u64>,
    pub(crate) applied: Option<u64>,
}

/// All watermarks of one engine, its waiters, its poison, and the phase of its end.
#[derive(Debug)]
pub(crate) struct Progress {
    rule: AckRule,
    /// The mark of an empty log: its first index, which is 0 or 1 and known with the first
    /// submission.
    base: AtomicMark,
    /// Moves under the appender's lock only.
    submitted: CachePadded<AtomicMark>,
    /// Moves under the appender's lock only.
    committed: CachePadded<AtomicMark>,
    /// The lowest of the workers' cursors; a thread that moved a cursor raises it.
    applied: CachePadded<AtomicMark>,
    /// Moves under `log`; in `jump_to` under the appender's lock, while the log writer has nothing
    /// to do.
    written: CachePadded<AtomicMark>,
    /// Moves as `written` does.
    durable: CachePadded<AtomicMark>,
    log: Mutex<LogMarks>,
    pub(crate) waiters: Waiters,
    /// The calls that wait for room in the pipeline.
    pub(crate) room: Room,
    pub(crate) poison: Arc<PoisonCell>,
    pub(crate) lifecycle: Lifecycle,
}

/// Truncations that the log writer has not completed yet. Completions before them count only up to
/// which they leave.
#[derive(Debug, Default)]
struct LogMarks {
    /// Frame sequence of each truncation, and the mark that it leaves, in order.
    truncations: Vec<(FrameSequence, Mark)>,
}

impl Progress {
    pub(crate) fn new(rule: AckRule, start: StartMarks, poison: Arc<PoisonCell>) -> Self {
        let mark = |index| CachePadded::new(AtomicMark::new(Mark::of(index)));
        let logged = if rule == AckRule::Applied { None } else { start.submitted };
        Self {
            rule,
            base: AtomicMark::default(),
            submitted: mark(start.submitted),
            committed: mark(start.committed),
            applied: mark(start.applied),
            written: mark(logged),
            durable: mark(logged),
            log: Mutex::new(Rank::LogMarks, LogMarks::default()),
            waiters: Waiters::default(),
            room: Room::new(u64::MAX),
            poison,
            lifecycle: Lifecycle::new(),
        }
    }

    /// The same for a pipeline of so many entries.
    pub(crate) fn with_depth(self, entries: u64) -> Self {
        Self { room: Room::new(entries), ..self }
    }

    pub(crate) fn rule(&self) -> AckRule {
        self.rule
    }

    /// The mark of `submitted`. Acquire: a thread that sees the mark also sees what led to it.
    #[inline]
    pub(crate) fn submitted_mark(&self) -> Mark {
        self.submitted.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn committed_mark(&self) -> Mark {
        self.committed.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn applied_mark(&self) -> Mark {
        self.applied.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn written_mark(&self) -> Mark {
        self.written.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn durable_mark(&self) -> Mark {
        self.durable.load(Ordering::Acquire)
    }

    /// The mark of entries that are applied, and as safe as the durability mode requires. A step
    /// that was running when the engine failed may still move a mark, and this with it. None begins
    /// after that.
    #[inline]
    pub(crate) fn acknowledged_mark(&self) -> Mark {
        let applied = self.applied_mark();
        match self.rule {
            AckRule::Applied => applied,
            AckRule::Written => applied.min(self.written_mark()),
            AckRule::Durable => applied.min(self.durable_mark()),
        }
    }

    pub(crate) fn mark(&self, stage: Stage) -> Mark {
        match stage {
            Stage::Written => self.written_mark(),
            Stage::Durable => self.durable_mark(),
            Stage::Applied => self.applied_mark(),
            Stage::Acknowledged => self.acknowledged_mark(),
        }
    }

    /// Number of entries accepted and not acknowledged.
    #[inline]
    pub(crate) fn pending(&self) -> u64 {
        // Loaded in this order, a concurrent move can only make the result too large.
        let acknowledged = self.acknowledged_mark().max(self.base());
        self.submitted_mark().since(acknowledged)
    }

    /// The mark that stands for "none".
    #[inline]
    pub(crate) fn base(&self) -> Mark {
        self.base.load(Ordering::Relaxed)
    }

    /// Sets the mark for "none" to the first index. The caller holds the appender's lock, and
    /// submits the first entry of an empty log next.
    pub(crate) fn set_base(&self, first: u64) {
        self.base.store(Mark::before(first), Ordering::Relaxed);
    }

    /// Moves `submitted`: entries up to `mark` are in the log's memory. The caller holds the
    /// appender's lock.
    #[inline]
    pub(crate) fn submit_to(&self, mark: Mark) -> Result<(), Poison> {
        let before = self.submitted_mark();
        invariant!(self, before <= mark, "submitted only rises", "from {before} to {mark}");
        self.submitted.store(mark, Ordering::Release);
        Ok(())
    }

    /// Moves `committed`: entries up to `mark` may be applied. The caller holds the appender's
    /// lock.
    #[inline]
    pub(crate) fn commit_to(&self, mark: Mark) -> Result<(), Poison> {
        let (before, submitted) = (self.committed_mark(), self.submitted_mark());
        invariant!(self, before <= mark, "committed never falls", "from {before} to {mark}");
        invariant!(self, mark <= submitted, "committed <= submitted", "{mark} and {submitted}");
        self.committed.store(mark, Ordering::Release);
        Ok(())
    }

    /// Moves `applied`: every partition has applied entries up to `mark`.
    #[inline]
    pub(crate) fn apply_to(&self, mark: Mark) -> Result<(), Poison> {
        let committed = self.committed_mark();
        invariant!(self, mark <= committed, "applied <= committed", "{mark} and {committed}");
        if self.applied.fetch_max(mark, Ordering::AcqRel) < mark {
            self.moved(Stage::OF_APPLY);
        }
        Ok(())
    }

    /// Moves the marks of a storage without our log: it has committed entries up to `mark`. With
    /// `durable`, they are on stable storage.
    pub(crate) fn stored_to(&self, mark: Mark, durable: bool) -> Result<(), Poison> {
        let committed = self.committed_mark();
        invariant!(self, mark <= committed, "applied <= committed", "{mark} and {committed}");
        let log = self.log.lock();
        self.written.fetch_max(mark, Ordering::AcqRel);
        if durable {
            self.durable.fetch_max(mark, Ordering::AcqRel);
        }
        drop(log);
        self.applied.fetch_max(mark, Ordering::AcqRel);
        self.moved(&Stage::ALL);
        Ok(())
    }

    /// Moves `durable` of such a storage: it has synced its commits up to `mark`.
    pub(crate) fn stored_durably_to(&self, mark: Mark) -> Result<(), Poison> {
        let written = self.written_mark();
        invariant!(self, mark <= written, "durable <= written", "{mark} and {written}");
        let log = self.log.lock();
        self.durable.fetch_max(mark, Ordering::AcqRel);
        drop(log);
        self.moved(Stage::OF_LOG);
        Ok(())
    }

    /// Moves the marks of the log. The log writer wrote (and, if `durable`, synced) all frames up
    /// to `sequence`, the last of which ends the log at `mark`.
    ///
    /// `written` may be above `submitted` for a moment. The log writer can be done with a frame
    /// before the appender's holder moves `submitted` over its entries.
    pub(crate) fn logged_to(
        &self,
        sequence: FrameSequence,
        mark: Mark,
        durable: bool,
    ) -> Result<(), Poison> {
        let mut log = self.log.lock();
        let later = log.truncations.iter().filter(|(at, _)| *at > sequence).map(|(_, left)| *left);
        let mark = later.fold(mark, Mark::min);
        let (was_written, was_durable) = (self.written_mark(), self.durable_mark());
        if was_durable > was_written {
            // A failure unparks threads, so the lock is released first.
            drop(log);
            let found = format!("{was_durable} and {was_written}");
            return Err(self.violated("durable <= written", found));
        }
        self.written.store(mark.max(was_written), Ordering::Release);
        // Later completions, written or durable, cover these truncations.
        log.truncations.retain(|(at, _)| *at > sequence);
        if durable {
            self.durable.store(mark.max(was_durable), Ordering::Release);
        }
        drop(log);
        self.moved(Stage::OF_LOG);
        Ok(())
    }

    /// Locks the log's marks: none moves while the result lives.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn hold_log_marks(&self) -> impl Sized {
        self.log.lock()
    }

    /// Truncates the marks: everything above `mark` is gone from the log, by the record of frame
    /// `sequence`. The caller holds the appender's lock.
    pub(crate) fn truncate_to(&self, sequence: FrameSequence, mark: Mark) -> Result<(), Poison> {
        let committed = self.committed_mark();
        invariant!(self, committed <= mark, "committed <= submitted", "{committed} and {mark}");
        let mut log = self.log.lock();
        if self.rule != AckRule::Applied {
            log.truncations.push((sequence, mark));
        }
        self.written.store(mark.min(self.written_mark()), Ordering::Release);
        self.durable.store(mark.min(self.durable_mark()), Ordering::Release);
        let submitted = self.submitted.swap(mark, Ordering::AcqRel);
        drop(log);
        self.waiters.truncate(mark, submitted);
        self.room.changed(self);
        Ok(())
    }

    /// Moves all marks to `mark`, where the log now ends; everything before is applied and durable.
    /// The caller holds the appender's lock, and the rings are empty. Uncommitted entries of the
    /// log are gone.
    pub(crate) fn jump_to(&self, mark: Mark) -> Result<(), Poison> {
        let committed = self.committed_mark();
        invariant!(self, committed < mark, "a jump goes forward", "from {committed} to {mark}");
        let mut log = self.log.lock();
        log.truncations.clear();
        let submitted = self.submitted_mark();
        drop(log);
        self.waiters.truncate(committed, submitted);
        // Store in an order in which no mark is ever above its bound, unless the log gets shorter.
        self.submitted.store(mark, Ordering::Release);
        self.committed.store(mark, Ordering::Release);
        if self.rule != AckRule::Applied {
            self.written.store(mark, Ordering::Release);
            self.durable.store(mark, Ordering::Release);
        }
        self.applied.store(mark, Ordering::Release);
        self.moved(&Stage::ALL);
        self.room.changed(self);
        Ok(())
    }

    /// Moves the marks past apply-only entries up to `mark`, which are applied and durable. The
    /// caller holds the appender's lock, and the rings are empty.
    pub(crate) fn apply_only_to(&self, mark: Mark) -> Result<(), Poison> {
        let committed = self.committed_mark();
        invariant!(self, committed < mark, "a jump goes forward", "from {committed} to {mark}");
        let log = self.log.lock();
        self.submitted.fetch_max(mark, Ordering::AcqRel);
        self.committed.store(mark, Ordering::Release);
        self.written.fetch_max(mark, Ordering::AcqRel);
        self.durable.fetch_max(mark, Ordering::AcqRel);
        self.applied.store(mark, Ordering::Release);
        drop(log);
        self.moved(&Stage::ALL);
        Ok(())
    }

    /// Unparks the threads that wait for marks of `stages`, which moved. [`Progress::wake_tasks`]
    /// wakes the tasks; the caller calls it when it holds no lock.
    #[inline]
    fn moved(&self, stages: &[Stage]) {
        // This fence pairs with the one in `Waiters::register`. Either the waiter sees the new
        // mark, or this thread sees the waiter: here or, if it is a task, in `wake_tasks`.
        fence(Ordering::SeqCst);
        self.waiters.unpark(stages, |stage| self.mark(stage));
        // The same fence pairs with the one in `Room::serve`.
        self.room.moved(self);
    }

    /// Whether [`Progress::wake_tasks`] has work, for a mark that this thread moved.
    #[inline]
    pub(crate) fn has_due_tasks(&self) -> bool {
        self.waiters.has_due_tasks(|stage| self.mark(stage)) || self.room.has_due_tasks()
    }

    /// Calls the wakers of tasks whose waits are over. Wakers are foreign code, so the caller holds
    /// no lock.
    #[inline]
    pub(crate) fn wake_tasks(&self) {
        if self.has_due_tasks() {
            self.wake_due_tasks();
        }
    }

    #[cold]
    fn wake_due_tasks(&self) {
        // A waker may block, so the failure is told before.
        self.poison.tell();
        self.waiters.wake_tasks(|stage| self.mark(stage), || self.room.take_waker());
        // That found nothing more to do, and a failure of another thread may have come just before.
        self.poison.tell();
    }

    /// Fails for [`invariant!`], and returns the first failure.
    #[cold]
    fn violated(&self, invariant: &'static str, found: String) -> Poison {
        let poison = self.poison.violated(invariant, found);
        self.fail(poison.clone());
        poison
    }

    /// Records the first failure, and unparks every thread. The caller wakes the tasks, as after a
    /// move; that tells the failure to `tracing` too.
    pub(crate) fn fail(&self, poison: Poison) {
        self.poison.set(poison);
        self.waiters.wake_all(self.poison.is_untold());
        self.room.wake_all();
    }

    /// Ends the life of the engine: every waiter learns that nothing more comes, and later ones
    /// learn it at once. The caller wakes the tasks, as after a move.
    pub(crate) fn end(&self) {
        // A waiter registers, and looks at the phase afterwards. It registers under the lock of the
        // waiters: either it has the lock before `wake_all`, which wakes it, or it sees the phase.
        self.lifecycle.end();
        self.waiters.wake_all(false);
        self.room.wake_all();
    }
}

/// A guard that calls the due wakers when it is dropped. Declared before any lock is taken, it is
/// dropped after all of them.
#[must_use = "it acts when it is dropped"]
pub(crate) struct WakesTasks<'a>(pub(crate) &'a Progress);

impl Drop for WakesTasks<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.wake_tasks();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::future::Future as _;

    use super::*;

    fn progress(rule: AckRule) -> Progress {
        Progress::new(rule, StartMarks::default(), Arc::default())
    }

    /// Proves ORD-3.
    #[test]
    fn acknowledged_is_the_least_of_applied_and_what_the_mode_asks() {
        let durable = progress(AckRule::Durable);
        durable.submit_to(Mark::before(10)).unwrap();
        durable.commit_to(Mark::before(10)).unwrap();
        durable.apply_to(Mark::before(8)).unwrap();
        assert_eq!(durable.acknowledged_mark(), Mark::before(0));
        durable.logged_to(FrameSequence::new(1), Mark::before(9), false).unwrap();
        assert_eq!(
            (durable.acknowledged_mark(), durable.written_mark()),
            (Mark::NONE, Mark::before(9))
        );
        durable.logged_to(FrameSequence::new(1), Mark::before(9), true).unwrap();
        assert_eq!(durable.acknowledged_mark(), Mark::before(8));
        durable.apply_to(Mark::before(10)).unwrap();
        assert_eq!(durable.acknowledged_mark(), Mark::before(9));

        let written = progress(AckRule::Written);
        written.submit_to(Mark::before(10)).unwrap();
        written.commit_to(Mark::before(10)).unwrap();
        written.apply_to(Mark::before(10)).unwrap();
        written.logged_to(FrameSequence::new(1), Mark::before(9), false).unwrap();
        assert_eq!(written.acknowledged_mark(), Mark::before(9));
    }

    /// A subscriber of `tracing` that counts the events.
    #[derive(Clone, Default)]
    struct Told(Arc<std::sync::atomic::AtomicUsize>);

    impl tracing::Subscriber for Told {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn a_failure_under_a_lock_is_told_after_it_and_at_the_latest_when_the_engine_is_gone() {
        let told = Told::default();
        let count = || told.0.load(Ordering::Relaxed);
        tracing::subscriber::with_default(told.clone(), || {
            let first = progress(AckRule::Applied);
            let lock = crate::sync::Mutex::new(crate::sync::Rank::Appender, ());
            let held = lock.lock();
            first.fail(Poison::Internal("of a test"));
            assert_eq!(count(), 0);
            drop(held);
            first.wake_tasks();
            assert_eq!(count(), 1);
            first.fail(Poison::Internal("another of a test"));
            first.wake_tasks();
            drop(first);
            assert_eq!(count(), 1, "once");
            let second = progress(AckRule::Applied);
            second.fail(Poison::Internal("of a test"));
            drop(second);
            assert_eq!(count(), 2, "no thread came by");
            drop(progress(AckRule::Applied));
            assert_eq!(count(), 2, "there was none");
        });
    }

    #[test]
    fn who_waits_for_the_last_index_there_can_be_is_woken() {
        struct Woken(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let progress = Arc::new(progress(AckRule::Applied));
        let woken = Arc::new(Woken(std::sync::atomic::AtomicBool::new(false)));
        let waker = std::task::Waker::from(Arc::clone(&woken));
        let mut future =
            super::super::waiter::Acknowledged::new(Arc::clone(&progress), u64::MAX - 1);
        let mut context = std::task::Context::from_waker(&waker);
        let mut poll = || std::pin::Pin::new(&mut future).poll(&mut context);
        assert!(poll().is_pending());
        progress.submit_to(Mark::ALL).unwrap();
        progress.commit_to(Mark::ALL).unwrap();
        progress.apply_to(Mark::ALL).unwrap();
        progress.wake_tasks();
        assert!(woken.0.load(Ordering::Relaxed) && poll().is_ready());
    }

    #[test]
    fn what_is_completed_before_a_truncation_counts_only_up_to_where_it_cut() {
        let progress = progress(AckRule::Durable);
        progress.submit_to(Mark::before(20)).unwrap();
        progress.commit_to(Mark::before(5)).unwrap();
        progress.truncate_to(FrameSequence::new(6), Mark::before(10)).unwrap();
        progress.submit_to(Mark::before(15)).unwrap();
        progress.logged_to(FrameSequence::new(5), Mark::before(20), true).unwrap();
        assert_eq!(
            progress.durable_mark(),
            Mark::before(10),
            "entries above 10 of frame 5 are gone"
        );
        progress.logged_to(FrameSequence::new(7), Mark::before(15), true).unwrap();
        assert_eq!(progress.durable_mark(), Mark::before(15));
    }

    #[test]
    fn a_move_that_would_break_an_order_poisons_the_engine_and_moves_no_mark() {
        type Move = fn(&Progress) -> Result<(), Poison>;
        type Case = (&'static str, fn(&Progress), Move);
        let nothing: fn(&Progress) = |_| {};
        let durable_ahead: fn(&Progress) =
            |progress| progress.durable.store(Mark::before(8), Ordering::Relaxed);
        // Submitted 10, committed 8, applied 6, written and durable 7.
        let cases: [Case; 10] = [
            ("submitted only rises", nothing, |progress| progress.submit_to(Mark::before(9))),
            ("committed never falls", nothing, |progress| progress.commit_to(Mark::before(7))),
            ("committed <= submitted", nothing, |progress| progress.commit_to(Mark::before(11))),
            ("applied <= committed", nothing, |progress| progress.apply_to(Mark::before(9))),
            ("applied <= committed", nothing, |progress| progress.stored_to(Mark::before(9), true)),
            ("durable <= written", nothing, |progress| progress.stored_durably_to(Mark::before(8))),
            ("durable <= written", durable_ahead, |progress| {
                progress.logged_to(FrameSequence::new(5), Mark::before(9), true)
            }),
            ("committed <= submitted", nothing, |progress| {
                progress.truncate_to(FrameSequence::new(3), Mark::before(7))
            }),
            ("a jump goes forward", nothing, |progress| progress.jump_to(Mark::before(8))),
            ("a jump goes forward", nothing, |progress| progress.apply_only_to(Mark::before(8))),
        ];
        for (expected, break_it, move_it) in cases {
            let progress = progress(AckRule::Durable);
            progress.submit_to(Mark::before(10)).unwrap();
            progress.commit_to(Mark::before(8)).unwrap();
            progress.apply_to(Mark::before(6)).unwrap();
            progress.logged_to(FrameSequence::new(1), Mark::before(7), true).unwrap();
            break_it(&progress);
            let marks = || {
                let (submitted, committed) = (progress.submitted_mark(), progress.committed_mark());
                (submitted, committed, Stage::ALL.map(|stage| progress.mark(stage)))
            };
            let before = marks();
            let is_expected = |poison: &Poison| matches!(poison, Poison::Invariant { invariant, .. } if *invariant == expected);
            let poison = move_it(&progress).unwrap_err();
            assert!(is_expected(&poison), "{expected}: {poison}");
            assert_eq!(marks(), before, "{expected}");
            assert!(progress.poison.get().is_some_and(is_expected), "{expected}");
            assert!(progress.waiters.is_over(), "{expected}: a thread may still wait");
        }
    }
}
