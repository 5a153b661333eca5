//! A log of openraft: its entries in memory for every reader, and behind that what makes them
//! durable.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{OptionalSend, RaftTypeConfig};

use super::types::{Entry, LogId, Types, Vote};

/// A change of the log, in the order in which openraft makes them.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    Append(&'a [Entry]),
    /// Everything after this index goes; without one, everything.
    TruncateAfter(Option<u64>),
    /// Everything up to this entry goes.
    Purge(&'a LogId),
    Vote(&'a Vote),
}

/// Something that makes changes durable, in the order of the calls.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Takes a change and returns. Completes `done` when the change is durable.
    fn write(&self, change: Change<'_>, done: IOFlushed<Types>) -> io::Result<()>;
}

/// No disk: every change is done at once.
#[derive(Debug)]
pub(crate) struct Nowhere;

impl Disk for Nowhere {
    fn write(&self, _: Change<'_>, done: IOFlushed<Types>) -> io::Result<()> {
        done.io_completed(Ok(()));
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Entries {
    purged: Option<LogId>,
    entries: VecDeque<Entry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl Entries {
    fn first(&self) -> u64 {
        self.purged.as_ref().map_or(0, |purged| purged.index + 1)
    }

    /// The place of an index, within the entries there are.
    fn place(&self, index: u64) -> usize {
        let place = usize::try_from(index.saturating_sub(self.first())).unwrap_or(usize::MAX);
        place.min(self.entries.len())
    }

    fn range(&self, range: &impl RangeBounds<u64>) -> Vec<Entry> {
        let from = match range.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let (from, to) = (self.place(from), self.place(to));
        self.entries.range(from..to.max(from)).cloned().collect()
    }
}

/// The log over a disk. Clones are readers of the same log.
pub(crate) struct Log<D> {
    entries: Arc<Mutex<Entries>>,
    disk: Arc<D>,
}

impl<D> Clone for Log<D> {
    fn clone(&self) -> Self {
        Self { entries: Arc::clone(&self.entries), disk: Arc::clone(&self.disk) }
    }
}

impl<D> Log<D> {
    /// An empty log.
    pub(crate) fn new(disk: Arc<D>) -> Self {
        Self { entries: Arc::default(), disk }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Disk> Log<D> {
    async fn write(&self, change: Change<'_>) -> io::Result<()> {
        let (sender, receiver) = Types::oneshot();
        self.disk.write(change, IOFlushed::signal(sender))?;
        receiver.await.map_err(|_| io::Error::other("the log's thread has ended"))?
    }
}

impl<D: Disk> RaftLogReader<Types> for Log<D> {
    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        stream::iter(self.lock().range(&range).into_iter().map(Ok))
    }

    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.lock().range(&range))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.lock().vote)
    }
}

impl<D: Disk> RaftLogStorage<Types> for Log<D> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let entries = self.lock();
        let last = entries.entries.back().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: entries.purged, last_log_id: last.or(entries.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.lock().vote = Some(*vote);
        self.write(Change::Vote(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = <Types as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut log = self.lock();
        let before = log.entries.len();
        log.entries.extend(entries);
        self.disk.write(Change::Append(&log.entries.make_contiguous()[before..]), done)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let last = last.map(|log_id| log_id.index);
        {
            let mut log = self.lock();
            let keep = last.map_or(0, |last| log.place(last + 1));
            log.entries.truncate(keep);
        }
        self.write(Change::TruncateAfter(last)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        {
            let mut log = self.lock();
            let gone = log.place(upto.index + 1);
            log.entries.drain(..gone);
            log.purged = Some(upto);
        }
        self.disk.write(Change::Purge(&upto), IOFlushed::noop())
    }
}
