//! The log's writes. Entries are appended once. An append's callback runs when they are durable.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use sprag::error::{LogError, SubmitError, WaitError};
use sprag::{Durable, Payload, PayloadRef, StateMachine};
use tokio::sync::RwLockReadGuard;

use crate::consensus::{Consensus, RaftLogId};
use crate::data::{DataError, Scratch};
use crate::failure::{Action, Failure, Subject};
use crate::hard::HardState;
use crate::node::{Installs, Node, blocking};
use crate::tail::payload_bytes;

/// Pause before the next look at a full log whose entries are all durable. The log writer frees
/// their memory at the end of its step.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// An entry that the log took.
struct Taken {
    payload_bytes: usize,
    /// Whether the log has it without its data.
    rejected: bool,
}

impl<E: Consensus> Node<E> {
    /// Appends entries. They are readable when the call returns. `done` is called once they are on
    /// stable storage, mostly by the thread that synced them: it must not block.
    ///
    /// The call waits while the log is full, and while a snapshot is installed.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`], and drops `done`.
    pub async fn append(
        self: &Arc<Self>,
        entries: Vec<E::Entry>,
        done: impl FnOnce(Result<(), Failure>) + Send + 'static,
    ) -> Result<(), Failure> {
        let last = entries.last().map(|entry| E::log_id_of(entry).index());
        let mut rest = entries;
        while !rest.is_empty() {
            {
                let _not_while_installing = self.after_install().await?;
                self.submit(&mut rest)?;
            }
            if !rest.is_empty() {
                self.wait_for_room().await?;
            }
        }
        let applied = self.manager.machine().applied().map(|applied| applied.index);
        match last {
            Some(last) if Some(last) > applied => self.call_when_durable(last, done)?,
            // Entries that the state has passed are no part of what its marks say.
            _ => {
                let node = Arc::clone(self);
                drop(tokio::task::spawn_blocking(move || {
                    done(node.sync().map_err(Failure::of(Subject::Log, Action::Write)));
                }));
            }
        }
        Ok(())
    }

    fn call_when_durable(
        &self,
        index: u64,
        done: impl FnOnce(Result<(), Failure>) + Send + 'static,
    ) -> Result<(), Failure> {
        let log = self.manager.log().map_err(Failure::of(Subject::Log, Action::Write))?;
        let waiting = Mutex::new(Some((log.durable(index), done)));
        let (began, patience) = (Instant::now(), self.patience);
        Arc::new(Callback { waiting, began, patience }).look();
        Ok(())
    }

    /// Appends as many of `entries` as there is room for, and takes them from the front.
    fn submit(&self, entries: &mut Vec<E::Entry>) -> Result<(), Failure> {
        let (taken, known) = self.submit_to_log(entries)?;
        let taken_entries = entries.drain(..taken.len());
        let mut tail = self.tail();
        for (entry, taken) in taken_entries.zip(taken).skip(known) {
            let log_id = E::log_id_of(&entry);
            let entry = if taken.rejected {
                let blank = E::entry(log_id.clone(), &PayloadRef::Noop);
                blank.map_err(Failure::of(Subject::Log, Action::Write))?
            } else {
                entry
            };
            tail.push(log_id.to_sprag(), taken.payload_bytes, entry);
        }
        Ok(())
    }

