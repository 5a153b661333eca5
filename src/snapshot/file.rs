//! Writing a snapshot into a directory: the file is whole under its name, or not there.

use std::io;
use std::sync::Arc;

use super::chunk_file;
use super::reader::Snapshot;
use super::stream::SnapshotSink;
use super::writer::{SnapshotWriter, Summary};
use crate::config::SNAPSHOT_CHUNK_BYTES;
use crate::disk::names::temporary_name;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::snapshot::SnapshotError;
use crate::sync::tell_under_locks;
use crate::threads;

/// Writes the snapshot that `fill` makes to the file `name`, and makes it durable. `fill` calls
/// [`SnapshotWriter::finish`] and returns its result. The steps are: temporary name, data, sync,
/// rename, sync of the directory. A replaced file is deleted only after that.
///
/// After an error, `name` has what it had before, with one exception. If the last step fails, the
/// sync of the directory, the whole snapshot is there, and may be gone after a power cut. The
/// temporary file is removed, if possible; otherwise the next write of the same name or the next
/// opening removes it.
///
/// With `beside`, a second thread writes to the file while `fill` continues.
pub(crate) fn write_snapshot_file(
    disk: &dyn Disk,
    name: &str,
    beside: bool,
    fill: impl FnOnce(SnapshotWriter<'_>) -> Result<Summary, SnapshotError>,
) -> Result<Summary, SnapshotError> {
    let temporary = TemporaryFile::create(disk, name)?;
    let filled = if beside {
        fill_beside(&*temporary.file, fill)
    } else {
        fill(SnapshotWriter::new(&mut FileSink::new(&*temporary.file)))
    };
    let done = filled.and_then(|summary| {
        let written = temporary.file.len();
        if written.map_err(|error| SnapshotError::io("measuring", name, error))? != summary.bytes {
            let error = io::Error::other("the snapshot was not finished");
            return Err(SnapshotError::io("writing", name, error));
        }
        Ok(summary)
    });
    temporary.settle(done)
}

fn fill_beside(
    file: &dyn DiskFile,
    fill: impl FnOnce(SnapshotWriter<'_>) -> Result<Summary, SnapshotError>,
) -> Result<Summary, SnapshotError> {
    let mut sink = FileSink { begun: Some(0), ..FileSink::new(file) };
    let (lane, thread) = chunk_file::beside(&mut sink);
    // When `fill` ends, it drops its end of the channel, and so the thread ends too.
    let filled =
        threads::beside("sprag-snapshot", || thread.run(), || fill(SnapshotWriter::by(lane)));
    let failed = |error| SnapshotError::io("starting a thread to write", "a snapshot", error);
    filled.map_err(failed)?
}

/// Writes a verified `snapshot` under `name`, as [`write_snapshot_file`] does.
pub(crate) fn copy_snapshot_file(
    disk: &dyn Disk,
    name: &str,
    snapshot: &Snapshot,
) -> Result<(), SnapshotError> {
    let temporary = TemporaryFile::create(disk, name)?;
    let mut sink = FileSink::new(&*temporary.file);
    let mut pieces = snapshot.file_bytes().chunks(SNAPSHOT_CHUNK_BYTES);
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
    /// Makes the file, in place of one that was left.
    pub(super) fn create(disk: &'a dyn Disk, name: &'a str) -> Result<Self, SnapshotError> {
        let temporary = temporary_name(name);
        let file = create_anew(disk, &temporary)?;
        Ok(Self { disk, name, temporary, file })
    }

    /// Makes the file durable under its name. Removes it if `done` is an error, or if that fails.
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

/// Removes a file if possible; a remaining one is recognised by its name.
pub(super) fn remove(disk: &dyn Disk, name: &str) {
    if let Err(error) = disk.remove(name) {
        tell_under_locks(|| {
            tracing::warn!(%error, name, "an unfinished snapshot could not be removed");
        });
    }
}

/// Number of bytes after which the kernel is asked to begin writing them to the disk.
const WRITE_BEHIND_BYTES: u64 = 8 << 20;

/// A file, front to back.
pub(super) struct FileSink<'a> {
    file: &'a dyn DiskFile,
    pub(super) position: u64,
    /// Offset up to which the kernel was asked to begin writing to the disk, which costs some time;
    /// `None`: it is not asked.
    begun: Option<u64>,
}

impl<'a> FileSink<'a> {
    pub(super) fn new(file: &'a dyn DiskFile) -> Self {
        Self { file, position: 0, begun: None }
    }
}

impl SnapshotSink for FileSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Nothing is reserved: the length is not known before the end, and reserving by chunks took
        // up to half of the throughput.
        self.file.write_all_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        if let Some(begun) = self.begun.filter(|begun| self.position - begun >= WRITE_BEHIND_BYTES)
        {
            // The call is a hint: where the system ignores it, the sync has more to write.
            let _refused = self.file.write_behind(begun, self.position - begun);
            self.begun = Some(self.position);
        }
        Ok(())
    }
}
