//! The log store: openraft's entries are appended to sprag's log, once, and read back from there.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, mpsc};
use std::thread;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, LogState, OptionalSend, RaftLogReader,
    StorageError, Vote,
};
use sprag::error::{LogError, SubmitError};
use sprag::{LogEntries, Payload, PayloadRef, StateMachine};

use crate::store::{Installs, Kept, Shared, blocking, failed};
use crate::types::{
    Application, DataError, Scratch, Types, encode, from_sprag, membership, to_sprag,
};
use tokio::sync::RwLockReadGuard;

/// Most bytes of entries that one call reads from the log.
const READ_BYTES_MAX: usize = 4 << 20;

/// The log of one node. [`Store::new`](crate::Store::new) makes it.
#[derive(Debug)]
pub struct LogStore<C: Types, A: Application<C>> {
    shared: Arc<Shared<C, A>>,
    flusher: Flusher<C>,
}

/// A reader of the log, which openraft uses to send entries to other nodes.
#[derive(Debug)]
pub struct LogReader<C: Types, A: Application<C>>(Arc<Shared<C, A>>);

impl<C: Types, A: Application<C>> LogStore<C, A> {
    pub(crate) fn new(shared: Arc<Shared<C, A>>) -> io::Result<Self> {
        let flusher = Flusher::start(Arc::clone(&shared))?;
        Ok(Self { shared, flusher })
    }

    /// Appends as many of `entries` as there is room for. Returns their number.
    fn submit(&self, entries: &[Entry<C>]) -> Result<usize, StorageError<C::NodeId>> {
        let refused = |error: &(dyn std::error::Error + 'static)| {
            StorageError::from_io_error(
                ErrorSubject::Logs,
                ErrorVerb::Write,
                io::Error::other(error.to_string()),
            )
        };
        let mut scratches: Vec<Scratch<'_>> = entries.iter().map(|_| Scratch::default()).collect();
        let ours: Result<Vec<_>, DataError> = entries
            .iter()
            .zip(&mut scratches)
            .map(|(entry, scratch)| to_entry::<C, A>(entry, scratch))
            .collect();
        let mut ours = ours.map_err(|error| refused(&error))?;
        let (mut taken, mut most) = (0, ours.len());
        let log = self.shared.manager.consensus().map_err(|error| refused(&error))?;
        while taken < ours.len() {
            let end = ours.len().min(taken + most);
            // `end` is at most the length of `ours`.
            let next = ours.get(taken..end).unwrap_or_default();
            match log.append(next) {
                Ok(_) => taken = end,
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
                    let Some(entry) = entry else { return Err(refused(&source)) };
                    tracing::warn!(error = %source, index, "a command cannot be an entry: it is rejected");
                    entry.payload = Payload::Noop;
                    self.shared.lock_rejected().insert(index);
                }
                Err(error) => return Err(refused(&error)),
            }
        }
        Ok(taken)
    }

    /// Waits for the installation of a snapshot that is on its way, because openraft may continue
    /// with the log before that. The returned guard keeps later installations out.
    ///
    /// The wait has no limit. Entries appended across the gap would be acknowledged, and lost when
    /// the snapshot replaces the log.
    async fn after_install(&self) -> Result<RwLockReadGuard<'_, ()>, StorageError<C::NodeId>> {
        let mut installs = self.shared.installs.subscribe();
        loop {
            let newest = *installs.borrow_and_update();
            // Take the guard first: an installation takes the log's own lock.
            let guard = self.shared.installing.read().await;
            let purged = self.shared.purged().map(|purged| purged.index);
            if purged <= self.shared.end()? {
                return Ok(guard);
            }
            drop(guard);
            if newest == Installs::Ended {
                let error = "no snapshot came for what was purged past the log's end";
                let error = io::Error::other(error);
                return Err(StorageError::from_io_error(
                    ErrorSubject::Logs,
                    ErrorVerb::Write,
                    error,
                ));
            }
            // The state machine's half reports its end before it is dropped.
            let _changed = installs.changed().await;
        }
    }
}

