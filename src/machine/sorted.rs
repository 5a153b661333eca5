//! The slots of a store in the order of their keys: the state of a view.

use std::borrow::Cow;
use std::ops::{Bound, Range};
use std::sync::Arc;

use super::capture::{Captured, ShardCopy};
use super::cell::Cell;
use super::store::{Key, prefetch_line};
use crate::contract::value::Value;
use crate::contract::view::{Head, ViewEach, ViewEntries, ViewEntry, ViewState};
use crate::error::ReadError;
use crate::poison::PoisonCell;

/// Distance of the prefetch ahead of the entry being read: neither slots nor values lie in the
/// order of keys. With it, gathering is as fast as the memory: most of its time is in the
/// prefetches, which wait for each other.
const SLOTS_AHEAD: usize = 32;
const VALUES_AHEAD: usize = 16;

/// The slots of a store, with their order.
pub(crate) struct Sorted<C: Cell> {
    head: Head,
    shards: Vec<ShardCopy<C>>,
    order: Vec<Position>,
    context: C::Context,
    poison: Arc<PoisonCell>,
}

/// Position of a slot, and the first bytes in which its key may differ from others, so that most
/// comparisons end there.
#[derive(Clone, Copy)]
struct Position {
    prefix: u64,
    shard: u32,
    slot: u32,
}

impl<C: Cell> Sorted<C> {
    pub(crate) fn new(captured: Captured<C>, context: C::Context, poison: Arc<PoisonCell>) -> Self {
        let Captured { head, mut shards } = captured;
        // A tombstone may outlast its filling by a moment.
        shards.iter_mut().for_each(|copies| copies.retain(|(_, cell)| !cell.is_gone()));
        let mut keys = shards.iter().flatten().map(|(key, _)| key.as_slice());
        let first = keys.next().unwrap_or_default();
        let common = keys.try_fold(first.len(), |common, key| {
            let same = first.iter().zip(key).take(common).take_while(|(one, other)| one == other);
            Some(same.count()).filter(|count| *count > 0)
        });
        let common = common.unwrap_or(0);
        let mut order = Vec::with_capacity(shards.iter().map(Vec::len).sum());
        for (shard, copies) in (0_u32..).zip(&shards) {
            order.extend((0_u32..).zip(copies).map(|(slot, (key, _))| {
                let prefix = prefix(key.as_slice(), common);
                Position { prefix, shard, slot }
            }));
        }
        let mut sorted = Self { head, shards, order, context, poison };
        let mut order = std::mem::take(&mut sorted.order);
        order.sort_unstable_by(|one, other| {
            let by_prefix = one.prefix.cmp(&other.prefix);
            by_prefix.then_with(|| sorted.key(*one).cmp(sorted.key(*other)))
        });
        sorted.order = order;
        sorted
    }

    fn slot(&self, position: Position) -> Option<&(Key, C)> {
        self.shards.get(position.shard as usize)?.get(position.slot as usize)
    }

    fn key(&self, position: Position) -> &[u8] {
        self.slot(position).map_or(&[], |(key, _)| key.as_slice())
    }

    fn at(&self, place: usize) -> Option<(&[u8], &C)> {
        let (key, cell) = self.slot(*self.order.get(place)?)?;
        Some((key.as_slice(), cell))
    }

    fn entry(&self, place: usize) -> Option<ViewEntry<'_>> {
        let (key, cell) = self.at(place)?;
        Some(self.value(cell).map(|value| (Cow::Borrowed(key), value)))
    }

    /// The positions of the keys between these bounds.
    fn places(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Range<usize> {
        let place = |key: &[u8], after: bool| {
            let at = self.lower_bound(key);
            let found = self.at(at).map(|(found, _)| found);
            at + usize::from(after && found == Some(key))
        };
        let start = match from {
            Bound::Included(key) => place(key, false),
            Bound::Excluded(key) => place(key, true),
            Bound::Unbounded => 0,
        };
        let end = match to {
            Bound::Included(key) => place(key, true),
            Bound::Excluded(key) => place(key, false),
            Bound::Unbounded => self.len(),
        };
        start..end.max(start)
    }

    /// Prefetches the slot at one position, and the value at another, nearer one.
    #[inline]
    fn prefetch(&self, slot_at: usize, value_at: usize, reader: &mut C::Reader<'_>) {
        if let Some(slot) = self.order.get(slot_at).and_then(|position| self.slot(*position)) {
            prefetch_line((&raw const *slot).cast());
            prefetch_line((&raw const slot.1).cast());
        }
        if let Some((_, cell)) = self.at(value_at) {
            cell.prefetch_value(reader);
        }
    }

    /// The first position whose key is not below `key`.
    fn lower_bound(&self, key: &[u8]) -> usize {
        self.order.partition_point(|position| self.key(*position) < key)
    }

    fn find(&self, key: &[u8]) -> Option<&C> {
        let (found, cell) = self.at(self.lower_bound(key))?;
        (found == key).then_some(cell)
    }

    fn value(&self, cell: &C) -> Result<Value, ReadError> {
        self.poison.check()?;
        cell.value(&self.context)
    }
}

/// Up to eight bytes after the first `common`, as a number with the same order.
fn prefix(key: &[u8], common: usize) -> u64 {
    // A key that has no more bytes comes first.
    let rest = key.get(common..).unwrap_or_default();
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_be_bytes(bytes)
}

impl<C: Cell> ViewState for Sorted<C> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>, ReadError> {
        self.find(key).map(|cell| self.value(cell)).transpose()
    }

    fn range<'a>(&'a self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Box<dyn ViewEntries<'a> + 'a> {
        Box::new(SortedEntries { sorted: self, places: self.places(from, to) })
    }

    fn scan(&self, each: &mut ViewEach<'_>) -> Result<(), ReadError> {
        let mut reader = C::reader(&self.context);
        for place in 0..self.order.len() {
            self.prefetch(place + SLOTS_AHEAD, place + VALUES_AHEAD, &mut reader);
            if let Some((key, cell)) = self.at(place) {
                self.poison.check()?;
                if cell.read_with(&mut reader, |value| each(key, value))?.is_break() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Some of the entries, in order.
struct SortedEntries<'a, C: Cell> {
    sorted: &'a Sorted<C>,
    places: Range<usize>,
}

impl<'a, C: Cell> ViewEntries<'a> for SortedEntries<'a, C> {
    fn next(&mut self) -> Option<ViewEntry<'a>> {
        self.sorted.entry(self.places.next()?)
    }

    fn next_back(&mut self) -> Option<ViewEntry<'a>> {
        self.sorted.entry(self.places.next_back()?)
    }

    fn len_bounds(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }

    fn boxed(&self) -> Box<dyn ViewEntries<'a> + 'a> {
        Box::new(Self { sorted: self.sorted, places: self.places.clone() })
    }
}
