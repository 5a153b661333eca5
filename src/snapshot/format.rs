//! The bytes of a snapshot file. This module does no I/O; `docs/format.md` has the same as tables.
//!
//! ```text
//! header (4096) | chunk, zeros to 16 | chunk, zeros to 16 | ... | index, zeros to 16 | footer (64)
//! ```
//!
//! Key-value chunks and the index are rkyv archives of flat records and one byte blob. Their layout
//! is fixed: the offsets of blob, tables and root follow from their lengths, and a reader refuses
//! any other layout.
//!
//! These fields stay in place in every version: the header's magic, version, and CRC with its
//! range.

use crc32c::crc32c;
use rkyv::rend::u32_le;
use rkyv::{Archive, Archived, Serialize};

use crate::bytes::{RkyvSettings, put, u16_at, u32_at, u64_at};
use crate::codec;
use crate::config::SNAPSHOT_CHUNK_BYTES;
use crate::entry::{LeaderTag, LogId};

/// The first eight bytes of every snapshot.
pub(crate) const MAGIC: [u8; 8] = *b"SPRGSNAP";
/// The first eight bytes of the footer.
pub(crate) const FOOTER_MAGIC: [u8; 8] = *b"SPRGSNFT";
/// The version that this release writes, and the only one that it reads.
pub(crate) const VERSION: u16 = 1;
/// Length of the header.
pub(crate) const HEADER_BYTES: usize = 4096;
/// Length of the footer.
pub(crate) const FOOTER_BYTES: usize = 64;
/// Alignment of chunks, index and footer.
pub(crate) const ALIGN_BYTES: usize = 16;
/// The longest key.
pub(crate) const KEY_BYTES_MAX: usize = codec::KEY_BYTES_MAX;
/// The longest value.
pub(crate) const VALUE_BYTES_MAX: usize = codec::VALUE_BYTES_MAX;
/// Most bytes of the parts beside the state (first keys of chunks, membership, notes): the index is
/// an archive with 32-bit relative pointers.
pub(crate) const BESIDE_BYTES_MAX: usize = 1 << 30;

const HEADER_CRC_AT: usize = HEADER_BYTES - 4;
const FOOTER_CRC_AT: usize = FOOTER_BYTES - 4;

/// Length of one record of a chunk.
pub(crate) const RECORD_BYTES: usize = size_of::<ArchivedRecord>();
/// Length of the root of a chunk's archive, which is its last part.
pub(crate) const CHUNK_ROOT_BYTES: usize = size_of::<ArchivedChunk>();
/// Alignment of records, and so of the root, in a chunk.
pub(crate) const RECORD_ALIGN_BYTES: usize = 4;
/// Alignment of the index's tables and of its root.
pub(crate) const INDEX_ALIGN_BYTES: usize = 8;

const _: () = {
    assert!(RECORD_BYTES == 16);
    assert!(CHUNK_ROOT_BYTES == 16);
    assert!(size_of::<ArchivedChunkEntry>() == 24);
    assert!(size_of::<ArchivedNoteEntry>() == 8);
    assert!(size_of::<ArchivedLogIdEntry>() == 40);
    assert!(size_of::<ArchivedIndex>() == 128);
    assert!(ALIGN_BYTES.is_multiple_of(INDEX_ALIGN_BYTES));
    assert!(HEADER_BYTES.is_multiple_of(ALIGN_BYTES) && FOOTER_BYTES.is_multiple_of(ALIGN_BYTES));
    // Relative pointers in an archive have 31 bits.
    assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX < 1 << 30 && SNAPSHOT_CHUNK_BYTES < 1 << 30);
    assert!(LeaderTag::MAX_BYTES == 16);
};

/// Content of a snapshot's chunks.
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SnapshotKind {
    /// Entries of a key-value state machine, sorted by key.
    KeyValue,
    /// The bytes that an embedder's state machine wrote, unchanged.
    Blob,
}