impl<C: Types, A: Application<C>> RaftLogStorage<C> for LogStore<C, A> {
    type LogReader = LogReader<C, A>;

    async fn get_log_state(&mut self) -> Result<LogState<C>, StorageError<C::NodeId>> {
        let (last_purged_log_id, last) = self.shared.log_ends()?;
        let last_log_id = last.filter(|last| last_purged_log_id.as_ref() < Some(last));
        let last_log_id = last_log_id.or_else(|| last_purged_log_id.clone());
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        LogReader(Arc::clone(&self.shared))
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let (shared, vote) = (Arc::clone(&self.shared), vote.clone());
        let save = move || shared.keep(|kept| kept.vote = Some(vote), ErrorSubject::Vote);
        blocking(ErrorSubject::Vote, save).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<C::NodeId>>, StorageError<C::NodeId>> {
        Ok(self.shared.lock_kept().vote.clone())
    }

    /// Keeps the committed index in memory. The next frame of the log puts it on disk, because a
    /// frame records what was committed when it was written.
    async fn save_committed(
        &mut self,
        committed: Option<LogId<C::NodeId>>,
    ) -> Result<(), StorageError<C::NodeId>> {
        self.shared.lock_kept().committed = committed;
        Ok(())
    }

    async fn read_committed(
        &mut self,
    ) -> Result<Option<LogId<C::NodeId>>, StorageError<C::NodeId>> {
        let kept = self.shared.lock_kept().committed.clone();
        Ok(kept.max(self.shared.applied()?))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<C>,
    ) -> Result<(), StorageError<C::NodeId>>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let mut rest = &entries[..];
        while !rest.is_empty() {
            let taken = {
                let _not_while_installing = self.after_install().await?;
                self.submit(rest)?
            };
            // The log takes at most what it was given.
            rest = rest.get(taken..).unwrap_or_default();
            if !rest.is_empty() {
                let shared = Arc::clone(&self.shared);
                blocking(ErrorSubject::Logs, move || shared.make_room()).await?;
            }
        }
        self.flusher.flush(callback);
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let _not_while_installing = self.shared.installing.read().await;
        let keep = log_id.index.checked_sub(1);
        loop {
            match self.shared.manager.consensus().and_then(|log| log.truncate_after(keep)) {
                Ok(()) => {
                    self.shared.lock_rejected().split_off(&log_id.index);
                    return Ok(());
                }
                Err(LogError::Full) => {
                    let shared = Arc::clone(&self.shared);
                    blocking(ErrorSubject::Logs, move || shared.make_room()).await?;
                }
                Err(error) => {
                    return Err(failed(ErrorSubject::Log(log_id), ErrorVerb::Delete, &error));
                }
            }
        }
    }

    async fn purge(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let Ok(_not_while_installing) = self.shared.installing.try_read() else {
            // Making the purge durable would wait for the installation, and the snapshot has all of
            // it anyway.
            self.shared.purge_in_memory(log_id);
            return Ok(());
        };
        let shared = Arc::clone(&self.shared);
        let index = log_id.index;
        if blocking(ErrorSubject::Logs, move || shared.purge(log_id)).await? {
            // Purge what a snapshot covers by now; a later purge takes the rest.
            let shared = Arc::clone(&self.shared);
            drop(tokio::task::spawn_blocking(move || {
                match shared.manager.log().and_then(|log| log.purge(index)) {
                    Ok(()) | Err(LogError::NotCovered { .. }) => {}
                    Err(error) => tracing::warn!(%error, index, "the log could not be given up"),
                }
            }));
        }
        Ok(())
    }
}

impl<C: Types, A: Application<C>> RaftLogReader<C> for LogStore<C, A> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        self.shared.read(bounds(&range), false).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        self.shared.read((start, end), true).await
    }
}

impl<C: Types, A: Application<C>> RaftLogReader<C> for LogReader<C, A> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        self.0.read(bounds(&range), false).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        self.0.read((start, end), true).await
    }
}

/// The last purged log id, and the last log id of the log (or the last purged one).
type Ends<N> = (Option<LogId<N>>, Option<LogId<N>>);

