//! HARD: the state that a consensus engine must not forget (its vote, for example), as opaque
//! bytes. It is a two-slot file with eight sectors a slot. A forgotten vote is a vote cast twice,
//! so this module refuses in doubt.
//!
//! **Making the file.** The first store writes both slots and syncs the directory. Then META is
//! stored, which from then on says that HARD was made, and its sequence. Only then does the call
//! return. It follows:
//!
//! - Until that META is durable, nothing is acknowledged. Then a HARD that is missing, empty, torn
//!   in its first slot, or has its first slot alone is an interrupted creation.
//! - After that both slots are whole, or one is whole and the other one is being written. A missing
//!   HARD is damage, and so is an empty slot.
//!
//! **Storing.** A store goes to the slot of the store two before it, and is synced. Until then the
//! other slot is whole and has the last acknowledged content, so a crash leaves that. Each store of
//! META records the sequence of the newest whole slot, after that slot was synced. So the newest
//! whole slot is never below META's record.
//!
//! **Opening for writing.** The newest whole slot may be in the page cache only. Opening writes it
//! again in its place, with the same bytes, and syncs it, before it writes anything else of HARD or
//! META. A crash during that leaves it unchanged. Then the slot of a torn store gets the valid
//! content, as the next store. At last META is stored.
//!
//! **A raised version.** Only META's version says by which rules HARD is read; no byte of HARD
//! does. While META says that HARD is being rewritten in version 2, the only stores are those of
//! the rewriting, all with the same content. So a slot of either version whose sequence is not
//! below META's record has that content, whatever the other slot holds.

use std::io;
use std::sync::Arc;

use crate::disk::names::HARD_FILE;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::{Corrupt, OpenError};
use crate::log::format::DatabaseId;
use crate::log::meta::{HardRecord, Meta};
use crate::log::recovery::files::list_files;
use crate::log::two_slot::{
    Slot, SlotLayout, SlotWriter, Stored, Versions, corrupt, newest, read_slots,
};

/// The longest hard state, in bytes.
pub const HARD_BYTES_MAX: usize = 3584;

const _: () = assert!(HARD_BYTES_MAX == LAYOUT.payload_bytes_max());

static LAYOUT: SlotLayout =
    SlotLayout { file: HARD_FILE, magic: u32::from_le_bytes(*b"SPRH"), sectors: 8 };

/// HARD, open, or not yet made.
#[derive(Debug)]
pub struct HardFile {
    database_id: DatabaseId,
    /// Writer of the slots; `None` without a file.
    writer: Option<SlotWriter>,
    payload: Option<Vec<u8>>,
    /// Whether both slots are whole and consecutive.
    is_settled: bool,
}

impl HardFile {
    /// Reads HARD by the rules of `meta`'s version. With `writable`, makes the valid content
    /// durable. Damage is reported as corrupt.
    pub fn open(disk: &dyn Disk, meta: &Meta, writable: bool) -> Result<Self, OpenError> {
        let error = |action| move |source| OpenError::io(action, HARD_FILE, source);
        let database_id = meta.database_id;
        if !list_files(disk)?.hard {
            if meta.hard.sequence() > 0 {
                return Err(corrupt(&LAYOUT, 0, "the file is missing").into());
            }
            return Ok(Self::none(database_id));
        }
        let access = if writable { Access::Write } else { Access::Read };
        let file = disk.open(HARD_FILE, access).map_err(error("opening"))?;
        let slots = read_slots(&*file, &LAYOUT, versions(meta.hard))?;
        let counts = judge(&slots, meta)?;
        let is_settled = is_settled(&slots);
        let (sequence, payload) = match take(slots, counts) {
            Some(stored) => (stored.sequence, Some(stored.payload)),
            None => (0, None),
        };
        let writer = SlotWriter::new(file, &LAYOUT, sequence);
        if writable && sequence > 0 {
            writer.rewrite()?;
        }
        Ok(Self { database_id, writer: Some(writer), payload, is_settled })
    }

    /// An empty hard state: none was ever stored, or none could be read.
    pub(crate) fn none(database_id: DatabaseId) -> Self {
        Self { database_id, writer: None, payload: None, is_settled: false }
    }

