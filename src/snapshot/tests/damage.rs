//! Tests of damaged, cut and forged files: every call returns a typed error, or the right value.

use super::*;
use crate::bytes::{put, u32_at, u64_at};
use crate::snapshot::format::{FOOTER_BYTES, HEADER_BYTES};
use crate::snapshot::reseal::reseal;

/// Some short entries, and some as long as several of them.
fn state() -> State {
    let key = |number: u8| vec![b'k', number / 16, number];
    (0..200).map(|number| (key(number), vec![number; usize::from(number % 80)])).collect()
}

/// Makes every call on a file that may be damaged, and panics if any answer is wrong. Returns
/// whether all were right.
fn holds(bytes: &[u8], state: &State, meta: &SnapshotMeta) -> bool {
    let snapshot = match open(bytes) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            assert_is_damage(&error);
            return false;
        }
    };
    assert_eq!(snapshot.log_id(), meta.log_id);
    assert_eq!(snapshot.len(), state.len() as u64);
    assert_eq!(snapshot.note(b"import:a"), Some(&b"17"[..]));
    assert_eq!(snapshot.membership(), Some((log_id(4), &b"a, b, c"[..])));
    for key in state.keys().step_by(17) {
        match snapshot.get(key) {
            Ok(value) => assert_eq!(value, state.get(key).map(Vec::as_slice)),
            Err(error) => assert_is_damage(&error),
        }
    }
    let mut expected = state.iter();
    let mut all_right = true;
    for entry in &snapshot {
        match entry {
            Ok((key, value)) => {
                assert_eq!(expected.next(), Some((&key.to_vec(), &value.to_vec())));
            }
            Err(error) => {
                assert_is_damage(&error);
                all_right = false;
            }
        }
    }
    assert!(!all_right || expected.next().is_none(), "entries are missing");
    assert_eq!(snapshot.verify().is_ok(), all_right);
    all_right
}

fn assert_is_damage(error: &SnapshotError) {
    let is_typed = matches!(
        error,
        SnapshotError::Corrupt { .. }
            | SnapshotError::NotASnapshot { .. }
            | SnapshotError::UnknownVersion { .. }
            | SnapshotError::OtherSettings { .. }
    );
    assert!(is_typed, "{error}");
}

/// Proves DUR-21.
#[test]
fn every_flipped_bit_is_found() {
    let (state, meta) = (state(), meta());
    let mut bytes = file_of(&state, &meta, 4000);
    assert!((14_000..18_000).contains(&bytes.len()), "{} bytes", bytes.len());
    assert!(holds(&bytes, &state, &meta));
    for at in 0..bytes.len() {
        let flipped = 1 << (at % 8);
        bytes[at] ^= flipped;
        assert!(!holds(&bytes, &state, &meta), "bit {flipped} of byte {at}");
        bytes[at] ^= flipped;
    }
    // A blob has no keys whose order would show the damage.
    let content = [b"some bytes".repeat(30), b"more".to_vec()].concat();
    let mut bytes = blob_of(&[&content], &meta, 101);
    for at in 0..bytes.len() {
        bytes[at] ^= 1 << (at % 8);
        let read = open(&bytes).and_then(|snapshot| snapshot.verify());
        assert_is_damage(&read.unwrap_err());
        bytes[at] ^= 1 << (at % 8);
    }
}

/// Proves DUR-21.
#[test]
fn every_truncation_and_every_extension_is_found() {
    let bytes = file_of(&state(), &meta(), 4000);
    for len in 0..bytes.len() {
        assert_is_damage(&open(&bytes[..len]).unwrap_err());
    }
    for more in [1, 16, 64, 4096] {
        let longer = [&bytes[..], &vec![0; more]].concat();
        assert_is_damage(&open(&longer).unwrap_err());
        let longer = [&bytes[..], &bytes[bytes.len() - more..]].concat();
        assert_is_damage(&open(&longer).unwrap_err());
    }
}