impl SnapshotKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::KeyValue => 1,
            Self::Blob => 2,
        }
    }

    /// The kind of a code.
    pub(crate) fn of_code(code: u8) -> Option<Self> {
        [Self::KeyValue, Self::Blob].into_iter().find(|known| known.code() == code)
    }

    /// Description of the content.
    pub(crate) const fn holds(self) -> &'static str {
        match self {
            Self::KeyValue => "key-value entries",
            Self::Blob => "a blob",
        }
    }
}

/// The settings of this build.
pub(crate) const RKYV_SETTINGS: RkyvSettings = RkyvSettings {
    byte_order: 1,
    pointer_bytes: match size_of::<Archived<usize>>() {
        2 => 2,
        4 => 4,
        _ => 8,
    },
    align_bytes: if align_of::<Archived<u64>>() == 8 { 8 } else { 1 },
};

/// Compiles only where archived numbers are little-endian.
const _: fn(Archived<u32>) -> u32_le = |number| number;

/// One entry of a key-value chunk: the places of its key and its value in the chunk.
#[derive(Archive, Serialize, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) key_offset: u32,
    pub(crate) key_bytes: u32,
    pub(crate) value_offset: u32,
    pub(crate) value_bytes: u32,
}

/// A key-value chunk. The blob comes first, so that an offset in the blob is an offset in the
/// chunk.
#[derive(Archive, Serialize, Default)]
pub(crate) struct Chunk {
    /// Key, value, key, value, ... in order, without gaps.
    pub(crate) bytes: Vec<u8>,
    /// Records by rising key.
    pub(crate) records: Vec<Record>,
}

/// One chunk, as the index describes it. Its start follows from the lengths of the chunks before
/// it.
#[derive(Archive, Serialize, Clone, Copy)]
pub(crate) struct ChunkEntry {
    /// Length without the zeros after it.
    pub(crate) bytes: u64,
    /// CRC-32C without the zeros after it.
    pub(crate) crc: u32,
    /// Number of entries; 0 in a blob.
    pub(crate) records: u32,
    /// Length of the first entry's key; 0 in a blob.
    pub(crate) first_key_bytes: u32,
    pub(crate) zero: u32,
}

/// One note, as the index describes it.
#[derive(Archive, Serialize, Clone, Copy)]
pub(crate) struct NoteEntry {
    pub(crate) name_bytes: u32,
    pub(crate) value_bytes: u32,
}

/// A log id, or zeros for none.
#[derive(Archive, Serialize, Clone, Copy, Default)]
pub(crate) struct LogIdEntry {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) leader: [u8; 16],
    pub(crate) leader_bytes: u8,
    /// 1, or 0 for none.
    pub(crate) present: u8,
    pub(crate) zero: [u8; 6],
}

/// The index.
#[derive(Archive, Serialize)]
pub(crate) struct Index {
    /// The first key of each chunk, the membership, then name and value of each note.
    pub(crate) bytes: Vec<u8>,
    pub(crate) chunks: Vec<ChunkEntry>,
    /// Notes by rising name.
    pub(crate) notes: Vec<NoteEntry>,
    /// Number of entries in all chunks.
    pub(crate) entries: u64,
    pub(crate) membership_bytes: u64,
    pub(crate) zero: u64,
    /// Log id of the last entry in the state.
    pub(crate) log_id: LogIdEntry,
    /// Log id of the membership's entry.
    pub(crate) membership: LogIdEntry,
}

impl LogIdEntry {
    pub(crate) fn of(log_id: Option<LogId>) -> Self {
        let Some(LogId { index, term, leader }) = log_id else { return Self::default() };
        let leader_bytes = leader.len();
        Self { index, term, leader: *leader.padded(), leader_bytes, present: 1, zero: [0; 6] }
    }
}

