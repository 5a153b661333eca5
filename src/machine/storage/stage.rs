//! The stage: applied changes that are not committed yet, each changed key once, in the next batch.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::cache::ReadCache;
use super::meta::{StateRecord, put_membership};
use super::{Storage, StorageBatch, Table};
use crate::codec::{BatchRef, CommandRef, PayloadRef};
use crate::entry::{LogId, Rejection, Reply};
use crate::error::{Fatal, StorageError};
use crate::machine::effect::{Effect, InBytes, Outcome, Overlay, Pending, evaluate};
use crate::machine::number::Decimal;
use crate::ranges::range::EntryRef;

/// Bytes at which a batch is committed before it has its maximum of entries.
pub(super) const STAGED_BYTES_MAX: usize = 16 << 20;
/// Makes the hashes of notes differ from those of keys with the same bytes.
const NOTES: u64 = 0x9e37_79b9_7f4a_7c15;

/// Changes over the committed state. The thread in the worker's post has the stage.
pub(super) struct Stage {
    batch: StorageBatch,
    /// For each hash, the write of the batch for a key or a note.
    index: HashTable<(u64, usize)>,
    hasher: RandomState,
    /// The content of the records when the batch is committed.
    record: StateRecord,
    /// Membership that an entry of the batch has set.
    membership: Option<(LogId, Vec<u8>)>,
    /// The highest generation of any table made since the storage was opened.
    last_generation: u64,
    /// The cache, which is read before the storage.
    cache: Option<Arc<ReadCache>>,
    /// Whether entries were applied since the last commit.
    is_dirty: bool,
    /// Whether a call did not finish: then it is unknown what is staged, or whether it was
    /// committed.
    pub(super) has_failed: bool,
}

/// The place of a key's current value.
enum Place {
    /// Place in this write of the batch.
    Staged(usize),
    Storage,
}

impl Stage {
    /// Makes a stage over a storage with this record, whose tables have generations up to
    /// `last_generation`.
    pub(super) fn new(
        record: StateRecord,
        last_generation: u64,
        cache: Option<Arc<ReadCache>>,
    ) -> Self {
        Self {
            cache,
            batch: StorageBatch::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            record,
            membership: None,
            last_generation: last_generation.max(record.generation),
            is_dirty: false,
            has_failed: false,
        }
    }

    /// Whether there is anything to commit.
    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Whether the stage should be committed before more is added.
    pub(super) fn is_full(&self) -> bool {
        self.batch.bytes() >= STAGED_BYTES_MAX
    }

    pub(super) fn record(&self) -> StateRecord {
        self.record
    }

    /// A generation without any table.
    pub(super) fn next_generation(&mut self) -> u64 {
        self.last_generation += 1;
        self.last_generation
    }

    /// The membership in the batch.
    pub(super) fn membership(&self) -> Option<(LogId, &[u8])> {
        self.membership.as_ref().map(|(log_id, bytes)| (*log_id, &**bytes))
    }

    /// The batch, completed with the records of the last entry applied.
    pub(super) fn finished(&mut self) -> &StorageBatch {
        if let Some((log_id, bytes)) = &self.membership {
            put_membership(&mut self.batch, Some((*log_id, bytes)));
        }
        self.record.put(&mut self.batch);
        &self.batch
    }

    /// Empties the stage, over a storage with this record.
    pub(super) fn clear(&mut self, record: StateRecord) {
        self.batch.clear();
        self.batch.shrink_to(STAGED_BYTES_MAX);
        self.index.clear();
        self.record = record;
        self.membership = None;
        self.is_dirty = false;
    }

    /// Notes that everything up to this entry is applied.
    pub(super) fn applied_to(&mut self, log_id: LogId) {
        self.record.applied = Some(log_id);
        self.is_dirty = true;
    }

    /// Applies one entry, and returns its reply.
    pub(super) fn apply(
        &mut self,
        storage: &impl Storage,
        entry: &EntryRef<'_>,
    ) -> Result<Reply, Fatal> {
        let reply = match &entry.payload {
            PayloadRef::Command(CommandRef::Batch(batch)) => self.apply_batch(storage, batch)?,
            PayloadRef::Command(command) => self.apply_command(storage, command)?,
            PayloadRef::Membership(bytes) => {
                self.membership = Some((entry.log_id, bytes.to_vec()));
                Reply::Applied
            }
            PayloadRef::Noop => Reply::Applied,
            PayloadRef::Opaque(_) => Reply::Rejected(Rejection::Unsupported),
        };
        self.applied_to(entry.log_id);
        Ok(reply)
    }

