//! Nodes over storages that a user could pick: fjall and redb, their log synced by one thread.
//!
//! Entries are in memory for readers, as they are for every node of the comparison.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use fjall::{KeyspaceCreateOptions, PersistMode};
use openraft::EntryPayload;
use redb::{Durability, TableDefinition};

use super::cluster::{Kind, Node};
use super::gather::{Gathered, Sink};
use super::log::{Change, Log};
use super::state::{State, Table};
use super::types::{Entry, Put};
use crate::subjects::fresh;

/// Keys below this one are entries by their index; this one is the vote.
const VOTE: u64 = u64::MAX;

/// A change of the stored log.
pub(crate) enum Step {
    Put(u64, Vec<u8>),
    /// Entries from this index on go.
    Cut(u64),
    /// Entries up to this index go.
    Purge(u64),
}

fn gather(steps: &mut Vec<Step>, change: &Change<'_>) -> io::Result<()> {
    match change {
        Change::Append(entries) => {
            for entry in *entries {
                steps.push(Step::Put(entry.log_id.index, encode(entry)?));
            }
        }
        Change::TruncateAfter(last) => steps.push(Step::Cut(last.map_or(0, |last| last + 1))),
        Change::Purge(last) => steps.push(Step::Purge(last.index)),
        Change::Vote(vote) => steps.push(Step::Put(VOTE, serde_json::to_vec(vote)?)),
    }
    Ok(())
}

/// Term and node, and the payload.
pub(crate) fn encode(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(160);
    for number in [entry.log_id.leader_id.term, entry.log_id.leader_id.node_id] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    match &entry.payload {
        EntryPayload::Blank => bytes.push(0),
        EntryPayload::Normal(put) => {
            bytes.push(1);
            bytes.extend_from_slice(put.bytes());
        }
        EntryPayload::Membership(membership) => {
            bytes.push(2);
            serde_json::to_writer(&mut bytes, &membership)?;
        }
    }
    Ok(bytes)
}

/// Indexes that the stored log has.
#[derive(Debug, Default)]
struct Indexes {
    first: u64,
    end: u64,
}

impl Indexes {
    /// Takes a step, and returns the indexes that go.
    fn take(&mut self, step: &Step) -> std::ops::Range<u64> {
        match *step {
            Step::Put(VOTE, _) => 0..0,
            Step::Put(index, _) => {
                self.end = index + 1;
                0..0
            }
            Step::Cut(from) => {
                let end = self.end;
                self.end = end.min(from);
                from..end
            }
            Step::Purge(last) => std::mem::replace(&mut self.first, last + 1)..last + 1,
        }
    }
}

/// fjall, an LSM tree: log and state are keyspaces of one database.
pub(crate) struct Fjall {
    /// Whether the state is synced too, once for each run of entries that is applied.
    pub(crate) syncs_state: bool,
}

pub(crate) struct FjallLog {
    db: fjall::Database,
    keyspace: fjall::Keyspace,
    indexes: Indexes,
}

impl Sink for FjallLog {
    type Batch = Vec<Step>;

    fn gather(steps: &mut Vec<Step>, change: &Change<'_>) -> io::Result<()> {
        gather(steps, change)
    }

    fn write(&mut self, steps: &mut Vec<Step>) -> io::Result<()> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for step in steps.drain(..) {
            for gone in self.indexes.take(&step) {
                batch.remove(&self.keyspace, gone.to_be_bytes());
            }
            if let Step::Put(index, bytes) = step {
                batch.insert(&self.keyspace, index.to_be_bytes(), bytes);
            }
        }
        batch.commit().map_err(io::Error::other)
    }
}

pub(crate) struct FjallTable {
    db: fjall::Database,
    keyspace: fjall::Keyspace,
    syncs: Option<Arc<Tally>>,
}

/// Syncs of a state.
type Tally = std::sync::atomic::AtomicU64;

impl Table for FjallTable {
    fn put(&mut self, put: Put) -> io::Result<()> {
        let (key, value) = (put.key(), put.value());
        self.keyspace.insert(key, value).map_err(io::Error::other)
    }

    fn commit(&mut self) -> io::Result<()> {
        if let Some(syncs) = &self.syncs {
            // Relaxed: a tally.
            syncs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.db.persist(PersistMode::SyncData).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn is_answered_after_commit(&self) -> bool {
        self.syncs.is_some()
    }

    fn puts(&self) -> io::Result<Vec<Put>> {
        let put = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner().map_err(io::Error::other)?;
            Ok([&key[..], &value[..]].concat().into())
        };
        self.keyspace.iter().map(put).collect()
    }

    fn clear(&mut self) -> io::Result<()> {
        self.keyspace.clear().map_err(io::Error::other)
    }
}

impl Kind for Fjall {
    type Log = Log<Gathered<FjallLog>>;
    type State = State<FjallTable>;

