//! Logs that a Raft node could keep its entries in: raft-engine and raft-log.

use std::io;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use protobuf::well_known_types::BytesValue;
use raft_log::api::raft_log_writer::RaftLogWriter;

use super::{Store, locked};
use crate::workload::Key;

/// raft-engine: the log of TiKV.
pub(super) struct RaftEngine {
    engine: raft_engine::Engine,
    next: Mutex<u64>,
}

/// An entry whose first eight bytes are its index.
#[derive(Clone)]
struct Indexed;

impl raft_engine::MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |index| u64::from_le_bytes(*index))
    }
}

impl RaftEngine {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let config = raft_engine::Config {
            dir: dir.to_string_lossy().into_owned(),
            // No compression: no other subject compresses.
            batch_compression_threshold: raft_engine::ReadableSize(0),
            ..raft_engine::Config::default()
        };
        Ok(Self { engine: raft_engine::Engine::open(config)?, next: Mutex::new(1) })
    }
}

impl Store for RaftEngine {
    fn write(&self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()> {
        let mut next = locked(&self.next)?;
        let entries: Vec<BytesValue> = (*next..)
            .zip(writes)
            .map(|(index, (key, value))| {
                let mut entry = BytesValue::new();
                entry.value = [&index.to_le_bytes()[..], key, value].concat();
                entry
            })
            .collect();
        *next += entries.len() as u64;
        let mut batch = raft_engine::LogBatch::with_capacity(entries.len());
        batch.add_entries::<Indexed>(1, &entries)?;
        self.engine.write(&mut batch, true)?;
        // A node does this after a snapshot, so that the log does not grow for ever.
        if (*next - entries.len() as u64) >> 16 != *next >> 16 {
            self.engine.compact_to(1, *next - 1);
            self.engine.purge_expired_files()?;
        }
        Ok(())
    }
}

/// raft-log: the log of databend's meta service.
pub(super) struct RaftLog {
    /// The log and the next index.
    log: Mutex<(raft_log::RaftLog<LogTypes>, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct LogTypes;

impl raft_log::Types for LogTypes {
    type LogId = (u64, u64);
    type LogPayload = Vec<u8>;
    type Vote = (u64, u64);
    type UserData = String;
    type Callback = SyncSender<io::Result<()>>;

    fn log_index(log_id: &Self::LogId) -> u64 {
        log_id.1
    }

    fn payload_size(payload: &Self::LogPayload) -> u64 {
        payload.len() as u64
    }
}

impl RaftLog {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let config = raft_log::Config::new(dir.to_string_lossy());
        Ok(Self { log: Mutex::new((raft_log::RaftLog::open(Arc::new(config))?, 1)) })
    }
}

impl Store for RaftLog {
    fn write(&self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()> {
        let mut guard = locked(&self.log)?;
        let (log, next) = &mut *guard;
        let entries: Vec<_> = (*next..)
            .zip(writes)
            .map(|(index, (key, value))| ((1, index), [&key[..], value].concat()))
            .collect();
        *next += entries.len() as u64;
        log.append(entries)?;
        let (sender, receiver) = sync_channel(1);
        log.flush(true, Some(sender))?;
        Ok(receiver.recv()??)
    }
}
