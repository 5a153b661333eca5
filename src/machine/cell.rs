//! The cell in a slot of the store: a value's bytes, or their place.

use std::fmt;
use std::sync::Arc;

use super::number::{DECIMAL_BYTES_MAX, Decimal, parse};
use super::store::{CACHE_LINE_BYTES, Refers, prefetch_line};
use crate::codec::place::Location;
use crate::codec::{PiecePlace, Place, ValueRef};
use crate::contract::buffer::Buffer;
use crate::contract::value::{INLINE_BYTES_MAX, Value};
use crate::error::{Poison, ReadError};
use crate::numbers::SegmentNumber;
use crate::places::table::{SegmentTable, TableReader};

/// A value in a slot. Every method but `new` is called under the slot's shard lock.
pub(crate) trait Cell: Refers + Send + Sync + 'static {
    /// Data that leads from a cell to the bytes.
    type Context: Clone + fmt::Debug + Send + Sync + 'static;
    /// Data for reading many cells in a row.
    type Reader<'c>;

    /// Makes a cell that holds `value`.
    fn new(value: ValueRef<'_>) -> Self;
    /// A cell that refers to a value in a piece of a snapshot.
    ///
    /// # Errors
    ///
    /// [`Poison::Internal`] from cells that hold the bytes: no state of such cells is filled by
    /// reference.
    fn in_piece(place: PiecePlace) -> Result<Self, Poison> {
        let _ = place;
        Err(Poison::Internal("a state that holds its values was filled with places"))
    }
    /// Makes a cell that holds the decimal form of `number`.
    fn from_number(number: i64) -> Self;
    /// Replaces the value by `value`.
    fn set(&mut self, value: ValueRef<'_>);
    /// Replaces the value by the decimal form of `number`.
    fn set_number(&mut self, number: i64);
    /// Runs `read` over the bytes.
    fn with<R>(
        &self,
        context: &Self::Context,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, ReadError>;
    /// Length of the value in bytes.
    fn len(&self) -> usize;
    /// The value, which stays valid after the lock is released.
    fn value(&self, context: &Self::Context) -> Result<Value, ReadError>;
    /// Points the cell to `place`, which has the same bytes, if it points to the log before segment
    /// `below` or to a snapshot.
    fn repoint(&mut self, place: PiecePlace, below: SegmentNumber) {
        let _ = (place, below);
    }
    /// The cell that a removed key leaves while the store fills, if cells can express that.
    fn tombstone() -> Option<Self> {
        None
    }
    /// Whether the cell is a tombstone: the key has no value.
    fn is_gone(&self) -> bool {
        false
    }
    /// Makes the data for [`Cell::read_with`].
    fn reader(context: &Self::Context) -> Self::Reader<'_>;
    /// Runs `read` over the bytes as [`Cell::with`] does, in a row of many reads.
    fn read_with<R>(
        &self,
        reader: &mut Self::Reader<'_>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, ReadError>;
    /// Prefetches the value's bytes.
    fn prefetch_value(&self, reader: &mut Self::Reader<'_>) {
        let _ = reader;
        self.prefetch();
    }
    /// The number whose decimal form the bytes are; `None` for other bytes.
    fn number(&self, context: &Self::Context) -> Result<Option<i64>, ReadError> {
        self.with(context, parse)
    }
}

/// A cell with the bytes themselves, in a buffer that is shared with values in use.
///
/// The buffer is written in place while no value shares it, and replaced otherwise, so a value in
/// use never changes.
#[derive(Clone)]
pub(crate) struct HeapCell(Buffer);

/// Bytes that a buffer may have beyond twice the value's length before it is replaced by a smaller
/// one.
const VALUE_SLACK_BYTES: usize = 64;

impl HeapCell {
    #[inline]
    fn write(&mut self, value: &[u8]) {
        let wasteful = self.0.room() > 2 * value.len() + VALUE_SLACK_BYTES;
        if wasteful || !self.0.overwrite(value) {
            self.0 = Buffer::new(value);
        }
    }
}

impl Refers for HeapCell {
    const REFERS: bool = true;

    #[inline]
    fn prefetch(&self) {
        let first = self.0.address();
        prefetch_line(first);
        prefetch_line(first.wrapping_add(CACHE_LINE_BYTES));
    }
}

impl Cell for HeapCell {
    type Context = ();
    type Reader<'c> = ();

    fn new(value: ValueRef<'_>) -> Self {
        Self(Buffer::new(value.bytes))
    }

    /// Makes the cell with room for any number, so that a counter is never moved again.
    fn from_number(number: i64) -> Self {
        let decimal = Decimal::new(number);
        let text = decimal.as_bytes();
        let mut room = [0; DECIMAL_BYTES_MAX];
        room[..text.len()].copy_from_slice(text);
        Self(Buffer::with_room(&room, text.len()))
    }

    #[inline]
    fn set(&mut self, value: ValueRef<'_>) {
        self.write(value.bytes);
    }

    fn set_number(&mut self, number: i64) {
        if self.0.room() < DECIMAL_BYTES_MAX {
            *self = Self::from_number(number);
        } else {
            self.write(Decimal::new(number).as_bytes());
        }
    }

    #[inline]
    fn with<R>(&self, (): &(), read: impl FnOnce(&[u8]) -> R) -> Result<R, ReadError> {
        Ok(read(self.0.as_slice()))
    }

    fn reader((): &()) {}

    #[inline]
    fn read_with<R>(&self, (): &mut (), read: impl FnOnce(&[u8]) -> R) -> Result<R, ReadError> {
        Ok(read(self.0.as_slice()))
    }

    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn value(&self, (): &()) -> Result<Value, ReadError> {
        Ok(if self.len() <= INLINE_BYTES_MAX {
            Value::copied(self.0.as_slice())
        } else {
            Value::buffered(self.0.clone())
        })
    }
}

/// A cell with the place of the bytes, or with a number whose bytes are in no entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PlaceCell {
    /// The value is in the log.
    Place(Place),
    /// Place in a piece of a snapshot.
    Piece(PiecePlace),
    /// The value is the result of an increment, which no entry holds.
    Number(i64),
    /// There is no value: the key was removed, and the snapshot that fills the store has it.
    Gone,
}

const _: () = assert!(size_of::<PlaceCell>() == 16);

impl PlaceCell {
    fn misplaced(at: Location) -> ReadError {
        ReadError::Misplaced { segment: at.number(), offset: at.offset() }
    }

    /// Returns the location of the value, if it has one.
    #[inline]
    fn location(&self) -> Option<Location> {
        match *self {
            Self::Place(place) => Some(place.into()),
            Self::Piece(place) => Some(place.into()),
            Self::Number(_) | Self::Gone => None,
        }
    }

    /// The bytes of what has no location. Callers have seen that a removed key is gone.
    fn read_nowhere<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, ReadError> {
        match *self {
            Self::Number(number) => Ok(read(Decimal::new(number).as_bytes())),
            Self::Place(_) | Self::Piece(_) | Self::Gone => {
                Err(Self::misplaced(Place::NOWHERE.into()))
            }
        }
    }
}

impl Refers for PlaceCell {
    const REFERS: bool = false;
}

impl Cell for PlaceCell {
    type Context = Arc<SegmentTable>;
    type Reader<'c> = TableReader<'c>;

    fn new(value: ValueRef<'_>) -> Self {
        Self::Place(value.place)
    }

    fn from_number(number: i64) -> Self {
        Self::Number(number)
    }

    #[inline]
    fn set(&mut self, value: ValueRef<'_>) {
        *self = Self::Place(value.place);
    }

    fn in_piece(place: PiecePlace) -> Result<Self, Poison> {
        Ok(Self::Piece(place))
    }

    fn set_number(&mut self, number: i64) {
        *self = Self::Number(number);
    }

    #[inline]
    fn with<R>(
        &self,
        table: &Arc<SegmentTable>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, ReadError> {
        match self.location() {
            Some(at) => table.read(at, read).map_err(|error| error.read_error(Self::misplaced(at))),
            None => self.read_nowhere(read),
        }
    }

    fn reader(table: &Arc<SegmentTable>) -> TableReader<'_> {
        TableReader::new(table)
    }

    #[inline]
    fn read_with<R>(
        &self,
        reader: &mut TableReader<'_>,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, ReadError> {
        match self.location() {
            Some(at) => {
                reader.read(at, read).map_err(|error| error.read_error(Self::misplaced(at)))
            }
            None => self.read_nowhere(read),
        }
    }

    fn len(&self) -> usize {
        match (self, self.location()) {
            (_, Some(at)) => at.len(),
            (Self::Number(number), None) => Decimal::new(*number).as_bytes().len(),
            (Self::Place(_) | Self::Piece(_) | Self::Gone, None) => 0,
        }
    }

    #[inline]
    fn value(&self, table: &Arc<SegmentTable>) -> Result<Value, ReadError> {
        if let Some(at) = self.location()
            && at.len() > INLINE_BYTES_MAX
            && let Some(bytes) = table.pin(at)
        {
            return Ok(Value::pinned(bytes));
        }
        self.with(table, Value::copied)
    }

    fn repoint(&mut self, place: PiecePlace, below: SegmentNumber) {
        let is_let_go_of = match *self {
            Self::Place(old) => old.segment() < below,
            Self::Piece(_) => true,
            Self::Number(_) | Self::Gone => false,
        };
        if is_let_go_of {
            debug_assert_eq!(self.len(), place.len as usize, "the same value");
            *self = Self::Piece(place);
        }
    }

    fn tombstone() -> Option<Self> {
        Some(Self::Gone)
    }

    #[inline]
    fn is_gone(&self) -> bool {
        *self == Self::Gone
    }

    #[inline]
    fn prefetch_value(&self, reader: &mut TableReader<'_>) {
        if let Some(at) = self.location() {
            reader.in_place(at, |bytes| {
                let first = bytes.as_ptr();
                prefetch_line(first);
                prefetch_line(first.wrapping_add(CACHE_LINE_BYTES));
            });
        }
    }

    fn number(&self, table: &Arc<SegmentTable>) -> Result<Option<i64>, ReadError> {
        match *self {
            Self::Number(number) => Ok(Some(number)),
            Self::Place(_) | Self::Piece(_) | Self::Gone => self.with(table, parse),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::codec::PieceNumber;

    fn of(bytes: &[u8]) -> ValueRef<'_> {
        ValueRef { bytes, place: Place::NOWHERE }
    }

    #[test]
    fn a_buffer_nobody_shares_is_written_in_place_and_one_in_use_is_not() {
        let mut cell = HeapCell::new(of(&[1; 200]));
        let buffer = cell.0.address();
        cell.set(of(&[2; 150]));
        assert_eq!((cell.0.address(), cell.0.as_slice()), (buffer, &[2; 150][..]));

        let held = cell.value(&()).unwrap();
        cell.set(of(&[3; 150]));
        assert_eq!((held, cell.0.as_slice()), (Value::copied(&[2; 150]), &[3; 150][..]));
        assert_ne!(cell.0.address(), buffer);

        cell.set(of(&[4; 151]));
        assert_eq!(cell.0.as_slice(), [4; 151]);
        cell.set(of(b""));
        assert_eq!((cell.0.as_slice(), cell.0.room()), (&b""[..], 0));
    }

    #[test]
    fn a_counter_stays_in_its_buffer_whatever_it_counts_to() {
        let mut cell = HeapCell::from_number(9);
        let buffer = cell.0.address();
        for number in [10, -1, i64::MIN, 0, i64::MAX] {
            cell.set_number(number);
            assert_eq!(cell.0.as_slice(), number.to_string().as_bytes());
            assert_eq!(cell.number(&()).unwrap(), Some(number));
        }
        assert_eq!(cell.0.address(), buffer);
    }

    #[test]
    fn a_place_whose_segment_is_gone_is_an_error_and_not_a_missing_key() {
        let table = Arc::new(SegmentTable::new(1));
        let piece = PieceNumber::nth(7);
        let cell = PlaceCell::Piece(PiecePlace { piece, offset: 9, len: 200 });
        for result in [cell.value(&table).map(drop), cell.number(&table).map(drop)] {
            assert!(
                matches!(result, Err(ReadError::Misplaced { segment, offset: 9 }) if segment == piece.get())
            );
        }
    }
}
