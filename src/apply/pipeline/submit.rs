//! Submission: the first step of an entry, all or nothing.

use std::ops::RangeInclusive;

use crate::apply::desks::log::Appending;
use crate::apply::pipeline::Pipeline;
use crate::apply::pipeline::cells::ReplyCell;
use crate::apply::pipeline::claims::Claim;
use crate::apply::pipeline::direct::Out;
use crate::apply::pipeline::feed::Feed;
use crate::apply::pipeline::known::{Comparing, Submitted};
use crate::apply::pipeline::room::Attempt;
use crate::config::CommitMode;
use crate::contract::machine::StateMachine;
use crate::entry::{Entry, Reply};
use crate::error::{Excess, Poison, SubmitError};
use crate::hook::Hook;
use crate::log::appender::Plan;
use crate::numbers::Mark;
use crate::ranges::index_range::RangeKind;
use crate::sync::MutexGuard;

/// A submission that was taken.
#[derive(Debug)]
pub(crate) struct Submission<'a> {
    /// Last index of the given entries, new or known.
    pub(crate) last: u64,
    /// Counts of new and known entries.
    pub(crate) submitted: Submitted,
    /// Mark of the entries that were applied before.
    pub(crate) applied_before: Mark,
    /// Claim on the replies until they are copied; only for synchronous calls.
    pub(crate) claim: Option<Claim<'a>>,
    /// Whether the call has its replies: it applied its entries directly.
    pub(crate) has_replies: bool,
    /// Whether the entries were acknowledged before the call released the appender.
    pub(crate) is_acknowledged: bool,
    /// Cell for the replies of the new entries; only for [`Mode::Future`].
    pub(crate) cell: Option<ReplyCell>,
}

impl<'a> Submission<'a> {
    /// Extends this submission by `earlier`, whose entries come right before it.
    pub(crate) fn join(&mut self, earlier: Submission<'a>) {
        self.applied_before = self.applied_before.min(earlier.applied_before);
        self.claim = earlier.claim;
    }
}

/// A call that submits, beside its entries.
pub(in crate::apply) struct Call<'c, 'o> {
    pub(in crate::apply) mode: Mode,
    pub(in crate::apply) attempt: Attempt,
    /// Start of the call by the engine's clock.
    pub(in crate::apply) began_ns: u64,
    /// The place for the replies of a call that may apply its entries directly.
    pub(in crate::apply) out: Option<&'c mut Out<'o>>,
}

/// The way of a submission after it is in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// The entries commit as they are appended.
    Async,
    /// The entries commit as they are appended, and the caller waits. It may apply and write them
    /// itself, and their replies are kept.
    Sync,
    /// The entries commit as they are appended, and the replies of the new ones go to a cell.
    Future,
    /// The entries are only appended; `commit` comes later.
    Append,
}

impl<M: StateMachine> Pipeline<M> {
    /// Takes all of `entries`, or none of them. Returns `None` if there are no entries.
    pub(crate) fn submit(
        &self,
        entries: &[Entry<'_>],
        mode: Mode,
    ) -> Result<Option<Submission<'_>>, SubmitError> {
        self.submit_for(entries, (mode, Attempt::AtTheDoor), None)
    }

    /// Takes entries as [`Pipeline::submit`] does, for a call that may stand in the line.
    pub(in crate::apply) fn submit_as(
        &self,
        entries: &[Entry<'_>],
        mode: Mode,
        attempt: Attempt,
    ) -> Result<Option<Submission<'_>>, SubmitError> {
        self.submit_for(entries, (mode, attempt), None)
    }

    /// Submits as [`Pipeline::submit_as`] does. A synchronous call with an `out` may apply its
    /// entries directly, and has their replies there then.
    pub(in crate::apply) fn submit_for(
        &self,
        entries: &[Entry<'_>],
        (mode, attempt): (Mode, Attempt),
        out: Option<&mut Out<'_>>,
    ) -> Result<Option<Submission<'_>>, SubmitError> {
        if entries.is_empty() {
            return Ok(None);
        }
        let began_ns = self.latency.now_ns();
        let _tasks = self.wakes_tasks();
        let mut claim = self.claim_for(mode);
        let mut comparing = Comparing::new();
        let (appending, plan, known_same) = loop {
            let appending = self.log_desk.appending();
            self.check_may_submit(mode)?;
            let plan = appending.appender.plan(entries)?;
            // The plan has counted them in `entries`.
            let known = entries.get(..plan.known).unwrap_or_default();
            if let Some(known_same) = comparing.known_same(&self.log_desk, &appending, known)? {
                break (appending, plan, known_same);
            }
            drop(appending);
            comparing.compare(&self.log_desk, known);
        };
        let (plan, call) = ((plan, known_same), Call { mode, attempt, began_ns, out });
        let taken = self.take(claim.as_mut(), appending, entries, plan, call);
        Ok(Some(Submission { claim, ..taken? }))
    }