    /// The hard state that was stored last.
    pub fn load(&self) -> Option<&[u8]> {
        self.payload.as_deref()
    }

    /// The sequence of the last store; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.writer.as_ref().map_or(0, SlotWriter::sequence)
    }

    /// Returns [`HardFile::sequence`] if both slots are whole, and otherwise 0. Until then HARD is
    /// being made, or a store was torn, and META must not record that HARD was made.
    pub(crate) fn settled_sequence(&self) -> u64 {
        if self.is_settled { self.sequence() } else { 0 }
    }

    /// Replaces the hard state and makes it durable. It has at most [`HARD_BYTES_MAX`] bytes; more
    /// are `InvalidInput`, and nothing is done. After any other error every further call must fail:
    /// the caller poisons the engine.
    ///
    /// Returns whether this was the first store. The caller then stores META, which records that,
    /// before it acknowledges.
    pub fn store(&mut self, disk: &dyn Disk, payload: &[u8]) -> io::Result<bool> {
        if payload.len() > HARD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let is_first = self.sequence() == 0;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            empty => empty.insert(create(disk)?),
        };
        writer.store(&self.database_id, payload)?;
        if is_first {
            writer.store(&self.database_id, payload)?;
            disk.sync_dir()?;
            self.is_settled = true;
        }
        let kept = self.payload.get_or_insert_default();
        kept.clear();
        kept.extend_from_slice(payload);
        Ok(is_first)
    }

    /// Makes both slots whole, after an opening for writing and before META is stored.
    pub fn settle(&mut self) -> Result<(), OpenError> {
        if self.is_settled { Ok(()) } else { self.store_again(1) }
    }

    /// Writes both slots anew, in the current version. META already says that this is being done.
    pub(crate) fn upgrade(&mut self) -> Result<(), OpenError> {
        self.store_again(2)
    }

    /// Removes, durably, a file in which no store was ever complete.
    pub(crate) fn remove_if_unused(&mut self, disk: &dyn Disk) -> Result<(), OpenError> {
        if self.payload.is_some() || self.writer.take().is_none() {
            return Ok(());
        }
        remove(disk)
    }

    /// Stores the valid content again, into `slots` slots; does nothing without content.
    fn store_again(&mut self, slots: usize) -> Result<(), OpenError> {
        let (Some(writer), Some(payload)) = (&mut self.writer, &self.payload) else {
            return Ok(());
        };
        for _slot in 0..slots {
            writer
                .store(&self.database_id, payload)
                .map_err(|error| OpenError::io("writing", HARD_FILE, error))?;
        }
        self.is_settled = true;
        Ok(())
    }
}

fn create(disk: &dyn Disk) -> io::Result<SlotWriter> {
    let file: Arc<dyn DiskFile> = disk.open(HARD_FILE, Access::Create)?;
    let writer = SlotWriter::new(file, &LAYOUT, 0);
    writer.allocate()?;
    Ok(writer)
}

fn remove(disk: &dyn Disk) -> Result<(), OpenError> {
    let error = |action| move |source| OpenError::io(action, HARD_FILE, source);
    disk.remove(HARD_FILE).map_err(error("removing"))?;
    disk.sync_dir().map_err(error("syncing the directory of"))
}

fn versions(record: HardRecord) -> Versions {
    match record {
        HardRecord::Unknown => Versions::One,
        HardRecord::Upgrading(_) => Versions::Either,
        HardRecord::Stored(_) => Versions::Two,
    }
}

fn take(slots: [Slot; 2], which: Option<usize>) -> Option<Stored> {
    let [even, odd] = slots;
    match if which? == 1 { odd } else { even } {
        Slot::Valid(stored) => Some(stored),
        _ => None,
    }
}

/// Whether both slots are whole and consecutive.
fn is_settled(slots: &[Slot; 2]) -> bool {
    slots.iter().all(|slot| slot.sequence() > 0)
}

