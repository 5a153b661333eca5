//! A sealed segment that is read by `pread`, because the kernel gives no mapping for it.
//!
//! A process may have a limited number of mappings and a limited address space, while a log may
//! have any number of segments. A read opens the file by its name, so that many such segments need
//! few descriptors; the most recently sealed ones stay open. Before a file loses its name, it is
//! opened for its remaining readers, and stays open from then on.

use std::io;
use std::sync::Arc;

use crate::disk::names::segment_name;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::{Corrupt, LogError, Poison, ReadError, SubmitError};
use crate::numbers::SegmentNumber;
use crate::sync::{Mutex, Rank};

/// A segment's file, reached by its name or by a descriptor.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    disk: Arc<dyn Disk>,
    segment: SegmentNumber,
    bytes: usize,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: Option<Arc<dyn DiskFile>>,
    /// Whether the file has lost, or is about to lose, its name, so that only the descriptor
    /// reaches it.
    for_good: bool,
}

impl SegmentFile {
    /// The first `bytes` bytes of segment `segment`. The file stays open until
    /// [`SegmentFile::close`].
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        segment: SegmentNumber,
        bytes: usize,
        file: Option<Arc<dyn DiskFile>>,
    ) -> Self {
        Self {
            disk,
            segment,
            bytes,
            open: Mutex::new(Rank::SegmentFile, Open { file, for_good: false }),
        }
    }

    fn name(&self) -> String {
        segment_name(self.segment)
    }

    fn opened(&self) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = &self.open.lock().file {
            return Ok(Arc::clone(file));
        }
        match self.disk.open(&self.name(), Access::Read) {
            // The file lost its name since the check above, and was opened before that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.open.lock().file.as_ref().map(Arc::clone).ok_or(error)
            }
            opened => opened,
        }
    }

    /// Reads exactly `len` bytes at `start`.
    #[cold]
    pub(crate) fn read(&self, start: usize, len: usize) -> Result<Vec<u8>, NotRead> {
        let failed =
            |source: io::Error| NotRead::Io { file: self.name(), source: Arc::new(source) };
        if start.checked_add(len).is_none_or(|end| end > self.bytes) {
            return Err(NotRead::Gone);
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|error| failed(io::Error::other(error)))?;
        bytes.resize(len, 0);
        let read = self.opened().and_then(|file| file.read_at(&mut bytes, start as u64));
        match read.map_err(failed)? {
            read if read == len => Ok(bytes),
            _ => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Opens the file for good, because it is about to lose its name. An error changes nothing.
    pub(crate) fn keep_open(&self) -> io::Result<()> {
        let file = self.opened()?;
        let mut open = self.open.lock();
        open.file.get_or_insert(file);
        open.for_good = true;
        Ok(())
    }

    /// Closes the descriptor, if the file still has its name; reads use the name from now on.
    pub(crate) fn close(&self) {
        let mut open = self.open.lock();
        // A segment that was given up before it was sealed lost its name while it was an image.
        if !open.for_good && self.disk.open(&self.name(), Access::Read).is_ok() {
            open.file = None;
        }
    }
}

/// Whether an error of mapping a file comes from the kernel's limits, and not from the file.
pub(crate) fn is_no_mapping(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let refusals = [Errno::NOMEM, Errno::AGAIN, Errno::NFILE, Errno::NODEV];
    refusals.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        || error.kind() == io::ErrorKind::OutOfMemory
}

/// Reason why bytes of the log were not read.
#[derive(Debug)]
pub(crate) enum NotRead {
    /// The bytes are gone.
    Gone,
    /// The bytes are damaged.
    Corrupt(Corrupt),
    /// The operating system failed.
    Io { file: String, source: Arc<io::Error> },
}

impl NotRead {
    /// Converts the error into poison; `gone` is the message for missing bytes.
    pub(crate) fn poison(self, gone: &'static str) -> Poison {
        match self {
            Self::Io { file, source } => Poison::Io { action: "reading", file, source },
            Self::Gone | Self::Corrupt(_) => Poison::Internal(gone),
        }
    }

    /// Converts missing bytes into damage at `place`.
    pub(crate) fn or_corrupt(self, place: impl FnOnce() -> Corrupt) -> Self {
        match self {
            Self::Gone => Self::Corrupt(place()),
            other => other,
        }
    }

    /// Converts the error into a failed read of the state; `gone` is the error for missing bytes.
    pub(crate) fn read_error(self, gone: ReadError) -> ReadError {
        match self {
            Self::Io { file, source } => ReadError::Io { file, source },
            Self::Gone | Self::Corrupt(_) => gone,
        }
    }
}

impl From<Corrupt> for NotRead {
    fn from(place: Corrupt) -> Self {
        Self::Corrupt(place)
    }
}

impl From<NotRead> for LogError {
    fn from(error: NotRead) -> Self {
        match error {
            NotRead::Corrupt(place) => Self::Corrupt(place),
            NotRead::Io { file, source } => Self::Io { file, source: shared(&source) },
            NotRead::Gone => Self::Poisoned(Poison::Internal("bytes of the log are gone")),
        }
    }
}

impl From<NotRead> for SubmitError {
    fn from(error: NotRead) -> Self {
        match error {
            NotRead::Corrupt(place) => Self::Corrupt(place),
            NotRead::Io { file, source } => Self::Io { file, source },
            NotRead::Gone => Self::Poisoned(Poison::Internal("bytes of the log are gone")),
        }
    }
}

/// A copy of an I/O error, with the same kind and text.
fn shared(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::log::test_disk::MemoryDisk;

    fn segment(number: u32) -> (Arc<dyn Disk>, SegmentFile) {
        let number = SegmentNumber::new(number);
        let disk = MemoryDisk::default();
        disk.set(&segment_name(number), vec![7; 64]);
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let file = disk.open(&segment_name(number), Access::Read).unwrap();
        (Arc::clone(&disk), SegmentFile::new(disk, number, 64, Some(file)))
    }

    #[test]
    fn a_segment_that_lost_its_name_is_read_to_the_end_however_many_are_sealed_after_it() {
        let name = segment_name(SegmentNumber::new(3));
        let (disk, file) = segment(3);
        file.keep_open().unwrap();
        // `close` is called once many later segments exist, before or after the name is removed.
        file.close();
        disk.remove(&name).unwrap();
        assert_eq!(file.read(8, 4).unwrap(), [7; 4]);
        file.close();
        assert_eq!(file.read(8, 4).unwrap(), [7; 4]);
        // This file lost its name while the segment was in memory.
        let (disk, file) = segment(3);
        disk.remove(&name).unwrap();
        file.close();
        assert_eq!(file.read(8, 4).unwrap(), [7; 4]);
    }

    #[test]
    fn a_closed_segment_is_read_by_its_name_and_kept_open_before_that_goes() {
        let (disk, file) = segment(3);
        file.close();
        assert!(file.open.lock().file.is_none());
        assert_eq!(file.read(0, 64).unwrap(), [7; 64]);
        file.keep_open().unwrap();
        disk.remove(&segment_name(SegmentNumber::new(3))).unwrap();
        assert_eq!(file.read(0, 64).unwrap(), [7; 64]);
    }
}
