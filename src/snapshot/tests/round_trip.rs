//! Tests that reads return what was written.

use std::ops::Bound;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::config::SNAPSHOT_CHUNK_BYTES;
use crate::snapshot::SnapshotKind;
use crate::snapshot::format::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Compares every answer with the model.
fn assert_is(snapshot: &Snapshot, state: &State, meta: &SnapshotMeta) {
    snapshot.verify().unwrap();
    assert_eq!(snapshot.kind(), SnapshotKind::KeyValue);
    assert_eq!((snapshot.len(), snapshot.is_empty()), (state.len() as u64, state.is_empty()));
    assert_eq!(snapshot.log_id(), meta.log_id);
    let membership = meta.membership.as_ref().map(|(log_id, bytes)| (*log_id, &bytes[..]));
    assert_eq!(snapshot.membership(), membership);
    let notes: Vec<_> = meta.notes.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(snapshot.notes().collect::<Vec<_>>(), notes);
    for (name, value) in notes {
        assert_eq!(snapshot.note(name), Some(value));
    }
    assert_eq!(snapshot.note(b"no such note"), None);
    assert_eq!(entries(snapshot).unwrap(), *state);
    let (mut located, mut last) = (0, None);
    for chunk in 0..snapshot.chunk_count() {
        let slice = snapshot.chunk_slice(chunk).unwrap();
        for record in snapshot.chunk_records(chunk).unwrap() {
            let (key, offset, len) = record.unwrap();
            assert!(last < Some(key), "in order over chunks");
            let value = &slice[offset as usize..][..len as usize];
            assert_eq!(state.get(key).map(Vec::as_slice), Some(value));
            assert_eq!(snapshot.get(key).unwrap(), Some(value));
            assert_eq!(snapshot.get_with(key, <[u8]>::len).unwrap(), Some(value.len()));
            assert_eq!(snapshot.locate(key).unwrap(), Some((chunk, offset, len)));
            (located, last) = (located + 1, Some(key));
        }
    }
    assert_eq!(located, state.len());
}

