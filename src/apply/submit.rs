//! Submitting: the first step of an entry's way, all or nothing.

use std::sync::Arc;

use super::cells::ReplyCell;
use super::claims::Claim;
use super::engine::{Appending, Engine};
use super::known::{Comparing, Submitted};
use super::ring::Descriptor;
use crate::config::CommitMode;
use crate::entry::{Entry, Reply};
use crate::error::{Poison, SubmitError};
use crate::log::appender::Plan;
use crate::machine::StateMachine;
use crate::progress::watermark::decode;
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;

/// What was taken.
#[derive(Debug)]
pub(crate) struct Submission<'a> {
    /// Last index of the entries given, whether they were new or known.
    pub(crate) last: u64,
    /// How many were new.
    pub(crate) submitted: Submitted,
    /// Entries up to this mark were in the state before.
    pub(crate) applied_before: u64,
    /// Keeps the replies until they are copied out; only of synchronous calls.
    pub(crate) claim: Option<Claim<'a>>,
    /// Where the last entry's reply goes; only of [`Mode::Future`].
    pub(crate) cell: Option<Arc<ReplyCell>>,
}

impl<'a> Submission<'a> {
    /// Makes this one stand for `earlier`, the entries right before it, too.
    pub(crate) fn join(&mut self, earlier: Submission<'a>) {
        self.applied_before = self.applied_before.min(earlier.applied_before);
        self.claim = earlier.claim;
    }
}

/// How a submission goes on once it is in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Committed as it is appended.
    Async,
    /// So too, and the caller waits: it may apply and write by itself, and its replies are kept.
    Sync,
    /// Committed as it is appended, and the last entry's reply goes to a cell.
    Future,
    /// Only appended; `commit` comes later.
    Append,
}

impl<M: StateMachine> Engine<M> {
    /// Takes all of `entries`, or none of them. `None` if there are none.
    pub(crate) fn submit(
        &self,
        entries: &[Entry<'_>],
        mode: Mode,
    ) -> Result<Option<Submission<'_>>, SubmitError> {
        if entries.is_empty() {
            return Ok(None);
        }
        let began_ns = self.latency.now_ns();
        let _tasks = self.wakes_tasks();
        let mut comparing = Comparing::new();
        let (appending, plan, known_same) = loop {
            let appending = self.lock_appender();
            self.check_may_submit(mode)?;
            let plan = appending.appender.plan(entries)?;
            let known = entries.get(..plan.known).unwrap_or_default();
            if let Some(known_same) = self.known_same(&appending, &mut comparing, known)? {
                break (appending, plan, known_same);
            }
            drop(appending);
            self.compare_known(&mut comparing, known);
        };
        self.take(appending, entries, (plan, known_same), mode, began_ns).map(Some)
    }

