//! The receiving end of a transfer: it takes pieces, and makes a verified snapshot or nothing.

use std::fmt;
use std::ptr;
use std::sync::{Arc, Weak};

use super::file::{create_anew, remove, rename, sync, sync_dir};
use super::reader::Snapshot;
use super::transport::{SnapshotId, SnapshotPiece};
use crate::bytes::to_usize;
use crate::disk::names::{snapshot_name, temporary_name};
use crate::disk::{Disk, DiskFile};
use crate::error::snapshot::SnapshotError;
use crate::sync::Mutex;

/// A receiver writes the pieces of one snapshot to a temporary file, in order. It makes a snapshot
/// of the file when all pieces are there and correct. Dropped before that, it leaves nothing. A
/// process that ends meanwhile leaves a file that the next opening removes, and the transfer starts
/// anew.
///
/// Nothing is allocated or reserved for what has not arrived.
pub struct SnapshotReceiver {
    disk: Arc<dyn Disk>,
    temporary: String,
    /// The temporary file; `None` once it is finished or removed.
    file: Option<Arc<dyn DiskFile>>,
    /// Identity of the snapshot, from the first piece.
    snapshot: Option<SnapshotId>,
    position: u64,
    /// The file as [`verify`](Self::verify) found it; `None` if bytes have arrived since.
    verified: Option<Snapshot>,
    /// The turn to receive: one receiver works on a directory at a time.
    _turn: Arc<()>,
}

