//! META: the facts that must be known before a directory's log can be read. A two-slot file; each
//! slot is one sector.
//!
//! META is stored into both slots when a directory is made. That is before any other file is
//! durable, except for the snapshot of a restore. Every clean close stores both slots again. So an
//! empty slot is damage, unless making the directory was interrupted: then there is no segment and
//! no HARD. After a clean close, either slot alone says where the log ends.
//!
//! ```text
//! offset  size  field                         (the first 64 bytes of a slot: see `two_slot`)
//!     64     8  hash seed
//!     72     1  commit mode: 1 as appended, 2 by commit
//!     73     1  contiguity: 0 strict, 1 monotone
//!     74     1  clean close: 0 or 1
//!     75     1  whether there is a log id before the base: 0 or 1
//!     76     1  its leader tag's length
//!     77     1  what its snapshots hold: 1 key-value entries, 2 a blob, 0 not known
//!     78     1  whether the state machine keeps its state in a storage of its own: 0 or 1
//!     79     1  0
//!     80     8  log base: segment number
//!     88     8  log base: sequence of the last frame before it, 0 for none
//!     96     8  log base: checksum of that frame, for the chain
//!    104     8  last log id before the base: index
//!    112     8  last log id before the base: term
//!    120    16  last log id before the base: leader tag
//!    136     8  incarnation
//!    144     8  durable frame sequence, 0 for none
//!    152     8  committed + 1, 0 for none
//!    160     8  slot sequence of HARD's newest slot, 0 for none            (here and below: from version 2 on)
//!    168     1  whether HARD may still be of version 1: 0 or 1
//!    169     7  0
//! ```

use std::fmt;
use std::io;

use crate::bytes::{put, u64_at};
use crate::config::{CommitMode, Contiguity};
use crate::disk::names::META_FILE;
use crate::disk::{Access, Disk};
use crate::entry::{LeaderTag, LogId};
use crate::error::OpenError;
use crate::log::format::{DatabaseId, encode_option};
use crate::log::recovery::files::{list_files, refuse_claimed};
use crate::log::two_slot::{
    PAYLOAD_AT, SECTOR_PAYLOAD_BYTES, Slot, SlotLayout, SlotWriter, Stored, VERSION_1, VERSION_2,
    Versions, corrupt, newest, read_slots, slot_offset,
};
use crate::numbers::{FrameSequence, SegmentNumber};
use crate::snapshot::SnapshotKind;

const PAYLOAD_BYTES: usize = 112;
/// Length of the payload in version 1.
const PAYLOAD_BYTES_1: usize = 96;
/// Number of the first segment of a new log.
const FIRST_SEGMENT: SegmentNumber = SegmentNumber::LOWEST.next();

const _: () = assert!(PAYLOAD_BYTES <= SECTOR_PAYLOAD_BYTES);

static LAYOUT: SlotLayout =
    SlotLayout { file: META_FILE, magic: u32::from_le_bytes(*b"SPRM"), sectors: 1 };

/// The start of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogBase {
    /// The segment whose first frame is the log's first.
    pub segment: SegmentNumber,
    /// Sequence of the last frame before the base, or none.
    pub sequence: FrameSequence,
    /// Checksum of that frame, which the first frame must name as its previous.
    pub chain: u64,
    /// The last entry before the base. `None`: the log may start at any index.
    pub last: Option<LogId>,
}

/// META's record of HARD, which also tells META's version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HardRecord {
    /// META has version 1, which records nothing of HARD. HARD has version 1 too.
    Unknown,
    /// HARD is being rewritten in version 2. This was the sequence of its newest whole slot before;
    /// 0 for no slot. META's other slot may have version 1.
    Upgrading(u64),
    /// The sequence of HARD's newest whole slot when META was stored, which may have risen since; 0
    /// if HARD was not made.
    Stored(u64),
}

