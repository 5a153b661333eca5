//! The stores of a writable open into META and HARD, and their order.
//!
//! **In every open.** Reading HARD has written its newest slot again and synced it. Now its other
//! slot is made whole and its name durable. Then META is stored, with HARD's sequence. So META
//! never records more of HARD than is durable.
//!
//! **Where a directory may not have been complete** (it has neither a segment nor a HARD), META's
//! newest slot is written again and synced. Then META is stored into both slots, before the first
//! segment is made. A failed earlier store may be in the page cache only. After a power cut an
//! empty slot would then stand beside a later one, and look like damage.
//!
//! **The first open of a directory of version 1** raises it:
//!
//! 1. HARD is removed if no store of it was ever complete. A crash during its making left the name.
//! 2. META is stored in version 2 into both slots. It says that HARD is being rewritten, and from
//!    which sequence. From the first of these stores on, an earlier release refuses the directory
//!    with a message about the version.
//! 3. Both slots of HARD are written, in version 2, with the valid content.
//! 4. META is stored into both slots, and says that HARD has version 2.
//!
//! A crash before the first store of step 2 leaves version 1. A crash after it leaves a META whose
//! newest slot says how far step 3 may have come; the next open repeats from step 2. In step 3 one
//! slot of HARD is whole at any time, with the valid content. The first write goes to the slot that
//! does not count, and the second one comes after the first was synced. In step 4 both slots of
//! HARD are whole and durable, so either META's slot is true.

use super::{LogOpening, map_segment};
use crate::disk::Disk;
use crate::disk::names::{META_FILE, segment_name};
use crate::error::{Corrupt, OpenError};
use crate::log::hard::HardFile;
use crate::log::meta::{HardRecord, Meta, MetaDamage, MetaFile};
use crate::log::recovery::files::{list_files, refuse_unowned, remove_leftovers};
use crate::log::recovery::scan::{ScanResult, erase_after, rewrite};
use crate::sync::tell;

impl LogOpening {
    /// Makes everything that was read durable, and then records that in META, under a new
    /// incarnation.
    ///
    /// Frames that may not be durable are written again. A sync that failed before the crash may
    /// have left pages that read well and are not on disk. No later sync would write them.
    pub(super) fn settle(
        &mut self,
        result: &ScanResult,
        hard: &mut HardFile,
    ) -> Result<(), OpenError> {
        let tail = &result.tail;
        let incarnation = self.content.incarnation.max(tail.incarnation_seen_max);
        // The lost slot of META may have recorded one more open.
        let lost = u64::from(self.damaged_slot().is_some());
        let incarnation = incarnation.checked_add(1 + lost);
        let incarnation = incarnation.ok_or_else(|| Corrupt {
            file: META_FILE.to_owned(),
            offset: 0,
            index: None,
            what: "an incarnation is the last there can be",
        })?;
        let clean =
            self.content.clean_close && self.content.durable_sequence.is_before(tail.next_sequence);
        // Check the files that are removed, overwritten or reused here, and the one in which the
        // log continues.
        let later = result.segments.iter().map(|segment| segment.number);
        let unused = later.filter(|number| *number >= tail.segment);
        let unused = unused.chain(result.obsolete.iter().copied());
        refuse_unowned(&*self.disk, &self.content.database_id, unused)?;
        if self.meta.is_none() {
            remove_leftovers(&*self.disk)?;
        }
        for name in list_files(&*self.disk)?.unfinished {
            self.disk.remove(&name).map_err(|error| OpenError::io("removing", &name, error))?;
        }
        for summary in &result.segments {
            let name = segment_name(summary.number);
            if summary.number > tail.segment {
                self.disk.remove(&name).map_err(|error| OpenError::io("removing", &name, error))?;
                self.table.remove(summary.number);
                continue;
            }
            if summary.number == tail.segment {
                // The segment's image replaces the mapping, because a mapped file must not be
                // written.
                self.table.remove(summary.number);
            }
            if !clean && summary.last_sequence > tail.durable_sequence_known {
                self.table.remove(summary.number);
                rewrite(&*self.disk, &name, summary.used_bytes)?;
                if summary.number != tail.segment {
                    map_segment(&self.disk, &self.table, summary.number)?;
                }
            }
        }
        self.disk.sync_dir().map_err(|error| OpenError::io("syncing", ".", error))?;
        if result.cut.is_some() {
            // The incarnation alone keeps the cut tail from coming back. With the erase, later
            // findings behind the tail are of their own time.
            erase_after(&*self.disk, tail)?;
        }
        self.content.clean_close = false;
        self.content.incarnation = incarnation;
        self.content.durable_sequence = tail.next_sequence.previous();
        self.content.committed = tail.committed.max(self.content.committed);
        let file = self.meta.take().map(|(file, ..)| file);
        let file = store_slots(&*self.disk, file, &mut self.content, hard)?;
        self.meta = Some((file, self.content, MetaDamage::default()));
        Ok(())
    }

