//! Reads of everything as it was committed at one moment.

use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, OnceLock};

use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition, TableError,
};
use sprag::machine::storage::{ScanEach, StorageError, StorageSnapshot, Table};

use crate::error::failed;

pub(crate) type Bytes = &'static [u8];

type OpenTable = ReadOnlyTable<Bytes, Bytes>;

/// Number of tables that a moment keeps open. They are the records, the notes and the state of one
/// generation, and those of the next one during an installation.
const TABLES_OPEN_MAX: usize = 6;

/// Name of `table` in redb.
pub(crate) fn name(table: Table) -> String {
    table.to_string()
}

/// The definition of the table with this name, in redb's types.
pub(crate) fn definition(name: &str) -> TableDefinition<'_, Bytes, Bytes> {
    TableDefinition::new(name)
}

/// A read transaction with the tables that were read. The fields drop in their order: the database
/// goes last.
pub(crate) struct Moment {
    /// Each cell is set once. A missing table stays missing, because a transaction never changes.
    open: [OnceLock<(Table, Option<OpenTable>)>; TABLES_OPEN_MAX],
    transaction: ReadTransaction,
    /// Keeps the file open and locked while it is read.
    _database: Arc<Database>,
}

impl Moment {
    /// Begins a read transaction over everything committed now.
    pub(crate) fn now(database: &Arc<Database>) -> Result<Self, StorageError> {
        let transaction = database.begin_read().map_err(failed("beginning to read"))?;
        Ok(Self { open: Default::default(), transaction, _database: Arc::clone(database) })
    }

    /// Calls `read` with the table, or returns `missing` if there is none. It holds no lock.
    fn with_table<T>(
        &self,
        table: Table,
        missing: T,
        read: impl FnOnce(&OpenTable) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        for cell in &self.open {
            let Some((found, opened)) = cell.get() else { break };
            if *found == table {
                return opened.as_ref().map_or(Ok(missing), read);
            }
        }
        let opened = match self.transaction.open_table(definition(&name(table))) {
            Ok(opened) => Some(opened),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(failed("opening a table")(error)),
        };
        let result = opened.as_ref().map_or(Ok(missing), read);
        // Another thread may have taken the cell, so a table may be in two cells.
        let mut opened = Some((table, opened));
        for cell in &self.open {
            let Some(value) = opened.take() else { break };
            opened = cell.set(value).err();
        }
        result
    }

    pub(crate) fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        self.with_table(table, false, |table| {
            let Some(found) = table.get(key).map_err(failed("reading a key"))? else {
                return Ok(false);
            };
            read(found.value());
            Ok(true)
        })
    }
}

/// All tables of a [`RedbStorage`](crate::RedbStorage) as they were at one moment: a read
/// transaction of redb. The snapshot keeps the file open, and the pages of its moment in it.
#[derive(Clone)]
pub struct RedbSnapshot(pub(crate) Arc<Moment>);

impl std::fmt::Debug for RedbSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbSnapshot").finish_non_exhaustive()
    }
}

impl RedbSnapshot {
    fn pairs(
        &self,
        table: Table,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        walk: impl FnOnce(redb::Range<'static, Bytes, Bytes>) -> Result<(), redb::StorageError>,
    ) -> Result<(), StorageError> {
        if is_empty(from, to) {
            return Ok(());
        }
        self.0.with_table(table, (), |table| {
            let range =
                table.range::<&[u8]>((from, to)).map_err(failed("reading keys in order"))?;
            walk(range).map_err(failed("reading keys in order"))
        })
    }
}

/// Whether the bounds exclude each other, or every key.
fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
    }
}

impl StorageSnapshot for RedbSnapshot {
    fn get(
        &self,
        table: Table,
        key: &[u8],
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, StorageError> {
        self.0.get(table, key, read)
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError> {
        self.pairs(table, (from, to), |mut pairs| {
            pairs.try_for_each(|pair| visit(pair, each)).break_value().unwrap_or(Ok(()))
        })
    }

    fn scan_back(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: ScanEach<'_>,
    ) -> Result<(), StorageError> {
        self.pairs(table, (from, to), |pairs| {
            pairs.rev().try_for_each(|pair| visit(pair, each)).break_value().unwrap_or(Ok(()))
        })
    }
}

type Pair = (redb::AccessGuard<'static, Bytes>, redb::AccessGuard<'static, Bytes>);

/// Breaks with an error of redb, or without one where `each` breaks.
fn visit(
    pair: Result<Pair, redb::StorageError>,
    each: ScanEach<'_>,
) -> ControlFlow<Result<(), redb::StorageError>> {
    match pair {
        Ok((key, value)) => each(key.value(), value.value()).map_break(Ok),
        Err(error) => ControlFlow::Break(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_exclude_each_other_have_no_keys_between_them() {
        use Bound::{Excluded, Included, Unbounded};
        let (a, b): (&[u8], &[u8]) = (b"a", b"b");
        assert!(is_empty(Included(b), Included(a)) && is_empty(Excluded(a), Excluded(a)));
        assert!(is_empty(Included(a), Excluded(a)) && is_empty(Excluded(a), Included(a)));
        assert!(!is_empty(Included(a), Included(a)) && !is_empty(Excluded(a), Excluded(b)));
        assert!(!is_empty(Unbounded, Excluded(a)) && !is_empty(Excluded(b), Unbounded));
    }
}
