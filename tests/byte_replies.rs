//! Tests of replies of bytes by an embedder's machine, through every call that returns a reply.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Mutex;

use crate::common::{LONG, Scratch, apply_config, manage};
use sprag::error::{ApplyError, OpenError, Poison, WaitError};
use sprag::{
    ApplyConfig, ApplyManager, CommitMode, Entry, EntryRange, Fatal, Footprint, Journaled, LogId,
    Partition, Payload, PayloadRef, Rejection, Replies, Reply, StateMachine,
};

/// The longest reply.
const MAX: usize = 40;

/// A machine that remembers the last payload for each first byte, and replies with the one before.
/// A payload that begins with `!` is a barrier.
#[derive(Default)]
struct Echo {
    last: Mutex<BTreeMap<u8, Vec<u8>>>,
    room: Option<usize>,
}

impl StateMachine for Echo {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        match payload {
            PayloadRef::Opaque([b'!', ..]) => Footprint::All,
            PayloadRef::Opaque([first, ..]) => Footprint::key(&[*first]),
            _ => Footprint::key(b""),
        }
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            let entry = entry?;
            let PayloadRef::Opaque(bytes) = entry.payload else { continue };
            let [first, ..] = bytes else { continue };
            let before = self.last.lock().unwrap().insert(*first, bytes.to_vec());
            match before {
                Some(before) => replies.set_bytes(&entry, &before),
                None => replies.set(&entry, Reply::Bytes(Box::default())),
            }
        }
        Ok(())
    }

    fn reply_bytes_max(&self) -> usize {
        self.room.unwrap_or(MAX)
    }
}

/// Payloads of 1 to `MAX` bytes, some of them barriers, with few first bytes.
fn payload(index: u64) -> Vec<u8> {
    let first = b"!abcdefg"[usize::try_from(index * 7 % 8).unwrap()];
    let len = usize::try_from(index * 13 % (MAX as u64)).unwrap();
    let mut bytes = vec![first];
    bytes.extend((0..len).map(|at| index.to_le_bytes()[at % 8]));
    bytes
}

fn entry(index: u64, bytes: &[u8]) -> Entry<'_> {
    Entry::new(LogId::new(index, 1), Payload::Opaque(bytes))
}

/// The replies of one entry after another.
fn expected(count: u64) -> Vec<Reply> {
    let mut last = BTreeMap::new();
    let reply = |index| {
        let bytes = payload(index);
        Reply::Bytes(last.insert(bytes[0], bytes).unwrap_or_default().into())
    };
    (1..=count).map(reply).collect()
}

fn config(workers: usize, inline: bool) -> ApplyConfig {
    let workers = NonZeroUsize::new(workers).unwrap();
    ApplyConfig::new().worker_count(workers).inline_apply(inline).pin_workers(false)
}

#[test]
fn every_call_that_gives_a_reply_gives_its_bytes_for_every_number_of_workers() {
    let expected = expected(300);
    for (workers, inline) in [(1, true), (1, false), (2, true), (3, false), (4, false)] {
        let manager = ApplyManager::new(Echo::default(), config(workers, inline)).unwrap();
        let payloads: Vec<_> = (1..=300).map(payload).collect();
        let entries: Vec<_> =
            (1..).zip(&payloads).map(|(index, bytes)| entry(index, bytes)).collect();
        let mut found: Vec<_> =
            entries[..50].iter().map(|entry| manager.apply(entry, LONG).unwrap()).collect();
        let mut replies = Vec::new();
        manager.apply_entries_sync(&entries[50..150], LONG, &mut replies).unwrap();
        found.append(&mut replies);
        let sink = |_index, reply| found.push(reply);
        manager.apply_batch(entries[150..].iter().copied(), LONG, sink).unwrap();
        assert_eq!(found, expected, "{workers} workers, inline: {inline}");
        assert_eq!(found[299].as_bytes().map(<[u8]>::len), Some(payload(292).len()));
    }
}

#[test]
fn replies_are_the_same_after_replay_and_under_a_consensus_engine() {
    let expected = expected(60);
    let scratch = Scratch::new();
    let open = |workers| {
        let config = scratch.config().commit_mode(CommitMode::ByCommit);
        let machine = Journaled::open(config, Echo::default()).unwrap();
        manage(machine, apply_config(workers))
    };
    let mut found = Vec::new();
    for part in 0..6 {
        let manager = open(1 + part % 3);
        assert_eq!(manager.applied().map_or(0, |last| last.index), found.len() as u64);
        let first = found.len() as u64 + 1;
        let payloads: Vec<_> = (first..first + 10).map(payload).collect();
        let entries: Vec<_> =
            (first..).zip(&payloads).map(|(index, bytes)| entry(index, bytes)).collect();
        let _ = manager.consensus().unwrap().append(&entries).unwrap();
        let mut replies = Vec::new();
        manager
            .consensus()
            .unwrap()
            .apply_committed(first..=first + 9, LONG, &mut replies)
            .unwrap();
        found.append(&mut replies);
        manager.close(LONG).unwrap();
    }
    assert_eq!(found, expected);
}

