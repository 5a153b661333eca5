//! HARD: what a consensus engine must not forget (its vote and the like), as bytes of its own. A two-slot file; each
//! slot is 4096 bytes. The file is made by the first store.

use std::io;

use crate::disk::{Access, Disk};
use crate::error::OpenError;
use crate::log::format::{DatabaseId, HARD_FILE};
use crate::log::recovery::files::list_files;
use crate::log::two_slot::{
    PAYLOAD_AT, Slot, SlotLayout, SlotWriter, corrupt, read_slots, read_slots_apart, slot_offset,
};

/// The longest hard state.
pub(crate) const HARD_BYTES_MAX: usize = 3584;

const _: () = assert!(PAYLOAD_AT + HARD_BYTES_MAX <= LAYOUT.slot_bytes);

static LAYOUT: SlotLayout = SlotLayout {
    file: HARD_FILE,
    magic: u32::from_le_bytes(*b"SPRH"),
    version: 1,
    slot_bytes: 4096,
};

/// HARD, open, or yet to be made.
#[derive(Debug)]
pub(crate) struct HardFile {
    database_id: DatabaseId,
    writer: Option<SlotWriter>,
    payload: Option<Vec<u8>>,
}

impl HardFile {
    /// Reads HARD, if it is there.
    ///
    /// A slot that a crash may have torn was never acknowledged, and the other counts. One that no crash can have
    /// torn (it lies in one sector) may be the newer: a vote forgotten is a vote cast twice, so that is corrupt.
    pub(crate) fn open(
        disk: &dyn Disk,
        database_id: DatabaseId,
        writable: bool,
    ) -> Result<Self, OpenError> {
        let error = |action| move |source| OpenError::io(action, HARD_FILE, source);
        if !list_files(disk)?.hard {
            return Ok(Self::none(database_id));
        }
        let access = if writable { Access::Write } else { Access::Read };
        let file = disk.open(HARD_FILE, access).map_err(error("opening"))?;
        let slots = read_slots(&*file, &LAYOUT)?;
        for (number, slot) in slots.iter().enumerate() {
            match slot {
                Slot::Damaged { may_be_torn: false } => {
                    return Err(corrupt(
                        &LAYOUT,
                        number,
                        "a slot was damaged after it was complete",
                    )
                    .into());
                }
                Slot::Valid { database_id: id, .. } if *id != database_id => {
                    return Err(corrupt(&LAYOUT, number, "a slot is of another directory").into());
                }
                _ => {}
            }
        }
        let newest = usize::from(slots[1].sequence() > slots[0].sequence());
        let sequence = slots[newest].sequence();
        // The first store goes to slot 1; anything in slot 0 came after that was complete.
        if sequence == 0 && slots[0] != Slot::Empty {
            return Err(corrupt(&LAYOUT, 0, "no slot is valid").into());
        }
        if writable && sequence > 0 {
            // It may be in the page cache only, by a store that a crash or a failed sync cut short; who reads it acts on
            // it. Written again, in its own place: the other slot is what a crash meanwhile falls back on.
            let mut bytes = vec![0; LAYOUT.slot_bytes];
            file.read_at(&mut bytes, slot_offset(newest)).map_err(error("reading"))?;
            file.write_all_at(&bytes, slot_offset(newest)).map_err(error("writing"))?;
            file.sync_data().map_err(error("syncing"))?;
        }
        let [even, odd] = slots;
        let payload = match if newest == 1 { odd } else { even } {
            Slot::Valid { payload, .. } => Some(payload),
            _ => None,
        };
        let writer = Some(SlotWriter::new(file, &LAYOUT, sequence));
        Ok(Self { database_id, writer, payload })
    }

    /// No hard state: none that was ever stored, or none that could be read.
    pub(crate) fn none(database_id: DatabaseId) -> Self {
        Self { database_id, writer: None, payload: None }
    }

    /// What was stored last.
    pub(crate) fn load(&self) -> Option<&[u8]> {
        self.payload.as_deref()
    }

    /// Replaces the hard state, at most [`HARD_BYTES_MAX`] bytes (else `InvalidInput`, and nothing was done), and
    /// makes it durable. After any other error every further call must fail: the caller poisons the engine.
    pub(crate) fn store(&mut self, disk: &dyn Disk, payload: &[u8]) -> io::Result<()> {
        if payload.len() > HARD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            empty => {
                let file = disk.open(HARD_FILE, Access::Create)?;
                let writer = SlotWriter::new(file, &LAYOUT, 0);
                writer.allocate()?;
                disk.sync_dir()?;
                empty.insert(writer)
            }
        };
        writer.store(&self.database_id, payload)?;
        let kept = self.payload.get_or_insert_default();
        kept.clear();
        kept.extend_from_slice(payload);
        Ok(())
    }
}

