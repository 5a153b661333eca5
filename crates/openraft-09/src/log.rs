//! The log store: openraft's entries are appended to sprag's log, once, and read back from there.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, Vote};
use sprag_raft_store::{Application, Node, bounds};

use crate::types::{Openraft, Types, failed, to_openraft, to_openraft_vote, to_raft, to_raft_vote};

/// The log of one node. [`Store::new`](crate::Store::new) makes it.
#[derive(Debug)]
pub struct LogStore<C: Types, A: Application<C::D, C::R>>(pub(crate) Arc<Node<Openraft<C, A>>>);

/// A reader of the log, which openraft uses to send entries to other nodes.
#[derive(Debug)]
pub struct LogReader<C: Types, A: Application<C::D, C::R>>(Arc<Node<Openraft<C, A>>>);

impl<C: Types, A: Application<C::D, C::R>> RaftLogStorage<C> for LogStore<C, A> {
    type LogReader = LogReader<C, A>;

    async fn get_log_state(&mut self) -> Result<LogState<C>, StorageError<C::NodeId>> {
        let (purged, last) = self.0.ends().map_err(failed)?;
        let (last_purged_log_id, last_log_id) =
            (purged.as_ref().map(to_openraft), last.as_ref().map(to_openraft));
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        LogReader(Arc::clone(&self.0))
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        self.0.save_vote(to_raft_vote(vote)).await.map_err(failed)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<C::NodeId>>, StorageError<C::NodeId>> {
        Ok(self.0.vote().as_ref().map(to_openraft_vote))
    }

    async fn save_committed(
        &mut self,
        committed: Option<LogId<C::NodeId>>,
    ) -> Result<(), StorageError<C::NodeId>> {
        self.0.save_committed(committed.as_ref().map(to_raft));
        Ok(())
    }

    async fn read_committed(
        &mut self,
    ) -> Result<Option<LogId<C::NodeId>>, StorageError<C::NodeId>> {
        Ok(self.0.committed().map_err(failed)?.as_ref().map(to_openraft))
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
        let entries = entries.into_iter().collect();
        let done = |result: Result<(), _>| {
            callback.log_io_completed(result.map_err(io::Error::other));
        };
        self.0.append(entries, done).await.map_err(failed)
    }

    async fn truncate(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        self.0.truncate_after(log_id.index.checked_sub(1)).await.map_err(failed)
    }

    async fn purge(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        self.0.purge(to_raft(&log_id)).await.map_err(failed)
    }
}

impl<C: Types, A: Application<C::D, C::R>> RaftLogReader<C> for LogStore<C, A> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        read(&self.0, bounds(&range), false).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        read(&self.0, (start, end), true).await
    }
}

impl<C: Types, A: Application<C::D, C::R>> RaftLogReader<C> for LogReader<C, A> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        read(&self.0, bounds(&range), false).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
        read(&self.0, (start, end), true).await
    }
}

async fn read<C: Types, A: Application<C::D, C::R>>(
    node: &Arc<Node<Openraft<C, A>>>,
    (first, end): (u64, u64),
    limited: bool,
) -> Result<Vec<Entry<C>>, StorageError<C::NodeId>> {
    node.read(first, end, limited).await.map_err(failed)
}