impl fmt::Debug for SnapshotReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReceiver")
            .field("snapshot", &self.snapshot)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl SnapshotReceiver {
    /// Makes a receiver into a directory. There is one at a time; `turns` refers to the last one.
    pub(crate) fn new(disk: Arc<dyn Disk>, turns: &Mutex<Weak<()>>) -> Result<Self, SnapshotError> {
        let turn = Arc::new(());
        {
            let mut turns = turns.lock();
            if turns.strong_count() > 0 {
                return Err(SnapshotError::Busy);
            }
            *turns = Arc::downgrade(&turn);
        }
        // The final index is in the last bytes of the file. No snapshot has the index u64::MAX, so
        // no other write uses this name.
        let temporary = temporary_name(&snapshot_name(u64::MAX));
        let file = Some(create_anew(&*disk, &temporary)?);
        Ok(Self { disk, temporary, file, snapshot: None, position: 0, verified: None, _turn: turn })
    }

    /// Takes a piece; bytes that have already arrived are ignored. Returns the next offset.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::DamagedPiece`], [`SnapshotError::Gap`] or
    /// [`SnapshotError::OtherSnapshot`] for a piece that was not taken; later pieces are taken.
    /// Returns [`SnapshotError::Io`] if it could not be written: it may be sent again.
    pub fn receive(&mut self, piece: &SnapshotPiece<'_>) -> Result<u64, SnapshotError> {
        let offset = piece.offset;
        if !piece.is_whole() {
            return Err(SnapshotError::DamagedPiece { offset });
        }
        if self.snapshot.is_some_and(|snapshot| snapshot != piece.snapshot) {
            return Err(SnapshotError::OtherSnapshot);
        }
        if offset > self.position {
            return Err(SnapshotError::Gap { expected: self.position, got: offset });
        }
        let known = to_usize(self.position - offset);
        if let Some(new) = piece.bytes.get(known..) {
            self.take(new)?;
            self.snapshot = Some(piece.snapshot);
        }
        Ok(self.position)
    }

    /// Takes bytes of the file from a transport with its own pieces; installing the snapshot
    /// detects their errors. Bytes that have already arrived are ignored. Returns the next offset.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::Gap`] and [`SnapshotError::Io`], as
    /// [`receive`](SnapshotReceiver::receive) does.
    pub fn receive_bytes(&mut self, offset: u64, bytes: &[u8]) -> Result<u64, SnapshotError> {
        if offset > self.position {
            return Err(SnapshotError::Gap { expected: self.position, got: offset });
        }
        let known = to_usize(self.position - offset);
        // All of these bytes may have arrived before.
        self.take(bytes.get(known..).unwrap_or_default())?;
        Ok(self.position)
    }

    fn take(&mut self, new: &[u8]) -> Result<(), SnapshotError> {
        if new.is_empty() {
            return Ok(());
        }
        if let Some(file) = &self.file {
            self.verified = None;
            file.write_all_at(new, self.position)
                .map_err(|error| SnapshotError::io("writing", &*self.temporary, error))?;
            self.position += new.len() as u64;
        }
        Ok(())
    }

    /// Offset of the next piece.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.position
    }

    /// Whether the receiver writes into this directory.
    pub(crate) fn is_into(&self, disk: &Arc<dyn Disk>) -> bool {
        ptr::addr_eq(Arc::as_ptr(&self.disk), Arc::as_ptr(disk))
    }

    /// Whether every piece has arrived.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.snapshot.is_some_and(|snapshot| snapshot.file_bytes == self.position)
    }

    /// Verifies the whole file: every piece has arrived, and every chunk is as it was written. The
    /// snapshot can be read then, and installing it does not verify it again.
    ///
    /// The call reads all of the file. It makes nothing durable.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::Incomplete`] if not every piece has arrived: later pieces are
    /// taken. After any other error, drop the receiver, and receive from the beginning. A damaged
    /// file is [`SnapshotError::Corrupt`], [`SnapshotError::OtherSnapshot`], or another error of
    /// [`Snapshot::open`]. A file of the state before any entry is [`SnapshotError::Unsupported`].
    pub fn verify(&mut self) -> Result<Snapshot, SnapshotError> {
        if let Some(snapshot) = &self.verified {
            return Ok(snapshot.clone());
        }
        if self.position == 0 || (self.snapshot.is_some() && !self.is_complete()) {
            let file_bytes = self.snapshot.map(|snapshot| snapshot.file_bytes);
            return Err(SnapshotError::Incomplete { received: self.position, file_bytes });
        }
        if self.file.is_none() {
            return Err(SnapshotError::OtherSnapshot);
        }
        let snapshot = Snapshot::open_on(&self.disk, &self.temporary)?;
        if self.snapshot.is_some_and(|id| snapshot.id() != id) {
            return Err(SnapshotError::OtherSnapshot);
        }
        snapshot.verify()?;
        if snapshot.log_id().is_none() {
            let what = "installing the state before any entry";
            return Err(SnapshotError::Unsupported { what });
        }
        self.verified = Some(snapshot.clone());
        Ok(snapshot)
    }

    /// The snapshot, if [`verify`](Self::verify) found it whole and nothing has arrived since.
    #[must_use]
    pub fn verified(&self) -> Option<&Snapshot> {
        self.verified.as_ref()
    }

    /// Verifies the whole file, and makes it a snapshot of the directory once `accept` has agreed.
    /// After an error nothing is left (but see
    /// [`write_snapshot_file`](super::file::write_snapshot_file) on the last sync).
    pub(crate) fn finish(
        mut self,
        accept: impl FnOnce(&Snapshot) -> Result<(), SnapshotError>,
    ) -> Result<Snapshot, SnapshotError> {
        let snapshot = self.verify()?;
        let (Some(file), Some(log_id)) = (&self.file, snapshot.log_id()) else {
            return Err(SnapshotError::OtherSnapshot);
        };
        sync(&**file, &self.temporary)?;
        accept(&snapshot)?;
        rename(&*self.disk, &self.temporary, &snapshot_name(log_id.index))?;
        // The file has its final name, so it must not be removed any more.
        self.file = None;
        sync_dir(&*self.disk)?;
        Ok(snapshot)
    }
}

impl Drop for SnapshotReceiver {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            remove(&*self.disk, &self.temporary);
        }
    }
}