/// Compares every range between two of the keys, and between bytes near them.
fn assert_ranges(snapshot: &Snapshot, state: &State) {
    let beside =
        |key: &Vec<u8>| [key.clone(), [&key[..], &[0]].concat(), key[..key.len() - 1].to_vec()];
    let mut keys: Vec<_> = state.keys().flat_map(beside).collect();
    keys.extend([Vec::new(), vec![0xff; 4]]);
    let owned = |(key, value): (&[u8], &[u8])| (key.to_vec(), value.to_vec());
    for key in &keys {
        assert_eq!(snapshot.get(key).unwrap(), state.get(key).map(Vec::as_slice));
        let found: Vec<_> = snapshot.prefix(key).map(|entry| owned(entry.unwrap())).collect();
        let with_prefix = state.iter().filter(|(found, _)| found.starts_with(key));
        let expected: Vec<_> =
            with_prefix.map(|(key, value)| (key.clone(), value.clone())).collect();
        assert_eq!(found, expected);
    }
    for start in &keys {
        for end in &keys {
            for (start, end) in [
                (Bound::Included(&start[..]), Bound::Excluded(&end[..])),
                (Bound::Excluded(&start[..]), Bound::Included(&end[..])),
                (Bound::Excluded(&start[..]), Bound::Unbounded),
                (Bound::Unbounded, Bound::Included(&end[..])),
            ] {
                let found: Vec<_> =
                    snapshot.range((start, end)).map(|entry| owned(entry.unwrap())).collect();
                let is_inside =
                    |key: &[u8]| std::ops::RangeBounds::<&[u8]>::contains(&(start, end), &key);
                let inside = state.iter().filter(|(key, _)| is_inside(key));
                let expected: Vec<_> =
                    inside.map(|(key, value)| (key.clone(), value.clone())).collect();
                assert_eq!(found, expected, "{start:?} {end:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_state_reads_back(
        state in btree_map(vec(any::<u8>(), 1..20), vec(any::<u8>(), 0..200), 0..60),
        chunk_bytes in 64_usize..4096,
    ) {
        let bytes = file_of(&state, &meta(), chunk_bytes);
        assert_is(&open(&bytes).unwrap(), &state, &meta());
    }

    #[test]
    fn any_range_and_prefix_is_that_of_a_sorted_map(
        state in btree_map(vec(0_u8..3, 1..4), vec(any::<u8>(), 0..3), 0..12),
        chunk_bytes in 40_usize..200,
    ) {
        let bytes = file_of(&state, &meta(), chunk_bytes);
        assert_ranges(&open(&bytes).unwrap(), &state);
    }

    #[test]
    fn a_blob_reads_back_however_it_was_cut(
        content in vec(any::<u8>(), 0..600),
        cut in 0_usize..600,
        chunk_bytes in 1_usize..200,
    ) {
        let (head, tail) = content.split_at(cut.min(content.len()));
        let bytes = blob_of(&[head, &[], tail], &meta(), chunk_bytes);
        prop_assert_eq!(&bytes, &blob_of(&[&content], &meta(), chunk_bytes));
        let snapshot = open(&bytes).unwrap();
        let mut found = Vec::new();
        std::io::Read::read_to_end(&mut snapshot.blob().unwrap(), &mut found).unwrap();
        prop_assert_eq!(found, content);
        assert!(matches!(snapshot.get(b"a"), Err(SnapshotError::OtherKind { .. })));
        prop_assert!(snapshot.iter().next().unwrap().is_err());
    }
}

#[test]
fn the_state_before_any_entry_reads_back_empty() {
    let (state, meta) = (State::new(), SnapshotMeta::default());
    let bytes = file_of(&state, &meta, SNAPSHOT_CHUNK_BYTES);
    assert_is(&open(&bytes).unwrap(), &state, &meta);
    assert_ranges(&open(&bytes).unwrap(), &state);
}

#[test]
fn every_first_byte_the_empty_value_and_the_longest_keys_and_values_read_back() {
    let mut state: State = (0..=255).map(|byte| (vec![byte], vec![byte; 3])).collect();
    state.insert(b"empty".to_vec(), Vec::new());
    for byte in [0, 0x7e, 0xff] {
        state.insert(vec![byte; KEY_BYTES_MAX], vec![byte; 5]);
    }
    state.insert(b"long".to_vec(), vec![7; VALUE_BYTES_MAX]);
    state.insert(vec![0xff; KEY_BYTES_MAX - 1], vec![8; SNAPSHOT_CHUNK_BYTES]);
    let bytes = file_of(&state, &meta(), SNAPSHOT_CHUNK_BYTES);
    let snapshot = open(&bytes).unwrap();
    assert!(snapshot.chunk_count() >= 4, "a long record has a chunk of its own");
    assert_is(&snapshot, &state, &meta());
}

#[test]
fn the_writer_refuses_keys_that_do_not_rise_and_what_is_too_long_and_goes_on() {
    let mut out = Vec::new();
    let mut writer = SnapshotWriter::new(&mut out).with_chunk_bytes(50);
    writer.push(b"b", b"1").unwrap();
    for key in [&b"b"[..], b"a"] {
        assert!(matches!(writer.push(key, b"2"), Err(SnapshotError::OutOfOrder { entry: 1 })));
    }
    writer.push(b"c", &[0; 100]).unwrap();
    // "b" is written. Later keys are compared with "c", before and after its chunk is.
    assert!(matches!(writer.push(b"c", b""), Err(SnapshotError::OutOfOrder { entry: 2 })));
    writer.push(b"d", b"").unwrap();
    for (key, value) in
        [(&[][..], &[][..]), (&[b'e'; KEY_BYTES_MAX + 1], &[]), (b"e", &[0; VALUE_BYTES_MAX + 1])]
    {
        assert!(matches!(writer.push(key, value), Err(SnapshotError::Length { .. })));
    }
    assert!(matches!(writer.push_bytes(b"x"), Err(SnapshotError::OtherKind { .. })));
    assert_eq!(writer.finish(&meta()).unwrap().entries, 3);
    let expected =
        [(b"b".to_vec(), b"1".to_vec()), (b"c".to_vec(), vec![0; 100]), (b"d".to_vec(), vec![])];
    assert_is(&open(&out).unwrap(), &expected.into(), &meta());
}
