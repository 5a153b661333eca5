//! The memory state machine: its whole state is on the heap, and nothing is on disk.

use std::io;
use std::sync::Arc;

use super::cell::HeapCell;
use super::key_value::KeyValue;
use crate::codec::{FRAME_BYTES_MAX, Limits, PayloadRef};
use crate::config::{BATCH_SIZE_MAX, EXPECTED_KEYS_MAX, within};
use crate::contract::machine::{StateMachine, StateMachineStats};
use crate::contract::view::Views;
use crate::entry::LogId;
use crate::error::{Fatal, OpenError, SnapshotError};
use crate::hook::Hook;
use crate::log::appender::AppenderConfig;
use crate::log::{Journal, MemoryJournal};
use crate::numbers::SegmentNumber;
use crate::ranges::partition::{Footprint, Partition};
use crate::ranges::range::{EntryRange, Replies};
use crate::snapshot::writer::SnapshotWriter;
use crate::snapshot::{Snapshot, SnapshotSink, SnapshotSource};

/// Options of a [`MemoryStateMachine`].
///
/// ```
/// use sprag::machine::MemoryConfig;
///
/// let config = MemoryConfig::new().expected_keys(1_000_000).batch_size(256);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct MemoryConfig {
    expected_keys: usize,
    limits: Limits,
    hash_seed: Option<u64>,
    batch_size: usize,
    frame_bytes: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            expected_keys: 1024,
            limits: Limits::new(),
            hash_seed: None,
            batch_size: 128,
            frame_bytes: 256 << 10,
        }
    }
}

impl MemoryConfig {
    /// Makes the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the expected number of keys, default 1,024. The machine takes the tables for them at
    /// once: at most about 90 bytes a key, from 100,000 keys on. Hardly a shard ever grows. More
    /// keys work too, with a short stall whenever a shard of at most about 2,048 keys grows.
    pub fn expected_keys(mut self, keys: usize) -> Self {
        self.expected_keys = keys;
        self
    }

    /// Sets the largest key, value and entry; default: the format's limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the seed by which keys are spread; default: random, so that no client can choose
    /// colliding keys. Neither state nor replies depend on it. Set it to repeat a run exactly.
    pub fn hash_seed(mut self, seed: u64) -> Self {
        self.hash_seed = Some(seed);
        self
    }

    /// Sets the most entries of a frame, default 128.
    pub fn batch_size(mut self, entries: usize) -> Self {
        self.batch_size = entries;
        self
    }

    /// Sets the most bytes of a frame with several entries, default 256 KiB. A larger entry has a
    /// separate frame.
    pub fn frame_bytes(mut self, bytes: usize) -> Self {
        self.frame_bytes = bytes;
        self
    }

    fn check(&self) -> Result<(), OpenError> {
        self.limits.check()?;
        within("expected_keys", self.expected_keys, 0, EXPECTED_KEYS_MAX)?;
        within("batch_size", self.batch_size, 1, BATCH_SIZE_MAX)?;
        within("frame_bytes", self.frame_bytes, 1, FRAME_BYTES_MAX)
    }
}

/// A key-value state machine in memory; [`Command`](crate::entry::Command) lists its commands.
///
/// Any thread may read at any time. A read returns its key's value after some entry between
/// `applied` (at the call) and `committed`, and never goes back for a key. Reads of several keys
/// may be of different entries.
#[derive(Debug)]
pub struct MemoryStateMachine {
    state: KeyValue<HeapCell>,
    /// The journal, whose poison reads check.
    journal: Journal,
}

impl MemoryStateMachine {
    /// Makes an empty machine, and takes the memory for the expected keys.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError::Config`] for an option out of its range, and [`OpenError::Io`] if the
    /// system gives no random seed.
    pub fn new(config: MemoryConfig) -> Result<Self, OpenError> {
        config.check()?;
        let hash_seed = match config.hash_seed {
            Some(seed) => seed,
            None => getrandom::u64().map_err(|error| {
                OpenError::io("drawing", "a hash seed", io::Error::other(error.to_string()))
            })?,
        };
        let state = KeyValue::new(config.expected_keys, hash_seed, ());
        let journal = Journal::memory_with(MemoryJournal {
            limits: config.limits,
            frame_entries_max: AppenderConfig::frame_entries(config.batch_size)?,
            frame_bytes_max: config.frame_bytes,
            poison: Arc::default(),
        });
        Ok(Self { state, journal })
    }

