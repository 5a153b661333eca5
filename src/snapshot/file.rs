//! Writing a snapshot into a directory: whole under its name, or not there.

use std::io;
use std::sync::Arc;

use super::error::SnapshotError;
use super::format::{CHUNK_BYTES, temporary_name};
use super::reader::Snapshot;
use super::stream::SnapshotSink;
use super::writer::{SnapshotWriter, Summary};
use crate::disk::{Access, Disk, DiskFile};

/// Writes the snapshot that `fill` makes (it calls [`SnapshotWriter::finish`] and returns what that says) to the file
/// `name`, and makes it durable: temporary name, data, sync, rename, sync of the directory. Only then is anything that
/// it replaces deleted.
///
/// On an error nothing is under `name` that was not there before, but for one: when the last step, the sync of the
/// directory, fails, the whole snapshot is there, and may be gone after a power cut. The temporary file is removed, if
/// that works; if not, the next write of the same name or the next opening does it.
pub(crate) fn write_snapshot_file(
    disk: &dyn Disk,
    name: &str,
    fill: impl FnOnce(SnapshotWriter<'_>) -> Result<Summary, SnapshotError>,
) -> Result<Summary, SnapshotError> {
    let temporary = TemporaryFile::create(disk, name)?;
    let mut sink = FileSink::new(&*temporary.file);
    let summary = fill(SnapshotWriter::new(&mut sink));
    let written = sink.position;
    let done = summary.and_then(|summary| {
        if summary.bytes != written {
            let error = io::Error::other("the snapshot was not finished");
            return Err(SnapshotError::io("writing", name, error));
        }
        Ok(summary)
    });
    temporary.settle(done)
}

/// Writes `snapshot`, which was verified, under `name`, as [`write_snapshot_file`] does.
pub(crate) fn copy_snapshot_file(
    disk: &dyn Disk,
    name: &str,
    snapshot: &Snapshot,
) -> Result<(), SnapshotError> {
    let temporary = TemporaryFile::create(disk, name)?;
    let mut sink = FileSink::new(&*temporary.file);
    let mut pieces = snapshot.file_bytes().chunks(CHUNK_BYTES);
    let copied = pieces
        .try_for_each(|piece| sink.write(piece))
        .map_err(|error| SnapshotError::io("writing", name, error));
    temporary.settle(copied)
}

/// A file that becomes `name` once it is whole.
pub(super) struct TemporaryFile<'a> {
    disk: &'a dyn Disk,
    name: &'a str,
    temporary: String,
    pub(super) file: Arc<dyn DiskFile>,
}

impl<'a> TemporaryFile<'a> {
    /// In place of one that was left.
    pub(super) fn create(disk: &'a dyn Disk, name: &'a str) -> Result<Self, SnapshotError> {
        let temporary = temporary_name(name);
        let file = create_anew(disk, &temporary)?;
        Ok(Self { disk, name, temporary, file })
    }

    /// Makes it durable under its name, or removes it if `done` is an error, or if that fails.
    fn settle<T>(self, done: Result<T, SnapshotError>) -> Result<T, SnapshotError> {
        let done = done.and_then(|done| {
            sync(&*self.file, &self.temporary)?;
            rename(self.disk, &self.temporary, self.name)?;
            Ok(done)
        });
        match done {
            Ok(done) => sync_dir(self.disk).map(|()| done),
            Err(error) => {
                remove(self.disk, &self.temporary);
                Err(error)
            }
        }
    }
}

/// Creates a file, in place of one of that name.
pub(super) fn create_anew(disk: &dyn Disk, name: &str) -> Result<Arc<dyn DiskFile>, SnapshotError> {
    let file = match disk.open(name, Access::Create) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(name).map_err(|error| SnapshotError::io("removing", name, error))?;
            disk.open(name, Access::Create)
        }
        opened => opened,
    };
    file.map_err(|error| SnapshotError::io("creating", name, error))
}

pub(super) fn sync(file: &dyn DiskFile, name: &str) -> Result<(), SnapshotError> {
    file.sync_data().map_err(|error| SnapshotError::io("syncing", name, error))
}

pub(super) fn rename(disk: &dyn Disk, from: &str, to: &str) -> Result<(), SnapshotError> {
    disk.rename(from, to).map_err(|error| SnapshotError::io("renaming", from, error))
}

pub(super) fn sync_dir(disk: &dyn Disk) -> Result<(), SnapshotError> {
    disk.sync_dir().map_err(|error| SnapshotError::io("syncing", disk.describe(), error))
}

/// As far as it can be: what stays is recognised by its name.
pub(super) fn remove(disk: &dyn Disk, name: &str) {
    if let Err(error) = disk.remove(name) {
        tracing::warn!(%error, name, "an unfinished snapshot could not be removed");
    }
}

/// A file, front to back.
pub(super) struct FileSink<'a> {
    file: &'a dyn DiskFile,
    pub(super) position: u64,
}

impl<'a> FileSink<'a> {
    pub(super) fn new(file: &'a dyn DiskFile) -> Self {
        Self { file, position: 0 }
    }
}

impl SnapshotSink for FileSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Nothing is reserved: its length is not known before the end, and reserving it by chunks took up to half of the
        // throughput.
        self.file.write_all_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}