    /// Makes the claim on the replies of a synchronous call, before the appender is locked.
    pub(in crate::apply) fn claim_for(&self, mode: Mode) -> Option<Claim<'_>> {
        (mode == Mode::Sync).then(|| self.in_flight.claim(self))
    }

    /// Takes `entries`, at least one, according to `plan`. `known_same` of the known ones are the
    /// same. `claim` keeps their replies from then on. The caller keeps it, and adds it to the
    /// result.
    pub(in crate::apply) fn take(
        &self,
        claim: Option<&mut Claim<'_>>,
        mut appending: MutexGuard<'_, Appending>,
        entries: &[Entry<'_>],
        (plan, known_same): (Plan, u64),
        Call { mode, attempt, began_ns, out }: Call<'_, '_>,
    ) -> Result<Submission<'_>, SubmitError> {
        let [first, ..] = entries else {
            return Err(SubmitError::Poisoned(Poison::Internal("nothing is submitted")));
        };
        let (first, last) = (first.log_id.index, entries.last().unwrap_or(first).log_id.index);
        let applied_before = self.progress.applied_mark();
        let submitted_before = self.progress.submitted_mark();
        // The plan has counted the known ones in `entries`.
        let new = entries.get(plan.known..).unwrap_or_default();
        self.check_room(new.len() as u64, last, (mode, attempt))?;
        appending.appender.make_room(&plan, self.progress.pending(), applied_before)?;
        // From here on nothing is refused.
        if submitted_before == Mark::NONE {
            self.progress.set_base(first);
        }
        let submitted = Submitted {
            new: new.len() as u64,
            known_same,
            // The entries that were found the same are among the known ones.
            unverifiable: (plan.known as u64).saturating_sub(known_same),
        };
        let cell = (mode == Mode::Future && !new.is_empty()).then(|| self.in_flight.add_cells(new));
        let mut submission = Submission {
            last,
            submitted,
            applied_before,
            claim: None,
            has_replies: false,
            is_acknowledged: false,
            cell,
        };
        let begin_claim =
            || claim.map_or((), |claim| claim.begin(first.max(applied_before.next())));
        if new.is_empty() {
            begin_claim();
            return Ok(submission);
        }
        if mode == Mode::Sync
            && let Some(log) = self.log_desk.log()
        {
            log.want_close();
        }
        appending.appender.note_submission(began_ns);
        let mark = Mark::through(last);
        self.latency.submits(mark, began_ns);
        submission.has_replies = match out {
            Some(out) if plan.known == 0 => {
                self.apply_directly(&mut appending, new, plan.frames, out)
            }
            _ => Ok(false),
        }
        .and_then(|has_replies| {
            if !has_replies {
                begin_claim();
                self.append(&mut appending, new, last, mode)?;
                let idle = applied_before == submitted_before;
                // Of a long range, the workers apply the entries while the caller syncs them.
                let may_inline = idle && !self.overlaps(new.len());
                self.commit_appended(&mut appending, mark, mode, may_inline)?;
            }
            Ok(has_replies)
        })
        .map_err(|poison| SubmitError::Poisoned(self.signals.fail(poison)))?;
        let acknowledged = || self.progress.acknowledged_mark();
        let done = acknowledged().covers(last);
        submission.is_acknowledged = done;
        if done {
            self.latency.done(new.len() as u64, began_ns);
        } else {
            self.latency.submitted(mark, new.len() as u64, began_ns, acknowledged);
        }
        drop(appending);
        // A worker or the log writer acknowledged it before it had a stamp.
        if !done && acknowledged().covers(last) {
            self.latency.note_late(acknowledged());
        }
        // An inline apply left the workers no work: a woken worker would only contend for the next
        // call's locks.
        if mode != Mode::Append && !self.progress.applied_mark().covers(last) {
            self.signals.notify_workers();
        }
        if mode != Mode::Sync {
            // A synchronous caller writes the log itself, or wakes the log writer when it waits.
            self.signals.writer().notify();
        }
        Ok(submission)
    }

    /// Commits the entries below `mark`, which were just appended, and applies them or hands them
    /// over. With `may_inline`, everything before them is applied, and the call need not leave them
    /// to the workers.
    fn commit_appended(
        &self,
        appending: &mut Appending,
        mark: Mark,
        mode: Mode,
        may_inline: bool,
    ) -> Result<(), Poison> {
        if mode == Mode::Append {
            return Ok(());
        }
        self.progress.commit_to(mark)?;
        appending.appender.note_committed(mark);
        let inline = mode == Mode::Sync
            && may_inline
            && self.config.inline_apply
            && !self.pauses.is_any()
            && self.may_commit_inline();
        // A synchronous caller of a machine over a storage does not wait for a batch to fill.
        let is_awaited = mode == Mode::Sync && self.machine.staging(Hook::ENGINE).is_some();
        let which = if is_awaited { Feed::All } else { Feed::Due };
        self.apply_or_feed(appending, inline, which)
    }

    /// The engine takes entries, and in this way. Whether they may be only appended was asked when
    /// the facet was made.
    pub(in crate::apply) fn check_may_submit(&self, mode: Mode) -> Result<(), SubmitError> {
        self.progress.poison.check()?;
        if self.is_closed() {
            return Err(SubmitError::Closed);
        }
        match self.log_desk.log().map(|log| log.commit_mode()) {
            Some(found @ CommitMode::ByCommit) if mode != Mode::Append => {
                let instead = "consensus()?.append and commit";
                Err(SubmitError::CommitMode { call: "apply", mode: found.describe(), instead })
            }
            _ => Ok(()),
        }
    }

    /// Checks the pipeline's depth, and the room beside replies not yet copied. Entries that are
    /// only appended need neither.
    fn check_room(
        &self,
        new: u64,
        last: u64,
        (mode, attempt): (Mode, Attempt),
    ) -> Result<(), SubmitError> {
        if mode == Mode::Append || new == 0 {
            return Ok(());
        }
        let limit = self.config.pipeline_depth as u64;
        if new > limit {
            return Err(SubmitError::TooLarge { what: Excess::Entries, size: new, limit });
        }
        let pending = self.progress.pending();
        let reserved = match attempt {
            Attempt::AtTheDoor => self.progress.room.reserved(),
            Attempt::InLine => 0,
        };
        if pending + new + reserved > limit || !self.in_flight_limit().covers(last) {
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
        // A log that commits later fills the in-flight ring when it feeds, so the appender need not
        // make room in it.
        let in_flight_limit =
            if mode == Mode::Append { Mark::NONE } else { self.in_flight_limit() };
        let range_entries_max = self.range_entries_max();
        self.guarded(|footprint| {
            let in_flight = self.in_flight.ring();
            appending.appender.append(new, in_flight, in_flight_limit, range_entries_max, footprint)
        })?;
        // An entry behind the state, which records moved, is not submitted: the marks could not
        // describe it.
        let submitted = self.progress.submitted_mark();
        if new.first().is_some_and(|first| submitted.covers(first.log_id.index)) {
            let sequence = appending.appender.last_sequence();
            self.log_desk.note_behind(sequence);
        }
        self.progress.submit_to(submitted.max(Mark::through(last)))
    }

    /// Applies inline if no other thread has anything to do, and otherwise hands over to the
    /// workers.
    fn apply_or_feed(
        &self,
        appending: &mut Appending,
        inline: bool,
        which: Feed,
    ) -> Result<(), Poison> {
        while inline
            && let Some(range) = appending.appender.unfed().front().copied()
            && range.kind != RangeKind::Unclassified
        {
            if !self.applying().apply_inline(&range)? {
                break;
            }
            appending.appender.unfed().pop_front();
        }
        self.feed(appending, which).map(|_fed| ())
    }

    /// Copies the replies of an applied submission, unless its call has them.
    pub(crate) fn replies(
        &self,
        entries: &[Entry<'_>],
        submission: &Submission<'_>,
        out: &mut Out<'_>,
    ) {
        if !submission.has_replies {
            entries.iter().for_each(|entry| out.add(self.reply(entry, submission)));
        }
    }

    /// The reply of one entry of the submission.
    pub(crate) fn reply(&self, entry: &Entry<'_>, submission: &Submission<'_>) -> Reply {
        debug_assert!(submission.claim.is_some(), "only a claim keeps replies");
        let index = entry.log_id.index;
        if submission.applied_before.covers(index) {
            return Reply::AlreadyApplied;
        }
        self.in_flight.reply(index)
    }

    /// Commits entries up to `index`.
    pub(crate) fn commit(&self, index: u64) -> Result<(), SubmitError> {
        let mut appending = self.log_desk.appending();
        self.commit_in(&mut appending, index)?;
        drop(appending);
        self.signals.notify_workers();
        Ok(())
    }

    /// Commits entries up to the end of `indexes`, with a cell for the reply of each that `wants`
    /// names. An entry that was committed before has no cell.
    pub(in crate::apply) fn commit_with_cells(
        &self,
        indexes: RangeInclusive<u64>,
        wants: impl Fn(u64) -> bool,
    ) -> Result<Vec<Option<ReplyCell>>, SubmitError> {
        let cells = self.add_cells_and_commit(indexes, wants)?;
        self.signals.notify_workers();
        Ok(cells)
    }

    /// Commits as [`commit_with_cells`](Pipeline::commit_with_cells) does, and leaves it to the
    /// caller to notify the workers.
    pub(super) fn add_cells_and_commit(
        &self,
        indexes: RangeInclusive<u64>,
        wants: impl Fn(u64) -> bool,
    ) -> Result<Vec<Option<ReplyCell>>, SubmitError> {
        let last = *indexes.end();
        let mut appending = self.log_desk.appending();
        let before = self.progress.committed_mark();
        let cell = |index| (!before.covers(index)).then(|| self.in_flight.add_cell(index));
        let cells = indexes.filter(|index| wants(*index)).map(cell).collect();
        if let Err(error) = self.commit_in(&mut appending, last) {
            self.in_flight.remove_cells_from(before.next());
            return Err(error);
        }
        Ok(cells)
    }

    /// Commits for a caller that holds the appender, and that notifies the workers after it has
    /// released it.
    pub(in crate::apply) fn commit_in(
        &self,
        appending: &mut Appending,
        index: u64,
    ) -> Result<(), SubmitError> {
        self.progress.poison.check()?;
        if self.is_closed() {
            return Err(SubmitError::Closed);
        }
        let submitted = self.progress.submitted_mark();
        if !submitted.covers(index) {
            return Err(SubmitError::NotAppended { index, last: submitted.last() });
        }
        if self.progress.committed_mark().covers(index) {
            return Ok(());
        }
        if self.log_desk.log().is_some_and(|log| log.contiguity().is_monotone()) {
            self.check_no_gap(appending, index)?;
        }
        let mark = Mark::through(index);
        self.progress
            .commit_to(mark)
            .map_err(|poison| SubmitError::Poisoned(self.signals.fail(poison)))?;
        appending.appender.note_committed(mark);
        let fed = self.feed(appending, Feed::Due);
        fed.map_err(|poison| SubmitError::Poisoned(self.signals.fail(poison)))?;
        Ok(())
    }

    /// Checks that nothing is missing between the committed entries and `index`, in a log with
    /// gaps.
    fn check_no_gap(&self, appending: &mut Appending, index: u64) -> Result<(), SubmitError> {
        let mut expected = self.progress.committed_mark().next();
        for run in appending.appender.unfed().iter() {
            if expected == 0 {
                // The log may start anywhere, and everything before counts as applied.
                self.progress.set_base(run.first);
                expected = run.first;
            }
            if run.first > expected {
                break;
            }
            // The committed and unfed entries end below this run, or in the middle of it.
            expected = expected.max(run.mark().next());
            if expected > index {
                return Ok(());
            }
        }
        Err(SubmitError::Gap { expected, got: index })
    }

    /// Makes the engine take no submission after this call. True for the one call that closes the
    /// engine.
    pub(crate) fn refuse_submissions(&self) -> bool {
        // Under the lock: a submission that holds it finishes first, and each later one sees the
        // phase.
        let appending = self.log_desk.appending();
        let is_first = self.lifecycle().begin_closing();
        drop(appending);
        // The calls that wait for room learn it from their next attempt.
        self.progress.room.wake_all();
        is_first
    }
}
