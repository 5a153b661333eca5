//! Batches of any length, and retries of submissions of which nothing was taken.

use std::time::{Duration, Instant};

use crate::apply::manager::ApplyManager;
use crate::apply::pipeline::direct::Out;
use crate::apply::pipeline::submit::{Mode, Submission};
use crate::config::RetryPolicy;
use crate::contract::machine::StateMachine;
use crate::entry::{Entry, Reply};
use crate::error::{ApplyError, SubmitError};
use crate::progress::watermark::Stage;
use crate::sync::thread;

impl<M: StateMachine> ApplyManager<M> {
    /// Applies any number of entries: submits them in parts, waits while the pipeline is full, and
    /// at the end until all are acknowledged. Calls `sink` with each entry's index and reply, in
    /// order. Returns the number of entries.
    ///
    /// # Errors
    ///
    /// Returns [`ApplyError`], whose `submitted_through` names the last entry taken: entries up to
    /// it are in progress. `sink` has seen a prefix of them.
    pub fn apply_batch<'e>(
        &self,
        entries: impl IntoIterator<Item = Entry<'e>>,
        timeout: Duration,
        mut sink: impl FnMut(u64, Reply),
    ) -> Result<u64, ApplyError> {
        let deadline = Deadline::new(timeout);
        let part = self.engine.pipeline().part_entries();
        let mut entries = entries.into_iter();
        let mut parts: [Vec<Entry<'e>>; 2] = [Vec::with_capacity(part), Vec::with_capacity(part)];
        let mut claimed = None;
        let (mut count, mut submitted_through, mut turn) = (0, None, 0);
        let mut replies = Vec::with_capacity(part);
        loop {
            let filling = &mut parts[turn % 2];
            filling.clear();
            filling.extend(entries.by_ref().take(part));
            count += filling.len() as u64;
            let submission = match filling.as_slice() {
                [] => None,
                filled => {
                    let taken = self.submit_when_room(filled, &deadline);
                    taken.map_err(|error| {
                        // Some of its halves may have been taken, and no caller waits for them now.
                        self.engine.pipeline().signals().writer().notify();
                        error.through(submitted_through)
                    })?
                }
            };
            if let Some(submission) = &submission {
                submitted_through = Some(submission.last);
                self.engine.pipeline().signals().writer().notify();
            }
            // While this part is in progress, take the replies of the part before.
            if let Some(before) = claimed.take() {
                self.answer(&parts[(turn + 1) % 2], &before, &deadline, &mut replies, &mut sink)
                    .map_err(|error| error.through(submitted_through))?;
            }
            if submission.is_none() {
                return Ok(count);
            }
            claimed = submission;
            turn += 1;
        }
    }

    /// Submits a part once there is room for it. A part that can never fit as a whole is split into
    /// halves.
    fn submit_when_room<'s>(
        &'s self,
        part: &[Entry<'_>],
        deadline: &Deadline,
    ) -> Result<Option<Submission<'s>>, ApplyError> {
        let pipeline = self.engine.pipeline();
        let taken = pipeline.when_room(part.len() as u64, deadline, |attempt| {
            pipeline.submit_as(part, Mode::Sync, attempt)
        });
        match (taken, part) {
            (Err(SubmitError::TooLarge { what, .. }), [_, _, ..]) if what.fits_in_parts() => {
                let (head, tail) = part.split_at(part.len() / 2);
                let first = self.submit_when_room(head, deadline)?;
                let through = first.as_ref().map(|submission| submission.last);
                let second = self.submit_when_room(tail, deadline);
                let mut second = second.map_err(|error| error.through(through))?;
                if let (Some(first), Some(second)) = (first, second.as_mut()) {
                    second.join(first);
                }
                Ok(second)
            }
            (Err(source), _) => Err(ApplyError::Submit { source, submitted_through: None }),
            (Ok(submission), _) => Ok(submission),
        }
    }

    fn answer(
        &self,
        part: &[Entry<'_>],
        submission: &Submission<'_>,
        deadline: &Deadline,
        replies: &mut Vec<Reply>,
        sink: &mut impl FnMut(u64, Reply),
    ) -> Result<(), ApplyError> {
        self.engine
            .pipeline()
            .wait(submission.last, Stage::Acknowledged, deadline.left())
            .map_err(|source| ApplyError::Wait { source, submitted_through: None })?;
        replies.clear();
        self.engine.pipeline().replies(part, submission, &mut Out::Many(replies));
        for (entry, reply) in part.iter().zip(replies.drain(..)) {
            sink(entry.log_id.index, reply);
        }
        Ok(())
    }

    /// Submits entries, repeats a submission that was refused as full after a pause, and waits
    /// until all are acknowledged.
    ///
    /// Only a submission that was refused as full is repeated: no part of it was taken. Every other
    /// error is final. `replies` is cleared and then holds one reply for each entry.
    ///
    /// # Errors
    ///
    /// Returns [`ApplyError`], with [`SubmitError::Full`] after the last attempt.
    pub fn apply_with_retry(
        &self,
        entries: &[Entry<'_>],
        policy: RetryPolicy,
        replies: &mut Vec<Reply>,
    ) -> Result<(), ApplyError> {
        let mut backoff = policy.backoff;
        let mut retries = 0;
        loop {
            match self.apply_entries_sync(entries, policy.timeout, replies) {
                Err(ApplyError::Submit { source: SubmitError::Full { .. }, .. })
                    if retries < policy.retries_max =>
                {
                    retries += 1;
                    self.engine.pipeline().signals().writer().notify();
                    thread::sleep(jittered(backoff.min(policy.backoff_max)));
                    // The pause has a limit, so a pause that saturates is as long as that.
                    backoff = backoff.saturating_mul(2).min(policy.backoff_max);
                }
                outcome => return outcome,
            }
        }
    }
}

/// The pause, changed by up to a quarter, so that callers refused together do not return together.
/// The clock's low bits are random enough for that.
fn jittered(pause: Duration) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let noise = now.map_or(0, |since| since.subsec_nanos() % 512);
    pause.checked_mul(768 + noise).map_or(pause, |scaled| scaled / 1024)
}

/// The end of a call's time.
pub(in crate::apply) struct Deadline {
    started: Instant,
    timeout: Duration,
}

impl Deadline {
    pub(in crate::apply) fn new(timeout: Duration) -> Self {
        Self { started: Instant::now(), timeout }
    }

    pub(in crate::apply) fn left(&self) -> Duration {
        self.timeout.saturating_sub(self.started.elapsed())
    }

    pub(in crate::apply) fn waited(&self) -> Duration {
        self.started.elapsed()
    }
}

impl ApplyError {
    /// Adds how far the call's entries were taken, unless the error already tells.
    fn through(mut self, index: Option<u64>) -> Self {
        let (Self::Submit { submitted_through, .. } | Self::Wait { submitted_through, .. }) =
            &mut self;
        *submitted_through = (*submitted_through).max(index);
        self
    }
}