/// Proves DUR-21.
#[test]
fn any_number_in_any_field_is_an_error_or_changes_nothing_also_under_checksums_that_fit() {
    let (state, meta) = (state().into_iter().take(30).collect::<State>(), meta());
    let whole = file_of(&state, &meta, 400);
    let file_bytes = whole.len() as u64;
    let (mut refused, mut taken) = (0, 0);
    // Damage the header's fields, then every word after the header: keys, records, roots, tables,
    // the index, the footer.
    for at in (0..32).chain(HEADER_BYTES..whole.len()).step_by(4) {
        let (word, long) = (u32_at(&whole, at), u64_at(&[&whole[at..], &[0; 8]].concat(), 0));
        let numbers =
            [0, 1, 16, 4096, 1 << 30, 1 << 31, u64::MAX >> 33, u64::from(u32::MAX), file_bytes];
        let near = [1, u64::MAX, 16, 24].map(|step| u64::from(word).wrapping_add(step));
        let wide = [u64::MAX, u64::MAX - 7, 1 << 63, long.wrapping_add(16), long.wrapping_sub(1)];
        let words = numbers.iter().chain(&near).map(|number| number.to_le_bytes()[..4].to_vec());
        let wides = wide.iter().map(|number| number.to_le_bytes().to_vec());
        for new in words.chain(wides) {
            if at + new.len() > whole.len() || whole[at..at + new.len()] == new {
                continue;
            }
            let mut bytes = whole.clone();
            put(&mut bytes, at, &new);
            reseal(&mut bytes);
            let Ok(snapshot) = open(&bytes) else {
                refused += 1;
                continue;
            };
            // A key, a value, a log id or a note may be another one now; the file is consistent.
            if snapshot.verify().is_ok() {
                let found = entries(&snapshot).unwrap();
                assert_eq!(found.len() as u64, snapshot.len(), "at {at}");
                for (key, value) in &found {
                    assert_eq!(snapshot.get(key).unwrap(), Some(&value[..]), "at {at}");
                }
                let lengths = |state: &State| state.values().map(Vec::len).collect::<Vec<_>>();
                assert_eq!(lengths(&found), lengths(&state), "at {at}");
                taken += 1;
            } else {
                refused += 1;
            }
            assert!(snapshot.notes().count() <= 3);
            for key in state.keys().step_by(7) {
                let _ = snapshot.get(key).map(|value| value.map(<[u8]>::len));
            }
        }
    }
    assert!(refused > 1000 && taken > 100, "{refused} refused, {taken} taken");
}

/// The fields of the header have their own errors.
#[test]
fn a_later_version_and_other_settings_are_refused_by_name() {
    let whole = file_of(&state(), &meta(), 4000);
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        reseal(&mut bytes);
        open(&bytes).unwrap_err()
    };
    assert!(matches!(with(8, 2), SnapshotError::UnknownVersion { found: 2, supported: 1, .. }));
    for (at, byte, shown) in [(11, 2, "big-endian"), (12, 8, "64-bit"), (13, 1, "aligned to 1")] {
        let error = with(at, byte);
        assert!(matches!(error, SnapshotError::OtherSettings { .. }));
        assert!(error.to_string().contains(shown), "{error}");
    }
    for (at, byte) in [(10, 3), (14, 1), (4000, 1)] {
        assert!(matches!(with(at, byte), SnapshotError::Corrupt { .. }));
    }
    assert!(matches!(with(0, 0), SnapshotError::NotASnapshot { .. }));
    // Whose checksum does not fit, the version proves nothing.
    let mut bytes = whole.clone();
    bytes[8] = 2;
    assert!(matches!(open(&bytes), Err(SnapshotError::Corrupt { .. })));
    assert!(matches!(open(b""), Err(SnapshotError::NotASnapshot { .. })));
    assert!(matches!(open(&[7; 10_000]), Err(SnapshotError::NotASnapshot { .. })));
}

/// Allocating a table for so many entries would end the process.
///
/// Proves DUR-21.
#[test]
fn counts_are_checked_before_anything_is_allocated_for_them() {
    let whole = file_of(&state(), &meta(), 4000);
    let footer = whole.len() - FOOTER_BYTES;
    let index_end =
        usize::try_from(u64_at(&whole, footer + 8) + u64_at(&whole, footer + 16)).unwrap();
    let root = index_end - 128;
    // Blob, chunks, notes, of the index; the length of the membership; the length of the index.
    for at in [root + 4, root + 12, root + 20, root + 32, footer + 16] {
        for count in [u32::MAX, 1 << 31, (1 << 31) - 1, 1 << 28] {
            let mut bytes = whole.clone();
            put(&mut bytes, at, &count.to_le_bytes());
            reseal(&mut bytes);
            assert!(matches!(open(&bytes), Err(SnapshotError::Corrupt { .. })));
        }
    }
}

/// Proves DUR-20.
#[test]
fn the_same_state_has_the_same_bytes_however_it_came_about() {
    let expected = file_of(&state(), &meta(), 400);
    let reversed: State = state().into_iter().rev().collect();
    assert_eq!(file_of(&reversed, &meta(), 400), expected);
    let hashed: std::collections::HashMap<_, _> = state().into_iter().collect();
    assert_eq!(file_of(&hashed.into_iter().collect(), &meta(), 400), expected);
    let mut rewritten = State::new();
    for (key, value) in state() {
        rewritten.insert(key.clone(), b"before".to_vec());
        rewritten.insert([&key[..], b"gone"].concat(), Vec::new());
        rewritten.insert(key, value);
    }
    rewritten.retain(|key, _| !key.ends_with(b"gone"));
    assert_eq!(file_of(&rewritten, &meta(), 400), expected);
    // A writer whose buffers were used for something longer before gives no trace of it.
    let again = entries(&open(&expected).unwrap()).unwrap();
    assert_eq!(file_of(&again, &meta(), 400), expected);
    let other = SnapshotMeta { log_id: Some(log_id(10)), ..meta() };
    assert_ne!(file_of(&state(), &other, 400), expected);
}
