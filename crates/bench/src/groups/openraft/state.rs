//! A state machine of openraft over a table of keys and values.

use std::collections::HashMap;
use std::io;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::{EntryPayload, OptionalSend};

use super::types::{Committed, Key, LogId, Put, Types};

/// Keys and their values.
pub(crate) trait Table: Send + Sync + 'static {
    /// Puts a key. It is there for readers at once, or after `commit` where there is one.
    fn put(&mut self, put: Put) -> io::Result<()>;

    /// Ends a run of puts: the entries that openraft had to apply.
    fn commit(&mut self) -> io::Result<()>;

    /// Whether an entry is answered after the commit of its run.
    fn is_answered_after_commit(&self) -> bool;

    /// All puts that make this state.
    fn puts(&self) -> io::Result<Vec<Put>>;

    fn clear(&mut self) -> io::Result<()>;
}

/// A state in memory.
#[derive(Debug, Default)]
pub(crate) struct Memory(HashMap<Key, Put, foldhash::fast::RandomState>);

impl Table for Memory {
    fn put(&mut self, put: Put) -> io::Result<()> {
        self.0.insert(put.key(), put);
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn is_answered_after_commit(&self) -> bool {
        false
    }

    fn puts(&self) -> io::Result<Vec<Put>> {
        Ok(self.0.values().cloned().collect())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.0.clear();
        Ok(())
    }
}

/// The state machine over a table.
#[derive(Debug)]
pub(crate) struct State<T> {
    table: T,
    applied: Option<LogId>,
    membership: StoredMembershipOf<Types>,
}

impl<T: Table> State<T> {
    pub(crate) fn new(table: T) -> Self {
        Self { table, applied: None, membership: StoredMembershipOf::<Types>::default() }
    }

    #[cfg(test)]
    pub(crate) fn puts(&self) -> io::Result<Vec<Put>> {
        self.table.puts()
    }

    fn meta(&self) -> SnapshotMetaOf<Types> {
        SnapshotMetaOf::<Types> {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        }
    }
}

/// A snapshot that was taken: all puts, in memory.
#[derive(Debug)]
pub(crate) struct Taken(SnapshotMetaOf<Types>, Vec<Put>);

impl RaftSnapshotBuilder<Types> for Taken {
    type SnapshotData = Vec<Put>;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, Vec<Put>>, io::Error> {
        Ok(SnapshotOf::<Types, _> { meta: self.0.clone(), snapshot: std::mem::take(&mut self.1) })
    }
}

impl<T: Table> RaftStateMachine<Types> for State<T> {
    type SnapshotData = Vec<Put>;
    type SnapshotBuilder = Taken;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, StoredMembershipOf<Types>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut waiting = Vec::new();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            self.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(put) => self.table.put(put)?,
                EntryPayload::Membership(membership) => {
                    let log_id = Some(entry.log_id);
                    self.membership = StoredMembershipOf::<Types>::new(log_id, membership);
                }
            }
            match responder {
                Some(responder) if self.table.is_answered_after_commit() => waiting.push(responder),
                Some(responder) => responder.send(Committed),
                None => {}
            }
        }
        self.table.commit()?;
        waiting.into_iter().for_each(|responder| responder.send(Committed));
        Ok(())
    }

    // The group turns snapshots off; this is what a node asks of any state machine.
    async fn get_snapshot_builder(&mut self) -> Taken {
        Taken(self.meta(), self.table.puts().unwrap_or_default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        snapshot: Vec<Put>,
    ) -> Result<(), io::Error> {
        self.table.clear()?;
        for put in snapshot {
            self.table.put(put)?;
        }
        self.table.commit()?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Types, Vec<Put>>>, io::Error> {
        if self.applied.is_none() {
            return Ok(None);
        }
        Ok(Some(SnapshotOf::<Types, _> { meta: self.meta(), snapshot: self.table.puts()? }))
    }
}
