//! Applying what a consensus engine has committed, with replies, and, for adapters, entries that
//! the log does not hold.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::apply::desks::log::Appending;
use crate::apply::desks::log_waits::LOG_TIMEOUT;
use crate::apply::manager::consensus::ConsensusLog;
use crate::apply::pipeline::Pipeline;
use crate::apply::pipeline::pause::Pause;
use crate::codec::{self, Extent};
use crate::contract::machine::StateMachine;
use crate::contract::run::run_machine;
use crate::entry::{Entry, LogId, Reply};
use crate::error::{ApplyError, Poison, SubmitError, WaitError};
use crate::log::Log;
use crate::numbers::Mark;
use crate::progress::watermark::Stage;
use crate::ranges::index_range::RangeKind;
use crate::ranges::partition::Partition;
use crate::ranges::range::{Payloads, RangeParts};
use crate::sync::tell_under_locks;

/// Number of records that are written, and synced, at once.
const RECORDS_MAX: usize = 1024;

/// Time that a caller that found the log full sleeps at most before it looks again. There is a
/// limit beside the signal, because the memory may be that of a value, whose drop tells nothing.
const FULL_LOOK: Duration = Duration::from_micros(200);

impl<M: StateMachine> ConsensusLog<'_, M> {
    /// Commits the log up to the end of `indexes`, waits until that is applied, and copies the
    /// replies. There is one for each of `indexes`: [`Reply::AlreadyApplied`] for an entry that was
    /// applied before the call. `replies` is cleared first.
    ///
    /// The call does not wait for durability: a consensus engine commits what a quorum has.
    ///
    /// # Errors
    ///
    /// Returns [`ApplyError`]; after a timeout the entries are committed all the same.
    pub fn apply_committed(
        &self,
        indexes: RangeInclusive<u64>,
        timeout: Duration,
        replies: &mut Vec<Reply>,
    ) -> Result<(), ApplyError> {
        replies.clear();
        let began = Instant::now();
        let (mut first, last) = indexes.into_inner();
        let most = (self.engine.pipeline().config().pipeline_depth as u64).max(1);
        while first <= last {
            // Limit the call to the replies that the in-flight ring has room for.
            let end = last.min(first.saturating_add(most - 1));
            let left = timeout.saturating_sub(began.elapsed());
            apply_committed(self.engine.pipeline(), first..=end, left, replies)?;
            let Some(next) = end.checked_add(1) else { break };
            first = next;
        }
        Ok(())
    }

    /// Applies entries that the log does not hold, or holds under other log ids. The state jumps to
    /// the last of them, and the log's earlier entries that were not applied never are. The entries
    /// are durable on return, and opening the directory applies them again at their place in the
    /// order. `replies` is cleared and then holds one reply for each entry.
    ///
    /// It serves the adapter of a consensus engine that guarantees the order, and needs a log
    /// opened with [`Contiguity::Monotone`](crate::Contiguity::Monotone). Indexes must rise, and
    /// may have gaps. The call costs a sync, and holds up everything else meanwhile, so a running
    /// cluster must not apply in this way.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]: what of `entries` was not taken before it can be given again.
    pub fn apply_only(
        &self,
        entries: &[Entry<'_>],
        timeout: Duration,
        replies: &mut Vec<Reply>,
    ) -> Result<(), ApplyError> {
        replies.clear();
        let pipeline = self.engine.pipeline();
        let _tasks = pipeline.wakes_tasks();
        let began = Instant::now();
        for piece in entries.chunks(RECORDS_MAX) {
            let left = timeout.saturating_sub(began.elapsed());
            Records { pipeline, log: self.log }.apply(piece, left, replies)?;
        }
        Ok(())
    }
}

fn refused(source: SubmitError) -> ApplyError {
    ApplyError::Submit { source, submitted_through: None }
}

fn apply_committed<M: StateMachine>(
    pipeline: &Pipeline<M>,
    indexes: RangeInclusive<u64>,
    timeout: Duration,
    replies: &mut Vec<Reply>,
) -> Result<(), ApplyError> {
    let (first, last) = (*indexes.start(), *indexes.end());
    let mut claim = pipeline.in_flight().claim(pipeline);
    // Claim and commit under one lock. A caller that has claimed and waits for the appender
    // keeps room that the holder of the appender may wait for.
    let (applied_before, committed) = {
        let mut appending = pipeline.log_desk().appending();
        let applied_before = pipeline.progress().applied_mark();
        claim.begin(first.max(applied_before.next()));
        (applied_before, pipeline.commit_in(&mut appending, last))
    };
    committed.map_err(refused)?;
    pipeline.signals().notify_workers();
    pipeline
        .wait(last, Stage::Applied, timeout)
        .map_err(|source| ApplyError::Wait { source, submitted_through: Some(last) })?;
    replies.extend(indexes.map(|index| match applied_before.covers(index) {
        true => Reply::AlreadyApplied,
        false => pipeline.in_flight().reply(index),
    }));
    drop(claim);
    Ok(())
}

/// Records of entries that the log does not hold.
struct Records<'p, M> {
    pipeline: &'p Pipeline<M>,
    log: &'p Log,
}