/// Takes a damaged HARD back to the hard state of its other slot or, where that is damaged too, to none. What was stored
/// last may be forgotten by it: only for a repair that was told so.
pub(crate) fn mend(disk: &dyn Disk, database_id: DatabaseId) -> Result<(), OpenError> {
    let error = |action| move |source| OpenError::io(action, HARD_FILE, source);
    let file = disk.open(HARD_FILE, Access::Write).map_err(error("opening"))?;
    let slots = read_slots_apart(&*file, &LAYOUT)?;
    let ours = slots.into_iter().filter_map(|slot| match slot {
        Slot::Valid { sequence, database_id: id, payload } if id == database_id => {
            Some((sequence, payload))
        }
        _ => None,
    });
    match ours.max_by_key(|(sequence, _)| *sequence) {
        // It goes to the other slot, the damaged one.
        Some((sequence, payload)) => SlotWriter::new(file, &LAYOUT, sequence)
            .store(&database_id, &payload)
            .map_err(error("writing")),
        None => {
            disk.remove(HARD_FILE).map_err(error("removing"))?;
            disk.sync_dir().map_err(error("syncing the directory of"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::log::test_disk::MemoryDisk;

    const ID: DatabaseId = [3; 16];

    fn load(disk: &MemoryDisk) -> Result<Option<Vec<u8>>, OpenError> {
        Ok(HardFile::open(disk, ID, false)?.load().map(<[u8]>::to_vec))
    }

    #[test]
    fn a_hard_state_of_any_length_reads_back_and_the_file_is_made_by_the_first_store() {
        let disk = MemoryDisk::default();
        let mut hard = HardFile::open(&disk, ID, true).unwrap();
        assert_eq!((hard.load(), disk.list().unwrap().len()), (None, 0));
        for length in [0, 1, 448, 449, HARD_BYTES_MAX, 5] {
            let state = vec![9; length];
            hard.store(&disk, &state).unwrap();
            assert_eq!(load(&disk).unwrap(), Some(state.clone()));
            assert_eq!(hard.load(), Some(&state[..]));
            hard = HardFile::open(&disk, ID, true).unwrap();
        }
        let error = hard.store(&disk, &[0; HARD_BYTES_MAX + 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        hard.store(&disk, b"still works").unwrap();
    }

    #[test]
    fn a_store_torn_between_sectors_leaves_the_one_before() {
        let disk = MemoryDisk::default();
        let mut hard = HardFile::open(&disk, ID, true).unwrap();
        hard.store(&disk, b"first").unwrap();
        let before = disk.bytes(HARD_FILE);
        hard.store(&disk, &[7; 3000]).unwrap();
        let after = disk.bytes(HARD_FILE);
        // Any subset of the eight sectors of slot 0.
        for kept in 0..256_usize {
            let mut bytes = before.clone();
            for sector in (0..8).filter(|sector| kept >> sector & 1 == 1) {
                let range = sector * 512..(sector + 1) * 512;
                bytes[range.clone()].copy_from_slice(&after[range]);
            }
            let expected = if bytes == after { vec![7; 3000] } else { b"first".to_vec() };
            disk.set(HARD_FILE, bytes);
            assert_eq!(load(&disk).unwrap(), Some(expected), "sectors {kept:08b}");
        }
    }

    #[test]
    fn a_damaged_vote_is_corrupt_rather_than_forgotten() {
        let disk = MemoryDisk::default();
        let mut hard = HardFile::open(&disk, ID, true).unwrap();
        hard.store(&disk, b"vote 1").unwrap();
        hard.store(&disk, b"vote 2").unwrap();
        let whole = disk.bytes(HARD_FILE);
        for bit in [0, 8 * 9, 8 * 60, 8 * 64, 8 * 100, 8 * (4096 + 64)] {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1;
            disk.set(HARD_FILE, bytes);
            assert!(matches!(load(&disk), Err(OpenError::Corrupt(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_crash_while_the_file_is_made_leaves_no_hard_state() {
        let disk = MemoryDisk::default();
        for bytes in [vec![], vec![0; 8192]] {
            disk.set(HARD_FILE, bytes);
            let mut hard = HardFile::open(&disk, ID, true).unwrap();
            assert_eq!(hard.load(), None);
            hard.store(&disk, b"vote").unwrap();
            assert_eq!(load(&disk).unwrap(), Some(b"vote".to_vec()));
        }
        assert!(HardFile::open(&disk, [4; 16], false).is_err(), "another directory's");
    }
}