    /// Appends as many of `entries` as there is room for. Returns these, and how many of them the
    /// log had before.
    fn submit_to_log(&self, entries: &[E::Entry]) -> Result<(Vec<Taken>, usize), Failure> {
        let refused = |error: DataError| Failure::new(Subject::Log, Action::Write, error);
        let unusable = |error: SubmitError| Failure::new(Subject::Log, Action::Write, error);
        let mut scratches: Vec<Scratch<'_>> = entries.iter().map(|_| Scratch::default()).collect();
        let mut ours = Vec::with_capacity(entries.len());
        for (entry, scratch) in entries.iter().zip(&mut scratches) {
            ours.push(to_entry::<E>(entry, scratch).map_err(refused)?);
        }
        let mut taken: Vec<Taken> = Vec::with_capacity(ours.len());
        let (mut known, mut most) = (0, ours.len());
        let log = self.manager.consensus();
        let log = log.map_err(Failure::of(Subject::Log, Action::Write))?;
        while taken.len() < ours.len() {
            let end = ours.len().min(taken.len() + most);
            // `end` is at most the length of `ours`.
            let next = ours.get(taken.len()..end).unwrap_or_default();
            match log.append(next) {
                Ok(submitted) => {
                    // The log takes at most what it was given.
                    known += next.len() - usize::try_from(submitted.new).unwrap_or(next.len());
                    let rejected = self.rejected();
                    taken.extend(next.iter().map(|entry| Taken {
                        payload_bytes: payload_bytes(&entry.payload),
                        rejected: !rejected.is_empty() && rejected.contains(&entry.log_id.index),
                    }));
                }
                Err(SubmitError::Full { .. }) => break,
                Err(SubmitError::TooLarge { what, .. })
                    if next.len() > 1 && what.fits_in_parts() =>
                {
                    most = next.len() / 2;
                }
                Err(SubmitError::Entry { index, source }) if source.is_never_an_entry() => {
                    let at = |entry: &&mut sprag::Entry<'_>| entry.log_id.index == index;
                    let is_client_s = |entry: &&mut sprag::Entry<'_>| {
                        matches!(entry.payload, Payload::Command(_) | Payload::Opaque(_))
                    };
                    let entry = ours.iter_mut().find(at).filter(is_client_s);
                    let Some(entry) = entry else {
                        return Err(Failure::new(Subject::Log, Action::Write, source));
                    };
                    tracing::warn!(error = %source, index, "a command cannot be an entry: it is rejected");
                    entry.payload = Payload::Noop;
                    self.rejected().insert(index);
                }
                Err(error) => return Err(unusable(error)),
            }
        }
        Ok((taken, known))
    }

    /// Waits until the log's memory is free again: its entries are durable.
    async fn wait_for_room(&self) -> Result<(), Failure> {
        let failed = |error: LogError| Failure::new(Subject::Log, Action::Write, error);
        let log = self.manager.log().map_err(failed)?;
        let state = log.state().map_err(failed)?;
        let last = state.last.map(|last| last.index).filter(|last| state.durable < Some(*last));
        let durable = last.map(|last| log.durable(last));
        match durable {
            Some(durable) => match durable.await {
                // A truncation frees memory too.
                Ok(()) | Err(WaitError::Truncated { .. }) => Ok(()),
                Err(error) => Err(Failure::new(Subject::Log, Action::Write, error)),
            },
            None => {
                tokio::time::sleep(FULL_PAUSE).await;
                Ok(())
            }
        }
    }

    /// Waits for the installation of a snapshot that is on its way, because the Raft library may
    /// continue with the log before that. The returned guard keeps later installations out.
    ///
    /// The wait has no limit. Entries appended across the gap would be acknowledged, and lost when
    /// the snapshot replaces the log.
    async fn after_install(&self) -> Result<RwLockReadGuard<'_, ()>, Failure> {
        let guard = self.installing.read().await;
        if !self.is_before_a_gap()? {
            return Ok(guard);
        }
        drop(guard);
        let mut installs = self.installs.subscribe();
        loop {
            let newest = *installs.borrow_and_update();
            // Take the guard first: an installation takes the log's own lock.
            let guard = self.installing.read().await;
            if !self.is_before_a_gap()? {
                return Ok(guard);
            }
            drop(guard);
            if newest == Installs::Ended {
                let error = "no snapshot came for what was purged past the log's end";
                return Err(Failure::new(Subject::Log, Action::Write, error));
            }
            // The state machine's half reports its end before it is dropped.
            let _changed = installs.changed().await;
        }
    }

    /// Whether entries were purged past the log's end.
    fn is_before_a_gap(&self) -> Result<bool, Failure> {
        let Some(purged) = self.purged() else { return Ok(false) };
        let is_past =
            |last: Option<sprag::LogId>| Some(purged.index()) > last.map(|last| last.index);
        if !is_past(self.manager.machine().applied()) {
            return Ok(false);
        }
        let state = self.manager.log().and_then(|log| log.state());
        Ok(is_past(state.map_err(Failure::of(Subject::Log, Action::Read))?.last))
    }

    /// Removes the entries after `keep` (`None`: all) from the log.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`].
    pub async fn truncate_after(&self, keep: Option<u64>) -> Result<(), Failure> {
        let _not_while_installing = self.installing.read().await;
        // No entry has the index u64::MAX.
        let from = keep.map_or(0, |keep| keep.saturating_add(1));
        loop {
            match self.manager.consensus().and_then(|log| log.truncate_after(keep)) {
                Ok(()) => {
                    self.tail().truncate_from(from);
                    self.rejected().split_off(&from);
                    return Ok(());
                }
                Err(LogError::Full) => self.wait_for_room().await?,
                Err(error) => {
                    return Err(Failure::new(Subject::Entry(from), Action::Delete, error));
                }
            }
        }
    }

    /// Purges the log through `log_id`. Files go when a snapshot covers whole segments.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`].
    pub async fn purge(self: &Arc<Self>, log_id: RaftLogId<E::NodeId>) -> Result<(), Failure> {
        let Ok(_not_while_installing) = self.installing.try_read() else {
            // Making the purge durable would wait for the installation, and the snapshot has all of
            // it anyway.
            self.purge_in_memory(log_id);
            return Ok(());
        };
        let node = Arc::clone(self);
        let index = log_id.index();
        if blocking(Subject::Log, move || node.purge_durably(log_id)).await? {
            // Purge what a snapshot covers by now; a later purge takes the rest.
            let node = Arc::clone(self);
            drop(tokio::task::spawn_blocking(move || {
                match node.manager.log().and_then(|log| log.purge(index)) {
                    Ok(()) | Err(LogError::NotCovered { .. }) => {}
                    Err(error) => tracing::warn!(%error, index, "the log could not be given up"),
                }
            }));
        }
        Ok(())
    }

    fn purge_in_memory(&self, log_id: RaftLogId<E::NodeId>) {
        let mut purged = self.purged_in_memory.lock().unwrap_or_else(PoisonError::into_inner);
        *purged = purged.take().max(Some(log_id));
    }

    /// Purges the log through `log_id`. Returns whether the purge is durable.
    ///
    /// A purge is durable only if the state has all purged entries. A Raft library purges past the
    /// end of the log while a snapshot for the gap is on its way. Until that snapshot is installed
    /// and becomes the log's base, a restart continues with the existing log.
    fn purge_durably(&self, log_id: RaftLogId<E::NodeId>) -> Result<bool, Failure> {
        if self.applied()?.as_ref() < Some(&log_id) {
            self.purge_in_memory(log_id);
            return Ok(false);
        }
        let purge = |hard: &mut HardState<E::NodeId>| {
            hard.purged = hard.purged.take().max(Some(log_id));
        };
        self.keep(purge, Subject::Log)?;
        Ok(true)
    }

    /// The last log id that the Raft library has purged.
    pub(crate) fn purged(&self) -> Option<RaftLogId<E::NodeId>> {
        let in_memory = self.purged_in_memory.lock().unwrap_or_else(PoisonError::into_inner);
        let in_memory = in_memory.clone();
        self.hard().purged.clone().max(in_memory)
    }
}

