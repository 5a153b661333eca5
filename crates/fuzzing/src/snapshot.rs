//! Snapshot files: written, damaged, with repaired checksums, and read beside a plain reading of
//! the format.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Bound;
use std::sync::Arc;

use super::files::{Files, disk_with};
use super::input::Input;
use super::plain_snapshot::{Plain, decode};
use sprag::disk::Disk;
use sprag::entry::{LeaderTag, LogId};
use sprag::error::SnapshotError;
use sprag::snapshot::{Snapshot, SnapshotKind};
use sprag::testing::internals::bytes::{put, u32_at, u64_at};
use sprag::testing::internals::snapshots::{self, SnapshotMeta, SnapshotWriter, reseal};

const MUTATIONS_MAX: usize = 16;
const HEADER_BYTES: usize = 4096;
const FOOTER_BYTES: usize = 64;

/// Runs the input. In the first byte, bit 0 selects a blob, and bit 1 repairs checksums. Bit 2 adds
/// a membership, and bit 3 leaves out the log id. The length of chunks, entries and notes follow,
/// and then the damage of the file.
pub fn snapshot(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let chunk_bytes = 40 + 4 * usize::from(input.u8());
    let written = written(flags, &mut input);
    let whole = encode(&written, chunk_bytes);
    let mut file = whole.clone();
    for _ in 0..MUTATIONS_MAX {
        if input.is_empty() {
            break;
        }
        mutate(&mut file, &mut input);
    }
    if flags & 2 != 0 {
        reseal(&mut file);
    }
    let decoded = decode(&file);
    if file == whole {
        assert_eq!(decoded.as_ref(), Some(&written), "what was written");
    }
    let probes: Vec<Vec<u8>> = written.entries.keys().cloned().collect();
    match open(&file) {
        Ok(snapshot) => check(&snapshot, &file, decoded.as_ref(), chunk_bytes, &probes),
        Err(error) => {
            assert_is_damage(&error);
            assert_eq!(decoded, None, "refused: {error}");
        }
    }
}

fn written(flags: u8, input: &mut Input<'_>) -> Plain {
    let log_id = |input: &mut Input<'_>| {
        let index = input.number(7).min(u64::MAX - 1);
        let leader = LeaderTag::new(&[9; 16][..input.below(17)]).unwrap();
        LogId { index, term: input.number(3), leader }
    };
    let mut plain = Plain { is_blob: flags & 1 != 0, ..Plain::default() };
    plain.log_id = (flags & 8 == 0).then(|| log_id(input));
    plain.membership = (flags & 4 != 0).then(|| (log_id(input), vec![5; input.below(20)]));
    for _ in 0..input.u8() % 3 {
        let name = vec![input.u8(); input.below(5)];
        plain.notes.insert(name, vec![input.u8(); input.below(30)]);
    }
    for _ in 0..input.u8() % 32 {
        let len = 1 + input.below(6);
        let mut key = input.bytes(len).to_vec();
        key.resize(len, 0);
        let value = vec![input.u8(); input.below(90)];
        if plain.is_blob {
            plain.blob.extend_from_slice(&value);
        } else {
            plain.entries.insert(key, value);
        }
    }
    plain
}

fn encode(plain: &Plain, chunk_bytes: usize) -> Vec<u8> {
    let boxed = |(name, value): (&Vec<u8>, &Vec<u8>)| (name[..].into(), value[..].into());
    let membership = plain.membership.as_ref();
    let meta = SnapshotMeta {
        log_id: plain.log_id,
        membership: membership.map(|(log_id, bytes)| (*log_id, bytes[..].into())),
        notes: plain.notes.iter().map(boxed).collect(),
    };
    let mut out = Vec::new();
    let mut writer = SnapshotWriter::new(&mut out).with_chunk_bytes(chunk_bytes);
    if plain.is_blob {
        writer = writer.blob();
        writer.push_bytes(&plain.blob).unwrap();
    }
    for (key, value) in &plain.entries {
        writer.push(key, value).unwrap();
    }
    writer.finish(&meta).unwrap();
    out
}

fn mutate(file: &mut Vec<u8>, input: &mut Input<'_>) {
    let index_at = match file.len().checked_sub(FOOTER_BYTES) {
        Some(footer) if footer > HEADER_BYTES => {
            usize::try_from(u64_at(file, footer + 8)).unwrap_or(0)
        }
        _ => 0,
    };
    let index_at = index_at.clamp(HEADER_BYTES, file.len().max(HEADER_BYTES));
    let (start, len) = match input.u8() % 4 {
        0 => (0, 32),
        1 => (HEADER_BYTES, index_at - HEADER_BYTES),
        2 => (index_at, file.len().saturating_sub(index_at + FOOTER_BYTES)),
        _ => (file.len().saturating_sub(FOOTER_BYTES), FOOTER_BYTES),
    };
    let at = start + input.below(len);
    match input.u8() % 7 {
        0 => {
            if let Some(byte) = file.get_mut(at) {
                *byte ^= 1 << (input.u8() % 8);
            }
        }
        1 => {
            let len = input.below(24).min(file.len().saturating_sub(at));
            let new = input.bytes(len);
            if !new.is_empty() {
                put(file, at, new);
            }
        }
        2 | 3 => {
            let at = at & !3;
            if at + 4 <= file.len() {
                let value = input.number(u64::from(u32_at(file, at))) as u32;
                put(file, at, &value.to_le_bytes());
            }
        }
        4 => {
            let at = at & !7;
            if at + 8 <= file.len() {
                let value = input.number(u64_at(file, at));
                put(file, at, &value.to_le_bytes());
            }
        }
        5 => {
            let from = at.min(file.len());
            let len = input.below(64).min(file.len() - from);
            let to = HEADER_BYTES + 16 * input.below(64);
            if to + len <= file.len() {
                file.copy_within(from..from + len, to);
            }
        }
        _ if input.u8() & 1 == 0 => file.truncate(at),
        _ => {
            let end = file.len() - file.len().min(FOOTER_BYTES);
            file.splice(end..end, [0; 16]);
        }
    }
}

