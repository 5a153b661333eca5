//! A range of entries as a machine sees it, and the destination of its replies.

use std::cell::Cell;

use crate::codec::{self, CommandRef, Encoded, Extent, PayloadRef, ValueRef};
use crate::entry::{Command, Entry, LogId, Payload, Reply};
use crate::error::Fatal;
use crate::ranges::in_flight_ring::InFlightRing;
use crate::ranges::partition::Partition;

/// The payloads of a range's entries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payloads<'a> {
    /// Encoded, with their place: the ring has the offset of each entry in the same segment.
    Encoded(Encoded<'a>),
    /// The caller's entries, beside the extent of their encoded form. The ring has the offset at
    /// which each entry ends.
    Given(&'a [Entry<'a>], Extent),
}

impl<'a> Payloads<'a> {
    /// The payload at `position`, whose offset is in the ring; `None` if there is none.
    #[inline(always)]
    fn at(&self, position: u32, offset: u32) -> Option<LocatedPayload<'a>> {
        Some(match *self {
            Self::Encoded(encoded) => LocatedPayload::Encoded(encoded.from(offset)?),
            Self::Given(entries, extent) => {
                let entry = entries.get(position as usize)?;
                LocatedPayload::Given { payload: &entry.payload, extent, end: offset }
            }
        })
    }
}

/// The payload of one entry, before it is decoded.
#[derive(Clone, Copy, Debug)]
enum LocatedPayload<'a> {
    /// The encoded entry, and what follows it in the frame.
    Encoded(Encoded<'a>),
    /// The caller's payload; the encoded form of the entry ends at `end` in the extent.
    Given { payload: &'a Payload<'a>, extent: Extent, end: u32 },
}

/// The parts of an [`EntryRange`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct RangeParts<'a> {
    pub(crate) in_flight: &'a InFlightRing,
    /// Log id of the first entry.
    pub(crate) first: LogId,
    pub(crate) count: u32,
    /// Whether this is a single entry with [`Footprint::All`](crate::Footprint::All).
    pub(crate) barrier: bool,
    pub(crate) payloads: Payloads<'a>,
}

/// Consecutive entries of one term, to be applied.
///
/// It has the bytes of its entries; an `IndexRange` only has their place.
#[derive(Debug)]
pub struct EntryRange<'a> {
    pub(crate) in_flight: &'a InFlightRing,
    /// Log id of the first entry.
    first: LogId,
    count: u32,
    /// Whether this is a single entry with [`Footprint::All`](crate::Footprint::All).
    barrier: bool,
    payloads: Payloads<'a>,
    /// The index being applied, by which a panic is located.
    pub(crate) progress: &'a Cell<u64>,
}

impl<'a> EntryRange<'a> {
    /// Makes a range of its parts. `progress` has the index being applied, from the first one on.
    pub(crate) fn new(parts: RangeParts<'a>, progress: &'a Cell<u64>) -> Self {
        let RangeParts { in_flight, first, count, barrier, payloads } = parts;
        progress.set(first.index);
        Self { in_flight, first, count, barrier, payloads, progress }
    }

    /// Log id of the first entry, of any partition.
    #[must_use]
    pub fn first(&self) -> LogId {
        self.first
    }

    /// Log id of the last entry, of any partition.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.first.at(self.first.index + self.len() - 1)
    }

    /// Number of entries, of all partitions.
    pub(crate) fn len(&self) -> u64 {
        u64::from(self.count)
    }

    /// Position of the last entry, of any partition.
    pub(crate) fn last_position(&self) -> u32 {
        // No range is empty.
        self.count.saturating_sub(1)
    }

    /// Whether it is a single entry that concerns all partitions.
    #[must_use]
    pub fn is_barrier(&self) -> bool {
        self.barrier
    }

    /// The entries of `partition`, in order. A barrier belongs to every partition that is asked
    /// for.
    #[must_use]
    pub fn entries(&self, partition: Partition) -> Entries<'_> {
        Entries { range: self, partition, next: 0 }
    }

    /// The footprint hash of the entry at `position` in the range, if it belongs to `partition`.
    /// Callers use it to prefetch memory.
    #[inline]
    #[must_use]
    pub fn hash_at(&self, position: u32, partition: Partition) -> Option<u64> {
        if position >= self.count {
            return None;
        }
        let hash = self.in_flight.hash(self.first.index + u64::from(position));
        partition.owns(hash).then_some(hash)
    }
}

/// One entry of a range.
#[derive(Debug)]
pub struct EntryRef<'a> {
    /// The entry's log id.
    pub log_id: LogId,
    /// Position in the range, from 0.
    pub position: u32,
    /// The hash of its [`Footprint::Key`](crate::Footprint::Key); 0 for a barrier.
    pub hash: u64,
    /// The entry's payload.
    pub payload: PayloadRef<'a>,
}

/// Iterator over the entries of one partition; see [`EntryRange::entries`].
#[derive(Debug)]
pub struct Entries<'a> {
    range: &'a EntryRange<'a>,
    partition: Partition,
    next: u32,
}

