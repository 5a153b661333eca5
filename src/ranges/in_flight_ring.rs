//! Facts of each entry in flight, kept beside the frames: its footprint hash and place, and later
//! its reply.
//!
//! The slots are a ring by entry index. The appender fills an entry's slot before a worker gets the
//! index. The worker that applies the entry stores the reply before its cursor passes the index.
//! Both hand-offs order the accesses (ring push and pop, cursor store and load), so the slots
//! themselves are relaxed.

use std::collections::TryReserveError;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::index_range::RangeKind;
use super::partition::Footprint;
use crate::codec::Extent;
use crate::entry::Reply;
use crate::error::Poison;
use crate::sync::zeroed::zeroed;

/// The longest reply that a machine may declare, in bytes.
pub(crate) const REPLY_BYTES_MAX: usize = 1 << 20;

/// The footprint hash of an entry, its offset in its segment, and the two words of its reply.
type Slot = [AtomicU64; 4];

/// Facts of the entries in flight.
pub(crate) struct InFlightRing {
    /// Zeroed: no entry is read before its slot is filled.
    slots: Box<[Slot]>,
    mask: u64,
    /// The longest accepted reply of bytes.
    reply_bytes_max: usize,
    /// Room for such a reply beside each slot, `room_words` for each. It is empty for a machine
    /// that declares none, and during replay.
    rooms: Box<[AtomicU64]>,
    room_words: usize,
}

impl fmt::Debug for InFlightRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The slots are left out: they would be megabytes of text, and hashes tell about keys and
        // their seed.
        f.debug_struct("InFlightRing")
            .field("capacity", &self.capacity())
            .field("reply_bytes_max", &self.reply_bytes_max)
            .finish_non_exhaustive()
    }
}

impl InFlightRing {
    /// Makes a ring for at least `entries` entries, without room for replies of bytes.
    pub(crate) fn new(entries: usize) -> Self {
        let capacity = Self::capacity_for(entries);
        let mask = capacity as u64 - 1;
        Self {
            slots: zeroed(capacity),
            mask,
            reply_bytes_max: 0,
            rooms: Box::default(),
            room_words: 0,
        }
    }

    fn capacity_for(entries: usize) -> usize {
        entries.max(1).next_power_of_two()
    }

    /// Bytes of memory that replies of at most `max` bytes take beside a ring for `entries`
    /// entries.
    pub(crate) fn reply_rooms_bytes(entries: usize, max: usize) -> usize {
        // More bytes than a usize counts are more than any memory: the allocation is refused.
        Self::capacity_for(entries).saturating_mul(max.div_ceil(8).saturating_mul(8))
    }

    /// Adds room for a reply of at most `max` bytes beside each slot, all of it allocated now.
    pub(crate) fn with_reply_rooms(self, max: usize) -> Result<Self, TryReserveError> {
        let room_words = max.div_ceil(8);
        let mut rooms: Vec<AtomicU64> = Vec::new();
        // As above: the reservation below is refused.
        let words = self.slots.len().saturating_mul(room_words);
        rooms.try_reserve_exact(words)?;
        rooms.resize_with(words, AtomicU64::default);
        Ok(Self { reply_bytes_max: max, rooms: rooms.into(), room_words, ..self })
    }

    /// Accepts replies of at most `max` bytes, and drops their bytes: no caller waits for replies
    /// of replay.
    pub(crate) fn forgetting_replies(self, max: usize) -> Self {
        Self { reply_bytes_max: max, ..self }
    }

    /// Number of entries that may be in flight at once.
    pub(crate) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// The longest accepted reply of bytes.
    pub(crate) fn reply_bytes_max(&self) -> usize {
        self.reply_bytes_max
    }

