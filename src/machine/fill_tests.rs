//! What happens to keys when the filling ends in the middle of a range.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use super::super::cell::PlaceCell;
use super::KeyValue;
use crate::codec::CommandRef;
use crate::disk::Mapping;
use crate::entry::{LogId, Reply};
use crate::log::table::SegmentTable;
use crate::snapshot::Snapshot;
use crate::snapshot::writer::{SnapshotMeta, SnapshotWriter};

/// A state that is to be filled with the number 41 under `n`.
fn opened() -> (KeyValue<PlaceCell>, Arc<SegmentTable>) {
    let mut bytes = Vec::new();
    let mut writer = SnapshotWriter::new(&mut bytes);
    writer.push(b"n", b"41").unwrap();
    writer
        .finish(&SnapshotMeta { log_id: Some(LogId::new(1, 1)), ..SnapshotMeta::default() })
        .unwrap();
    let snapshot =
        Snapshot::of_mapping(Mapping::Copied(bytes.into()), "test.snap".to_owned(), None).unwrap();
    let table = Arc::new(SegmentTable::new(0));
    let state = KeyValue::new(8, 1, Arc::clone(&table));
    state.begin_to_fill(snapshot, Arc::clone(&table));
    (state, table)
}

#[test]
fn a_key_removed_before_the_filling_ends_does_not_come_back_for_what_follows_in_the_same_range() {
    let (state, _table) = opened();
    let (key, hash) = (b"n", state.store.hash(b"n"));
    // As a worker has it for all of a range.
    let filling = state.fill.get().unwrap();
    let apply = |command| state.apply_command(hash, &command, 0, Some(&filling)).unwrap();
    assert_eq!(apply(CommandRef::Delete { key }), Reply::Deleted { existed: true });
    state.fill_all().unwrap();
    assert_eq!(apply(CommandRef::Delete { key }), Reply::Deleted { existed: false });
    assert_eq!(apply(CommandRef::Increment { key, by: 1 }), Reply::Counter(1));
    assert_eq!(state.get(key).unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn what_a_reader_found_in_the_snapshot_may_go_before_it_is_read() {
    let (state, table) = opened();
    let mut looked = 0;
    let found = state.read(b"n", |cell| {
        looked += 1;
        if looked == 1 {
            // The filling ends, and a compaction lets the snapshot go: the key is written to anew meanwhile.
            state.fill_all().unwrap();
            let hash = state.store.hash(b"n");
            let command = CommandRef::Increment { key: b"n", by: 1 };
            state.apply_command(hash, &command, 0, None).unwrap();
            state.take_filled_pieces().into_iter().for_each(|piece| table.retire(piece));
        }
        super::super::cell::Cell::value(cell, &table)
    });
    assert_eq!(found.unwrap().as_deref(), Some(&b"42"[..]));
    assert_eq!(looked, 2);
}
