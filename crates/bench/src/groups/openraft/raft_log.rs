//! A node over raft-log, the log of openraft's author, and the state in memory.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use openraft::storage::IOFlushed;
use raft_log::api::raft_log_writer::RaftLogWriter;

use super::cluster::{Kind, Node};
use super::log::{Change, Disk, Log};
use super::peers::encode;
use super::state::{Memory, State};
use super::types::Types;
use crate::subjects::fresh;

/// The types of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LogTypes;

impl raft_log::Types for LogTypes {
    /// Term and index.
    type LogId = (u64, u64);
    type LogPayload = Vec<u8>;
    /// Term, and node with a bit for a committed vote.
    type Vote = (u64, u64);
    type UserData = String;
    type Callback = Done;

    fn log_index(log_id: &Self::LogId) -> u64 {
        log_id.1
    }

    fn payload_size(payload: &Self::LogPayload) -> u64 {
        payload.len() as u64
    }
}

/// The callback of openraft as one of the log.
pub(crate) struct Done(IOFlushed<Types>);

impl raft_log::Callback for Done {
    fn send(self, outcome: io::Result<()>) {
        self.0.io_completed(outcome);
    }
}

/// The log, with a writer thread of its own.
pub(crate) struct AuthorsLog(Mutex<raft_log::RaftLog<LogTypes>>);

impl Disk for AuthorsLog {
    fn write(&self, change: Change<'_>, done: IOFlushed<Types>) -> io::Result<()> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Append(entries) => {
                let entries = entries.iter().map(|entry| {
                    let log_id = (entry.log_id.leader_id.term, entry.log_id.index);
                    Ok((log_id, encode(entry)?))
                });
                log.append(entries.collect::<io::Result<Vec<_>>>()?)?;
            }
            Change::TruncateAfter(last) => {
                log.truncate(last.map_or(0, |last| last + 1))?;
            }
            Change::Purge(upto) => {
                log.purge((upto.leader_id.term, upto.index))?;
            }
            Change::Vote(vote) => {
                let node = vote.leader_id.node_id << 1 | u64::from(vote.committed);
                log.save_vote((vote.leader_id.term, node))?;
            }
        }
        log.flush(true, Some(Done(done)))
    }
}

/// A node over it.
pub(crate) struct RaftLog;

impl Kind for RaftLog {
    type Log = Log<AuthorsLog>;
    type State = State<Memory>;

    fn create(&self, dir: &Path) -> Result<Node<Self::Log, Self::State>> {
        let dir = dir.join("raft-log");
        fresh(&dir)?;
        let config = raft_log::Config::new(dir.to_string_lossy());
        let log = AuthorsLog(Mutex::new(raft_log::RaftLog::open(Arc::new(config))?));
        // The log counts no syncs of its own; those of the process are in the row.
        let (log, state) = (Log::new(Arc::new(log)), State::new(Memory::default()));
        Ok(Node { log, state, syncs: None })
    }
}