    /// Takes `entries`, of which there is one at least, as `plan` says. So many of the known ones are the same.
    pub(super) fn take(
        &self,
        mut appending: MutexGuard<'_, Appending>,
        entries: &[Entry<'_>],
        (plan, known_same): (Plan, u64),
        mode: Mode,
        began_ns: u64,
    ) -> Result<Submission<'_>, SubmitError> {
        let [first, ..] = entries else {
            return Err(SubmitError::Poisoned(Poison::Internal("nothing is submitted")));
        };
        let (first, last) = (first.log_id.index, entries.last().unwrap_or(first).log_id.index);
        let applied_before = self.progress.applied_mark();
        let submitted_before = self.progress.submitted_mark();
        let new = entries.get(plan.known..).unwrap_or_default();
        self.check_room(new.len() as u64, last, mode)?;
        appending.appender.make_room(&plan, self.progress.pending(), applied_before)?;
        // From here on nothing is refused.
        if submitted_before == 0 {
            self.progress.set_base(first);
        }
        let claim =
            (mode == Mode::Sync).then(|| self.claims.claim(first.max(applied_before), self));
        let submitted = Submitted {
            new: new.len() as u64,
            known_same,
            unverifiable: (plan.known as u64).saturating_sub(known_same),
        };
        let cell = (mode == Mode::Future).then(|| self.cells.add(last));
        let submission = Submission { last, submitted, applied_before, claim, cell };
        if new.is_empty() {
            return Ok(submission);
        }
        if mode == Mode::Sync
            && let Some(log) = &self.log
        {
            log.want_close();
        }
        appending.appender.note_submission(began_ns);
        self.latency.submits(last + 1, began_ns);
        self.append(&mut appending, new, last, mode)
            .and_then(|()| match mode {
                Mode::Append => Ok(()),
                _ => {
                    self.progress.commit_to(last + 1);
                    appending.appender.note_committed(last + 1);
                    let idle = applied_before == submitted_before;
                    let may_inline =
                        self.config.inline_apply && !self.is_held() && self.may_commit_inline();
                    let inline = mode == Mode::Sync && may_inline && idle;
                    // A synchronous caller of a machine over a storage waits for no batch to fill.
                    let now = mode == Mode::Sync && self.machine.staging().is_some();
                    self.hand_over(&mut appending, inline, now)
                }
            })
            .map_err(|poison| SubmitError::Poisoned(self.fail(poison)))?;
        let acknowledged = || self.progress.acknowledged_mark();
        let done = acknowledged() > last;
        if done {
            self.latency.done(new.len() as u64, began_ns);
        } else {
            self.latency.submitted(last + 1, new.len() as u64, began_ns, acknowledged);
        }
        drop(appending);
        // By a worker, or by the log writer, before it had a stamp.
        if !done && acknowledged() > last {
            self.latency.note_late(acknowledged());
        }
        // What was applied inline left the workers nothing: waking one would only have it contend for the next call's locks.
        if mode != Mode::Append && self.progress.applied_mark() <= last {
            self.workers.notify();
        }
        if mode != Mode::Sync {
            // A synchronous caller writes by itself, or wakes the log writer, when it waits.
            self.writer_signal.notify();
        }
        Ok(submission)
    }

    pub(super) fn check_may_submit(&self, mode: Mode) -> Result<(), SubmitError> {
        self.progress.poison.check()?;
        if self.is_closed() {
            return Err(SubmitError::Closed);
        }
        let Some(log) = &self.log else {
            let call = "append";
            return if mode == Mode::Append { Err(SubmitError::NoLog { call }) } else { Ok(()) };
        };
        let (asked, call) = match mode {
            Mode::Append => (CommitMode::ByCommit, "append"),
            _ => (CommitMode::OnAppend, "apply"),
        };
        let found = log.commit_mode();
        if found == asked {
            return Ok(());
        }
        Err(SubmitError::CommitMode { call, mode: found.describe() })
    }

    /// The pipeline's depth, and the slots of replies not yet copied out. What is only appended takes neither.
    fn check_room(&self, new: u64, last: u64, mode: Mode) -> Result<(), SubmitError> {
        if mode == Mode::Append || new == 0 {
            return Ok(());
        }
        let limit = self.config.pipeline_depth as u64;
        if new > limit {
            return Err(SubmitError::TooLarge {
                what: "entries of one submission",
                size: new,
                limit,
            });
        }
        let pending = self.progress.pending();
        if pending + new > limit || last >= self.slot_limit() {
            return Err(SubmitError::Full { pending });
        }
        Ok(())
    }

