//! Tests of snapshots by promise, and their helpers.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::panic, reason = "tests")]

mod by_path;
mod crashes;
mod damage;
mod round_trip;
mod transfer;

use std::collections::BTreeMap;

use super::Snapshot;
use super::writer::{SnapshotMeta, SnapshotWriter};
use crate::disk::Mapping;
use crate::entry::{LeaderTag, LogId};
use crate::error::snapshot::SnapshotError;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

fn log_id(index: u64) -> LogId {
    LogId { index, term: 3, leader: LeaderTag::new(b"node").unwrap() }
}

/// A log id, a membership and two notes.
fn meta() -> SnapshotMeta {
    let notes = [(&b"import:a"[..], &b"17"[..]), (b"", b""), (b"\xff\xfe", b"x")];
    SnapshotMeta {
        log_id: Some(log_id(9)),
        membership: Some((log_id(4), b"a, b, c"[..].into())),
        notes: notes.map(|(name, value)| (name.into(), value.into())).into(),
    }
}

/// The file of a state, with chunks of this length.
fn file_of(state: &State, meta: &SnapshotMeta, chunk_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = SnapshotWriter::new(&mut out).with_chunk_bytes(chunk_bytes);
    for (key, value) in state {
        writer.push(key, value).unwrap();
    }
    let summary = writer.finish(meta).unwrap();
    assert_eq!(summary.entries, state.len() as u64);
    assert_eq!(summary.bytes, out.len() as u64);
    out
}

/// A file with nothing but the index.
fn blob_of(pieces: &[&[u8]], meta: &SnapshotMeta, chunk_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = SnapshotWriter::new(&mut out).blob().with_chunk_bytes(chunk_bytes);
    for piece in pieces {
        writer.push_bytes(piece).unwrap();
    }
    writer.finish(meta).unwrap();
    out
}

fn open(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
    Snapshot::of_mapping(Mapping::Copied(bytes.into()), "test.snap".to_owned(), None)
}

/// Every entry, as the iterator returns them.
fn entries(snapshot: &Snapshot) -> Result<State, SnapshotError> {
    snapshot.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
}
