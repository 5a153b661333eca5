//! All tables as they were at one moment.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use fjall::{Keyspace, Readable, Snapshot};
use sprag::machine::storage::{ScanEach, StorageError, StorageSnapshot, Table};

use crate::error::failed;
use crate::long;

/// A table and its keyspaces.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) table: Table,
    pub(crate) keyspace: Keyspace,
    /// Keyspace for the values of keys of 64 KiB; the first such key makes it.
    pub(crate) longer: Option<Keyspace>,
}

/// The tables that exist. There are a few, so a linear search is enough.
pub(crate) type Places = Vec<Place>;

pub(crate) fn place(places: &Places, table: Table) -> Option<&Place> {
    places.iter().find(|place| place.table == table)
}

/// All tables of a [`FjallStorage`](crate::FjallStorage) as they were at one moment.
///
/// While the snapshot lives, the directory stays locked, and fjall keeps the snapshot's files on
/// disk, also of removed tables.
#[derive(Clone)]
pub struct FjallSnapshot {
    pub(crate) snapshot: Snapshot,
    pub(crate) places: Arc<Places>,
}

impl std::fmt::Debug for FjallSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tables: Vec<_> = self.places.iter().map(|place| place.table).collect();
        f.debug_struct("FjallSnapshot").field("tables", &tables).finish_non_exhaustive()
    }
}

impl FjallSnapshot {
    fn walk(
        &self,
        table: Table,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        is_back: bool,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError> {
        let Some(place) = place(&self.places, table) else { return Ok(()) };
        if long::is_empty(from, to) {
            return Ok(());
        }
        let longer = place.longer.as_ref();
        let scan = long::Scan { snapshot: &self.snapshot, longer, from, to, is_back };
        let mut pairs =
            self.snapshot.range::<&[u8], _>(&place.keyspace, (long::bound(from), long::bound(to)));
        loop {
            let next = if is_back { pairs.next_back() } else { pairs.next() };
            let Some(pair) = next else { return Ok(()) };
            let (key, value) = pair.into_inner().map_err(failed("scanning a table"))?;
            let flow = if key.len() < long::LONG {
                each(&key, &value)
            } else {
                scan.directory(&key, &value, each)?
            };
            if let ControlFlow::Break(()) = flow {
                return Ok(());
            }
        }
    }
}

impl StorageSnapshot for FjallSnapshot {
    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        let Some(place) = place(&self.places, table) else { return Ok(false) };
        match key.len() {
            0 => Ok(false),
            1..long::LONG => {
                let found = self.snapshot.get(&place.keyspace, key);
                let found = found.map_err(failed("reading a key"))?;
                Ok(found.map(|value| read(&value)).is_some())
            }
            _ => long::get(&self.snapshot, &place.keyspace, place.longer.as_ref(), key, read),
        }
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError> {
        self.walk(table, (from, to), false, each)
    }

    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError> {
        self.walk(table, (from, to), true, each)
    }
}