impl<M: StateMachine> Records<'_, M> {
    fn apply(
        &self,
        entries: &[Entry<'_>],
        timeout: Duration,
        replies: &mut Vec<Reply>,
    ) -> Result<(), ApplyError> {
        self.check_takes_records().map_err(refused)?;
        let began = Instant::now();
        let left = || timeout.saturating_sub(began.elapsed());
        let _view = self.pipeline.pauses().turn();
        let waited = |source| ApplyError::Wait { source, submitted_through: None };
        let mut pause;
        let (mut appending, new) = loop {
            self.pipeline.wait_for_committed(left()).map_err(waited)?;
            pause = Pause::begin(self.pipeline);
            let mut appending = pause.appender_applied(left()).map_err(waited)?;
            let applied = self.pipeline.progress().applied_mark();
            let known =
                entries.iter().take_while(|entry| applied.covers(entry.log_id.index)).count();
            let (known, new) = entries.split_at(known);
            check_rising(applied, new).map_err(refused)?;
            let plan = appending.appender.plan_records(new).map_err(refused)?;
            let pending = self.pipeline.progress().pending();
            match appending.appender.make_room(&plan, pending, applied) {
                Ok(()) => {
                    replies.extend(known.iter().map(|_| Reply::AlreadyApplied));
                    break (appending, new);
                }
                // Only appends fill the log, and their memory is free when they are durable.
                Err(SubmitError::Full { .. }) if !left().is_zero() => {
                    drop(appending);
                    drop(pause);
                    self.pipeline.log_desk().sync(left()).map_err(waited)?;
                    // Memory is free at the end of the log writer's step.
                    self.pipeline.signals().writer_bell().listen().sleep(Some(FULL_LOOK));
                }
                Err(error) => return Err(refused(error)),
            }
        };
        if new.is_empty() {
            return Ok(());
        }
        let jumped = self.write_and_run(&mut appending, new, replies);
        jumped.map_err(|poison| {
            refused(SubmitError::Poisoned(self.pipeline.signals().fail(poison)))
        })?;
        drop(appending);
        drop(pause);
        Ok(())
    }

    fn check_takes_records(&self) -> Result<(), SubmitError> {
        self.pipeline.progress().poison.check()?;
        match () {
            () if self.pipeline.is_closed() => Err(SubmitError::Closed),
            () if self.log.contiguity().is_monotone() => Ok(()),
            () => Err(SubmitError::Contiguity { call: "apply_only" }),
        }
    }

    /// Makes records of the entries durable, then applies them. A failure ends the engine, because
    /// the records may be in the log.
    fn write_and_run(
        &self,
        appending: &mut Appending,
        entries: &[Entry<'_>],
        replies: &mut Vec<Reply>,
    ) -> Result<(), Poison> {
        let mut places = Vec::with_capacity(entries.len());
        for entry in entries {
            places.push((entry.log_id, appending.appender.append_record(entry)?));
        }
        let sequence = appending.appender.close_and_last_sequence();
        // The records are in the log, so the call must go on, however slow the disk is.
        loop {
            match self.pipeline.log_desk().sync_to(self.log, sequence, LOG_TIMEOUT) {
                Ok(()) => break,
                Err(WaitError::Poisoned(poison)) => return Err(poison),
                Err(error) => {
                    tell_under_locks(|| tracing::warn!(%error, "the disk is slow: waiting on"))
                }
            }
        }
        let workers = self.pipeline.workers().take_posts();
        let mut mark = Mark::NONE;
        for batch in places.chunks(self.pipeline.staged_at_once()) {
            for (log_id, extent) in batch {
                self.run_record(*log_id, *extent)?;
                replies.push(self.pipeline.in_flight().reply(log_id.index));
                mark = Mark::through(log_id.index);
            }
            self.pipeline.commit_records(batch.first().map_or(0, |(log_id, _)| log_id.index))?;
        }
        drop(workers);
        self.pipeline.workers().jump_to(mark);
        let gone = Poison::Internal("the segment of an uncommitted entry is gone");
        appending.appender.skip_to(mark).ok_or(gone)?;
        self.pipeline.counters().note_jump(self.pipeline.progress(), mark, entries.len() as u64);
        // Earlier entries of the log that were not committed are never applied.
        self.pipeline.latency().forget_submission_from(self.pipeline.progress().committed_mark());
        self.pipeline.progress().apply_only_to(mark)
    }

    /// Applies one entry, with every worker's post taken.
    fn run_record(&self, log_id: LogId, extent: Extent) -> Result<(), Poison> {
        let index = log_id.index;
        let gone = "the segment of a record is gone";
        let segment =
            self.pipeline.log_desk().table().get(extent.segment()).ok_or(Poison::Internal(gone))?;
        let bytes = segment.entries(extent).map_err(|error| error.poison(gone))?;
        let encoded = extent.over(&bytes).ok_or(Poison::Internal(gone))?;
        let (payload, _) =
            codec::decode(encoded).map_err(|_| Poison::Internal("a record does not decode"))?;
        let footprint = self.pipeline.guarded(|footprint| Ok(footprint(index, &payload)))?;
        let kind = self.pipeline.in_flight().ring().classify(index, footprint, extent.start());
        let barrier = kind == RangeKind::Barrier;
        let in_flight = self.pipeline.in_flight().ring();
        let parts = RangeParts {
            in_flight,
            first: log_id,
            count: 1,
            barrier,
            payloads: Payloads::Encoded(encoded),
        };
        let rejected = run_machine(self.pipeline.machine(), parts, Partition::WHOLE)?;
        self.pipeline.counters().reject(rejected);
        Ok(())
    }
}

/// Checks that each entry is above the one before, and the first at or above `applied`.
fn check_rising(applied: Mark, entries: &[Entry<'_>]) -> Result<(), SubmitError> {
    let mut expected = applied.next();
    for entry in entries {
        let got = entry.log_id.index;
        if got < expected {
            return Err(SubmitError::Gap { expected, got });
        }
        expected = got.checked_add(1).ok_or(SubmitError::IndexExhausted)?;
    }
    Ok(())
}
