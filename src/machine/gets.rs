//! Gets of the key-value state: under the shard's lock only bytes are copied.

use super::cell::Cell;
use super::key_value::KeyValue;
use crate::contract::value::{INLINE_BYTES_MAX, Value};
use crate::error::ReadError;

/// The longest value that `get_into` copies under the shard's lock.
const COPY_LOCKED_BYTES_MAX: usize = 4096;

impl<C: Cell> KeyValue<C> {
    /// Runs `read` over the cell of a key, under its shard's lock; `None` if the key has no value.
    #[inline]
    pub(super) fn read<R>(
        &self,
        key: &[u8],
        mut read: impl FnMut(&C) -> Result<R, ReadError>,
    ) -> Result<Option<R>, ReadError> {
        let hash = self.store.hash(key);
        // Load this before the store is read: if the store was complete then, a missing key has no
        // value.
        let is_filling = self.fill.is_filling();
        let mut missing = false;
        let found = self.store.read(hash, key, |cell| match cell {
            Some(cell) if cell.is_gone() => Ok(None),
            Some(cell) => read(cell).map(Some),
            None => {
                missing = true;
                Ok(None)
            }
        });
        if missing && is_filling { self.read_while_filling(hash, key, read) } else { found }
    }

    /// Reads a key that the store lacked while it was being filled.
    #[cold]
    fn read_while_filling<R>(
        &self,
        hash: u64,
        key: &[u8],
        mut read: impl FnMut(&C) -> Result<R, ReadError>,
    ) -> Result<Option<R>, ReadError> {
        if let Some(filling) = self.fill.get() {
            // The store was being filled all the time, so a removed key had a tombstone. The
            // snapshot has the key's value.
            let place = filling.find(key).map_err(ReadError::of_snapshot)?;
            let cell = place.map(C::in_piece).transpose().map_err(ReadError::Poisoned)?;
            let found = cell.as_ref().map(&mut read).transpose();
            // No lock is held. The place is gone if the filling ended meanwhile and a newer
            // snapshot replaced this one.
            if found.is_ok() || self.fill.is_filling() {
                return found;
            }
        }
        // The store has everything now.
        self.store.read(hash, key, |cell| cell.filter(|cell| !cell.is_gone()).map(read).transpose())
    }

    /// The value of a key.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>, ReadError> {
        let (mut copy, mut long) = ([0; INLINE_BYTES_MAX], None);
        let found = self.read(key, |cell| self.copy_short(cell, &mut copy, &mut long))?;
        let Some(len) = found else { return Ok(None) };
        if long.is_some() {
            return Ok(long);
        }
        Ok(Some(Value::short(copy, len)))
    }

    /// Runs `read` over the value of a key, with no lock held.
    #[inline]
    pub(crate) fn get_with<R>(
        &self,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, ReadError> {
        let (mut copy, mut long) = ([0; INLINE_BYTES_MAX], None);
        let found = self.read(key, |cell| self.copy_short(cell, &mut copy, &mut long))?;
        Ok(match (found, &long) {
            (None, _) => None,
            (Some(_), Some(value)) => Some(read(value)),
            (Some(len), None) => Some(read(&copy[..len])),
        })
    }

    /// Copies a short value to `copy`, and returns its length. Sets `long` to any other value.
    ///
    /// A get copies only bytes under the lock. Making a [`Value`] there and moving it out would
    /// cost as much as the look-up.
    #[inline]
    fn copy_short(
        &self,
        cell: &C,
        copy: &mut [u8; INLINE_BYTES_MAX],
        long: &mut Option<Value>,
    ) -> Result<usize, ReadError> {
        // The value's length lies before it. Its second line need not wait for the first one.
        cell.prefetch();
        if cell.len() > INLINE_BYTES_MAX {
            *long = Some(cell.value(&self.context)?);
            return Ok(0);
        }
        cell.with(&self.context, |bytes| {
            copy[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        })
    }

    /// Replaces the content of `out` by the value of a key, or by nothing. Returns whether the key
    /// has a value.
    pub(crate) fn get_into(&self, key: &[u8], out: &mut Vec<u8>) -> Result<bool, ReadError> {
        out.clear();
        let found = self.read(key, |cell| {
            if cell.len() <= COPY_LOCKED_BYTES_MAX {
                cell.with(&self.context, |bytes| out.extend_from_slice(bytes))?;
                Ok(None)
            } else {
                cell.value(&self.context).map(Some)
            }
        })?;
        if let Some(Some(value)) = &found {
            out.extend_from_slice(value);
        }
        Ok(found.is_some())
    }

    /// Whether a key has a value.
    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool, ReadError> {
        Ok(self.read(key, |_| Ok(()))?.is_some())
    }
}