/// An entry of a range before it is decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located<'a> {
    pub(crate) index: u64,
    /// Position in the range, from 0.
    pub(crate) position: u32,
    /// The hash of its footprint.
    pub(crate) hash: u64,
    payload: LocatedPayload<'a>,
}

impl<'a> Located<'a> {
    /// The command of a put; `None` for an entry of another kind.
    #[inline(always)]
    pub(crate) fn put(&self) -> Option<CommandRef<'a>> {
        match self.payload {
            LocatedPayload::Encoded(encoded) => codec::decode_put(encoded),
            LocatedPayload::Given { payload, extent, end } => match *payload {
                Payload::Command(Command::Put { key, value: bytes }) => {
                    let place = extent.place_before(end, bytes.len());
                    Some(CommandRef::Put { key, value: ValueRef { bytes, place } })
                }
                _ => None,
            },
        }
    }
}

impl<'a> Entries<'a> {
    /// The next entry, which the caller decodes.
    #[inline(always)]
    pub(crate) fn locate(&mut self) -> Option<Result<Located<'a>, Fatal>> {
        let range = self.range;
        while self.next < range.count {
            let position = self.next;
            self.next += 1;
            let index = range.first.index + u64::from(position);
            let (hash, offset) = range.in_flight.read(index);
            if !range.barrier && !self.partition.owns(hash) {
                continue;
            }
            range.progress.set(index);
            let payload = range.payloads.at(position, offset).ok_or_else(undecodable);
            return Some(payload.map(|payload| Located { index, position, hash, payload }));
        }
        None
    }

    /// Decodes an entry of this range.
    #[inline]
    pub(crate) fn decode(&self, located: &Located<'a>) -> Result<EntryRef<'a>, Fatal> {
        let Located { index, position, hash, payload } = *located;
        let payload = match payload {
            LocatedPayload::Encoded(encoded) => codec::decode(encoded).ok().map(|(found, _)| found),
            LocatedPayload::Given { payload, extent, end } => {
                PayloadRef::of_given_at(payload, |bytes| extent.place_before(end, bytes))
            }
        };
        // Neither encoded bytes that do not decode nor a batch of the caller's get here.
        let payload = payload.ok_or_else(undecodable)?;
        Ok(EntryRef { log_id: self.range.first.at(index), position, hash, payload })
    }
}

#[cold]
fn undecodable() -> Fatal {
    Fatal::new("an entry in memory does not decode")
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<EntryRef<'a>, Fatal>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let located = self.locate()?;
        Some(located.and_then(|located| self.decode(&located)))
    }
}

/// The destination of a range's replies.
#[derive(Debug)]
pub struct Replies<'a> {
    pub(crate) in_flight: &'a InFlightRing,
    pub(crate) rejected: u64,
    /// Index and length of the first reply with more bytes than declared.
    pub(crate) too_long: Option<(u64, usize)>,
}

impl<'a> Replies<'a> {
    pub(crate) fn new(in_flight: &'a InFlightRing) -> Self {
        Self { in_flight, rejected: 0, too_long: None }
    }

    /// Sets the reply of an entry of the current range; the last call counts.
    ///
    /// A [`Reply::Bytes`] with more bytes than
    /// [`StateMachine::reply_bytes_max`](crate::StateMachine::reply_bytes_max) is an error of the
    /// machine. The reply is not cut: the engine fails at that entry, as if `apply` had returned
    /// [`Fatal`].
    #[inline]
    pub fn set(&mut self, entry: &EntryRef<'_>, reply: Reply) {
        self.set_at(entry.log_id.index, reply);
    }

    /// Sets the reply of the entry at `index`, as [`set`](Replies::set) does.
    #[inline]
    pub(crate) fn set_at(&mut self, index: u64, reply: Reply) {
        self.note_rejection(index, matches!(reply, Reply::Rejected(_)));
        if !self.in_flight.set_reply(index, &reply) {
            self.refuse(index, reply.as_bytes().map_or(0, <[u8]>::len));
        }
    }

    /// Sets the reply of an entry to a [`Reply::Bytes`], as [`set`](Replies::set) does, without
    /// allocating. The bytes are copied into room that the engine took when it was made.
    #[inline]
    pub fn set_bytes(&mut self, entry: &EntryRef<'_>, bytes: &[u8]) {
        let index = entry.log_id.index;
        self.note_rejection(index, false);
        if !self.in_flight.set_reply_bytes(index, bytes) {
            self.refuse(index, bytes.len());
        }
    }

    /// Counts a rejected entry once, however often its reply is set.
    #[inline]
    fn note_rejection(&mut self, index: u64, is: bool) {
        let was = self.in_flight.is_rejected(index);
        self.rejected = self.rejected + u64::from(is) - u64::from(was && self.rejected > 0);
    }

    #[cold]
    fn refuse(&mut self, index: u64, bytes: usize) {
        self.too_long.get_or_insert((index, bytes));
    }
}
