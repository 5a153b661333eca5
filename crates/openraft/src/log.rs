//! The log store: openraft's entries are appended to sprag's log, once, and read back from there.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::alias::{LogIdOf, VoteOf};
use openraft::{LogState, OptionalSend, RaftLogReader};
use sprag_raft_store::{Application, Node, bounds};

use crate::types::{Openraft, Types, failed, to_openraft, to_openraft_vote, to_raft, to_raft_vote};

/// The log of one node. [`Store::new`](crate::Store::new) makes it.
#[derive(Debug)]
pub struct LogStore<C: Types, A: Application<C::D, C::R>>(pub(crate) Arc<Node<Openraft<C, A>>>);

/// A reader of the log: openraft sends entries to other nodes from it, and applies them.
#[derive(Debug)]
pub struct LogReader<C: Types, A: Application<C::D, C::R>>(Arc<Node<Openraft<C, A>>>);

impl<C: Types, A: Application<C::D, C::R>> RaftLogStorage<C> for LogStore<C, A> {
    type LogReader = LogReader<C, A>;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let (purged, last) = self.0.ends().map_err(failed)?;
        Ok(LogState {
            last_purged_log_id: purged.as_ref().map(to_openraft::<C>),
            last_log_id: last.as_ref().map(to_openraft::<C>),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        LogReader(Arc::clone(&self.0))
    }

    async fn save_vote(&mut self, vote: &VoteOf<C>) -> Result<(), io::Error> {
        self.0.save_vote(to_raft_vote::<C>(vote)).await.map_err(failed)
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> Result<(), io::Error> {
        self.0.save_committed(committed.as_ref().map(to_raft::<C>));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<C>>, io::Error> {
        Ok(self.0.committed().map_err(failed)?.as_ref().map(to_openraft::<C>))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().collect();
        let done = |result: Result<(), _>| callback.io_completed(result.map_err(failed));
        self.0.append(entries, done).await.map_err(failed)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<C>>) -> Result<(), io::Error> {
        let keep = last_log_id.map(|last| last.index);
        self.0.truncate_after(keep).await.map_err(failed)
    }

    async fn purge(&mut self, log_id: LogIdOf<C>) -> Result<(), io::Error> {
        self.0.purge(to_raft::<C>(&log_id)).await.map_err(failed)
    }
}

impl<C: Types, A: Application<C::D, C::R>> RaftLogReader<C> for LogReader<C, A> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<C::Entry>, io::Error> {
        let (first, end) = bounds(&range);
        self.0.read(first, end, false).await.map_err(failed)
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<C>>, io::Error> {
        Ok(self.0.vote().as_ref().map(to_openraft_vote::<C>))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<C::Entry>, io::Error> {
        self.0.read(start, end, true).await.map_err(failed)
    }
}
