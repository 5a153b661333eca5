//! Logs that a Raft node could keep its entries in: raft-engine and raft-log.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use anyhow::Result;
use protobuf::well_known_types::BytesValue;
use raft_log::api::raft_log_writer::RaftLogWriter;

use super::{Store, fresh};
use crate::workload::Key;

/// raft-engine: the log of TiKV.
pub(crate) struct RaftEngine {
    engine: raft_engine::Engine,
    next: u64,
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
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        fresh(dir)?;
        let config = raft_engine::Config {
            dir: dir.to_string_lossy().into_owned(),
            // No compression: no other subject compresses.
            batch_compression_threshold: raft_engine::ReadableSize(0),
            ..raft_engine::Config::default()
        };
        Ok(Self { engine: raft_engine::Engine::open(config)?, next: 1 })
    }
}

impl Store for RaftEngine {
    fn write(&mut self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()> {
        let entries: Vec<BytesValue> = (self.next..)
            .zip(writes)
            .map(|(index, (key, value))| {
                let mut entry = BytesValue::new();
                entry.value = [&index.to_le_bytes()[..], key, value].concat();
                entry
            })
            .collect();
        self.next += entries.len() as u64;
        let mut batch = raft_engine::LogBatch::with_capacity(entries.len());
        batch.add_entries::<Indexed>(1, &entries)?;
        self.engine.write(&mut batch, true)?;
        // A node does this after a snapshot, so that the log does not grow for ever.
        if self.next.is_multiple_of(1 << 16) {
            self.engine.compact_to(1, self.next - 1);
            self.engine.purge_expired_files()?;
        }
        Ok(())
    }
}

/// raft-log: the log of databend's meta service.
pub(crate) struct RaftLog {
    log: raft_log::RaftLog<LogTypes>,
    next: u64,
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
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        fresh(dir)?;
        let config = raft_log::Config::new(dir.to_string_lossy());
        Ok(Self { log: raft_log::RaftLog::open(Arc::new(config))?, next: 1 })
    }
}

impl Store for RaftLog {
    fn write(&mut self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()> {
        let entries: Vec<_> = (self.next..)
            .zip(writes)
            .map(|(index, (key, value))| ((1, index), [&key[..], value].concat()))
            .collect();
        self.next += entries.len() as u64;
        self.log.append(entries)?;
        let (sender, receiver) = sync_channel(1);
        self.log.flush(true, Some(sender))?;
        Ok(receiver.recv()??)
    }
}