/// Converts an entry of a Raft library into one of sprag.
pub(crate) fn to_entry<'a, E: Consensus>(
    entry: &'a E::Entry,
    scratch: &'a mut Scratch<'a>,
) -> Result<sprag::Entry<'a>, DataError> {
    Ok(sprag::Entry::new(E::log_id_of(entry).to_sprag(), E::payload(entry, scratch)?))
}

/// An append's callback. It is its own waker: the thread that syncs the entries calls it, without a
/// hop to another thread.
struct Callback<F> {
    /// The wait, and the callback; `None` once it was called.
    waiting: Mutex<Option<(Durable, F)>>,
    began: Instant,
    patience: Duration,
}

impl<F: FnOnce(Result<(), Failure>) + Send + 'static> Callback<F> {
    /// Calls the callback if the entries are durable. Otherwise the engine calls this again.
    fn look(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((durable, _)) = waiting.as_mut() else { return };
        let polled = Pin::new(durable).poll(&mut Context::from_waker(&waker));
        let Poll::Ready(waited) = polled else { return };
        let done = waiting.take().map(|(_, done)| done);
        drop(waiting);
        let waited_for = self.began.elapsed();
        if waited_for > self.patience {
            tracing::warn!(?waited_for, "the disk is slow: an append was waited for");
        }
        let Some(done) = done else { return };
        done(match waited {
            // Another leader truncates only after this node has granted it its vote. Saving that
            // vote made these entries durable before.
            Ok(()) | Err(WaitError::Truncated { .. }) => Ok(()),
            Err(error) => Err(Failure::new(Subject::Log, Action::Write, error)),
        });
    }
}

impl<F: FnOnce(Result<(), Failure>) + Send + 'static> Wake for Callback<F> {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}
