//! Calls that wait for room in the pipeline, and calls for async code that return replies.

use std::sync::Arc;
use std::time::Duration;

use crate::apply::manager::ApplyManager;
use crate::apply::manager::consensus::ConsensusLog;
use crate::apply::manager::retry::Deadline;
use crate::apply::pipeline::cells::ReplyCell;
use crate::apply::pipeline::known::Submitted;
use crate::apply::pipeline::submit::{Mode, Submission};
use crate::contract::machine::StateMachine;
use crate::entry::{Entry, Reply};
use crate::error::{ApplyError, Poison, SubmitError, WaitError};
use crate::progress::waiter::TaskWait;
use crate::progress::watermark::Stage;

impl<M: StateMachine> ApplyManager<M> {
    /// Submits entries as [`apply_entries`](ApplyManager::apply_entries) does, and waits for room
    /// while the pipeline is full, for `room_timeout` at most. It does not wait for their apply.
    ///
    /// Calls that wait for room stand in a line, whose first one is served first. A call that does
    /// not wait leaves room for them. The thread sleeps until there is room; it does not look
    /// again by the clock.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sprag::{ApplyConfig, ApplyManager, Entry, MemoryConfig, MemoryStateMachine};
    /// # let machine = MemoryStateMachine::new(MemoryConfig::new())?;
    /// # let manager = ApplyManager::new(machine, ApplyConfig::new().pipeline_depth(4))?;
    /// for index in 1..=100 {
    ///     let entries = [Entry::put(index, 1, b"key", b"value")];
    ///     manager.apply_entries_waiting(&entries, Duration::from_secs(10))?;
    /// }
    /// manager.wait_for_apply(100, Duration::from_secs(10))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`apply_entries`](ApplyManager::apply_entries). It is
    /// [`SubmitError::Full`] only after `room_timeout`; nothing was taken then.
    pub fn apply_entries_waiting(
        &self,
        entries: &[Entry<'_>],
        room_timeout: Duration,
    ) -> Result<Submitted, SubmitError> {
        let (pipeline, deadline) = (self.engine.pipeline(), Deadline::new(room_timeout));
        pipeline.when_room(entries.len() as u64, &deadline, |attempt| {
            submitted(pipeline.submit_as(entries, Mode::Async, attempt))
        })
    }

    /// Submits entries as [`apply_entries`](ApplyManager::apply_entries) does. The future waits for
    /// room while the pipeline is full, and does not wait for their apply.
    ///
    /// Nothing is submitted before the first poll. Dropping the future before it is ready takes
    /// nothing, and leaves nothing. The future is bound to no runtime, and allocates nothing once
    /// the line of calls that wait has had its length.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`apply_entries`](ApplyManager::apply_entries), and never
    /// [`SubmitError::Full`].
    pub async fn apply_entries_async(
        &self,
        entries: &[Entry<'_>],
    ) -> Result<Submitted, SubmitError> {
        let pipeline = self.engine.pipeline();
        let take = |attempt| submitted(pipeline.submit_as(entries, Mode::Async, attempt));
        pipeline.when_room_async(entries.len() as u64, take).await
    }

    /// Applies one entry for async code: waits for room, submits it, and waits until it is
    /// acknowledged. Returns its reply.
    ///
    /// Nothing is submitted before the first poll. Dropping the future before the entry is taken
    /// leaves nothing; later it cancels only the wait. So a runtime's timeout limits it. The call
    /// allocates once, for the reply. An entry that another call had submitted before has
    /// [`Reply::AlreadyApplied`], also if it is still in progress: that call has the reply.
    ///
    /// # Errors
    ///
    /// Returns [`ApplyError`], and never [`SubmitError::Full`]. After [`ApplyError::Wait`] the
    /// entry is in progress.
    pub async fn apply_async(&self, entry: &Entry<'_>) -> Result<Reply, ApplyError> {
        let taken = self.take_async(std::slice::from_ref(entry)).await;
        let taken = taken.map_err(|error| refused(error, None))?;
        self.acknowledged_through(entry.log_id.index).await?;
        taken.replies().next().unwrap_or(Ok(Reply::AlreadyApplied))
    }

    /// Applies any number of entries for async code: submits them in parts, waits for room
    /// meanwhile, and at the end until all are acknowledged. Returns the reply of each, in order.
    ///
    /// The parts are a quarter of the pipeline long at most. A part allocates once for its replies.
    /// Dropping the future leaves the parts that were taken in progress, and submits no more. What
    /// [`apply_async`](ApplyManager::apply_async) says of a known entry holds for each.
    ///
    /// # Errors
    ///
    /// Returns [`ApplyError`], whose `submitted_through` names the last entry taken: entries up to
    /// it are in progress.
    pub async fn apply_batch_async<'e>(
        &self,
        entries: impl IntoIterator<Item = Entry<'e>>,
    ) -> Result<Vec<Reply>, ApplyError> {
        let part = self.engine.pipeline().part_entries();
        let mut entries = entries.into_iter();
        let (mut filled, mut parts) = (Vec::with_capacity(part), Vec::new());
        let mut through = None;
        loop {
            filled.clear();
            filled.extend(entries.by_ref().take(part));
            if filled.is_empty() {
                break;
            }
            // What can never fit as a whole is split into halves.
            let (mut rest, mut length) = (filled.as_slice(), filled.len());
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(length.min(rest.len()));
                match self.take_async(head).await {
                    Ok(taken) => {
                        through = head.last().map(|entry| entry.log_id.index);
                        parts.push(taken);
                        rest = tail;
                    }
                    Err(SubmitError::TooLarge { what, .. })
                        if head.len() > 1 && what.fits_in_parts() =>
                    {
                        length = head.len().div_ceil(2);
                    }
                    Err(error) => return Err(refused(error, through)),
                }
            }
        }
        let Some(last) = through else { return Ok(Vec::new()) };
        self.acknowledged_through(last).await?;
        parts.iter().flat_map(Taken::replies).collect()
    }