    fn create(&self, dir: &Path) -> Result<Node<Self::Log, Self::State>> {
        let dir = dir.join("fjall");
        fresh(&dir)?;
        let db = fjall::Database::builder(&dir).cache_size(64 << 20).open()?;
        let keyspace = |name| db.keyspace(name, KeyspaceCreateOptions::default);
        let (log, state) = (keyspace("log")?, keyspace("state")?);
        let log = FjallLog { db: db.clone(), keyspace: log, indexes: Indexes::default() };
        let disk = Arc::new(Gathered::start(log)?);
        let syncs = self.syncs_state.then(Arc::<Tally>::default);
        let state = State::new(FjallTable { db, keyspace: state, syncs: syncs.clone() });
        let log = Log::new(Arc::clone(&disk));
        let of_state =
            move || syncs.as_ref().map_or(0, |n| n.load(std::sync::atomic::Ordering::Relaxed));
        Ok(Node { log, state, syncs: Some(Box::new(move || disk.syncs() + of_state())) })
    }
}

/// redb, a B-tree: log and state are databases of their own, and the state is not synced.
pub(crate) struct Redb;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const STATE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");

pub(crate) struct RedbLog {
    db: redb::Database,
    indexes: Indexes,
}

impl Sink for RedbLog {
    type Batch = Vec<Step>;

    fn gather(steps: &mut Vec<Step>, change: &Change<'_>) -> io::Result<()> {
        gather(steps, change)
    }

    fn write(&mut self, steps: &mut Vec<Step>) -> io::Result<()> {
        let mut transaction = self.db.begin_write().map_err(io::Error::other)?;
        transaction.set_durability(Durability::Immediate).map_err(io::Error::other)?;
        {
            let mut table = transaction.open_table(LOG).map_err(io::Error::other)?;
            for step in steps.drain(..) {
                for gone in self.indexes.take(&step) {
                    table.remove(gone).map_err(io::Error::other)?;
                }
                if let Step::Put(index, bytes) = step {
                    table.insert(index, &bytes[..]).map_err(io::Error::other)?;
                }
            }
        }
        transaction.commit().map_err(io::Error::other)
    }
}

pub(crate) struct RedbTable {
    db: redb::Database,
    run: Vec<Put>,
}

impl RedbTable {
    fn change(&self, change: impl FnOnce(&redb::WriteTransaction) -> Result<()>) -> io::Result<()> {
        let mut transaction = self.db.begin_write().map_err(io::Error::other)?;
        transaction.set_durability(Durability::None).map_err(io::Error::other)?;
        change(&transaction).map_err(io::Error::other)?;
        transaction.commit().map_err(io::Error::other)
    }
}

impl Table for RedbTable {
    fn put(&mut self, put: Put) -> io::Result<()> {
        self.run.push(put);
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        let run = std::mem::take(&mut self.run);
        self.change(|transaction| {
            let mut table = transaction.open_table(STATE)?;
            for put in run {
                table.insert(&put.key()[..], put.value())?;
            }
            Ok(())
        })
    }

    fn is_answered_after_commit(&self) -> bool {
        true
    }

    fn puts(&self) -> io::Result<Vec<Put>> {
        use redb::{ReadableDatabase, ReadableTable};
        let read = || -> Result<Vec<Put>> {
            let transaction = self.db.begin_read()?;
            let table = transaction.open_table(STATE)?;
            let put = |pair: redb::Result<_>| {
                let (key, value): (redb::AccessGuard<'_, &[u8]>, redb::AccessGuard<'_, &[u8]>) =
                    pair?;
                Ok([key.value(), value.value()].concat().into())
            };
            table.iter()?.map(put).collect()
        };
        read().map_err(io::Error::other)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.change(|transaction| {
            transaction.delete_table(STATE)?;
            Ok(())
        })
    }
}

impl Kind for Redb {
    type Log = Log<Gathered<RedbLog>>;
    type State = State<RedbTable>;

    fn create(&self, dir: &Path) -> Result<Node<Self::Log, Self::State>> {
        let dir = dir.join("redb");
        fresh(&dir)?;
        let open =
            |name: &str| redb::Database::builder().set_cache_size(64 << 20).create(dir.join(name));
        let log = RedbLog { db: open("log")?, indexes: Indexes::default() };
        let disk = Arc::new(Gathered::start(log)?);
        let state = State::new(RedbTable { db: open("state")?, run: Vec::new() });
        let log = Log::new(Arc::clone(&disk));
        Ok(Node { log, state, syncs: Some(Box::new(move || disk.syncs())) })
    }
}
