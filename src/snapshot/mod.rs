//! The state at one exact index, in a file that is read in place.
//!
//! Opening a [`Snapshot`] maps its file and checks header, footer and index; that costs nothing per
//! entry. A chunk (a few MiB of sorted entries) is checked at its first use, and then read without
//! a copy. The file is a function of state and log id alone: two engines fed the same log write the
//! same bytes.
//!
//! The reading order is: `format` (the bytes), `writer` and `file` (writing to disk), `index` and
//! `chunk` (checks). Then come `reader` and `iter` (reads), and `transport` and `receiver`
//! (transfer to another node).

mod chunk;
mod chunk_file;
pub(crate) mod file;
pub(crate) mod format;
mod index;
mod iter;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod probe;
mod reader;
mod receiver;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod reseal;
mod stream;
mod transport;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

pub use self::format::SnapshotKind;
pub use self::iter::{BlobReader, Iter};
pub(crate) use self::reader::ChunkSlice;
pub use self::reader::Snapshot;
pub use self::receiver::SnapshotReceiver;
pub use self::stream::{SnapshotSink, SnapshotSource};
pub use self::transport::{Pieces, SnapshotId, SnapshotPiece};
pub use crate::bytes::RkyvSettings;
