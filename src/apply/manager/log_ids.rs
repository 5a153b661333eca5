//! Waiting for a log id: for one entry, and not for any entry that takes its index in the end.
//!
//! The log is asked for the log id before the wait for its index. Unless that settled it, it is
//! asked once more afterwards.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::apply::engine::Engine;
use crate::apply::manager::ApplyManager;
use crate::apply::manager::retry::Deadline;
use crate::contract::machine::StateMachine;
use crate::entry::LogId;
use crate::error::WaitError;
use crate::log::terms::Held;
use crate::progress::waiter::Acknowledged;
use crate::progress::watermark::{Progress, Stage};

impl<M: StateMachine> ApplyManager<M> {
    /// Blocks until a named watermark covers the entry with this log id, submitted or not.
    ///
    /// [`wait_until`](ApplyManager::wait_until) waits for an index: it is satisfied by the entry
    /// that has the index in the end. This call is satisfied by one entry only. It takes the
    /// appender's lock for a moment, once or twice.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::Replaced`] if another entry has the index, or the log skips it. Returns
    /// [`WaitError::Truncated`] if the entry was truncated meanwhile. Returns
    /// [`WaitError::NoLongerKnown`] for an entry below what the log remembers, which may have been
    /// applied or not. A timeout cancels nothing.
    pub fn wait_for_log_id(
        &self,
        log_id: LogId,
        stage: Stage,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        let deadline = Deadline::new(timeout);
        loop {
            let before = self.engine.look_for(log_id, stage);
            before.check(log_id.index)?;
            let waited = self.wait_until(log_id.index, stage, deadline.left());
            let after = || self.engine.look_for(log_id, stage);
            if let Some(outcome) = before.outcome(log_id.index, waited, after) {
                return outcome;
            }
        }
    }

    /// A future that completes when the entry with this log id is acknowledged. It acts as
    /// [`wait_for_log_id`](ApplyManager::wait_for_log_id), and is bound to no runtime.
    #[must_use = "a future does nothing until it is polled"]
    pub fn acknowledged_log_id(&self, log_id: LogId) -> AcknowledgedLogId
    where
        M: 'static,
    {
        let log: Weak<Engine<M>> = Arc::downgrade(&self.engine);
        let before = self.engine.look_for(log_id, Stage::Acknowledged);
        let acknowledged = self.acknowledged(log_id.index);
        let progress = Arc::clone(self.engine.pipeline().progress());
        AcknowledgedLogId { log_id, before, acknowledged, progress, log }
    }
}

/// Position of a log id's entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// The index is beyond the log's end.
    Ahead,
    /// The entry is in the log.
    Here,
    /// The entry is in the log and committed, so it stays.
    Committed,
    /// Another entry has the index or, in a log with gaps, none ever will.
    Replaced(Option<LogId>),
    /// The index is below what the log remembers.
    Forgotten,
}

/// Result of a look into the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Look {
    place: Place,
    /// Number of truncations of the log at that time.
    truncations: u64,
}

impl Look {
    fn check(self, index: u64) -> Result<(), WaitError> {
        match self.place {
            Place::Ahead | Place::Here | Place::Committed => Ok(()),
            Place::Replaced(found) => Err(WaitError::Replaced { index, found }),
            Place::Forgotten => Err(WaitError::NoLongerKnown { index }),
        }
    }

    /// The outcome for the entry of a wait for its index, which began after this look; `None`: look
    /// and wait again. `after` looks once more.
    fn outcome(
        self,
        index: u64,
        waited: Result<(), WaitError>,
        after: impl FnOnce() -> Self,
    ) -> Option<Result<(), WaitError>> {
        match (self.place, waited) {
            // Another entry may have come and gone at the index, and this entry may still come.
            (Place::Ahead, Err(WaitError::Truncated { .. })) => None,
            (Place::Committed, waited) | (_, waited @ Err(_)) => Some(waited),
            (place, Ok(())) => {
                let after = after();
                Some(match after.place {
                    Place::Ahead => Err(WaitError::Truncated { index }),
                    // The log has given the entry up since it was reached, and nothing was
                    // truncated.
                    Place::Forgotten
                        if place == Place::Here && after.truncations == self.truncations =>
                    {
                        Ok(())
                    }
                    _ => after.check(index),
                })
            }
        }
    }
}

/// A log that can be asked for a log id.
trait LogIds: Send + Sync {
    fn look_for(&self, log_id: LogId, stage: Stage) -> Look;
}

impl<M: StateMachine> LogIds for Engine<M> {
    fn look_for(&self, log_id: LogId, stage: Stage) -> Look {
        let (index, progress) = (log_id.index, self.pipeline().progress());
        let appending = self.pipeline().log_desk().appending();
        let appender = &appending.appender;
        let of_state = matches!(stage, Stage::Applied | Stage::Acknowledged);
        let place = match appender.held_at(index) {
            // Apply-only records moved the state past this index.
            _ if of_state && appender.is_skipped(index) => Place::Forgotten,
            Some(Held::Entry(known)) if known != log_id => Place::Replaced(Some(known)),
            Some(Held::Entry(_)) if progress.committed_mark().covers(index) => Place::Committed,
            Some(Held::Entry(_)) => Place::Here,
            Some(Held::Gap) => Place::Replaced(None),
            Some(Held::Forgotten) => Place::Forgotten,
            None if progress.submitted_mark().covers(index) => Place::Forgotten,
            None => Place::Ahead,
        };
        Look { place, truncations: appender.index().truncations() }
    }
}

/// Future that completes when the entry with a log id is acknowledged;
/// [`ApplyManager::acknowledged_log_id`](crate::ApplyManager::acknowledged_log_id) makes it.
///
/// The future is bound to no runtime. Dropping it cancels only the wait. It keeps neither the
/// manager nor a directory's lock. Once these are gone, it returns [`WaitError::Closed`] for an
/// entry that was not committed at the last look.
pub struct AcknowledgedLogId {
    log_id: LogId,
    before: Look,
    acknowledged: Acknowledged,
    progress: Arc<Progress>,
    log: Weak<dyn LogIds>,
}

impl fmt::Debug for AcknowledgedLogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcknowledgedLogId").field("log_id", &self.log_id).finish_non_exhaustive()
    }
}

impl Future for AcknowledgedLogId {
    type Output = Result<(), WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (log_id, index) = (this.log_id, this.log_id.index);
        loop {
            if let Err(error) = this.before.check(index) {
                return Poll::Ready(Err(error));
            }
            let Poll::Ready(waited) = Pin::new(&mut this.acknowledged).poll(context) else {
                return Poll::Pending;
            };
            if this.before.place == Place::Committed || !is_of_the_index(&waited) {
                return Poll::Ready(waited);
            }
            let Some(log) = this.log.upgrade() else {
                return Poll::Ready(Err(WaitError::Closed { index }));
            };
            let after = log.look_for(log_id, Stage::Acknowledged);
            drop(log);
            if let Some(outcome) = this.before.outcome(index, waited, || after) {
                return Poll::Ready(outcome);
            }
            this.before = after;
            this.acknowledged = Acknowledged::new(Arc::clone(&this.progress), index);
        }
    }
}

/// Whether the outcome of a wait for an index does not decide the wait for an entry.
fn is_of_the_index(waited: &Result<(), WaitError>) -> bool {
    matches!(waited, Ok(()) | Err(WaitError::Truncated { .. }))
}
