//! Keys of 65,536 bytes. The seam allows them, and fjall takes one byte less.
//!
//! A key of 65,535 bytes has a directory as its value in the table's keyspace. The directory holds
//! the value of that key itself, if it has one, and the last bytes of the longer keys that begin
//! with it. The values of the longer keys are in a second keyspace of the table, under the
//! directory's number and the last byte. So the order of keys is kept, and shorter keys cost
//! nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use fjall::{Keyspace, OwnedWriteBatch, Readable, Snapshot};
use sprag::machine::storage::{ScanEach, StorageError, Table};

use crate::error::failed;

/// The longest key that fjall takes. Keys of this length and longer have a directory.
pub(crate) const LONG: usize = u16::MAX as usize;
/// The longest key of the seam.
pub(crate) const KEY_LEN_MAX: usize = LONG + 1;
const SUFFIXES: usize = 256;
const HEAD_LEN: usize = 8 + SUFFIXES / 8 + 1;

/// The value that fjall keeps under a key of `LONG` bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Directory {
    /// The first part of the keys in the second keyspace; `None` without longer keys.
    number: Option<u64>,
    /// One bit for each last byte of a longer key.
    suffixes: [u8; SUFFIXES / 8],
    value: Option<Vec<u8>>,
}

impl Directory {
    fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let damaged = || StorageError::Corrupt { message: "the entry of a long key".to_owned() };
        let (head, value) = bytes.split_at_checked(HEAD_LEN).ok_or_else(damaged)?;
        let (number, head) = head.split_first_chunk().ok_or_else(damaged)?;
        let (suffixes, head) = head.split_first_chunk().ok_or_else(damaged)?;
        let has_longer = suffixes.iter().any(|byte| *byte != 0);
        Ok(Self {
            number: has_longer.then_some(u64::from_be_bytes(*number)),
            suffixes: *suffixes,
            value: (head == [1]).then(|| value.to_vec()),
        })
    }

    fn encode(&self) -> Vec<u8> {
        let value = self.value.as_deref();
        let number = self.number.unwrap_or_default().to_be_bytes();
        let has_value = [u8::from(value.is_some())];
        [&number, &self.suffixes[..], &has_value, value.unwrap_or_default()].concat()
    }

    fn has(&self, suffix: u8) -> bool {
        self.suffixes.get(usize::from(suffix / 8)).is_some_and(|byte| byte >> (suffix % 8) & 1 == 1)
    }

    fn set(&mut self, suffix: u8, has: bool) {
        if let Some(byte) = self.suffixes.get_mut(usize::from(suffix / 8)) {
            let bit = 1 << (suffix % 8);
            *byte = if has { *byte | bit } else { *byte & !bit };
        }
        if self.suffixes == [0; SUFFIXES / 8] {
            self.number = None;
        }
    }
}

fn row(number: u64, suffix: u8) -> [u8; 9] {
    let mut row = [suffix; 9];
    if let Some(first) = row.first_chunk_mut() {
        *first = number.to_be_bytes();
    }
    row
}

/// The value of a key of `LONG` bytes or more.
pub(crate) fn get(
    snapshot: &Snapshot,
    keyspace: &Keyspace,
    longer: Option<&Keyspace>,
    key: &[u8],
    read: &mut dyn FnMut(&[u8]),
) -> Result<bool, StorageError> {
    let Some((first, last)) = key.split_at_checked(LONG) else { return Ok(false) };
    let found = snapshot.get(keyspace, first).map_err(failed("reading a key"))?;
    let Some(directory) = found.as_deref().map(Directory::decode).transpose()? else {
        return Ok(false);
    };
    let value = match *last {
        [] => directory.value,
        [suffix] => return longer_value(snapshot, longer, &directory, suffix, read),
        _ => None,
    };
    Ok(value.map(|value| read(&value)).is_some())
}

fn longer_value(
    snapshot: &Snapshot,
    longer: Option<&Keyspace>,
    directory: &Directory,
    suffix: u8,
    read: &mut dyn FnMut(&[u8]),
) -> Result<bool, StorageError> {
    let (Some(number), true) = (directory.number, directory.has(suffix)) else { return Ok(false) };
    let missing =
        || StorageError::Corrupt { message: "the value of a long key is gone".to_owned() };
    let longer = longer.ok_or_else(missing)?;
    let found = snapshot.get(longer, row(number, suffix)).map_err(failed("reading a key"))?;
    read(&found.ok_or_else(missing)?);
    Ok(true)
}

/// Translates the bounds of a scan into fjall's keys; bounds of `LONG` bytes may include one more
/// directory.
pub(crate) fn bound(bound: Bound<&[u8]>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => match key.split_at_checked(LONG) {
            Some((first, _)) => Bound::Included(first),
            None => bound,
        },
        Bound::Unbounded => Bound::Unbounded,
    }
}

fn is_within(key: &[u8], from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    let is_after = match from {
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
        Bound::Unbounded => true,
    };
    let is_before = match to {
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
        Bound::Unbounded => true,
    };
    is_after && is_before
}

