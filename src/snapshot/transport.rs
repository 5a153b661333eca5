//! A snapshot as a stream of checksummed pieces, for any transport to another node.

use std::fmt;
use std::iter::FusedIterator;

use crc32c::{crc32c, crc32c_append};

use super::format::FOOTER_BYTES;
use super::reader::Snapshot;
use crate::bytes::to_usize;
use crate::bytes::u32_at;

/// Identity of a snapshot. Snapshots with equal ids have equal bytes, whichever node wrote them, so
/// another sender may continue a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotId {
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// The checksum in its footer, which covers that of the index, which covers those of all
    /// chunks.
    pub footer_crc: u32,
}

/// One piece of a snapshot file in transfer.
///
/// The transport sends these fields, and the receiving end builds the piece from them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPiece<'a> {
    /// Identity of its snapshot.
    pub snapshot: SnapshotId,
    /// Offset in the file.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
    /// CRC-32C over offset, snapshot and bytes.
    pub crc: u32,
    /// Whether the file ends with this piece.
    pub last: bool,
}

impl SnapshotPiece<'_> {
    /// Whether the checksum fits, and the piece lies in the file.
    pub(super) fn is_whole(&self) -> bool {
        let end = self.offset.checked_add(self.bytes.len() as u64);
        let crc = piece_crc(self.snapshot, self.offset, self.bytes);
        let fits = end.is_some_and(|end| end <= self.snapshot.file_bytes);
        self.crc == crc && fits && self.last == (end == Some(self.snapshot.file_bytes))
    }
}

impl fmt::Debug for SnapshotPiece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotPiece")
            .field("snapshot", &self.snapshot)
            .field("offset", &self.offset)
            .field("bytes", &self.bytes.len())
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

fn piece_crc(snapshot: SnapshotId, offset: u64, bytes: &[u8]) -> u32 {
    let crc = crc32c(&offset.to_le_bytes());
    let crc = crc32c_append(crc, &snapshot.file_bytes.to_le_bytes());
    let crc = crc32c_append(crc, &snapshot.footer_crc.to_le_bytes());
    crc32c_append(crc, bytes)
}

/// Iterator over the pieces of a snapshot; [`Snapshot::pieces`] makes it.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    snapshot: &'a Snapshot,
    offset: usize,
    piece_bytes_max: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = SnapshotPiece<'a>;

    fn next(&mut self) -> Option<SnapshotPiece<'a>> {
        let file = self.snapshot.file_bytes();
        let rest = file.get(self.offset..).filter(|rest| !rest.is_empty())?;
        let bytes = &rest[..rest.len().min(self.piece_bytes_max)];
        let (snapshot, offset) = (self.snapshot.id(), self.offset as u64);
        self.offset += bytes.len();
        let (crc, last) = (piece_crc(snapshot, offset, bytes), bytes.len() == rest.len());
        Some(SnapshotPiece { snapshot, offset, bytes, crc, last })
    }
}

impl FusedIterator for Pieces<'_> {}

/// Transfer calls.
impl Snapshot {
    /// Identity of the snapshot.
    #[must_use]
    pub fn id(&self) -> SnapshotId {
        let file = self.file_bytes();
        // The footer existed when the snapshot was opened.
        let footer_crc = file.last_chunk::<FOOTER_BYTES>().map_or(0, |footer| u32_at(footer, 60));
        SnapshotId { file_bytes: file.len() as u64, footer_crc }
    }

    /// The file from `offset` on, in pieces of at most `piece_bytes_max` bytes (at least 1). To
    /// continue a transfer, pass the offset that the receiver asks for. The bytes are those of the
    /// file, without another check: the receiver checks everything, and so does
    /// [`Snapshot::verify`].
    #[must_use]
    pub fn pieces(&self, offset: u64, piece_bytes_max: usize) -> Pieces<'_> {
        let offset = to_usize(offset);
        Pieces { snapshot: self, offset, piece_bytes_max: piece_bytes_max.max(1) }
    }
}