    fn apply_command(
        &mut self,
        storage: &impl Storage,
        command: &CommandRef<'_>,
    ) -> Result<Reply, Fatal> {
        let Some(key) = command.key() else { return Err(Fatal::new("a command without a key")) };
        let hash = self.hash(key);
        let (outcome, existed) = self.evaluate(storage, hash, key, command)?;
        match outcome {
            Ok((effect, reply)) => {
                self.settle(&Pending { hash, key, effect, existed })?;
                Ok(reply)
            }
            Err(rejection) => Ok(Reply::Rejected(rejection.into())),
        }
    }

    /// Runs every command over an overlay first, so nothing of a rejected batch is staged.
    fn apply_batch(
        &mut self,
        storage: &impl Storage,
        batch: &BatchRef<'_>,
    ) -> Result<Reply, Fatal> {
        let mut overlay = Overlay::new(batch.len() as usize);
        let mut position = 0;
        for command in batch.commands() {
            let Some(key) = command.key() else { return Err(Fatal::new("a batch in a batch")) };
            let hash = self.hash(key);
            let (outcome, existed) = match overlay.evaluate(hash, key, &command) {
                // The key's first change has recorded whether it existed.
                Some(outcome) => (outcome?, false),
                None => self.evaluate(storage, hash, key, &command)?,
            };
            match outcome {
                Ok((effect, _)) => overlay.record(Pending { hash, key, effect, existed }),
                Err(reason) => {
                    return Ok(Reply::Rejected(Rejection::InBatch { position, reason }));
                }
            }
            position += 1;
        }
        if position != batch.len() {
            return Err(Fatal::new("a batch in memory does not decode"));
        }
        for change in overlay.changes() {
            self.settle(change)?;
        }
        if let Some(note) = batch.note() {
            let hash = self.hash(note.name) ^ NOTES;
            self.write(hash, Table::Notes(self.record.generation), note.name, Some(note.value));
        }
        Ok(Reply::Batch { commands: batch.len() })
    }

    /// Runs a command over the current value of its key. Also returns whether the key has a value.
    fn evaluate<'a>(
        &self,
        storage: &impl Storage,
        hash: u64,
        key: &[u8],
        command: &CommandRef<'a>,
    ) -> Result<(Outcome<'a>, bool), Fatal> {
        let table = Table::State(self.record.generation);
        if let Place::Staged(at) = self.find(hash, table, key) {
            let found = self.batch.value(at).map(InBytes);
            return Ok((evaluate(command, found.as_ref())?, found.is_some()));
        }
        // The worker that applies also commits, so no commit is changing the cache now.
        if let Some(value) = self.cache.as_ref().and_then(|cache| cache.peek(key)) {
            return Ok((evaluate(command, Some(&InBytes(&value)))?, true));
        }
        let mut outcome = None;
        let got = storage.get(table, key, &mut |bytes| {
            outcome = Some(evaluate(command, Some(&InBytes(bytes))));
        });
        got.map_err(|error| failed(storage, &error))?;
        match outcome {
            Some(outcome) => Ok((outcome?, true)),
            None => Ok((evaluate(command, None::<&InBytes<'_>>)?, false)),
        }
    }

    /// Stages the new state of a key.
    fn settle(&mut self, change: &Pending<'_>) -> Result<(), Fatal> {
        let table = Table::State(self.record.generation);
        let number;
        let value = match change.effect {
            Effect::Keep => return Ok(()),
            Effect::Set(value) => Some(value.bytes),
            Effect::SetNumber(sum) => {
                number = Decimal::new(sum);
                Some(number.as_bytes())
            }
            Effect::Remove => None,
        };
        let keys = &mut self.record.keys;
        match (change.existed, value.is_some()) {
            (false, true) => *keys += 1,
            (true, false) => {
                let counted = keys.checked_sub(1);
                *keys = counted.ok_or(Fatal::new("the storage has more keys than it counts"))?;
            }
            _ => {}
        }
        self.write(change.hash, table, change.key, value);
        Ok(())
    }

    fn write(&mut self, hash: u64, table: Table, key: &[u8], value: Option<&[u8]>) {
        if let Place::Staged(at) = self.find(hash, table, key) {
            self.batch.replace(at, value);
            return;
        }
        let at = self.batch.len();
        match value {
            Some(value) => self.batch.put(table, key, value),
            None => self.batch.remove(table, key),
        }
        self.index.insert_unique(hash, (hash, at), |(hash, _)| *hash);
    }

    fn find(&self, hash: u64, table: Table, key: &[u8]) -> Place {
        let is_it = |(known, at): &(u64, usize)| {
            *known == hash && self.batch.key(*at) == Some((table, key))
        };
        self.index.find(hash, is_it).map_or(Place::Storage, |(_, at)| Place::Staged(*at))
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// The error of a machine whose storage failed.
pub(super) fn failed(storage: &impl Storage, error: &StorageError) -> Fatal {
    let room =
        if error.is_disk_full() { "; make room and open it again" } else { "; open it again" };
    Fatal::new(format!("the storage {} failed: {error}{room}", storage.name()))
}
