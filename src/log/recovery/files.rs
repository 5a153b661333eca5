//! The files of a directory, and reading segments through one reused buffer.

use std::sync::Arc;

use crate::disk::{Access, Disk, DiskFile};
use crate::error::{Corrupt, OpenError};
use crate::log::format::{
    HARD_FILE, META_FILE, SEGMENT_BYTES_MAX, parse_segment_name, segment_name,
};
use crate::snapshot::format::{is_temporary_name, parse_snapshot_name};

/// How much is read at once, unless a frame is longer.
const READ_BYTES: u64 = 4 << 20;

/// What is in a directory.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Whether META is there.
    pub(crate) meta: bool,
    /// Whether HARD is there.
    pub(crate) hard: bool,
    /// Segment numbers, rising.
    pub(crate) segments: Vec<u64>,
    /// File names of snapshots.
    pub(crate) snapshots: Vec<String>,
    /// File names of snapshots that were never finished.
    pub(crate) unfinished: Vec<String>,
}

/// Lists a directory; a file that is not ours is an error, as it may be somebody's data.
pub(crate) fn list_files(disk: &dyn Disk) -> Result<Files, OpenError> {
    let mut files = Files::default();
    let names = disk.list().map_err(|e| OpenError::io("listing", disk.describe(), e))?;
    for name in names {
        if name == META_FILE {
            files.meta = true;
        } else if name == HARD_FILE {
            files.hard = true;
        } else if let Some(number) = parse_segment_name(&name) {
            files.segments.push(number);
        } else if parse_snapshot_name(&name).is_some() {
            files.snapshots.push(name);
        } else if is_temporary_name(&name) {
            files.unfinished.push(name);
        } else {
            return Err(OpenError::ForeignFile { path: disk.describe(), file: name });
        }
    }
    files.segments.sort_unstable();
    Ok(files)
}

/// A segment file, open for reading.
#[derive(Debug)]
pub(in crate::log) struct Segment {
    pub(in crate::log) number: u64,
    pub(in crate::log) name: String,
    file: Arc<dyn DiskFile>,
    /// Its length when it was opened, at most [`SEGMENT_BYTES_MAX`].
    pub(in crate::log) bytes: u64,
}

impl Segment {
    pub(in crate::log) fn open(disk: &dyn Disk, number: u64) -> Result<Self, OpenError> {
        let name = segment_name(number);
        let file =
            disk.open(&name, Access::Read).map_err(|e| OpenError::io("opening", &*name, e))?;
        let bytes = file.len().map_err(|e| OpenError::io("measuring", &*name, e))?;
        if bytes > SEGMENT_BYTES_MAX {
            let what = "the file is longer than a segment can be";
            return Err(Corrupt { file: name, offset: SEGMENT_BYTES_MAX, index: None, what }.into());
        }
        Ok(Self { number, name, file, bytes })
    }
}

/// Refuses a directory with a file that is too long for a segment.
pub(crate) fn check_lengths(disk: &dyn Disk) -> Result<(), OpenError> {
    for number in list_files(disk)?.segments {
        Segment::open(disk, number)?;
    }
    Ok(())
}

/// The part of a segment that is in memory.
#[derive(Debug, Default)]
pub(in crate::log) struct Window {
    buffer: Vec<u8>,
    segment: Option<u64>,
    start: u64,
    filled: usize,
}

impl Window {
    /// The `len` bytes at `offset`; `None` where the file is too short for them. The buffer never grows past what the
    /// file holds, whatever `len` a damaged file asks for.
    pub(in crate::log) fn read(
        &mut self,
        segment: &Segment,
        offset: u64,
        len: u64,
    ) -> Result<Option<&[u8]>, OpenError> {
        let Some(left) = segment.bytes.checked_sub(offset).filter(|left| len <= *left) else {
            return Ok(None);
        };
        let have = self.start..self.start + self.filled as u64;
        if self.segment != Some(segment.number) || offset < have.start || offset + len > have.end {
            let want = len.max(READ_BYTES).min(left);
            // At most a segment: below 4 GiB.
            let want = usize::try_from(want).unwrap_or(usize::MAX);
            if self.buffer.len() < want {
                self.buffer.resize(want, 0);
            }
            self.segment = None;
            let read = segment.file.read_at(&mut self.buffer[..want], offset);
            self.filled = read.map_err(|e| OpenError::io("reading", &*segment.name, e))?;
            self.start = offset;
            self.segment = Some(segment.number);
        }
        let first = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Ok(self.buffer[..self.filled].get(first..).and_then(|rest| rest.get(..len)))
    }
    #[cfg(test)]
    pub(in crate::log) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}
