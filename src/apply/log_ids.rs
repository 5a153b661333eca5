//! Waiting for a log id: for one entry, and not for whatever entry has its index in the end.
//!
//! The log is asked for the log id before the wait for its index and, unless that settled it, once more afterwards.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use super::engine::Engine;
use super::manager::ApplyManager;
use super::retry::Deadline;
use crate::entry::LogId;
use crate::error::WaitError;
use crate::log::terms::Held;
use crate::machine::StateMachine;
use crate::progress::waiter::Acknowledged;
use crate::progress::watermark::{Progress, Stage};

impl<M: StateMachine> ApplyManager<M> {
    /// Blocks until a named watermark covers the entry with this log id, submitted or not.
    ///
    /// [`wait_until`](ApplyManager::wait_until) waits for an index: it is satisfied by the entry that has the index in the
    /// end. This call is satisfied by one entry only. It takes the appender's lock for a moment, once or twice.
    ///
    /// # Errors
    ///
    /// [`WaitError::Replaced`] if another entry has the index, or the log passes over it; [`WaitError::Truncated`] if the
    /// entry was truncated meanwhile; [`WaitError::NoLongerKnown`] for an entry below what the log remembers, which may
    /// have been applied or not. A timeout cancels nothing.
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

    /// A future that completes when the entry with this log id is acknowledged; as
    /// [`wait_for_log_id`](ApplyManager::wait_for_log_id), and bound to no runtime.
    #[must_use = "a future does nothing until it is polled"]
    pub fn acknowledged_log_id(&self, log_id: LogId) -> AcknowledgedLogId
    where
        M: 'static,
    {
        let log: Weak<Engine<M>> = Arc::downgrade(&self.engine);
        let before = self.engine.look_for(log_id, Stage::Acknowledged);
        let acknowledged = self.acknowledged(log_id.index);
        let progress = Arc::clone(&self.engine.progress);
        AcknowledgedLogId { log_id, before, acknowledged, progress, log }
    }
}

/// Where the entry of a log id is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Beyond the log's end.
    Ahead,
    /// In the log.
    Here,
    /// In the log and committed: it stays.
    Committed,
    /// Another entry has the index or, in a log with gaps, none ever will.
    Replaced(Option<LogId>),
    /// Below what the log remembers.
    Forgotten,
}

/// What a look into the log found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Look {
    place: Place,
    /// How often the log had been truncated.
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

    /// What a wait for the index, which began after this look, says about the entry; `None`: look and wait again. `after`
    /// looks once more.
    fn outcome(
        self,
        index: u64,
        waited: Result<(), WaitError>,
        after: impl FnOnce() -> Self,
    ) -> Option<Result<(), WaitError>> {
        match (self.place, waited) {
            // Another entry may have come and gone at the index, and this one may come yet.
            (Place::Ahead, Err(WaitError::Truncated { .. })) => None,
            (Place::Committed, waited) | (_, waited @ Err(_)) => Some(waited),
            (place, Ok(())) => {
                let after = after();
                Some(match after.place {
                    Place::Ahead => Err(WaitError::Truncated { index }),
                    // The log has given it up since it was reached, and nothing was truncated.
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

impl<M: StateMachine> Engine<M> {
    fn look_for(&self, log_id: LogId, stage: Stage) -> Look {
        let index = log_id.index;
        let appending = self.lock_appender();
        let appender = &appending.appender;
        let of_state = matches!(stage, Stage::Applied | Stage::Acknowledged);
        let place = match appender.held_at(index) {
            // Records that are not of the log brought the state past this index.
            _ if of_state && appender.is_skipped(index) => Place::Forgotten,
            Some(Held::Entry(known)) if known != log_id => Place::Replaced(Some(known)),
            Some(Held::Entry(_)) if index < self.progress.committed_mark() => Place::Committed,
            Some(Held::Entry(_)) => Place::Here,
            Some(Held::Gap) => Place::Replaced(None),
            Some(Held::Forgotten) => Place::Forgotten,
            None if index < self.progress.submitted_mark() => Place::Forgotten,
            None => Place::Ahead,
        };
        Look { place, truncations: appender.index().truncations() }
    }
}

impl<M: StateMachine> LogIds for Engine<M> {
    fn look_for(&self, log_id: LogId, stage: Stage) -> Look {
        Engine::look_for(self, log_id, stage)
    }
}

/// Completes when the entry with a log id is acknowledged; made by
/// [`ApplyManager::acknowledged_log_id`](crate::ApplyManager::acknowledged_log_id).
///
/// Bound to no runtime. Dropping it cancels only the waiting. It keeps neither the manager nor a directory's lock: once
/// these are gone it gives [`WaitError::Closed`] for an entry that was not committed when it was last looked for.
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

/// Whether the outcome of a wait for an index leaves open what it says about an entry.
fn is_of_the_index(waited: &Result<(), WaitError>) -> bool {
    matches!(waited, Ok(()) | Err(WaitError::Truncated { .. }))
}
