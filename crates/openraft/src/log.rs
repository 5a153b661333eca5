//! The log: openraft's entries are appended to sprag's, once, and read back from it.

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
use sprag::error::{EntryError, LogError, SubmitError};
use sprag::{Limits, LogEntries, Payload, PayloadRef, StateMachine};

use crate::store::{Installs, Kept, Shared, blocking, failed};
use crate::types::{
    Application, DataError, Scratch, Types, encode, from_sprag, membership, to_sprag,
};
use tokio::sync::RwLockReadGuard;

/// Most bytes of entries that are read from the log at once.
const READ_BYTES_MAX: usize = 4 << 20;

/// The log of one node. One is made by [`Store::new`](crate::Store::new).
#[derive(Debug)]
pub struct LogStore<C: Types, A: Application<C>> {
    shared: Arc<Shared<C, A>>,
    flusher: Flusher<C>,
}

/// Reads the log, for one that sends it to other nodes.
#[derive(Debug)]
pub struct LogReader<C: Types, A: Application<C>>(Arc<Shared<C, A>>);

impl<C: Types, A: Application<C>> LogStore<C, A> {
    pub(crate) fn new(shared: Arc<Shared<C, A>>) -> io::Result<Self> {
        let flusher = Flusher::start(Arc::clone(&shared))?;
        Ok(Self { shared, flusher })
    }