impl ArchivedLogIdEntry {
    /// Decodes a log id; `Err` for bytes that no writer writes.
    pub(crate) fn read(&self) -> Result<Option<LogId>, ()> {
        let tag = self.leader.get(..usize::from(self.leader_bytes)).and_then(LeaderTag::new);
        let leader = tag.ok_or(())?;
        let (index, term) = (self.index.to_native(), self.term.to_native());
        let is_padded = *leader.padded() == self.leader && self.zero == [0; 6];
        match self.present {
            1 if is_padded && index < u64::MAX => Ok(Some(LogId { index, term, leader })),
            0 if is_padded && (index, term, self.leader_bytes) == (0, 0, 0) => Ok(None),
            _ => Err(()),
        }
    }
}

/// Makes the header of a snapshot of this kind.
pub(crate) fn header(kind: SnapshotKind) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    put(&mut out, 0, &MAGIC);
    put(&mut out, 8, &VERSION.to_le_bytes());
    let RkyvSettings { byte_order, pointer_bytes, align_bytes } = RKYV_SETTINGS;
    put(&mut out, 10, &[kind.code(), byte_order, pointer_bytes, align_bytes]);
    let crc = crc32c(&out[..HEADER_CRC_AT]);
    put(&mut out, HEADER_CRC_AT, &crc.to_le_bytes());
    out
}

/// Reason why a header is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderError {
    NotASnapshot,
    Checksum,
    Version(u16),
    Settings(RkyvSettings),
    Kind,
    Reserved,
}

/// Parses a header, and returns the kind.
pub(crate) fn parse_header(bytes: &[u8; HEADER_BYTES]) -> Result<SnapshotKind, HeaderError> {
    if bytes[..8] != MAGIC {
        return Err(HeaderError::NotASnapshot);
    }
    if u32_at(bytes, HEADER_CRC_AT) != crc32c(&bytes[..HEADER_CRC_AT]) {
        return Err(HeaderError::Checksum);
    }
    match u16_at(bytes, 8) {
        VERSION => {}
        version => return Err(HeaderError::Version(version)),
    }
    let [kind, byte_order, pointer_bytes, align_bytes] = [10, 11, 12, 13].map(|at| bytes[at]);
    let settings = RkyvSettings { byte_order, pointer_bytes, align_bytes };
    if settings != RKYV_SETTINGS {
        return Err(HeaderError::Settings(settings));
    }
    if bytes[14..HEADER_CRC_AT].iter().any(|byte| *byte != 0) {
        return Err(HeaderError::Reserved);
    }
    SnapshotKind::of_code(kind).ok_or(HeaderError::Kind)
}

/// Place of the index, and length of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Footer {
    pub(crate) index_offset: u64,
    /// Length of the index, without the zeros after it.
    pub(crate) index_bytes: u64,
    /// Length of the whole file.
    pub(crate) file_bytes: u64,
    pub(crate) index_crc: u32,
}

impl Footer {
    pub(crate) fn to_bytes(self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        put(&mut out, 0, &FOOTER_MAGIC);
        put(&mut out, 8, &self.index_offset.to_le_bytes());
        put(&mut out, 16, &self.index_bytes.to_le_bytes());
        put(&mut out, 24, &self.file_bytes.to_le_bytes());
        put(&mut out, 32, &self.index_crc.to_le_bytes());
        let crc = crc32c(&out[..FOOTER_CRC_AT]);
        put(&mut out, FOOTER_CRC_AT, &crc.to_le_bytes());
        out
    }

    /// Parses a footer; `None` for bytes that are no footer of this version.
    pub(crate) fn parse(bytes: &[u8; FOOTER_BYTES]) -> Option<Self> {
        let is_whole = bytes[..8] == FOOTER_MAGIC
            && u32_at(bytes, FOOTER_CRC_AT) == crc32c(&bytes[..FOOTER_CRC_AT])
            && bytes[36..FOOTER_CRC_AT].iter().all(|byte| *byte == 0);
        is_whole.then(|| Self {
            index_offset: u64_at(bytes, 8),
            index_bytes: u64_at(bytes, 16),
            file_bytes: u64_at(bytes, 24),
            index_crc: u32_at(bytes, 32),
        })
    }
}
