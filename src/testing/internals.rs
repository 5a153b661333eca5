//! Parts of the engine for its own benches and fuzz targets. They may change in any version.

pub use crate::log::recovery::verify::verify;
pub use crate::machine::storage::cache::{CacheLimits, ReadCache};

use crate::contract::machine::StateMachine;
use crate::numbers::SegmentNumber;
use crate::testing::Stepped;

/// The segment that the log writer of `engine` writes to; `None` without a log.
pub fn writer_segment<M: StateMachine>(engine: &Stepped<M>) -> Option<SegmentNumber> {
    engine.manager.engine.pipeline().log_desk().log().map(|log| log.writer_segment())
}

/// Numbers in bytes.
pub mod bytes {
    pub use crate::bytes::{put, u16_at, u32_at, u64_at};
}

/// Numbers that are of one kind.
pub mod numbers {
    pub use crate::numbers::{FrameSequence, SegmentNumber};
}

/// Encoded entries.
pub mod codec {
    use crate::codec::Place;
    use crate::codec::place::Location;

    pub use crate::codec::place::Encoded;
    pub use crate::codec::{
        CommandRef, DecodeError, FRAME_BYTES_MAX, HEADER_BYTES, Limits, PayloadRef, ValueRef,
        decode, decode_deep, encode, encoded_len,
    };

    /// The place of a value that was decoded: the number of its segment, its offset and its length.
    pub fn location_of(value: &ValueRef<'_>) -> (u32, u32, usize) {
        let at = Location::from(value.place);
        (at.number(), at.offset(), at.len())
    }

    /// The number that stands for no segment.
    pub const NO_SEGMENT: u32 = Place::NOWHERE.segment().get();
}

/// Names of files.
pub mod names {
    pub use crate::disk::names::{
        HARD_FILE, META_FILE, parse_segment_name, segment_name, snapshot_name,
    };
}

/// Frames.
pub mod format {
    pub use crate::log::format::{
        DatabaseId, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameKind, HeaderError,
        OpeningHalf, chain_of,
    };
}

/// The record of a directory.
pub mod meta {
    pub use crate::log::meta::{HardRecord, LogBase, Meta, MetaFile};
}

/// The vote.
pub mod hard {
    pub use crate::log::hard::{HARD_BYTES_MAX, HardFile};
}

/// The two slots of a file.
pub mod two_slot {
    pub use crate::log::two_slot::{PAYLOAD_AT, SECTOR_BYTES};
}

/// The scan of a log at opening.
pub mod scan {
    use crate::disk::Disk;
    use crate::error::OpenError;
    use crate::log::meta::Meta;
    use crate::log::recovery::scan::{GoodFrame, ScanOptions};

    pub use crate::log::recovery::scan::ScanResult;

    /// Scans a log. With `was_closed`, any damage is refused that an opening refuses after a clean
    /// close.
    ///
    /// # Errors
    ///
    /// Returns the errors of opening, and those of `visit`.
    pub fn scan(
        disk: &dyn Disk,
        meta: &Meta,
        was_closed: bool,
        visit: &mut dyn FnMut(&GoodFrame<'_>) -> Result<(), OpenError>,
    ) -> Result<ScanResult, OpenError> {
        let options = ScanOptions { was_closed, ..ScanOptions::default() };
        crate::log::recovery::scan::scan(disk, meta, options, visit)
    }
}

/// Snapshots, without an engine around them.
pub mod snapshots {
    use std::ops::Deref;
    use std::sync::{Arc, Weak};

    pub use crate::snapshot::reseal::reseal;
    pub use crate::snapshot::writer::{SnapshotMeta, SnapshotWriter};

    use crate::disk::{Disk, Mapping};
    use crate::error::SnapshotError;
    use crate::snapshot::{Snapshot, SnapshotReceiver};
    use crate::sync::{Mutex, Rank};

    /// Reads the header and the index of a file.
    ///
    /// # Errors
    ///
    /// Returns the errors of opening a snapshot.
    pub fn of_bytes(file: &[u8]) -> Result<Snapshot, SnapshotError> {
        Snapshot::of_mapping(Mapping::Copied(file.into()), "a snapshot".to_owned(), None)
    }

    /// Number of chunks.
    #[must_use]
    pub fn chunk_count(snapshot: &Snapshot) -> usize {
        snapshot.chunk_count()
    }

    /// The checked bytes of a chunk.
    ///
    /// # Errors
    ///
    /// Returns an error for a damaged chunk.
    pub fn chunk_slice(
        snapshot: &Snapshot,
        chunk: usize,
    ) -> Result<impl Deref<Target = [u8]> + use<>, SnapshotError> {
        snapshot.chunk_slice(chunk)
    }

    /// A key, and offset and length of its value in its chunk.
    pub type Record<'s> = (&'s [u8], u32, u32);

    /// The keys of a chunk, each with offset and length of its value in the chunk.
    ///
    /// # Errors
    ///
    /// Returns an error for a damaged chunk.
    pub fn chunk_records(
        snapshot: &Snapshot,
        chunk: usize,
    ) -> Result<impl Iterator<Item = Result<Record<'_>, SnapshotError>>, SnapshotError> {
        snapshot.chunk_records(chunk)
    }

    /// The chunk of a key, with offset and length of its value in the chunk.
    ///
    /// # Errors
    ///
    /// Returns an error for a damaged chunk.
    pub fn locate(
        snapshot: &Snapshot,
        key: &[u8],
    ) -> Result<Option<(usize, u32, u32)>, SnapshotError> {
        snapshot.locate(key)
    }

    /// Makes a receiver into a directory.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be made.
    pub fn receiver(disk: Arc<dyn Disk>) -> Result<SnapshotReceiver, SnapshotError> {
        SnapshotReceiver::new(disk, &Mutex::new(Rank::SnapshotReceiver, Weak::new()))
    }

    /// Ends a transfer, and takes any snapshot that is whole.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`SnapshotReceiver`].
    pub fn finish(receiver: SnapshotReceiver) -> Result<Snapshot, SnapshotError> {
        receiver.finish(|_| Ok(()))
    }
}