    /// Offset of a damaged slot of META.
    pub(super) fn damaged_slot(&self) -> Option<u64> {
        self.meta.as_ref().and_then(|(.., damage)| damage.slot_offset)
    }

    /// Refuses to write to a log if a lost slot of META may have known a later end.
    pub(super) fn check_end(&mut self, result: &ScanResult) -> Result<(), OpenError> {
        let Some(offset) = self.damaged_slot().filter(|_| self.writable) else { return Ok(()) };
        let sequence = self.meta.as_ref().map_or(0, |(file, ..)| file.sequence());
        if self.is_end_proved || is_end_proved(&self.content, sequence, result.tail.incarnation) {
            // This also holds for a log that starts over, whose frames prove nothing.
            self.is_end_proved = true;
            return Ok(());
        }
        let what =
            "a slot does not read back, and nothing else says where the log ends: see repair";
        Err(Corrupt { file: META_FILE.to_owned(), offset, index: None, what }.into())
    }
}

/// Stores META with `content`, after HARD. Returns META's file. `content` then has what was stored.
fn store_slots(
    disk: &dyn Disk,
    meta_file: Option<MetaFile>,
    content: &mut Meta,
    hard: &mut HardFile,
) -> Result<MetaFile, OpenError> {
    let written = |error| OpenError::io("writing", META_FILE, error);
    let Some(mut file) = meta_file else { return MetaFile::create(disk, content) };
    if let HardRecord::Stored(_) = content.hard {
        hard.settle()?;
        disk.sync_dir().map_err(|error| OpenError::io("syncing", ".", error))?;
        content.hard = content.hard.at(hard.sequence());
        let files = list_files(disk)?;
        if files.hard || !files.segments.is_empty() {
            file.store(content).map_err(written)?;
        } else {
            file.rewrite()?;
            file.store_twice(content).map_err(written)?;
        }
        return Ok(file);
    }
    hard.remove_if_unused(disk)?;
    content.hard = HardRecord::Upgrading(hard.sequence());
    file.store_twice(content).map_err(written)?;
    hard.upgrade()?;
    content.hard = HardRecord::Stored(hard.sequence());
    file.store_twice(content).map_err(written)?;
    tell(|| tracing::info!("META and HARD were rewritten in format version 2"));
    Ok(file)
}

/// Whether `content`, with one slot of META damaged, tells as much as both slots did, so that the
/// log may be opened for writing. `sequence` is the sequence of the remaining slot, and
/// `incarnation` that of the log's last good frame.
///
/// The remaining slot is the newest, or one store older: a second store would have overwritten it.
/// It is enough in these cases:
///
/// - It is the first slot of all. Then the lost one is the second, which says the same or was not
///   complete.
/// - It is of a clean close. The next store is that of the next open, which says the same of the
///   log.
/// - A frame has a later incarnation. Then the lost store is that of the open with that
///   incarnation. That store says that everything before the open's first frame was durable, and so
///   does the frame.
///
/// Otherwise the lost slot may be of a clean close or of a compaction, and the only record of the
/// log's end.
fn is_end_proved(content: &Meta, sequence: u64, incarnation: u64) -> bool {
    let is_first = sequence == 1 && content.hard != HardRecord::Unknown;
    is_first || content.clean_close || incarnation > content.incarnation
}
