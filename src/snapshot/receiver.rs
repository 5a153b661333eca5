//! The receiving end of a transfer: pieces in, a verified snapshot out, or nothing.

use std::fmt;
use std::ptr;
use std::sync::{Arc, Weak};

use super::file::{create_anew, remove, rename, sync, sync_dir};
use super::reader::Snapshot;
use super::transport::{SnapshotId, SnapshotPiece};
use crate::disk::names::{snapshot_name, temporary_name};
use crate::disk::{Disk, DiskFile};
use crate::error::snapshot::SnapshotError;
use crate::sync::Mutex;

/// Writes the pieces of one snapshot to a temporary file, in order, and makes a snapshot of it when all are there and
/// everything in them is right. Dropped before that it leaves nothing; a process that ends meanwhile leaves a file that
/// the next opening removes, and the transfer starts anew.
///
/// Nothing is allocated or reserved for what has not arrived.
pub struct SnapshotReceiver {
    disk: Arc<dyn Disk>,
    temporary: String,
    /// `None` once it is settled.
    file: Option<Arc<dyn DiskFile>>,
    /// Of the first piece.
    snapshot: Option<SnapshotId>,
    position: u64,
    /// Held while it lives: one receives into a directory at a time.
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
    /// Receives into a directory; one at a time, of which `turns` knows the last.
    pub(crate) fn new(disk: Arc<dyn Disk>, turns: &Mutex<Weak<()>>) -> Result<Self, SnapshotError> {
        let turn = Arc::new(());
        {
            let mut turns = turns.lock();
            if turns.strong_count() > 0 {
                return Err(SnapshotError::Busy);
            }
            *turns = Arc::downgrade(&turn);
        }
        // Its index is in the last bytes. No snapshot is of the index u64::MAX, so none is being written to this name.
        let temporary = temporary_name(&snapshot_name(u64::MAX));
        let file = Some(create_anew(&*disk, &temporary)?);
        Ok(Self { disk, temporary, file, snapshot: None, position: 0, _turn: turn })
    }

    /// Takes a piece; what it has already is ignored. Returns the offset that is next.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::DamagedPiece`], [`SnapshotError::Gap`] or [`SnapshotError::OtherSnapshot`] for a piece that was
    /// not taken, after which others are; [`SnapshotError::Io`] if it could not be written: it may be sent again.
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
        let known = usize::try_from(self.position - offset).unwrap_or(usize::MAX);
        if let Some(new) = piece.bytes.get(known..) {
            self.take(new)?;
            self.snapshot = Some(piece.snapshot);
        }
        Ok(self.position)
    }

    /// Takes bytes of the file, from a transport that has pieces of its own: what is wrong with them is found when it is
    /// installed. What it has already is ignored. Returns the offset that is next.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Gap`] and [`SnapshotError::Io`], as [`receive`](SnapshotReceiver::receive).
    pub fn receive_bytes(&mut self, offset: u64, bytes: &[u8]) -> Result<u64, SnapshotError> {
        if offset > self.position {
            return Err(SnapshotError::Gap { expected: self.position, got: offset });
        }
        let known = usize::try_from(self.position - offset).unwrap_or(usize::MAX);
        self.take(bytes.get(known..).unwrap_or_default())?;
        Ok(self.position)
    }

    fn take(&mut self, new: &[u8]) -> Result<(), SnapshotError> {
        if let Some(file) = &self.file {
            file.write_all_at(new, self.position)
                .map_err(|error| SnapshotError::io("writing", &*self.temporary, error))?;
            self.position += new.len() as u64;
        }
        Ok(())
    }

    /// The offset of the piece that is next.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.position
    }

    /// Whether it receives into this directory.
    pub(crate) fn is_into(&self, disk: &Arc<dyn Disk>) -> bool {
        ptr::addr_eq(Arc::as_ptr(&self.disk), Arc::as_ptr(disk))
    }

    /// Whether every piece has arrived.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.snapshot.is_some_and(|snapshot| snapshot.file_bytes == self.position)
    }

    /// Checks all of it, and makes it a snapshot of the directory once `accept` has agreed. On an error nothing is left
    /// (but see [`write_snapshot_file`](super::file::write_snapshot_file) on the last sync).
    pub(crate) fn finish(
        mut self,
        accept: impl FnOnce(&Snapshot) -> Result<(), SnapshotError>,
    ) -> Result<Snapshot, SnapshotError> {
        if self.position == 0 || (self.snapshot.is_some() && !self.is_complete()) {
            let file_bytes = self.snapshot.map(|snapshot| snapshot.file_bytes);
            return Err(SnapshotError::Incomplete { received: self.position, file_bytes });
        }
        let Some(file) = &self.file else { return Err(SnapshotError::OtherSnapshot) };
        sync(&**file, &self.temporary)?;
        let snapshot = Snapshot::open_on(&self.disk, &self.temporary)?;
        if self.snapshot.is_some_and(|id| snapshot.id() != id) {
            return Err(SnapshotError::OtherSnapshot);
        }
        snapshot.verify()?;
        let Some(log_id) = snapshot.log_id() else {
            let what = "installing the state before any entry";
            return Err(SnapshotError::Unsupported { what });
        };
        accept(&snapshot)?;
        rename(&*self.disk, &self.temporary, &snapshot_name(log_id.index))?;
        // Renamed: nothing is to be removed any more.
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