    async fn take_async(&self, entries: &[Entry<'_>]) -> Result<Taken, SubmitError> {
        let pipeline = self.engine.pipeline();
        let take = |attempt| {
            let taken = pipeline.submit_as(entries, Mode::Future, attempt)?;
            let cell = taken.and_then(|submission| submission.cell);
            let new = cell.as_ref().map_or(0, ReplyCell::len);
            // The new entries are among the given ones.
            Ok(Taken { known: entries.len().saturating_sub(new), cell })
        };
        pipeline.when_room_async(entries.len() as u64, take).await
    }

    async fn acknowledged_through(&self, index: u64) -> Result<(), ApplyError> {
        let progress = Arc::clone(self.engine.pipeline().progress());
        let mut wait = TaskWait::new(progress, index, Stage::Acknowledged);
        let waited = std::future::poll_fn(|context| wait.poll(context)).await;
        waited.map_err(|source| ApplyError::Wait { source, submitted_through: Some(index) })
    }
}

impl<M: StateMachine> ConsensusLog<'_, M> {
    /// Appends entries as [`append`](ConsensusLog::append) does, and waits for room while the log's
    /// buffers are full, for `room_timeout` at most.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`append`](ConsensusLog::append). It is [`SubmitError::Full`] only
    /// after `room_timeout`; nothing was taken then.
    pub fn append_waiting(
        &self,
        entries: &[Entry<'_>],
        room_timeout: Duration,
    ) -> Result<Submitted, SubmitError> {
        let (pipeline, deadline) = (self.engine.pipeline(), Deadline::new(room_timeout));
        // An append needs no room in the pipeline: the log's buffers alone may be full.
        pipeline.when_room(0, &deadline, |attempt| {
            submitted(pipeline.submit_as(entries, Mode::Append, attempt))
        })
    }
}

/// Entries of one submission that was taken.
struct Taken {
    /// Number of entries at the front that another call had submitted before.
    known: usize,
    /// The replies of the others; `None` if there are none.
    cell: Option<ReplyCell>,
}

impl Taken {
    /// The reply of each entry, which is acknowledged.
    fn replies(&self) -> impl Iterator<Item = Result<Reply, ApplyError>> {
        let known = std::iter::repeat_with(|| Ok(Reply::AlreadyApplied)).take(self.known);
        let lost = || {
            let poison = Poison::Internal("an acknowledged entry has no reply");
            ApplyError::Wait { source: WaitError::Poisoned(poison), submitted_through: None }
        };
        let new = self.cell.iter().flat_map(ReplyCell::replies);
        known.chain(new.map(move |reply| reply.cloned().ok_or_else(lost)))
    }
}

fn submitted(taken: Result<Option<Submission<'_>>, SubmitError>) -> Result<Submitted, SubmitError> {
    Ok(taken?.map_or(Submitted::default(), |submission| submission.submitted))
}

fn refused(source: SubmitError, submitted_through: Option<u64>) -> ApplyError {
    ApplyError::Submit { source, submitted_through }
}