impl<C: Types, A: Application<C>> Shared<C, A> {
    /// The last entry in the state.
    pub(crate) fn applied(&self) -> Result<Option<LogId<C::NodeId>>, StorageError<C::NodeId>> {
        let applied = self.manager.machine().applied().map(from_sprag).transpose();
        applied.map_err(|error| failed(ErrorSubject::StateMachine, ErrorVerb::Read, &error))
    }

    /// The last index that is in the log or in the state.
    fn end(&self) -> Result<Option<u64>, StorageError<C::NodeId>> {
        let state = self.manager.log().and_then(|log| log.state());
        let state = state.map_err(|error| failed(ErrorSubject::Logs, ErrorVerb::Read, &error))?;
        let index = |last: sprag::LogId| last.index;
        Ok(state.last.map(index).max(self.manager.machine().applied().map(index)))
    }

    fn log_ends(&self) -> Result<Ends<C::NodeId>, StorageError<C::NodeId>> {
        let unreadable = |error: LogError| failed(ErrorSubject::Logs, ErrorVerb::Read, &error);
        let foreign = |error: DataError| failed(ErrorSubject::Logs, ErrorVerb::Read, &error);
        let state = self.manager.log().and_then(|log| log.state()).map_err(unreadable)?;
        let base = match state.purged {
            Some(index) => {
                self.manager.log().and_then(|log| log.log_id(index)).map_err(unreadable)?
            }
            None => None,
        };
        let base = base.map(from_sprag).transpose().map_err(foreign)?;
        let last = state.last.map(from_sprag).transpose().map_err(foreign)?;
        Ok((self.purged().max(base), last))
    }

    /// The last log id that openraft has purged.
    fn purged(&self) -> Option<LogId<C::NodeId>> {
        let in_memory = self.lock_purged_in_memory().clone();
        self.lock_kept().purged.clone().max(in_memory)
    }

    fn purge_in_memory(&self, log_id: LogId<C::NodeId>) {
        let mut purged = self.lock_purged_in_memory();
        *purged = purged.take().max(Some(log_id));
    }

    /// Purges the log through `log_id`. Returns whether the purge is durable.
    ///
    /// A purge is durable only if the state has all purged entries. Openraft purges past the end of
    /// the log while a snapshot for the gap is on its way. Until that snapshot is installed and
    /// becomes the log's base, a restart continues with the existing log.
    fn purge(&self, log_id: LogId<C::NodeId>) -> Result<bool, StorageError<C::NodeId>> {
        if self.applied()? < Some(log_id.clone()) {
            self.purge_in_memory(log_id);
            return Ok(false);
        }
        let purge = |kept: &mut Kept<C::NodeId>| {
            kept.purged = kept.purged.take().max(Some(log_id));
        };
        self.keep(purge, ErrorSubject::Logs)?;
        Ok(true)
    }

    /// Waits for room in the log's buffers; they become free when their entries are durable.
    fn make_room(&self) -> Result<(), StorageError<C::NodeId>> {
        self.sync().map_err(|error| failed(ErrorSubject::Logs, ErrorVerb::Write, &error))
    }

    /// Reads entries of the log; with `limited`, as many as one call reads.
    async fn read(
        self: &Arc<Self>,
        (first, end): (u64, u64),
        limited: bool,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        let shared = Arc::clone(self);
        blocking(ErrorSubject::Logs, move || shared.read_blocking(first, end, limited)).await
    }

    fn read_blocking(
        &self,
        first: u64,
        end: u64,
        limited: bool,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        loop {
            match self.try_read(first, end, limited) {
                // The entry was purged after the log had reported its bounds.
                Err((_, LogError::NotInLog { .. })) => {}
                Err((at, error)) => {
                    return Err(failed(ErrorSubject::LogIndex(at), ErrorVerb::Read, &error));
                }
                Ok(found) => return self.decode(&found),
            }
        }
    }