impl HardRecord {
    /// The least sequence that HARD's newest whole slot can have.
    pub fn sequence(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Upgrading(sequence) | Self::Stored(sequence) => sequence,
        }
    }

    /// Updates the record to a sequence that is known to be durable.
    pub(crate) fn at(self, sequence: u64) -> Self {
        match self {
            Self::Stored(known) => Self::Stored(known.max(sequence)),
            other => other,
        }
    }
}

/// The content of META.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Random identity, drawn when the directory was made.
    pub database_id: DatabaseId,
    /// Seed of the store's key hash.
    pub hash_seed: u64,
    /// Rule by which an entry commits.
    pub commit_mode: CommitMode,
    /// Rule for the indexes that follow each other.
    pub contiguity: Contiguity,
    /// Content of the state machine's snapshots, as it was at the last write. Another kind of
    /// machine would make another state of the same log. `None`: an earlier build made the
    /// directory, and did not record it.
    pub state: Option<SnapshotKind>,
    /// Whether the state machine keeps its state in a separate storage: then the log may begin
    /// where no snapshot ends.
    pub is_kept: bool,
    /// Whether the last writable open was closed with everything durable.
    pub clean_close: bool,
    /// The start of the log.
    pub base: LogBase,
    /// Incarnation of the last writable open, stored before its first append.
    pub incarnation: u64,
    /// Frames up to this sequence were durable; 0 for none.
    pub durable_sequence: FrameSequence,
    /// Entries up to this index were committed.
    pub committed: Option<u64>,
    /// Knowledge of HARD.
    pub hard: HardRecord,
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The seed is left out: a client that knows it can choose colliding keys.
        f.debug_struct("Meta")
            .field("commit_mode", &self.commit_mode)
            .field("contiguity", &self.contiguity)
            .field("state", &self.state)
            .field("is_kept", &self.is_kept)
            .field("clean_close", &self.clean_close)
            .field("base", &self.base)
            .field("incarnation", &self.incarnation)
            .field("durable_sequence", &self.durable_sequence)
            .field("committed", &self.committed)
            .field("hard", &self.hard)
            .finish_non_exhaustive()
    }
}

/// Damage of the slot that does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MetaDamage {
    /// Offset in META of a slot that is damaged or empty. No crash leaves one; it may have been the
    /// newer slot.
    pub slot_offset: Option<u64>,
}

/// META, open.
#[derive(Debug)]
pub struct MetaFile {
    writer: SlotWriter,
}

impl MetaFile {
    /// Makes META durable with its first content, in both slots. It must be the first file of a new
    /// directory. The rest of an interrupted attempt (see [`MetaFile::open`]) is overwritten.
    pub fn create(disk: &dyn Disk, meta: &Meta) -> Result<Self, OpenError> {
        let error = |action| move |source| OpenError::io(action, META_FILE, source);
        let mut meta_file = Self::allocate(disk)?;
        meta_file.store_twice(meta).map_err(error("writing"))?;
        disk.sync_dir().map_err(error("syncing the directory of"))?;
        Ok(meta_file)
    }

    /// Makes a META without content durable: with snapshots beside it, the directory still reads as
    /// empty.
    pub(crate) fn begin(disk: &dyn Disk) -> Result<Self, OpenError> {
        let meta_file = Self::allocate(disk)?;
        let error = |error| OpenError::io("syncing the directory of", META_FILE, error);
        disk.sync_dir().map_err(error)?;
        Ok(meta_file)
    }

    fn allocate(disk: &dyn Disk) -> Result<Self, OpenError> {
        let error = |action| move |source| OpenError::io(action, META_FILE, source);
        let access = if list_files(disk)?.meta { Access::Write } else { Access::Create };
        let file = disk.open(META_FILE, access).map_err(error("creating"))?;
        let meta_file = Self { writer: SlotWriter::new(file, &LAYOUT, 0) };
        meta_file.writer.allocate().map_err(error("allocating"))?;
        Ok(meta_file)
    }