/// Whether no key can be within the bounds.
pub(crate) fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    use Bound::{Excluded, Included};
    let (Included(low) | Excluded(low), Included(high) | Excluded(high)) = (from, to) else {
        return false;
    };
    match low.cmp(high) {
        Ordering::Less => false,
        Ordering::Equal => !matches!((from, to), (Included(_), Included(_))),
        Ordering::Greater => true,
    }
}

/// The part of a scan that lies in one directory.
pub(crate) struct Scan<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) longer: Option<&'a Keyspace>,
    pub(crate) from: Bound<&'a [u8]>,
    pub(crate) to: Bound<&'a [u8]>,
    pub(crate) is_back: bool,
}

impl Scan<'_> {
    /// Calls `each` with the keys of the directory that is kept under `first`.
    pub(crate) fn directory(
        &self,
        first: &[u8],
        bytes: &[u8],
        each: ScanEach<'_>,
    ) -> Result<ControlFlow<()>, StorageError> {
        let directory = Directory::decode(bytes)?;
        let mut steps: Vec<Option<u8>> = vec![None];
        steps.extend((0..=u8::MAX).filter(|suffix| directory.has(*suffix)).map(Some));
        if self.is_back {
            steps.reverse();
        }
        let mut key = first.to_vec();
        for step in steps {
            key.truncate(LONG);
            key.extend(step);
            if !is_within(&key, self.from, self.to) {
                continue;
            }
            let mut flow = ControlFlow::Continue(());
            let mut read = |value: &[u8]| flow = each(&key, value);
            match step {
                None => {
                    if let Some(value) = &directory.value {
                        read(value);
                    }
                }
                Some(suffix) => {
                    longer_value(self.snapshot, self.longer, &directory, suffix, &mut read)?;
                }
            }
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Effects of a batch on long keys. Several of its writes may change one directory.
#[derive(Default)]
pub(crate) struct Writes {
    directories: BTreeMap<(Table, Vec<u8>), (Keyspace, Directory)>,
    /// The next free number of a directory, by table.
    numbers: BTreeMap<Table, u64>,
}

impl Writes {
    /// Adds a write of a key of `LONG` bytes or more. One thread commits, so the batch changes
    /// exactly what this function reads. `longer` makes the second keyspace if it is missing.
    pub(crate) fn add(
        &mut self,
        table: Table,
        keyspace: &Keyspace,
        longer: &mut dyn FnMut() -> Result<Keyspace, StorageError>,
        (key, value): (&[u8], Option<&[u8]>),
        batch: &mut OwnedWriteBatch,
    ) -> Result<(), StorageError> {
        let (first, last) = key.split_at_checked(LONG).unwrap_or((key, &[]));
        let at = (table, first.to_vec());
        if !self.directories.contains_key(&at) {
            let found = keyspace.get(first).map_err(failed("reading a key"))?;
            let found = found.as_deref().map(Directory::decode).transpose()?.unwrap_or_default();
            self.directories.insert(at.clone(), (keyspace.clone(), found));
        }
        let Some((_, directory)) = self.directories.get_mut(&at) else { return Ok(()) };
        let [suffix] = *last else {
            directory.value = value.map(<[u8]>::to_vec);
            return Ok(());
        };
        if value.is_none() && !directory.has(suffix) {
            return Ok(());
        }
        let longer = longer()?;
        let number = match directory.number {
            Some(number) => number,
            None => next_number(&mut self.numbers, table, &longer)?,
        };
        match value {
            Some(value) => batch.insert(&longer, row(number, suffix), value),
            None => batch.remove(&longer, row(number, suffix)),
        }
        directory.number = Some(number);
        directory.set(suffix, value.is_some());
        Ok(())
    }

    /// Writes the directories into the batch.
    pub(crate) fn finish(self, batch: &mut OwnedWriteBatch) {
        for ((_, first), (keyspace, directory)) in self.directories {
            if directory == Directory::default() {
                batch.remove(&keyspace, first);
            } else {
                batch.insert(&keyspace, first, directory.encode());
            }
        }
    }
}

/// A number that no directory of the table has, in the storage or in this batch.
fn next_number(
    numbers: &mut BTreeMap<Table, u64>,
    table: Table,
    longer: &Keyspace,
) -> Result<u64, StorageError> {
    let next = match numbers.get(&table) {
        Some(next) => *next,
        None => {
            let last = longer.last_key_value().map(|last| last.key()).transpose();
            let last = last.map_err(failed("reading a key"))?;
            let last = last.as_deref().and_then(|row| row.first_chunk().copied());
            last.map_or(0, |last| u64::from_be_bytes(last) + 1)
        }
    };
    numbers.insert(table, next + 1);
    Ok(next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_directory_comes_back_as_it_was_written() {
        let mut directory =
            Directory { number: Some(7), value: Some(vec![]), ..Directory::default() };
        for suffix in [0, 9, 255] {
            directory.set(suffix, true);
        }
        assert_eq!(Directory::decode(&directory.encode()).unwrap(), directory);
        for suffix in [0, 9, 255] {
            assert!(directory.has(suffix) && !directory.has(suffix ^ 1));
            directory.set(suffix, false);
        }
        assert_eq!(directory, Directory { value: Some(vec![]), ..Directory::default() });
        assert_eq!(Directory::decode(&directory.encode()).unwrap(), directory);
        assert!(Directory::decode(&[0; HEAD_LEN - 1]).is_err());
    }
}
