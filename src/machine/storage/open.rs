//! Opening a storage: finds the current tables, and the rest of interrupted operations.

use std::ops::{Bound, ControlFlow};

use super::meta::{Membership, StateRecord, read_membership, read_state};
use super::{Storage, StorageBatch, StorageSnapshot, Table};
use crate::error::{Corrupt, OpenError, StorageError};

/// The generation of a state that was never replaced.
const FIRST_GENERATION: u64 = 1;

/// The content that opening found or made.
pub(super) struct Opened {
    pub(super) record: StateRecord,
    pub(super) membership: Option<Membership>,
    /// The highest generation of any table found.
    pub(super) last_generation: u64,
}

/// Reads the records, or makes them; then removes tables that are not current, and syncs.
pub(super) fn open(storage: &impl Storage) -> Result<Opened, OpenError> {
    let name = storage.name();
    let failed = |source| OpenError::Storage { storage: name, source };
    let tables = storage.tables().map_err(failed)?;
    let found = {
        let snapshot = storage.snapshot().map_err(failed)?;
        let found = read_state(&snapshot).map_err(|error| error.into_open_error(name))?;
        if found.is_none() {
            refuse_foreign(&snapshot, &tables, name)?;
        }
        let membership = read_membership(&snapshot);
        found.zip(Some(membership.map_err(|error| error.into_open_error(name))?))
    };
    let (record, membership) = match found {
        Some(found) => found,
        None => (create(storage).map_err(failed)?, None),
    };
    let (state, notes) = (Table::State(record.generation), Table::Notes(record.generation));
    // A crash may have taken back a table without content.
    storage.create_table(state).and_then(|()| storage.create_table(notes)).map_err(failed)?;
    let generations = tables.iter().map(|table| match table {
        Table::Meta => 0,
        Table::Notes(generation) | Table::State(generation) => *generation,
    });
    let last_generation = generations.max().unwrap_or(0);
    for table in tables {
        if ![Table::Meta, state, notes].contains(&table) {
            storage.remove_table(table).map_err(failed)?;
        }
    }
    // Batches that a killed process committed without a sync are here, and may not be on stable
    // storage.
    storage.sync().map_err(failed)?;
    Ok(Opened { record, membership, last_generation })
}

/// Makes the state before the first entry. The state is on stable storage before anything else is.
fn create(storage: &impl Storage) -> Result<StateRecord, StorageError> {
    let record = StateRecord { generation: FIRST_GENERATION, applied: None, keys: 0 };
    storage.create_table(Table::Meta)?;
    let mut batch = StorageBatch::new();
    record.put(&mut batch);
    storage.commit(&batch, true)?;
    Ok(record)
}

/// Refuses a storage with keys and without a record of their state. No crash leaves that, because
/// the record becomes durable first.
fn refuse_foreign(
    snapshot: &impl StorageSnapshot,
    tables: &[Table],
    name: &'static str,
) -> Result<(), OpenError> {
    for table in tables {
        let mut is_empty = true;
        let mut each = |_: &[u8], _: &[u8]| {
            is_empty = false;
            ControlFlow::Break(())
        };
        snapshot
            .scan(*table, Bound::Unbounded, Bound::Unbounded, &mut each)
            .map_err(|source| OpenError::Storage { storage: name, source })?;
        if !is_empty {
            let what = "it holds keys, and no record of the state that they are of";
            let file = format!("{name}: table {table}");
            return Err(Corrupt { file, offset: 0, index: None, what }.into());
        }
    }
    Ok(())
}