    /// Reads META. Returns `None` if there is no META or an uncompleted one, and no other file.
    /// Then the directory is empty, or making it was interrupted.
    pub fn open(
        disk: &dyn Disk,
        writable: bool,
    ) -> Result<Option<(Self, Meta, MetaDamage)>, OpenError> {
        let error = |action| move |source| OpenError::io(action, META_FILE, source);
        let files = list_files(disk)?;
        if writable || files.foreign.taken.iter().any(|name| name == META_FILE) {
            files.refuse_taken(disk)?;
        }
        // META is complete before any other file is made. The snapshot of a restore is an
        // exception: it comes after a META without content.
        let was_complete = files.hard || !files.segments.is_empty();
        if !files.meta {
            return if was_complete || !files.snapshots.is_empty() {
                Err(corrupt(&LAYOUT, 0, "the file is missing").into())
            } else {
                refuse_claimed(disk)?;
                Ok(None)
            };
        }
        let access = if writable { Access::Write } else { Access::Read };
        let file = disk.open(META_FILE, access).map_err(error("opening"))?;
        let slots = read_slots(&*file, &LAYOUT, Versions::Either)?;
        let newest = newest(&slots);
        let Slot::Valid(stored) = &slots[newest] else {
            // The first store goes to slot 1, so content in slot 0 came after that store was
            // complete. A restore is not complete before both are stored.
            if was_complete || slots[0] != Slot::Empty {
                return Err(corrupt(&LAYOUT, 0, "no slot is valid").into());
            }
            return Ok(None);
        };
        let Some(meta) = Meta::decode(stored) else {
            return Err(corrupt(&LAYOUT, newest, "a field is out of its range").into());
        };
        let other = 1 - newest;
        let may_be_first = stored.sequence == 1;
        let holds = match (&slots[other], meta.hard) {
            // Version 1 stored META into one slot when a directory was made.
            (Slot::Empty, HardRecord::Unknown) => may_be_first,
            (Slot::Empty, _) => may_be_first && !was_complete,
            (Slot::Valid(slot), hard) => {
                let is_of_its_version = slot.version == stored.version;
                slot.database_id == stored.database_id
                    && (is_of_its_version || matches!(hard, HardRecord::Upgrading(_)))
            }
            _ => false,
        };
        let damage = MetaDamage { slot_offset: (!holds).then(|| slot_offset(other)) };
        Ok(Some((Self { writer: SlotWriter::new(file, &LAYOUT, stored.sequence) }, meta, damage)))
    }

    /// The slot sequence of the newest slot.
    pub(crate) fn sequence(&self) -> u64 {
        self.writer.sequence()
    }

    /// Writes the newest slot again unchanged, because it may be in the page cache only.
    pub(crate) fn rewrite(&self) -> Result<(), OpenError> {
        self.writer.rewrite()
    }

    /// Replaces the content and makes it durable. After an error every further call fails.
    pub fn store(&mut self, meta: &Meta) -> io::Result<()> {
        let encoded = meta.encode();
        match meta.hard {
            HardRecord::Unknown => {
                self.writer.store_as(VERSION_1, &meta.database_id, &encoded[..PAYLOAD_BYTES_1])
            }
            _ => self.writer.store(&meta.database_id, &encoded),
        }
    }

    /// Stores as [`MetaFile::store`] does, into both slots, so that each alone is enough.
    pub(crate) fn store_twice(&mut self, meta: &Meta) -> io::Result<()> {
        self.store(meta)?;
        self.store(meta)
    }
}

/// Offsets in the payload.
const fn at(offset: usize) -> usize {
    offset - PAYLOAD_AT
}