#[test]
fn a_reply_of_more_bytes_than_declared_is_the_engines_end_and_opening_names_the_entry() {
    let scratch = Scratch::new();
    let open =
        |room| Journaled::open(scratch.config(), Echo { room: Some(room), ..Echo::default() });
    let manager = manage(open(4).unwrap(), apply_config(1));
    let reply = manager.apply(&entry(1, b"abcd"), LONG).unwrap();
    assert_eq!(reply.as_bytes(), Some(&b""[..]));
    assert_eq!(manager.apply(&entry(2, b"abcde"), LONG).unwrap().as_bytes(), Some(&b"abcd"[..]));
    let long = manager.apply(&entry(3, b"a"), LONG);
    let says = "it replied with 5 bytes, and its reply_bytes_max() says 4 at most";
    match long.unwrap_err() {
        ApplyError::Wait {
            source: WaitError::Poisoned(Poison::Fatal { index: 3, message }),
            ..
        }
        | ApplyError::Submit {
            source: sprag::error::SubmitError::Poisoned(Poison::Fatal { index: 3, message }),
            ..
        } => assert!(message.contains(says), "{message}"),
        other => panic!("{other}"),
    }
    drop(manager);
    // The entry may be in the log, and replay reports the same error. With enough room the
    // directory opens.
    if let Err(error) = open(4).map(drop) {
        match error {
            OpenError::Replay(Poison::Fatal { index: 3, message }) => {
                assert!(message.contains(says), "{message}");
            }
            other => panic!("{other}"),
        }
    }
    let manager = manage(open(5).unwrap(), apply_config(1));
    let last = manager.applied().map_or(0, |last| last.index);
    assert!(matches!(last, 2 | 3), "{last}");
    assert!(manager.apply(&entry(last + 1, b"a"), LONG).unwrap().as_bytes().is_some());
}

#[test]
fn replay_names_the_entry_whose_reply_is_longer_than_declared() {
    let scratch = Scratch::new();
    let open =
        |room| Journaled::open(scratch.config(), Echo { room: Some(room), ..Echo::default() });
    let manager = manage(open(MAX).unwrap(), apply_config(2));
    for (index, bytes) in [(1, &b"abcde"[..]), (2, b"abc"), (3, b"ab")] {
        manager.apply(&entry(index, bytes), LONG).unwrap();
    }
    manager.close(LONG).unwrap();
    match open(4).map(drop) {
        Err(OpenError::Replay(Poison::Fatal { index: 2, message })) => {
            assert!(message.contains("5 bytes"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    open(5).unwrap();
}

#[test]
fn the_room_for_replies_is_taken_once_and_is_in_the_memory_told() {
    let memory = |room, depth| {
        let machine = Echo { room: Some(room), ..Echo::default() };
        let manager = ApplyManager::new(machine, config(1, true).pipeline_depth(depth)).unwrap();
        assert_eq!(manager.stats().memory_bytes, manager.memory_bytes());
        manager.memory_bytes()
    };
    assert_eq!(memory(1, 1000) - memory(0, 1000), (2048 + 256) * 8);
    assert_eq!(memory(100, 64) - memory(0, 64), (128 + 256) * 104);
}

#[test]
fn replies_longer_than_any_may_be_or_than_memory_has_room_for_are_refused_when_opening() {
    for (room, depth, says) in [
        ((1 << 20) + 1, 1, "more than the 1048576 of a reply"),
        (1 << 20, 65_536, "lower ApplyConfig::pipeline_depth"),
        (usize::MAX, 1, "more than"),
    ] {
        let machine = Echo { room: Some(room), ..Echo::default() };
        match ApplyManager::new(machine, config(1, true).pipeline_depth(depth)) {
            Err(OpenError::Config { option: "reply_bytes_max", message }) => {
                assert!(message.contains(says), "{message}");
            }
            other => panic!("{room}: {:?}", other.map(drop)),
        }
    }
    let machine = Echo { room: Some(1 << 20), ..Echo::default() };
    ApplyManager::new(machine, config(1, true).pipeline_depth(8)).unwrap();
}

/// A machine that sets the reply of each entry several times.
struct Undecided;

impl StateMachine for Undecided {
    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            let entry = entry?;
            let rejection = || Reply::Rejected(Rejection::Custom(1));
            replies.set(&entry, rejection());
            replies.set_bytes(&entry, b"12345678");
            replies.set(&entry, rejection());
            if entry.log_id.index.is_multiple_of(2) {
                replies.set_bytes(&entry, b"123");
            } else {
                replies.set(&entry, rejection());
            }
        }
        Ok(())
    }

    fn reply_bytes_max(&self) -> usize {
        8
    }
}

#[test]
fn the_last_reply_set_counts_and_a_rejection_is_counted_once() {
    let manager = ApplyManager::new(Undecided, config(2, false)).unwrap();
    let entries: Vec<_> = (1..=10).map(|index| entry(index, b"x")).collect();
    let mut replies = Vec::new();
    manager.apply_entries_sync(&entries, LONG, &mut replies).unwrap();
    for (index, reply) in (1_u64..).zip(&replies) {
        match index.is_multiple_of(2) {
            true => assert_eq!(reply.as_bytes(), Some(&b"123"[..])),
            false => assert_eq!(reply, &Reply::Rejected(Rejection::Custom(1))),
        }
    }
    let stats = manager.stats();
    assert_eq!((stats.total_applied, stats.total_failed), (10, 5));
}
