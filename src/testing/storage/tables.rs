//! Checks of tables, batches, scans and snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use super::placed::open_new;
use super::{Outcome, Subject, doing};
use crate::error::StorageError;
use crate::machine::storage::{Storage, StorageBatch, StorageSnapshot, Table};
use crate::testing::Random;

/// Limits of the seam.
const KEY_BYTES_MAX: usize = 64 << 10;
const VALUE_BYTES_MAX: usize = 16 << 20;

const STATE: Table = Table::State(1);
const NOTES: Table = Table::Notes(1);

type Keys = BTreeMap<Vec<u8>, Vec<u8>>;
/// One write of a batch; `None` removes the key.
pub(super) type Writing<'a> = (Table, &'a [u8], Option<&'a [u8]>);

/// Fails the check with a formatted message.
macro_rules! require {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(format!($($what)*));
        }
    };
}
pub(super) use require;

/// The value of a key of a storage or a snapshot.
pub(super) fn read(
    get: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<bool, StorageError>,
) -> Result<Option<Vec<u8>>, String> {
    let (mut calls, mut found) = (0, None);
    let has = doing(
        "getting",
        get(&mut |value| {
            calls += 1;
            found = Some(value.to_vec());
        }),
    )?;
    let must = u32::from(has);
    require!(calls == must, "a get returned {has} and called back {calls} times, must be {must}");
    Ok(found)
}