impl Meta {
    /// The META of a new directory.
    pub(crate) fn fresh(
        disk: &dyn Disk,
        commit_mode: CommitMode,
        hash_seed: Option<u64>,
    ) -> Result<Self, OpenError> {
        let mut random = [0; 24];
        disk.random(&mut random)
            .map_err(|error| OpenError::io("drawing random bytes for", META_FILE, error))?;
        Ok(Self {
            database_id: std::array::from_fn(|at| random[at]),
            hash_seed: hash_seed.unwrap_or_else(|| u64_at(&random, size_of::<DatabaseId>())),
            commit_mode,
            contiguity: Contiguity::Strict,
            state: None,
            is_kept: false,
            clean_close: false,
            base: LogBase { segment: FIRST_SEGMENT, ..LogBase::default() },
            incarnation: 0,
            durable_sequence: FrameSequence::NONE,
            committed: None,
            hard: HardRecord::Stored(0),
        })
    }

    fn encode(&self) -> [u8; PAYLOAD_BYTES] {
        let mut out = [0; PAYLOAD_BYTES];
        put(&mut out, at(64), &self.hash_seed.to_le_bytes());
        let mode = match self.commit_mode {
            CommitMode::OnAppend => 1,
            CommitMode::ByCommit => 2,
        };
        let last = self.base.last.unwrap_or_default();
        let state = self.state.map_or(0, SnapshotKind::code);
        let has_last = u8::from(self.base.last.is_some());
        let flags = [u8::from(self.clean_close), has_last, last.leader.len(), state];
        put(&mut out, at(72), &[mode, self.contiguity.stored()]);
        put(&mut out, at(74), &flags);
        put(&mut out, at(78), &[u8::from(self.is_kept)]);
        put(&mut out, at(80), &self.base.segment.stored().to_le_bytes());
        put(&mut out, at(88), &self.base.sequence.get().to_le_bytes());
        put(&mut out, at(96), &self.base.chain.to_le_bytes());
        put(&mut out, at(104), &last.index.to_le_bytes());
        put(&mut out, at(112), &last.term.to_le_bytes());
        put(&mut out, at(120), last.leader.padded());
        put(&mut out, at(136), &self.incarnation.to_le_bytes());
        put(&mut out, at(144), &self.durable_sequence.get().to_le_bytes());
        put(&mut out, at(152), &encode_option(self.committed).to_le_bytes());
        put(&mut out, at(160), &self.hard.sequence().to_le_bytes());
        put(&mut out, at(168), &[u8::from(matches!(self.hard, HardRecord::Upgrading(_)))]);
        out
    }