/// The slot that counts; `None` if none was ever complete. A content that no crash leaves is
/// corrupt.
fn judge(slots: &[Slot; 2], meta: &Meta) -> Result<Option<usize>, Corrupt> {
    let damaged = "a slot was damaged after it was complete";
    let record = meta.hard.sequence();
    for (number, slot) in slots.iter().enumerate() {
        let id = match slot {
            Slot::Valid(stored) => &stored.database_id,
            Slot::Torn { database_id, .. } => database_id,
            _ => continue,
        };
        if *id != meta.database_id {
            return Err(corrupt(&LAYOUT, number, "a slot is of another directory"));
        }
    }
    let counts = newest(slots);
    let sequence = slots[counts].sequence();
    let is_upgrading = matches!(meta.hard, HardRecord::Upgrading(_));
    if sequence == 0 {
        // The first store goes to slot 1, so content in slot 0 came after that store was complete.
        let was_begun =
            matches!(slots[1], Slot::Empty | Slot::Torn { sequence: 1, .. } | Slot::Headless);
        if slots[0] != Slot::Empty {
            return Err(corrupt(&LAYOUT, 0, what_of(&slots[0], "no slot is valid")));
        }
        if !was_begun || record > 0 {
            return Err(corrupt(&LAYOUT, 1, what_of(&slots[1], "no slot is valid")));
        }
        return Ok(None);
    }
    let other = 1 - counts;
    let is_as_a_crash_leaves_it = match &slots[other] {
        Slot::Valid(stored) => stored.sequence + 1 == sequence,
        Slot::Torn { sequence: torn, .. } => *torn == sequence + 1,
        // HARD was being made; version 1 does not record whether it had been made.
        Slot::Empty => sequence == 1 && record == 0,
        Slot::Headless => sequence == 1,
        Slot::Damaged { .. } => false,
    };
    if !is_as_a_crash_leaves_it && !is_upgrading {
        return Err(corrupt(&LAYOUT, other, what_of(&slots[other], damaged)));
    }
    if sequence < record {
        let what = "the hard state is older than META says it was";
        return Err(corrupt(&LAYOUT, counts, what));
    }
    Ok(Some(counts))
}

/// The error of a slot that cannot be read back.
fn what_of(slot: &Slot, otherwise: &'static str) -> &'static str {
    match slot {
        Slot::Damaged { may_be_torn: true } => {
            "a slot of version 1 is damaged, or was torn by a crash: a payload over 448 bytes does not tell"
        }
        _ => otherwise,
    }
}

/// Takes a damaged HARD back to the hard state of its other slot or, where that is damaged too, to
/// none. Returns what META must record then. The hard state stored last may be forgotten by this:
/// only a repair with that option calls it.
///
/// The caller stores META afterwards, in both slots. Until then, HARD is damaged as before, or
/// whole and not below META's record, and can be repaired again. A HARD of version 1 stays as it
/// is, and the next writable open rewrites it. META then says so, and from which slot.
pub(crate) fn mend(disk: &dyn Disk, meta: &Meta) -> Result<HardRecord, OpenError> {
    let error = |action| move |source| OpenError::io(action, HARD_FILE, source);
    if !list_files(disk)?.hard {
        return Ok(HardRecord::Stored(0));
    }
    let file = disk.open(HARD_FILE, Access::Write).map_err(error("opening"))?;
    let slots = read_slots(&*file, &LAYOUT, versions(meta.hard))?;
    let ours = slots.into_iter().filter_map(|slot| match slot {
        Slot::Valid(stored) if stored.database_id == meta.database_id => Some(stored),
        _ => None,
    });
    let Some(stored) = ours.max_by_key(|stored| stored.sequence) else {
        drop(file);
        remove(disk)?;
        return Ok(HardRecord::Stored(0));
    };
    let mut writer = SlotWriter::new(file, &LAYOUT, stored.sequence);
    if !matches!(meta.hard, HardRecord::Stored(_)) {
        writer.rewrite()?;
        return Ok(HardRecord::Upgrading(stored.sequence));
    }
    // The first store goes to the other slot, the damaged one.
    for _slot in 0..2 {
        writer.store(&meta.database_id, &stored.payload).map_err(error("writing"))?;
    }
    Ok(HardRecord::Stored(writer.sequence()))
}