    /// Appends as many of `entries` as there is room for; how many that are.
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
        while taken < ours.len() {
            let end = ours.len().min(taken + most);
            let next = ours.get(taken..end).unwrap_or_default();
            match self.shared.manager.append(next) {
                Ok(_) => taken = end,
                Err(SubmitError::Full { .. }) => break,
                Err(SubmitError::TooLarge { .. }) if next.len() > 1 => most = next.len() / 2,
                Err(SubmitError::Entry { index, source }) if is_never_an_entry(&source) => {
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

    /// Lets a snapshot that is on its way be installed first, as openraft may go on with the log before it is; then none is
    /// while the guard is there.
    ///
    /// It waits as long as it takes: what is appended over the gap would go when the snapshot takes the log's place, and was
    /// acknowledged by then.
    async fn after_install(&self) -> Result<RwLockReadGuard<'_, ()>, StorageError<C::NodeId>> {
        let mut installs = self.shared.installs.subscribe();
        loop {
            let newest = *installs.borrow_and_update();
            // First of all: while a snapshot is being installed the log's own lock is taken.
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
            // The state machine's half is dropped after it has said so.
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

    /// Kept here, and on disk by the next frame of the log, which says what was committed when it was written.
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
            match self.shared.manager.truncate_after(keep) {
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
            // Making it durable would wait for the installation, whose snapshot has all of it anyway.
            self.shared.purge_in_memory(log_id);
            return Ok(());
        };
        let shared = Arc::clone(&self.shared);
        let index = log_id.index;
        if blocking(ErrorSubject::Logs, move || shared.purge(log_id)).await? {
            // What is under a snapshot by now; the rest goes with a later purge.
            let shared = Arc::clone(&self.shared);
            drop(tokio::task::spawn_blocking(move || match shared.manager.purge(index) {
                Ok(()) | Err(LogError::NotCovered { .. }) => {}
                Err(error) => tracing::warn!(%error, index, "the log could not be given up"),
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

/// The last log id that is gone, and the last that is there (or gone).
type Ends<N> = (Option<LogId<N>>, Option<LogId<N>>);

impl<C: Types, A: Application<C>> Shared<C, A> {
    /// The last entry in the state.
    pub(crate) fn applied(&self) -> Result<Option<LogId<C::NodeId>>, StorageError<C::NodeId>> {
        let applied = self.manager.machine().applied().map(from_sprag).transpose();
        applied.map_err(|error| failed(ErrorSubject::StateMachine, ErrorVerb::Read, &error))
    }

    /// The last index that is in the log or in the state.
    fn end(&self) -> Result<Option<u64>, StorageError<C::NodeId>> {
        let state = self.manager.log_state();
        let state = state.map_err(|error| failed(ErrorSubject::Logs, ErrorVerb::Read, &error))?;
        let index = |last: sprag::LogId| last.index;
        Ok(state.last.map(index).max(self.manager.machine().applied().map(index)))
    }

    fn log_ends(&self) -> Result<Ends<C::NodeId>, StorageError<C::NodeId>> {
        let unreadable = |error: LogError| failed(ErrorSubject::Logs, ErrorVerb::Read, &error);
        let foreign = |error: DataError| failed(ErrorSubject::Logs, ErrorVerb::Read, &error);
        let state = self.manager.log_state().map_err(unreadable)?;
        let base = match state.purged {
            Some(index) => self.manager.log_id(index).map_err(unreadable)?,
            None => None,
        };
        let base = base.map(from_sprag).transpose().map_err(foreign)?;
        let last = state.last.map(from_sprag).transpose().map_err(foreign)?;
        Ok((self.purged().max(base), last))
    }

    /// Up to here the log is gone for openraft.
    fn purged(&self) -> Option<LogId<C::NodeId>> {
        let in_memory = self.lock_purged_in_memory().clone();
        self.lock_kept().purged.clone().max(in_memory)
    }

    fn purge_in_memory(&self, log_id: LogId<C::NodeId>) {
        let mut purged = self.lock_purged_in_memory();
        *purged = purged.take().max(Some(log_id));
    }

    /// Gives up the log through `log_id`; whether that is durable.
    ///
    /// It is only where the state has all that goes. Openraft purges past the end of the log while the snapshot that it
    /// does so for is on its way: until that is installed, and is the log's base by itself, a restart goes on
    /// with the log that is there.
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

    /// Makes room in the log's buffers: they are free again when what is in them is durable.
    fn make_room(&self) -> Result<(), StorageError<C::NodeId>> {
        self.sync().map_err(|error| failed(ErrorSubject::Logs, ErrorVerb::Write, &error))
    }

    /// Entries of the log; with `limited`, as many as are read at once.
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
                // It went since the log was asked where it begins and ends.
                Err((_, LogError::NotInLog { .. })) => {}
                Err((at, error)) => {
                    return Err(failed(ErrorSubject::LogIndex(at), ErrorVerb::Read, &error));
                }
                Ok(found) => return self.decode(&found),
            }
        }
    }

    /// Those of the entries that are there. With `limited`, as many as are read at once from the first of them on, or none
    /// if that is gone: who sends them on takes what it gets for what follows each other.
    fn try_read(
        &self,
        first: u64,
        end: u64,
        limited: bool,
    ) -> Result<Vec<LogEntries>, (u64, LogError)> {
        let state = self.manager.log_state().map_err(|error| (first, error))?;
        let purged = self.purged().map_or(0, |purged| purged.index.saturating_add(1));
        let begin = state.first.map_or(u64::MAX, |first| first.max(purged));
        let end = end.min(state.last.map_or(0, |last| last.index + 1));
        let mut found = Vec::new();
        if limited && begin > first {
            return Ok(found);
        }
        let mut next = first.max(begin);
        while next < end {
            let read = self.patiently(|_| self.manager.entries(next..=end - 1, READ_BYTES_MAX));
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

/// The first index, and the one after the last.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let first = match range.start_bound() {
        Bound::Included(first) => *first,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (first, end)
}

/// Whether no node anywhere could have such an entry, whatever its options are.
///
/// Only then may it be left out: what a leader has in its log, and this node is told to have no room for, is this node's end.
fn is_never_an_entry(error: &EntryError) -> bool {
    let longest = Limits::default();
    match *error {
        EntryError::EmptyKey | EntryError::NestedBatch { .. } => true,
        EntryError::KeyTooLong { bytes, .. } => bytes > longest.key_bytes_max,
        EntryError::ValueTooLong { bytes, .. } => bytes > longest.value_bytes_max,
        EntryError::EntryTooLong { bytes, .. } => bytes > longest.entry_bytes_max,
        _ => false,
    }
}

/// An entry of openraft as one of sprag.
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

/// The inverse.
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

/// A thread that waits for the disk, so that the runtime's need not: entries that are appended while it waits for those
/// before share the next sync.
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
            // The thread is there as long as this is.
            let _sent = queue.send(callback);
        }
    }
}

impl<C: Types> Drop for Flusher<C> {
    /// When it returns the thread has let go of the engine.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