    /// Reads the existing entries of the range. With `limited`, reads as many as one call may, or
    /// none if the first entry is gone. A sender takes the result for consecutive entries.
    fn try_read(
        &self,
        first: u64,
        end: u64,
        limited: bool,
    ) -> Result<Vec<LogEntries>, (u64, LogError)> {
        let state =
            self.manager.log().and_then(|log| log.state()).map_err(|error| (first, error))?;
        // No entry has the index u64::MAX.
        let purged = self.purged().map_or(0, |purged| purged.index.saturating_add(1));
        let begin = state.first.map_or(u64::MAX, |first| first.max(purged));
        let end = end.min(state.last.map_or(0, |last| last.index + 1));
        let mut found = Vec::new();
        if limited && begin > first {
            return Ok(found);
        }
        let mut next = first.max(begin);
        while next < end {
            let read =
                self.patiently(|_| self.manager.log()?.entries(next..=end - 1, READ_BYTES_MAX));
            let read = read.map_err(|error| (next, error))?;
            let Some(last) = read.last() else { break };
            next = last.index + 1;
            found.push(read);
            if limited {
                break;
            }
        }
        Ok(found)
    }

    fn decode(&self, found: &[LogEntries]) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        let entries = found.iter().flat_map(LogEntries::iter);
        let decoded = entries.map(|(log_id, payload)| {
            from_entry::<C, A>(log_id, &payload).map_err(|error| {
                failed(ErrorSubject::LogIndex(log_id.index), ErrorVerb::Read, &error)
            })
        });
        decoded.collect()
    }
}

/// The first index of a range, and the index after its last.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let first = match range.start_bound() {
        Bound::Included(first) => *first,
        // No entry has the index u64::MAX.
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        // No entry has the index u64::MAX.
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (first, end)
}

/// Converts an entry of openraft into one of sprag.
pub(crate) fn to_entry<'a, C: Types, A: Application<C>>(
    entry: &'a Entry<C>,
    scratch: &'a mut Scratch<'a>,
) -> Result<sprag::Entry<'a>, DataError> {
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Noop,
        EntryPayload::Normal(data) => A::payload(data, scratch)?,
        EntryPayload::Membership(membership) => {
            scratch.bytes = encode(membership)?;
            Payload::Membership(&scratch.bytes)
        }
    };
    Ok(sprag::Entry::new(to_sprag(&entry.log_id), payload))
}

/// Converts an entry of the log into one of openraft.
fn from_entry<C: Types, A: Application<C>>(
    log_id: sprag::LogId,
    payload: &PayloadRef<'_>,
) -> Result<Entry<C>, DataError> {
    let payload = match payload {
        PayloadRef::Noop => EntryPayload::Blank,
        PayloadRef::Membership(bytes) => EntryPayload::Membership(membership::<C>(bytes)?),
        payload => EntryPayload::Normal(A::data(payload)?),
    };
    Ok(Entry { log_id: from_sprag(log_id)?, payload })
}

/// A thread that waits for the disk, so that the runtime's threads need not. Entries appended
/// during a wait share the next sync.
#[derive(Debug)]
struct Flusher<C: Types> {
    queue: Option<mpsc::Sender<LogFlushed<C>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl<C: Types> Flusher<C> {
    fn start<A: Application<C>>(shared: Arc<Shared<C, A>>) -> io::Result<Self> {
        let (queue, appended) = mpsc::channel::<LogFlushed<C>>();
        let run = move || {
            while let Ok(first) = appended.recv() {
                let callbacks: Vec<_> = std::iter::once(first).chain(appended.try_iter()).collect();
                let synced = shared.sync();
                for callback in callbacks {
                    let error = |error: &LogError| io::Error::other(error.to_string());
                    callback.log_io_completed(synced.as_ref().copied().map_err(error));
                }
            }
        };
        let thread = thread::Builder::new().name("sprag-openraft-flush".to_owned()).spawn(run)?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    fn flush(&self, callback: LogFlushed<C>) {
        if let Some(queue) = &self.queue {
            // The thread lives as long as this value.
            let _sent = queue.send(callback);
        }
    }
}

impl<C: Types> Drop for Flusher<C> {
    /// Waits until the thread has released the engine.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