pub(super) fn get(
    storage: &impl Storage,
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, String> {
    read(|each| storage.get(table, key, each))
}

/// Commits writes.
pub(super) fn commit(
    storage: &impl Storage,
    writes: &[Writing<'_>],
    sync: bool,
) -> Result<bool, String> {
    let mut batch = StorageBatch::new();
    for (table, key, value) in writes {
        match value {
            Some(value) => batch.put(*table, key, value),
            None => batch.remove(*table, key),
        }
    }
    let synced = doing("committing", storage.commit(&batch, sync))?;
    require!(synced || !sync, "a commit with a sync returned that it is not durable");
    Ok(synced)
}

/// The content of a table.
pub(super) fn all(snapshot: &impl StorageSnapshot, table: Table) -> Result<Keys, String> {
    let mut keys = Keys::new();
    let scanned = snapshot.scan(table, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
        keys.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    });
    doing("scanning", scanned)?;
    Ok(keys)
}

fn create(storage: &impl Storage, tables: &[Table]) -> Outcome {
    tables.iter().try_for_each(|table| doing("making a table", storage.create_table(*table)))
}

pub(super) fn check_tables<S: Subject>(subject: &S) -> Outcome {
    let storage = open_new(subject)?;
    let list = || -> Result<BTreeSet<Table>, String> {
        let tables = doing("listing tables", storage.tables())?;
        let set: BTreeSet<_> = tables.iter().copied().collect();
        require!(set.len() == tables.len(), "tables() lists a table twice");
        Ok(set)
    };
    require!(list()?.is_empty(), "a new storage has tables");
    require!(get(&storage, STATE, b"k")?.is_none(), "a missing table has a key");
    let snapshot = doing("taking a snapshot", storage.snapshot())?;
    require!(all(&snapshot, STATE)?.is_empty(), "a scan of a missing table finds something");
    doing("removing a missing table", storage.remove_table(STATE))?;
    let tables = [Table::Meta, STATE, Table::State(u64::MAX), NOTES];
    create(&storage, &tables)?;
    commit(&storage, &[(STATE, b"k", Some(b"1")), (NOTES, b"k", Some(b"2"))], false)?;
    create(&storage, &tables)?;
    require!(list()? == BTreeSet::from(tables), "tables() lists other tables than were made");
    let kept = get(&storage, STATE, b"k")? == Some(b"1".to_vec())
        && get(&storage, NOTES, b"k")? == Some(b"2".to_vec())
        && get(&storage, Table::State(u64::MAX), b"k")?.is_none();
    require!(kept, "tables share keys, or making a table again empties it");
    doing("removing a table", storage.remove_table(STATE))?;
    require!(!list()?.contains(&STATE), "tables() lists a table that was removed");
    require!(get(&storage, STATE, b"k")?.is_none(), "a removed table has a key");
    require!(get(&storage, NOTES, b"k")?.is_some(), "removing a table empties another");
    Ok(())
}

pub(super) fn check_batches<S: Subject>(subject: &S) -> Outcome {
    let storage = open_new(subject)?;
    create(&storage, &[STATE, NOTES])?;
    commit(&storage, &[], false)?;
    commit(
        &storage,
        &[
            (STATE, b"a", Some(b"1")),
            (NOTES, b"a", Some(b"note")),
            (STATE, b"empty", Some(b"")),
            (STATE, b"missing", None),
            (STATE, &[0], Some(&[0, 0xff])),
        ],
        true,
    )?;
    commit(&storage, &[(STATE, b"a", Some(b"two")), (STATE, b"b", Some(b"3"))], false)?;
    commit(&storage, &[(NOTES, b"a", None), (STATE, b"b", None), (STATE, b"c", Some(b""))], true)?;
    doing("syncing", storage.sync())?;
    let expected: [Writing<'_>; 7] = [
        (STATE, b"a", Some(b"two")),
        (NOTES, b"a", None),
        (STATE, b"empty", Some(b"")),
        (STATE, b"missing", None),
        (STATE, &[0], Some(&[0, 0xff])),
        (STATE, b"b", None),
        (STATE, b"c", Some(b"")),
    ];
    for (table, key, must) in expected {
        let found = get(&storage, table, key)?;
        let (key, is) = (String::from_utf8_lossy(key), found.as_deref());
        require!(is == must, "key {key:?} of table {table} has {is:?}, must be {must:?}");
    }
    Ok(())
}

pub(super) fn check_sizes<S: Subject>(subject: &S) -> Outcome {
    let storage = open_new(subject)?;
    create(&storage, &[STATE])?;
    for key_bytes in [1, 255, 256, 65_535, KEY_BYTES_MAX] {
        let key = vec![0xff; key_bytes];
        for value_bytes in [0, 1, 4095, 4096, 65_536, VALUE_BYTES_MAX] {
            if value_bytes == VALUE_BYTES_MAX && !matches!(key_bytes, 1 | KEY_BYTES_MAX) {
                continue;
            }
            let mut value = vec![0xa5; value_bytes];
            if let Some(last) = value.last_mut() {
                *last = 1;
            }
            commit(&storage, &[(STATE, &key, Some(&value))], false)?;
            let is_there = get(&storage, STATE, &key)?.as_ref() == Some(&value);
            require!(
                is_there,
                "a value of {value_bytes} bytes under a key of {key_bytes} is another"
            );
        }
    }
    let snapshot = doing("taking a snapshot", storage.snapshot())?;
    let (found, must) = (all(&snapshot, STATE)?, 5);
    require!(found.len() == must, "a scan finds {} keys of {must}", found.len());
    Ok(())
}

pub(super) fn check_scans<S: Subject>(subject: &S, seed: u64) -> Outcome {
    let storage = open_new(subject)?;
    create(&storage, &[STATE, NOTES, Table::State(2)])?;
    let mut random = Random::new(seed);
    let mut model = Keys::new();
    // The keys lie around each other, have all lengths, and have bytes that sort wrongly if they
    // are signed.
    let bytes = [0, 1, 0x7f, 0x80, 0xff];
    for number in 0..300_u64 {
        let key: Vec<u8> =
            (0..=random.below(4)).map(|_| bytes[random.below(bytes.len())]).collect();
        let value = number.to_le_bytes();
        let value = (!random.below(8).eq(&0)).then_some(&value[..]);
        let beside: (Table, &[u8], _) = (Table::State(2), &key, Some(&b"beside"[..]));
        commit(&storage, &[(STATE, &key, value), beside, (NOTES, &[0], Some(b"n"))], false)?;
        match value {
            Some(value) => model.insert(key, value.to_vec()),
            None => model.remove(&key),
        };
    }
    let snapshot = doing("taking a snapshot", storage.snapshot())?;
    require!(all(&snapshot, STATE)? == model, "a scan of all keys finds others, or other values");
    let mut ends: Vec<_> = vec![Bound::Unbounded];
    for key in [&[][..], &[0], &[0x7f, 0x80], &[0x80], &[0x80, 0], &[0xff], &[0xff; 6]] {
        ends.extend([Bound::Included(key), Bound::Excluded(key)]);
    }
    for from in &ends {
        for to in &ends {
            let inside: Vec<_> = model
                .iter()
                .filter(|(key, _)| is_within(key, *from, *to))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            check_range(&snapshot, (*from, *to), &inside)?;
        }
    }
    Ok(())
}

fn is_within(key: &[u8], from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    let after = match from {
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
        Bound::Unbounded => true,
    };
    after
        && match to {
            Bound::Included(to) => key <= to,
            Bound::Excluded(to) => key < to,
            Bound::Unbounded => true,
        }
}

/// Scans a range from both ends, each to its end and to the third key.
fn check_range(
    snapshot: &impl StorageSnapshot,
    (from, to): (Bound<&[u8]>, Bound<&[u8]>),
    inside: &[(Vec<u8>, Vec<u8>)],
) -> Outcome {
    for limit in [usize::MAX, 3] {
        let mut found = Vec::new();
        let mut each = |key: &[u8], value: &[u8]| {
            found.push((key.to_vec(), value.to_vec()));
            if found.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        doing("scanning", snapshot.scan(STATE, from, to, &mut each))?;
        let must = inside.iter().take(limit);
        let what = "other keys, or in another order, than there are";
        require!(found.iter().eq(must), "a scan from {from:?} to {to:?} gives {what}");
        let mut found = Vec::new();
        let mut each = |key: &[u8], value: &[u8]| {
            found.push((key.to_vec(), value.to_vec()));
            if found.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        doing("scanning back", snapshot.scan_back(STATE, from, to, &mut each))?;
        let must = inside.iter().rev().take(limit);
        require!(found.iter().eq(must), "a scan back from {to:?} to {from:?} gives {what}");
    }
    Ok(())
}

pub(super) fn check_snapshots<S: Subject>(subject: &S) -> Outcome {
    let storage = open_new(subject)?;
    create(&storage, &[STATE, Table::State(2)])?;
    let mut snapshots = Vec::new();
    let mut model = Keys::new();
    for number in 0..200_u64 {
        let (key, value) = ((number * 7 % 50).to_be_bytes(), number.to_le_bytes());
        let gone = (number * 3 % 50).to_be_bytes();
        let mut writes: Vec<Writing<'_>> = vec![(STATE, &key, Some(&value))];
        model.insert(key.to_vec(), value.to_vec());
        if gone != key {
            writes.push((STATE, &gone, None));
            model.remove(&gone[..]);
        }
        commit(&storage, &writes, number % 40 == 0)?;
        if number % 25 == 0 {
            let snapshot = doing("taking a snapshot", storage.snapshot())?;
            snapshots.push((snapshot, model.clone()));
        }
    }
    doing("removing a table", storage.remove_table(STATE))?;
    commit(&storage, &[(Table::State(2), b"k", Some(b"v"))], true)?;
    for (snapshot, model) in &snapshots {
        require!(all(snapshot, STATE)? == *model, "a snapshot does not stay as it was");
        require!(all(snapshot, Table::State(2))?.is_empty(), "a snapshot has a later batch");
        for key in (0..50_u64).map(u64::to_be_bytes) {
            let found = read(|each| snapshot.get(STATE, &key, each))?;
            let must = model.get(&key[..]);
            require!(
                found.as_ref() == must,
                "a get of a snapshot gives another value than its scan"
            );
        }
    }
    let now = doing("taking a snapshot", storage.snapshot())?;
    require!(all(&now, STATE)?.is_empty(), "a new snapshot has a table that was removed");
    Ok(())
}
