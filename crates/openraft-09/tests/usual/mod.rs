//! A store made in the usual way, for comparison. The log is one file, synced at each append, and
//! the state is another, synced at each apply. It writes only what it must for that: its header is
//! a length and a checksum.
//!
//! The store only counts writes: it reads nothing back, and has no snapshots.
#![allow(clippy::result_large_err, reason = "openraft's StorageError is what its traits return")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex};

use openraft::storage::{LogFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{
    Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, LogState, OptionalSend, RaftLogReader,
    RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StoredMembership, Vote,
};
use sprag::disk::{Access, Disk, DiskFile};
use sprag::testing::SimDisk;
use sprag_openraft_09::{Request, Response, SnapshotFile, encode};

use crate::network::Types;

type Result<T> = std::result::Result<T, StorageError<u64>>;

/// A file that is only appended to.
#[derive(Debug)]
struct File {
    file: Arc<dyn DiskFile>,
    end: u64,
}

impl File {
    fn create(disk: &dyn Disk, name: &str) -> Self {
        Self { file: disk.open(name, Access::Create).unwrap(), end: 0 }
    }

    fn append(&mut self, record: &[u8]) {
        let length = u32::try_from(record.len()).unwrap().to_le_bytes();
        // These bytes stand in place of a checksum.
        let bytes = [&length[..], &[0; 4], record].concat();
        self.file.write_all_at(&bytes, self.end).unwrap();
        self.end += bytes.len() as u64;
    }

    fn sync(&self) {
        self.file.sync_data().unwrap();
    }
}

#[derive(Clone, Debug)]
pub(crate) struct UsualLog(Arc<Mutex<Log>>);

#[derive(Debug)]
struct Log {
    file: File,
    hard: File,
    entries: BTreeMap<u64, Entry<Types>>,
    vote: Option<Vote<u64>>,
}

#[derive(Debug)]
pub(crate) struct UsualState {
    file: File,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, openraft::BasicNode>,
}

pub(crate) fn open(disk: &SimDisk) -> (UsualLog, UsualState) {
    let disk = disk.open(true).unwrap();
    let log = Log {
        file: File::create(&*disk, "0000000000000001.seg"),
        hard: File::create(&*disk, "HARD"),
        entries: BTreeMap::new(),
        vote: None,
    };
    let state = UsualState {
        file: File::create(&*disk, "0000000000000002.seg"),
        state: BTreeMap::new(),
        applied: None,
        membership: StoredMembership::default(),
    };
    (UsualLog(Arc::new(Mutex::new(log))), state)
}

fn unsupported<T>() -> Result<T> {
    let error = io::Error::from(io::ErrorKind::Unsupported);
    Err(StorageError::from_io_error(ErrorSubject::Store, ErrorVerb::Write, error))
}

impl RaftLogReader<Types> for UsualLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>> {
        Ok(self.0.lock().unwrap().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for UsualLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>> {
        let log = self.0.lock().unwrap();
        let last_log_id = log.entries.values().next_back().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: None, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<()> {
        let mut log = self.0.lock().unwrap();
        log.vote = Some(*vote);
        log.hard.append(&encode(vote).unwrap());
        log.hard.sync();
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>> {
        Ok(self.0.lock().unwrap().vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut log = self.0.lock().unwrap();
        for entry in entries {
            log.file.append(&encode(&entry).unwrap());
            log.entries.insert(entry.log_id.index, entry);
        }
        log.file.sync();
        drop(log);
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<()> {
        self.0.lock().unwrap().entries.split_off(&log_id.index);
        Ok(())
    }

    async fn purge(&mut self, _log_id: LogId<u64>) -> Result<()> {
        Ok(())
    }
}

impl RaftStateMachine<Types> for UsualState {
    type SnapshotBuilder = NoSnapshots;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, openraft::BasicNode>)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Response>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut responses = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            responses.push(match entry.payload {
                EntryPayload::Normal(Request::Put { key, value }) => {
                    self.file.append(&[&key[..], &value[..]].concat());
                    Response::Put { replaced: self.state.insert(key, value).is_some() }
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Response::Applied
                }
                _ => Response::Applied,
            });
        }
        // The applied log id is part of the state.
        self.file.append(&encode(&self.applied).unwrap());
        self.file.sync();
        Ok(responses)
    }

    async fn get_snapshot_builder(&mut self) -> NoSnapshots {
        NoSnapshots
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>> {
        unsupported()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta<u64, openraft::BasicNode>,
        _snapshot: Box<SnapshotFile>,
    ) -> Result<()> {
        unsupported()
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>> {
        Ok(None)
    }
}

#[derive(Debug)]
pub(crate) struct NoSnapshots;

impl RaftSnapshotBuilder<Types> for NoSnapshots {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>> {
        unsupported()
    }
}