    /// Decodes a payload; `None` if a field has a value that [`Meta::encode`] does not give it.
    fn decode(stored: &Stored) -> Option<Self> {
        let database_id = stored.database_id;
        let is_first_version = stored.version < VERSION_2;
        let payload_bytes = if is_first_version { PAYLOAD_BYTES_1 } else { PAYLOAD_BYTES };
        let payload = Some(&*stored.payload).filter(|payload| payload.len() == payload_bytes)?;
        let mut bytes = [0; PAYLOAD_BYTES];
        put(&mut bytes, 0, payload);
        let bytes = &bytes;
        let commit_mode = match bytes[at(72)] {
            1 => CommitMode::OnAppend,
            2 => CommitMode::ByCommit,
            _ => return None,
        };
        let tag = bytes.get(at(120)..at(120) + usize::from(bytes[at(76)]))?;
        let last = LogId {
            index: u64_at(bytes, at(104)),
            term: u64_at(bytes, at(112)),
            leader: LeaderTag::new(tag)?,
        };
        let meta = Self {
            database_id,
            hash_seed: u64_at(bytes, at(64)),
            commit_mode,
            contiguity: Contiguity::of_stored(bytes[at(73)]),
            state: SnapshotKind::of_code(bytes[at(77)]),
            is_kept: bytes[at(78)] == 1,
            clean_close: bytes[at(74)] == 1,
            base: LogBase {
                segment: SegmentNumber::of_stored(u64_at(bytes, at(80))),
                sequence: FrameSequence::new(u64_at(bytes, at(88))),
                chain: u64_at(bytes, at(96)),
                last: (bytes[at(75)] == 1).then_some(last),
            },
            incarnation: u64_at(bytes, at(136)),
            durable_sequence: FrameSequence::new(u64_at(bytes, at(144))),
            committed: u64_at(bytes, at(152)).checked_sub(1),
            hard: match (is_first_version, u64_at(bytes, at(160)), bytes[at(168)]) {
                (true, ..) => HardRecord::Unknown,
                (false, sequence, 0) => HardRecord::Stored(sequence),
                (false, sequence, _) => HardRecord::Upgrading(sequence),
            },
        };
        // A submission refuses the index u64::MAX.
        (meta.encode() == *bytes && last.index < u64::MAX).then_some(meta)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::disk::names::segment_name;
    use crate::error::Corrupt;
    use crate::log::test_disk::MemoryDisk;
    use crate::log::two_slot::SECTOR_BYTES;

    pub(crate) fn meta() -> Meta {
        Meta {
            database_id: *b"0123456789abcdef",
            hash_seed: 77,
            commit_mode: CommitMode::OnAppend,
            contiguity: Contiguity::Strict,
            state: None,
            is_kept: false,
            clean_close: false,
            base: LogBase::default(),
            incarnation: 1,
            durable_sequence: FrameSequence::NONE,
            committed: None,
            hard: HardRecord::Stored(0),
        }
    }

    fn full() -> Meta {
        let last = LogId { index: 0, term: 9, leader: LeaderTag::new(b"node").unwrap() };
        Meta {
            commit_mode: CommitMode::ByCommit,
            contiguity: Contiguity::Monotone,
            state: Some(SnapshotKind::Blob),
            clean_close: true,
            base: LogBase {
                segment: SegmentNumber::new(4),
                sequence: FrameSequence::new(5),
                chain: 6,
                last: Some(last),
            },
            incarnation: 7,
            durable_sequence: FrameSequence::new(8),
            committed: Some(0),
            hard: HardRecord::Stored(9),
            ..meta()
        }
    }

    fn open(disk: &MemoryDisk) -> Result<Option<(Meta, MetaDamage)>, OpenError> {
        Ok(MetaFile::open(disk, false)?.map(|(_, meta, damage)| (meta, damage)))
    }

    #[test]
    fn the_newest_of_the_two_slots_counts() {
        let disk = MemoryDisk::default();
        assert!(open(&disk).unwrap().is_none());
        let mut file = MetaFile::create(&disk, &meta()).unwrap();
        assert_eq!(open(&disk).unwrap(), Some((meta(), MetaDamage::default())));
        file.store(&full()).unwrap();
        assert_eq!(open(&disk).unwrap(), Some((full(), MetaDamage::default())));
        let (mut file, ..) = MetaFile::open(&disk, true).unwrap().unwrap();
        file.store(&meta()).unwrap();
        assert_eq!(open(&disk).unwrap(), Some((meta(), MetaDamage::default())));
    }

    #[test]
    fn a_flipped_bit_falls_back_to_the_other_slot_and_is_reported() {
        for stores in [1, 2] {
            let disk = MemoryDisk::default();
            let mut file = MetaFile::create(&disk, &meta()).unwrap();
            (0..stores).for_each(|_| file.store(&full()).unwrap());
            let whole = disk.bytes(META_FILE);
            for bit in 0..2 * SECTOR_BYTES * 8 {
                let slot = bit / 8 / SECTOR_BYTES;
                let mut bytes = whole.clone();
                bytes[4096 * slot + bit / 8 % SECTOR_BYTES] ^= 1 << (bit % 8);
                disk.set(META_FILE, bytes);
                // The third store is in slot 1.
                let left = if stores == 1 && slot == 1 { meta() } else { full() };
                let damage = MetaDamage { slot_offset: Some(4096 * slot as u64) };
                assert_eq!(open(&disk).unwrap(), Some((left, damage)), "bit {bit}");
            }
        }
    }

    #[test]
    fn an_empty_slot_beside_a_log_is_damage_after_every_number_of_stores() {
        for stores in 0..4 {
            for other in [segment_name(FIRST_SEGMENT), "HARD".to_owned()] {
                let disk = MemoryDisk::default();
                let mut file = MetaFile::create(&disk, &meta()).unwrap();
                (0..stores).for_each(|_| file.store(&meta()).unwrap());
                let whole = disk.bytes(META_FILE);
                disk.set(&other, vec![]);
                for slot in [0, 4096] {
                    let mut bytes = whole.clone();
                    bytes[slot..slot + SECTOR_BYTES].fill(0);
                    disk.set(META_FILE, bytes);
                    let damage = MetaDamage { slot_offset: Some(slot as u64) };
                    assert_eq!(open(&disk).unwrap(), Some((meta(), damage)), "{stores} {other}");
                }
            }
        }
    }

    #[test]
    fn an_empty_slot_beside_the_first_store_is_an_interrupted_creation_while_nothing_else_is_there()
    {
        let disk = MemoryDisk::default();
        MetaFile::create(&disk, &meta()).unwrap();
        let mut bytes = disk.bytes(META_FILE);
        bytes[..SECTOR_BYTES].fill(0);
        disk.set(META_FILE, bytes);
        assert_eq!(open(&disk).unwrap(), Some((meta(), MetaDamage::default())));
        let (mut file, ..) = MetaFile::open(&disk, true).unwrap().unwrap();
        file.store_twice(&full()).unwrap();
        let mut bytes = disk.bytes(META_FILE);
        bytes[..SECTOR_BYTES].fill(0);
        disk.set(META_FILE, bytes);
        let damage = MetaDamage { slot_offset: Some(0) };
        assert_eq!(open(&disk).unwrap(), Some((full(), damage)), "it was stored later");
    }

    #[test]
    fn a_slot_in_the_others_place_is_damage_and_the_other_counts() {
        let disk = MemoryDisk::default();
        MetaFile::create(&disk, &meta()).unwrap().store(&full()).unwrap();
        let whole = disk.bytes(META_FILE);
        for (from, to, left) in [(0, 4096, meta()), (4096, 0, full())] {
            let mut bytes = whole.clone();
            bytes.copy_within(from..from + SECTOR_BYTES, to);
            disk.set(META_FILE, bytes);
            let damage = MetaDamage { slot_offset: Some(to as u64) };
            assert_eq!(open(&disk).unwrap(), Some((left, damage)));
        }
    }

    #[test]
    fn slots_of_version_1_count_until_both_are_written_anew() {
        let disk = MemoryDisk::default();
        let old = Meta { hard: HardRecord::Unknown, ..full() };
        let mut file = MetaFile::allocate(&disk).unwrap();
        file.store(&old).unwrap();
        assert_eq!(open(&disk).unwrap(), Some((old, MetaDamage::default())), "one slot");
        file.store(&old).unwrap();
        assert_eq!(disk.bytes(META_FILE)[4096 + 4], 1);
        assert_eq!(open(&disk).unwrap(), Some((old, MetaDamage::default())));
        let upgrading = Meta { hard: HardRecord::Upgrading(0), ..full() };
        file.store(&upgrading).unwrap();
        assert_eq!(open(&disk).unwrap(), Some((upgrading, MetaDamage::default())));
        // Without an upgrade in progress, both slots would have been written anew before.
        let half = disk.bytes(META_FILE);
        file.store(&upgrading).unwrap();
        file.store(&full()).unwrap();
        let new = disk.bytes(META_FILE);
        let mut mixed = new.clone();
        mixed[..SECTOR_BYTES].copy_from_slice(&half[..SECTOR_BYTES]);
        disk.set(META_FILE, mixed);
        let damage = MetaDamage { slot_offset: Some(0) };
        assert_eq!(open(&disk).unwrap(), Some((full(), damage)));
    }

    /// Proves DUR-15.
    #[test]
    fn a_crash_while_the_directory_is_made_reads_as_an_empty_engine() {
        let disk = MemoryDisk::default();
        MetaFile::create(&disk, &meta()).unwrap();
        let mut whole = disk.bytes(META_FILE);
        whole[..4096].fill(0);
        for bytes in [vec![], vec![0; 8192], whole[..4096 + 100].to_vec()] {
            disk.set(META_FILE, bytes);
            assert!(open(&disk).unwrap().is_none());
            MetaFile::create(&disk, &meta()).unwrap();
            assert_eq!(open(&disk).unwrap(), Some((meta(), MetaDamage::default())));
        }
    }

    #[test]
    fn a_directory_with_a_log_and_no_valid_meta_is_corrupt() {
        for other in [segment_name(SegmentNumber::LOWEST), "HARD".to_owned()] {
            let disk = MemoryDisk::default();
            disk.set(&other, vec![]);
            for content in [None, Some(vec![]), Some(vec![1; 8192])] {
                if let Some(bytes) = content {
                    disk.set(META_FILE, bytes);
                }
                let error = open(&disk).unwrap_err();
                assert!(
                    matches!(&error, OpenError::Corrupt(Corrupt { file, .. }) if file == "META"),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn both_slots_damaged_is_corrupt_even_without_a_log() {
        let disk = MemoryDisk::default();
        MetaFile::create(&disk, &meta()).unwrap().store(&full()).unwrap();
        let mut bytes = disk.bytes(META_FILE);
        bytes[9] ^= 1;
        bytes[4096 + 9] ^= 1;
        disk.set(META_FILE, bytes);
        assert!(matches!(open(&disk), Err(OpenError::Corrupt(_))));
    }

    #[test]
    fn an_unknown_version_is_refused_by_name_and_a_flipped_version_is_damage() {
        let disk = MemoryDisk::default();
        MetaFile::create(&disk, &meta()).unwrap();
        let file = disk.open(META_FILE, Access::Write).unwrap();
        SlotWriter::new(file, &LAYOUT, 2).store_as(3, &[1; 16], b"another shape").unwrap();
        let error = open(&disk).unwrap_err();
        assert_eq!(error.to_string(), "META has format version 3; this release reads version 2");
        let mut bytes = disk.bytes(META_FILE);
        bytes[4096 + 4] ^= 4;
        disk.set(META_FILE, bytes);
        assert_eq!(open(&disk).unwrap().unwrap().1, MetaDamage { slot_offset: Some(4096) });
    }

    #[test]
    fn a_slot_of_a_number_that_is_not_read_is_never_written() {
        let disk = MemoryDisk::default();
        MetaFile::create(&disk, &meta()).unwrap();
        let file = disk.open(META_FILE, Access::Write).unwrap();
        let last = u64::MAX - 1;
        SlotWriter::new(file, &LAYOUT, last - 1)
            .store(&full().database_id, &full().encode())
            .unwrap();
        let before = disk.bytes(META_FILE);
        let (mut file, content, _) = MetaFile::open(&disk, true).unwrap().unwrap();
        assert_eq!(content, full());
        file.store(&meta()).unwrap_err();
        assert_eq!(disk.bytes(META_FILE), before);
    }

    #[test]
    fn after_a_failed_store_the_good_slot_is_never_written_over() {
        let disk = MemoryDisk::default();
        let mut file = MetaFile::create(&disk, &meta()).unwrap();
        disk.fail_syncs(true);
        file.store(&full()).unwrap_err();
        disk.fail_syncs(false);
        let before = disk.bytes(META_FILE);
        file.store(&full()).unwrap_err();
        assert_eq!(disk.bytes(META_FILE), before);
    }
}