    fn load_snapshot(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.state.load(snapshot)
    }

    /// Values are on the heap, so nothing refers to the log.
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the other machine's")]
    /// Values are in memory.
    fn check_what_is_read(&self, _stopping: &dyn Fn() -> bool) -> Result<bool, SnapshotError> {
        Ok(false)
    }

    fn let_go_of(&self, _snapshot: &Snapshot, _below: SegmentNumber) -> Result<(), SnapshotError> {
        Ok(())
    }

    /// Memory of the tables in bytes; values, and keys of more than 22 bytes, come on top.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.state.memory_bytes()
    }
}

super::reads::key_value_reads!(MemoryStateMachine);

impl StateMachine for MemoryStateMachine {
    #[inline]
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        self.state.footprint(payload)
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        self.state.apply(range, partition, replies)
    }

    fn last_membership(&self) -> Option<(LogId, Vec<u8>)> {
        self.state.membership()
    }

    fn applied(&self) -> Option<LogId> {
        self.state.applied()
    }

    fn stats(&self) -> StateMachineStats {
        self.state.stats()
    }

    fn is_brief(&self, _: Hook) -> bool {
        self.state.is_brief()
    }

    fn views(&self, _: Hook) -> Option<&dyn Views> {
        Some(self)
    }

    /// Writes the bytes of a key-value snapshot file, as
    /// [`Snapshots::write_to`](crate::Snapshots::write_to) does.
    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        let mut writer = SnapshotWriter::new(out);
        for (key, value) in self.state.scan_sorted()? {
            writer.push(&key, &value)?;
        }
        writer.finish(&self.state.beside()).map(|_written| ())
    }

    /// Restores from the bytes of a key-value snapshot file, and takes as much memory while it
    /// reads them. The machine then continues after the snapshot's entry.
    fn restore(&self, source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        self.load_snapshot(&Snapshot::of_source(source)?)
    }

    fn journal(&self) -> Journal {
        self.journal.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::codec::{CommandRef, ValueRef};

    #[test]
    fn an_option_out_of_its_range_is_refused_by_name() {
        let limits = Limits::new().key_bytes_max(0);
        let larger = Limits::new().value_bytes_max(crate::codec::VALUE_BYTES_MAX + 1);
        let cases = [
            (MemoryConfig::new().limits(limits), "limits.key_bytes_max"),
            (MemoryConfig::new().limits(larger), "limits.value_bytes_max"),
            (MemoryConfig::new().expected_keys(usize::MAX), "expected_keys"),
            (MemoryConfig::new().batch_size(0), "batch_size"),
            (MemoryConfig::new().frame_bytes(FRAME_BYTES_MAX + 1), "frame_bytes"),
        ];
        for (config, name) in cases {
            match MemoryStateMachine::new(config) {
                Err(OpenError::Config { option, .. }) => assert_eq!(option, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_expected_keys_are_seen_in_the_memory_taken() {
        let bytes = |keys| {
            let config = MemoryConfig::new().expected_keys(keys);
            MemoryStateMachine::new(config).unwrap().memory_bytes()
        };
        assert!(bytes(100_000) > 4 * bytes(1024));
        assert!(bytes(100_000) <= 90 * 100_000);
    }

    #[test]
    fn keys_are_spread_by_the_seed_given_or_else_at_random() {
        let place = crate::codec::Place::NOWHERE;
        let footprint = |config| {
            let put = CommandRef::Put { key: b"k", value: ValueRef { bytes: b"", place } };
            MemoryStateMachine::new(config).unwrap().footprint(&PayloadRef::Command(put))
        };
        let seeded = |seed| footprint(MemoryConfig::new().hash_seed(seed));
        assert_eq!(seeded(1), seeded(1));
        assert_ne!(seeded(1), seeded(2));
        assert_ne!(footprint(MemoryConfig::new()), footprint(MemoryConfig::new()));
    }

    #[test]
    fn a_new_machine_is_empty_and_a_read_says_so() {
        let machine = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
        assert_eq!((machine.len().unwrap(), machine.is_empty().unwrap()), (0, true));
        assert_eq!(machine.get(b"k").unwrap(), None);
        assert_eq!(machine.get_with(b"k", <[u8]>::len).unwrap(), None);
        assert_eq!((machine.note(b"n").unwrap(), machine.membership().unwrap()), (None, None));
        assert_eq!(machine.applied(), None);
    }
}