    fn append(
        &self,
        appending: &mut Appending,
        new: &[Entry<'_>],
        last: u64,
        mode: Mode,
    ) -> Result<(), Poison> {
        // A log that commits later fills slots when it feeds: they are not the appender's to reserve.
        let slot_limit = if mode == Mode::Append { 0 } else { self.slot_limit() };
        let range_entries_max = self.range_entries_max();
        self.guarded(|footprint| {
            let slots = &self.slots;
            appending.appender.append(new, slots, slot_limit, range_entries_max, footprint)
        })?;
        // Behind the state, by records that are not of the log, nothing is submitted that marks could tell of.
        let submitted = self.progress.submitted_mark();
        if new.first().is_some_and(|first| first.log_id.index < submitted) {
            let sequence = appending.appender.last_sequence();
            self.behind_sequence.store(sequence, Ordering::Release);
        }
        self.progress.submit_to(submitted.max(last + 1));
        Ok(())
    }

    /// Applies at once if nobody else has anything to do, else hands over to the workers.
    fn hand_over(&self, appending: &mut Appending, inline: bool, now: bool) -> Result<(), Poison> {
        while inline && let Some(run) = appending.appender.unfed().front().copied() {
            let range = Descriptor {
                first: run.first,
                count: run.count,
                extent: run.extent,
                kind: run.barrier.into(),
            };
            if !self.applying().apply_inline(&range)? {
                break;
            }
            appending.appender.unfed().pop_front();
        }
        self.feed(appending, now).map(|_fed| ())
    }

    /// Copies out the replies of a submission that is applied.
    pub(crate) fn replies(
        &self,
        entries: &[Entry<'_>],
        submission: &Submission<'_>,
        out: &mut Vec<Reply>,
    ) {
        out.extend(entries.iter().map(|entry| self.reply(entry, submission)));
    }

    /// The reply of one of them.
    pub(crate) fn reply(&self, entry: &Entry<'_>, submission: &Submission<'_>) -> Reply {
        debug_assert!(submission.claim.is_some(), "only a claim keeps replies");
        let index = entry.log_id.index;
        if index < submission.applied_before {
            return Reply::AlreadyApplied;
        }
        self.slots.reply(index).unwrap_or(Reply::Applied)
    }

    /// Lets entries up to `index` be applied.
    pub(crate) fn commit(&self, index: u64) -> Result<(), SubmitError> {
        let mut appending = self.lock_appender();
        self.commit_in(&mut appending, index)?;
        drop(appending);
        self.workers.notify();
        Ok(())
    }

    /// The same for who has the appender, and notifies the workers once it has let go of that.
    pub(super) fn commit_in(
        &self,
        appending: &mut Appending,
        index: u64,
    ) -> Result<(), SubmitError> {
        self.progress.poison.check()?;
        if self.is_closed() {
            return Err(SubmitError::Closed);
        }
        match self.log.as_ref().map(|log| log.commit_mode()) {
            None => return Err(SubmitError::NoLog { call: "commit" }),
            Some(CommitMode::ByCommit) => {}
            Some(mode) => {
                return Err(SubmitError::CommitMode { call: "commit", mode: mode.describe() });
            }
        }
        let submitted = self.progress.submitted_mark();
        if index >= submitted {
            return Err(SubmitError::NotAppended { index, last: decode(submitted) });
        }
        if index < self.progress.committed_mark() {
            return Ok(());
        }
        if self.log.as_ref().is_some_and(|log| log.is_monotone()) {
            self.check_no_gap(appending, index)?;
        }
        self.progress.commit_to(index + 1);
        appending.appender.note_committed(index + 1);
        let fed = self.feed(appending, false);
        fed.map_err(|poison| SubmitError::Poisoned(self.fail(poison)))?;
        Ok(())
    }

    /// Nothing is missing between what is committed and `index`, in a log in which there may be gaps.
    fn check_no_gap(&self, appending: &mut Appending, index: u64) -> Result<(), SubmitError> {
        let mut expected = self.progress.committed_mark();
        for run in appending.appender.unfed().iter() {
            if expected == 0 {
                // It may start anywhere, and everything before is as good as applied.
                self.progress.set_base(run.first);
                expected = run.first;
            }
            if run.first > expected {
                break;
            }
            // What is committed and not fed yet ends below, or in the middle of a run.
            expected = expected.max(run.first + u64::from(run.count));
            if expected > index {
                return Ok(());
            }
        }
        Err(SubmitError::Gap { expected, got: index })
    }

    /// Takes no submission after this call. True for the one call that closes the engine.
    pub(crate) fn refuse_submissions(&self) -> bool {
        // Under the lock: a submission that has it finishes first, and each later one sees the phase.
        let _appending = self.lock_appender();
        self.lifecycle().begin_closing()
    }
}