    /// Bytes of memory that the ring takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        std::mem::size_of_val(&*self.slots) + std::mem::size_of_val(&*self.rooms)
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "masked to the ring's length, a usize")]
    fn place(&self, index: u64) -> usize {
        (index & self.mask) as usize
    }

    #[inline]
    fn slot(&self, index: u64) -> &Slot {
        &self.slots[self.place(index)]
    }

    /// Sets the place and footprint hash of an entry, and gives it the default reply.
    #[inline]
    pub(crate) fn fill(&self, index: u64, hash: u64, offset: u32) {
        let [slot_hash, slot_offset, ..] = self.slot(index);
        slot_hash.store(hash, Ordering::Relaxed);
        slot_offset.store(u64::from(offset), Ordering::Relaxed);
        self.store_reply(index, Reply::Applied.to_words());
    }

    /// Sets the offset of an entry whose slot is filled.
    #[inline]
    pub(crate) fn set_offset(&self, index: u64, offset: u32) {
        let [_, slot_offset, ..] = self.slot(index);
        slot_offset.store(u64::from(offset), Ordering::Relaxed);
    }

    /// The footprint hash of an entry.
    #[inline]
    pub(crate) fn hash(&self, index: u64) -> u64 {
        self.slot(index)[0].load(Ordering::Relaxed)
    }

    /// The footprint hash and the offset of an entry.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "stored from a u32")]
    pub(crate) fn read(&self, index: u64) -> (u64, u32) {
        let [hash, offset, ..] = self.slot(index);
        (hash.load(Ordering::Relaxed), offset.load(Ordering::Relaxed) as u32)
    }

    /// Fills the slot of an entry with its footprint and its offset, and gives it the default
    /// reply. Returns the kind of a range that has the entry: a barrier is a range of its own.
    #[inline]
    pub(crate) fn classify(&self, index: u64, footprint: Footprint, offset: u32) -> RangeKind {
        let (hash, kind) = match footprint {
            Footprint::Key(hash) => (hash, RangeKind::Entries),
            Footprint::All => (0, RangeKind::Barrier),
        };
        self.fill(index, hash, offset);
        kind
    }

    /// Splits an extent before the entry at `index`, which has its slot.
    pub(crate) fn split(&self, extent: Extent, index: u64) -> Result<(Extent, Extent), Poison> {
        let (_, offset) = self.read(index);
        extent.split_at(offset).ok_or_else(|| {
            Poison::internal("a slot holds the offset of an entry outside of its range")
        })
    }

    #[inline]
    fn store_reply(&self, index: u64, [head, number]: [u64; 2]) {
        let [.., slot_head, slot_number] = self.slot(index);
        slot_head.store(head, Ordering::Relaxed);
        slot_number.store(number, Ordering::Relaxed);
    }

    /// Stores the reply of an entry. Returns false, and stores nothing, if the reply has more bytes
    /// than declared.
    #[inline]
    #[must_use]
    pub(crate) fn set_reply(&self, index: u64, reply: &Reply) -> bool {
        if let Reply::Bytes(bytes) = reply {
            return self.set_reply_bytes(index, bytes);
        }
        self.store_reply(index, reply.to_words());
        true
    }

    /// Stores a reply of bytes, with the same result.
    #[must_use]
    pub(crate) fn set_reply_bytes(&self, index: u64, bytes: &[u8]) -> bool {
        if bytes.len() > self.reply_bytes_max {
            return false;
        }
        for (word, chunk) in self.room(index).iter().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.store_reply(index, Reply::words_of_bytes(bytes.len()));
        true
    }

    fn room(&self, index: u64) -> &[AtomicU64] {
        let start = self.place(index) * self.room_words;
        // A ring that forgets replies has no rooms.
        self.rooms.get(start..start + self.room_words).unwrap_or_default()
    }

    /// Whether the current reply of an entry is a rejection.
    #[inline]
    pub(crate) fn is_rejected(&self, index: u64) -> bool {
        let [.., head, _] = self.slot(index);
        Reply::is_rejection(head.load(Ordering::Relaxed))
    }

    /// The reply of an applied entry. A reply of bytes is copied into newly allocated memory.
    pub(crate) fn reply(&self, index: u64) -> Option<Reply> {
        let [.., head, number] = self.slot(index);
        let words = [head.load(Ordering::Relaxed), number.load(Ordering::Relaxed)];
        let Some(len) = Reply::bytes_len(words) else { return Reply::from_words(words) };
        let mut bytes = Vec::with_capacity(len.next_multiple_of(8));
        for word in self.room(index).iter().take(len.div_ceil(8)) {
            bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        bytes.truncate(len);
        Some(Reply::Bytes(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_reply_of_bytes_comes_back_whole_and_touches_no_other() {
        let ring = InFlightRing::new(4).with_reply_rooms(13).unwrap();
        for index in 100..104 {
            ring.fill(index, 0, 0);
        }
        for len in 0..=13 {
            let bytes: Vec<u8> = (1..=len).collect();
            assert!(ring.set_reply_bytes(101, &[255; 13]));
            assert!(ring.set_reply(101, &Reply::Bytes(bytes.clone().into())));
            assert_eq!(ring.reply(101).unwrap().as_bytes(), Some(&bytes[..]));
            assert_eq!(ring.reply(100), Some(Reply::Applied));
            assert_eq!(ring.reply(102), Some(Reply::Applied));
        }
        assert!(ring.set_reply_bytes(102, &[9; 13]));
        assert_eq!(ring.reply(101).unwrap().as_bytes().map(<[u8]>::len), Some(13));
        ring.fill(105, 0, 0);
        assert_eq!(ring.reply(105), Some(Reply::Applied), "the slot that 101 had");
    }

    #[test]
    fn a_reply_of_more_bytes_than_declared_is_refused_and_not_cut() {
        for ring in [
            InFlightRing::new(2).with_reply_rooms(8).unwrap(),
            InFlightRing::new(2).forgetting_replies(8),
        ] {
            ring.fill(0, 0, 0);
            assert!(!ring.set_reply_bytes(0, &[1; 9]));
            assert_eq!(ring.reply(0), Some(Reply::Applied));
            assert!(ring.set_reply_bytes(0, &[1; 8]));
        }
        assert!(!InFlightRing::new(2).set_reply_bytes(0, &[1]), "nothing is declared");
    }

    #[test]
    fn the_room_for_replies_is_counted_and_none_is_taken_without() {
        let without = InFlightRing::new(1000).memory_bytes();
        let with = InFlightRing::new(1000).with_reply_rooms(20).unwrap().memory_bytes();
        assert_eq!(with - without, 1024 * 24);
        assert_eq!(with - without, InFlightRing::reply_rooms_bytes(1000, 20));
        assert_eq!(InFlightRing::new(1000).forgetting_replies(20).memory_bytes(), without);
    }
}