fn open(file: &[u8]) -> Result<Snapshot, SnapshotError> {
    snapshots::of_bytes(file)
}

fn assert_is_damage(error: &SnapshotError) {
    let is_typed = matches!(
        error,
        SnapshotError::Corrupt { .. }
            | SnapshotError::NotASnapshot { .. }
            | SnapshotError::UnknownVersion { .. }
            | SnapshotError::OtherSettings { .. }
            | SnapshotError::OtherKind { .. }
    );
    assert!(is_typed, "{error}");
}

fn check(
    snapshot: &Snapshot,
    file: &[u8],
    decoded: Option<&Plain>,
    chunk_bytes: usize,
    probes: &[Vec<u8>],
) {
    // Read before everything is verified, as a running engine does.
    for key in probes {
        match (snapshot.get(key), decoded) {
            (Ok(found), Some(plain)) => assert_eq!(found, plain.get(key)),
            (Err(error), _) => assert_is_damage(&error),
            (Ok(_), None) => {}
        }
    }
    let verified = snapshot.verify();
    let Some(plain) = decoded else {
        assert_is_damage(&verified.expect_err("taken, and no snapshot by the format"));
        snapshot.iter().for_each(drop);
        return;
    };
    verified.expect("refused, and whole by the format");
    assert_eq!(&content(snapshot), plain);
    for key in plain.entries.keys().chain(probes) {
        let range = (Bound::Excluded(&key[..]), Bound::Unbounded);
        let found = snapshot.range(range).next().map(|entry| entry.map(|(key, _)| key.to_vec()));
        if !plain.is_blob {
            let above = (Bound::Excluded(key.clone()), Bound::Unbounded);
            let expected = plain.entries.range(above).next().map(|(key, _)| key.clone());
            assert_eq!(found.transpose().unwrap(), expected);
        }
    }
    // If the writer cuts chunks in the same places, it writes the same bytes.
    let again = encode(plain, chunk_bytes);
    let chunks = |snapshot: &Snapshot| -> Vec<usize> {
        (0..snapshots::chunk_count(snapshot))
            .map(|chunk| snapshots::chunk_slice(snapshot, chunk).unwrap().len())
            .collect()
    };
    if chunks(&open(&again).unwrap()) == chunks(snapshot) {
        assert_eq!(again, file, "one encoding");
    }
    check_transfer(snapshot, file);
}

/// The whole content, read by the snapshot's own interface.
fn content(snapshot: &Snapshot) -> Plain {
    let mut plain = Plain {
        is_blob: snapshot.kind() == SnapshotKind::Blob,
        log_id: snapshot.log_id(),
        membership: snapshot.membership().map(|(log_id, bytes)| (log_id, bytes.to_vec())),
        ..Plain::default()
    };
    for (name, value) in snapshot.notes() {
        assert_eq!(snapshot.note(name), Some(value));
        plain.notes.insert(name.to_vec(), value.to_vec());
    }
    if plain.is_blob {
        snapshot.blob().unwrap().read_to_end(&mut plain.blob).unwrap();
    } else {
        let entries = snapshot.iter().map(|entry| entry.unwrap());
        plain.entries = entries.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        assert_eq!(snapshot.len(), plain.entries.len() as u64);
        let mut walked = BTreeMap::new();
        for chunk in 0..snapshots::chunk_count(snapshot) {
            let bytes = snapshots::chunk_slice(snapshot, chunk).unwrap();
            for record in snapshots::chunk_records(snapshot, chunk).unwrap() {
                let (key, offset, len) = record.unwrap();
                assert_eq!(snapshots::locate(snapshot, key).unwrap(), Some((chunk, offset, len)));
                walked.insert(key.to_vec(), bytes[offset as usize..][..len as usize].to_vec());
            }
        }
        assert_eq!(walked, plain.entries);
    }
    plain
}

fn check_transfer(snapshot: &Snapshot, file: &[u8]) {
    let sim = disk_with(&Files::new());
    let disk: Arc<dyn Disk> = sim.open(true).unwrap();
    let mut receiver = snapshots::receiver(disk).unwrap();
    for piece in snapshot.pieces(0, 1000) {
        receiver.receive(&piece).unwrap();
    }
    match snapshots::finish(receiver) {
        Ok(_) => {
            let name = sim.file_names().pop().unwrap();
            assert_eq!(sim.read_file(&name).unwrap(), file);
        }
        Err(_) => assert_eq!((snapshot.log_id(), sim.file_names()), (None, Vec::new())),
    }
}
