//! Per-entry facts beside the frames: the footprint hash and place of each entry on its way, then its reply.
//!
//! A ring indexed by entry index. The appender fills an entry's slot before the index is handed to a worker; the
//! worker that applies it stores the reply before its cursor passes it. Both hand-offs order the accesses (ring push
//! and pop, cursor store and load), so the slots themselves are relaxed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::image::EntryOffset;
use crate::entry::Reply;

#[derive(Default)]
struct Slot {
    hash: AtomicU64,
    /// Offset of the entry in its segment.
    offset: AtomicU64,
    reply: [AtomicU64; 2],
}

/// Facts of the entries in flight.
pub(crate) struct SlotRing {
    slots: Box<[Slot]>,
    mask: u64,
}

impl fmt::Debug for SlotRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the slots: they are tens of megabytes of text, and hashes tell about keys and their seed.
        f.debug_struct("SlotRing").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl SlotRing {
    /// A ring for at least `entries` entries.
    pub(crate) fn new(entries: usize) -> Self {
        let capacity = entries.max(1).next_power_of_two();
        let slots: Box<[Slot]> = (0..capacity).map(|_| Slot::default()).collect();
        Self { mask: capacity as u64 - 1, slots }
    }

    /// How many entries may be in flight at once.
    pub(crate) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// Bytes of memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        std::mem::size_of_val(&*self.slots)
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "masked to the ring's length, a usize")]
    fn slot(&self, index: u64) -> &Slot {
        &self.slots[(index & self.mask) as usize]
    }

    /// Sets where an entry is and what it concerns, and gives it the default reply.
    #[inline]
    pub(crate) fn fill(&self, index: u64, hash: u64, offset: u32) {
        let slot = self.slot(index);
        slot.hash.store(hash, Ordering::Relaxed);
        slot.offset.store(u64::from(offset), Ordering::Relaxed);
        self.set_reply(index, Reply::Applied);
    }

    /// The footprint hash of an entry.
    #[inline]
    pub(crate) fn hash(&self, index: u64) -> u64 {
        self.slot(index).hash.load(Ordering::Relaxed)
    }

    /// The footprint hash and the offset of an entry.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "stored from a u32")]
    pub(crate) fn read(&self, index: u64) -> (u64, u32) {
        let slot = self.slot(index);
        (slot.hash.load(Ordering::Relaxed), slot.offset.load(Ordering::Relaxed) as u32)
    }

    /// Where an entry that has its slot starts.
    pub(crate) fn entry_offset(&self, index: u64) -> EntryOffset {
        EntryOffset::mint(self.read(index).1)
    }

    /// Stores the reply of an entry.
    #[inline]
    pub(crate) fn set_reply(&self, index: u64, reply: Reply) {
        let [head, number] = reply.to_words();
        let slot = self.slot(index);
        slot.reply[0].store(head, Ordering::Relaxed);
        slot.reply[1].store(number, Ordering::Relaxed);
    }

    /// The reply of an applied entry.
    pub(crate) fn reply(&self, index: u64) -> Option<Reply> {
        let slot = self.slot(index);
        Reply::from_words([
            slot.reply[0].load(Ordering::Relaxed),
            slot.reply[1].load(Ordering::Relaxed),
        ])
    }
}
