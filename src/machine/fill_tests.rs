//! Tests of keys when the filling ends in the middle of a range.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Barrier, Weak};
use std::thread;
use std::time::Duration;

use super::super::cell::PlaceCell;
use super::KeyValue;
use crate::codec::CommandRef;
use crate::disk::Mapping;
use crate::entry::{LogId, Reply};
use crate::places::table::SegmentTable;
use crate::snapshot::Snapshot;
use crate::snapshot::writer::{SnapshotMeta, SnapshotWriter};

/// A snapshot, and a weak reference that tells whether anything still refers to it.
fn snapshot_of(entries: &[(String, &[u8])]) -> (Snapshot, Weak<[u8]>) {
    let mut bytes = Vec::new();
    let mut writer = SnapshotWriter::new(&mut bytes).with_chunk_bytes(700);
    entries.iter().for_each(|(key, value)| writer.push(key.as_bytes(), value).unwrap());
    writer
        .finish(&SnapshotMeta { log_id: Some(LogId::new(1, 1)), ..SnapshotMeta::default() })
        .unwrap();
    let bytes: Arc<[u8]> = bytes.into();
    let weak = Arc::downgrade(&bytes);
    let mapping = Mapping::Copied(bytes);
    (Snapshot::of_mapping(mapping, "test.snap".to_owned(), None).unwrap(), weak)
}

fn filling_from(snapshot: Snapshot) -> (KeyValue<PlaceCell>, Arc<SegmentTable>) {
    let table = Arc::new(SegmentTable::new(0));
    let state = KeyValue::new(8, 1, Arc::clone(&table));
    state.begin_to_fill(snapshot, Arc::clone(&table));
    (state, table)
}

/// A state that is to be filled with the number 41 under `n`.
fn opened() -> (KeyValue<PlaceCell>, Arc<SegmentTable>) {
    filling_from(snapshot_of(&[("n".to_owned(), b"41")]).0)
}

fn keys(value: &[u8]) -> Vec<(String, &[u8])> {
    (0..64).map(|at| (format!("key-{at:02}"), value)).collect()
}

#[test]
fn a_key_removed_before_the_filling_ends_does_not_come_back_for_what_follows_in_the_same_range() {
    let (state, _table) = opened();
    let (key, hash) = (b"n", state.store.hash(b"n"));
    // A worker holds this for the whole range.
    let filling = state.fill.get().unwrap();
    let apply = |command| state.apply_command(hash, &command, 0, Some(&filling)).unwrap();
    assert_eq!(apply(CommandRef::Delete { key }), Reply::Deleted { existed: true });
    state.fill_all().unwrap();
    assert_eq!(apply(CommandRef::Delete { key }), Reply::Deleted { existed: false });
    assert_eq!(apply(CommandRef::Increment { key, by: 1 }), Reply::Counter(1));
    assert_eq!(state.get(key).unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_filling_is_said_to_have_ended_when_its_tombstones_are_gone() {
    let (state, _table) = opened();
    let burying = state.fill.burying.lock();
    thread::scope(|scope| {
        let filling = scope.spawn(|| state.fill_all().unwrap());
        while state.store.len() == 0 {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(10));
        assert!(state.fill.is_filling(), "no fill would go on unseen");
        drop(burying);
        filling.join().unwrap();
    });
    assert!(!state.fill.is_filling() && state.fill.chunks_left() == 0);
    let burying = state.fill.burying.lock();
    assert_eq!(state.fill.chunks_left(), 1);
    thread::scope(|scope| {
        let counting = scope.spawn(|| state.len().unwrap());
        thread::sleep(Duration::from_millis(10));
        assert!(!counting.is_finished(), "it counts tombstones");
        drop(burying);
        assert_eq!(counting.join().unwrap(), 1);
    });
}

#[test]
fn what_a_reader_found_in_the_snapshot_may_go_before_it_is_read() {
    let (state, table) = opened();
    let mut looked = 0;
    let found = state.read(b"n", |cell| {
        looked += 1;
        if looked == 1 {
            // The filling ends, and a compaction releases the snapshot; meanwhile the key is
            // written anew.
            state.fill_all().unwrap();
            let hash = state.store.hash(b"n");
            let command = CommandRef::Increment { key: b"n", by: 1 };
            state.apply_command(hash, &command, 0, None).unwrap();
            state.take_filled_pieces().into_iter().for_each(|piece| table.retire_piece(piece));
        }
        super::super::cell::Cell::value(cell, &table)
    });
    assert_eq!(found.unwrap().as_deref(), Some(&b"42"[..]));
    assert_eq!(looked, 2);
}

#[test]
fn threads_that_first_use_a_chunk_together_leave_one_number_that_goes_with_the_filling() {
    for _ in 0..200 {
        let (snapshot, bytes) = snapshot_of(&keys(&[7; 100]));
        let (state, table) = filling_from(snapshot);
        let barrier = Barrier::new(3);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    barrier.wait();
                    assert_eq!(state.get(b"key-00").unwrap().as_deref(), Some(&[7; 100][..]));
                });
            }
        });
        state.fill_all().unwrap();
        state.take_filled_pieces().into_iter().for_each(|piece| table.retire_piece(piece));
        drop(state);
        assert!(bytes.upgrade().is_none(), "an unknown number keeps the snapshot");
    }
}

#[test]
fn a_snapshot_that_comes_while_another_fills_leaves_no_key_without_a_value() {
    let (old, new) = (keys(&[1; 60]), keys(&[2; 60]));
    let (snapshot, old_bytes) = snapshot_of(&old);
    let (state, table) = filling_from(snapshot);
    let (snapshot, _bytes) = snapshot_of(&new);
    let piece = |chunk| table.add_piece(&snapshot.chunk_slice(chunk).unwrap()).unwrap();
    let pieces: Vec<_> = (0..snapshot.chunk_count()).map(piece).collect();
    let late = state.fill.get().unwrap();
    // Shards are taken over in the order of these bits.
    let mut sorted: Vec<_> = new.iter().map(|(key, _)| key.as_bytes()).collect();
    sorted.sort_by_key(|key| state.store.hash(key) << 7);
    let value = |key: &[u8]| state.get(key).unwrap().unwrap().to_vec();
    let gone = sorted[63];
    let remove = CommandRef::Delete { key: gone };
    state.apply_command(state.store.hash(gone), &remove, 0, Some(&late)).unwrap();
    assert_eq!(state.get(gone).unwrap(), None);
    let held = sorted[32];
    let loading = thread::scope(|scope| {
        let loading = state.store.read(state.store.hash(held), held, |_| {
            // No thread gets past this shard while its lock is held.
            let loading = scope.spawn(|| state.load(&snapshot, &pieces));
            while value(sorted[0]) != [2; 60] {
                thread::yield_now();
            }
            assert_eq!(value(sorted[62]), [2; 60], "not taken over, and never in the store");
            assert_eq!(state.get(gone).unwrap(), None);
            loading
        });
        loading.join().unwrap()
    });
    loading.unwrap();
    assert!(sorted.iter().all(|key| value(key) == [2; 60]));
    assert!(!state.fill.is_filling() && !state.fill_some().unwrap());
    // A late reader has chunks of the old snapshot checked.
    assert!(sorted.iter().all(|key| late.find(key).unwrap().is_some()));
    state.take_filled_pieces().into_iter().for_each(|piece| table.retire_piece(piece));
    drop(late);
    assert!(old_bytes.upgrade().is_none(), "and that keeps it no longer than the reader");
}
