//! The files of a directory, and reads of segments through one reused buffer.

use std::io;
use std::sync::Arc;

use crate::bytes::to_usize;
use crate::disk::names::{Name, claimed_by, segment_name};
use crate::disk::{Access, Disk, DiskFile, Listed};
use crate::error::{Corrupt, OpenError};
use crate::log::format::{DatabaseId, FRAME_HEADER_BYTES, FrameHeader, SEGMENT_BYTES_MAX};
use crate::numbers::SegmentNumber;
use crate::snapshot::format::MAGIC as SNAPSHOT_MAGIC;
use crate::sync::tell;

/// Bytes of a read after the first ones, unless a frame is longer.
const READ_BYTES: u64 = 4 << 20;
/// Bytes of the first read: a short log is no reason to read a long file.
const READ_BYTES_FIRST: u64 = 64 << 10;

/// The files of a directory.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Whether META exists.
    pub(crate) meta: bool,
    /// Whether HARD exists.
    pub(crate) hard: bool,
    /// Segment numbers, rising.
    pub(crate) segments: Vec<SegmentNumber>,
    /// File names of snapshots.
    pub(crate) snapshots: Vec<String>,
    /// File names of unfinished snapshots.
    pub(crate) unfinished: Vec<String>,
    /// Files that are not the engine's.
    pub(crate) foreign: ForeignFiles,
}

/// Files of a directory that are not the engine's. The engine ignores them, and changes none.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForeignFiles {
    /// Number of such files.
    pub count: u64,
    /// The first of their names, sorted; at most 16.
    pub names: Vec<String>,
    /// Names of the engine's own files that belong to something else: a directory, a link, another
    /// program's file. Reading works without them. Opening for writing is refused until they are
    /// moved away ([`OpenError::NameTaken`]).
    pub taken: Vec<String>,
}

/// The most names that a report keeps.
const FOREIGN_NAMES_MAX: usize = 16;

impl ForeignFiles {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.taken.is_empty()
    }

    fn settle(&mut self) {
        self.names.sort_unstable();
        self.names.truncate(FOREIGN_NAMES_MAX);
        self.taken.sort_unstable();
    }
}

impl Files {
    /// Refuses to write where something else has a name that the engine gives.
    pub(crate) fn refuse_taken(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        match self.foreign.taken.first() {
            Some(file) => Err(OpenError::NameTaken { path: disk.describe(), file: file.clone() }),
            None => Ok(()),
        }
    }

    /// Logs that there are foreign files, once for each opening.
    pub(crate) fn warn(&self, disk: &dyn Disk) {
        let ForeignFiles { count, names, taken } = &self.foreign;
        if !self.foreign.is_empty() {
            let directory = disk.describe();
            tell(|| tracing::warn!(directory, count, ?names, ?taken, "files that are not sprag's"));
        }
    }
}

/// Lists a directory. Files that are not the engine's are ignored, and reported.
pub(crate) fn list_files(disk: &dyn Disk) -> Result<Files, OpenError> {
    let mut files = Files::default();
    for Listed { name, is_file } in list(disk)? {
        match (Name::of(&name), is_file) {
            (Name::Meta, true) => files.meta = true,
            (Name::Hard, true) => files.hard = true,
            (Name::Segment(number), true) => files.segments.push(number),
            (Name::Snapshot, true) => files.snapshots.push(name),
            (Name::Unfinished, true) => files.unfinished.push(name),
            (Name::Lock, true) => {}
            (Name::Foreign, _) => {
                files.foreign.count += 1;
                files.foreign.names.push(name);
            }
            (_, false) => files.foreign.taken.push(name),
        }
    }
    files.segments.sort_unstable();
    files.foreign.settle();
    Ok(files)
}

/// The files that [`list_files`] ignores.
pub(in crate::log) fn foreign_files(disk: &dyn Disk) -> Result<Vec<Listed>, OpenError> {
    let mut listed = list(disk)?;
    listed.retain(|listed| !listed.is_file || Name::of(&listed.name) == Name::Foreign);
    Ok(listed)
}

fn list(disk: &dyn Disk) -> Result<Vec<Listed>, OpenError> {
    disk.list_kinds().map_err(|e| OpenError::io("listing", disk.describe(), e))
}

/// Refuses a directory without a log that another program uses: it is no data directory.
pub(crate) fn refuse_claimed(disk: &dyn Disk) -> Result<(), OpenError> {
    let listed = list(disk)?;
    match claimed_by(listed.iter().map(|listed| &*listed.name)) {
        Some(file) => Err(OpenError::ForeignFile { path: disk.describe(), file: file.to_owned() }),
        None => Ok(()),
    }
}

/// Refuses to remove or overwrite a foreign file that has the name of a segment or of an unfinished
/// snapshot. A file of the engine begins with zeros, a frame's header or a snapshot's mark, and a
/// segment is some pages long.
pub(crate) fn refuse_unowned(
    disk: &dyn Disk,
    database_id: &DatabaseId,
    segments: impl Iterator<Item = SegmentNumber>,
) -> Result<(), OpenError> {
    let of_segment = |file: &dyn DiskFile| is_no_segment(file, database_id);
    for number in segments {
        refuse_if(disk, segment_name(number), &of_segment)?;
    }
    for name in list_files(disk)?.unfinished {
        refuse_if(disk, name, &is_no_snapshot)?;
    }
    Ok(())
}

fn refuse_if(
    disk: &dyn Disk,
    name: String,
    is_unowned: &dyn Fn(&dyn DiskFile) -> io::Result<bool>,
) -> Result<(), OpenError> {
    let file = match disk.open(&name, Access::Read) {
        // The file has another name elsewhere, under which it stays.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
        opened => opened.map_err(|e| OpenError::io("opening", &*name, e))?,
    };
    if is_unowned(&*file).map_err(|e| OpenError::io("reading", &*name, e))? {
        return Err(OpenError::NameTaken { path: disk.describe(), file: name });
    }
    Ok(())
}

/// Divisor of every segment's length.
const PAGE_BYTES: u64 = 4096;

/// Whether a file with the name of a segment was not written by the engine.
pub(in crate::log) fn is_no_segment(
    file: &dyn DiskFile,
    database_id: &DatabaseId,
) -> io::Result<bool> {
    if file.len()?.is_multiple_of(PAGE_BYTES) {
        return Ok(false);
    }
    let first = beginning::<FRAME_HEADER_BYTES>(file)?;
    let is_blank = first.iter().all(|byte| *byte == 0);
    Ok(!is_blank && FrameHeader::parse(&first, database_id).is_err())
}

/// Whether a file with the name of a snapshot was not written by the engine.
pub(in crate::log) fn is_no_snapshot(file: &dyn DiskFile) -> io::Result<bool> {
    let first = beginning::<{ SNAPSHOT_MAGIC.len() }>(file)?;
    Ok(first != SNAPSHOT_MAGIC && first.iter().any(|byte| *byte != 0))
}

/// The first bytes of a file; missing bytes are zeros.
fn beginning<const N: usize>(file: &dyn DiskFile) -> io::Result<[u8; N]> {
    let mut first = [0; N];
    file.read_at(&mut first, 0)?;
    Ok(first)
}

/// A segment file, open for reading.
#[derive(Debug)]
pub(in crate::log) struct Segment {
    pub(in crate::log) number: SegmentNumber,
    pub(in crate::log) name: String,
    file: Arc<dyn DiskFile>,
    /// Length of the file at opening, at most [`SEGMENT_BYTES_MAX`].
    pub(in crate::log) bytes: u64,
}

impl Segment {
    pub(in crate::log) fn open(disk: &dyn Disk, number: SegmentNumber) -> Result<Self, OpenError> {
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

    /// The bytes of its first header; `None` if the file is too short for one. Reads no more than
    /// these bytes.
    pub(in crate::log) fn first_header(
        &self,
    ) -> Result<Option<[u8; FRAME_HEADER_BYTES]>, OpenError> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let read = self.file.read_at(&mut bytes, 0);
        let read = read.map_err(|e| OpenError::io("reading", &*self.name, e))?;
        Ok((read == bytes.len()).then_some(bytes))
    }
}

/// The header at the start of a segment, if it is good and in its place.
pub(crate) fn first_frame(
    disk: &dyn Disk,
    database_id: &DatabaseId,
    number: SegmentNumber,
) -> Result<Option<FrameHeader>, OpenError> {
    let bytes = Segment::open(disk, number)?.first_header()?;
    let header = bytes.and_then(|bytes| FrameHeader::parse(&bytes, database_id).ok());
    Ok(header.filter(|header| (header.segment, header.offset) == (number, 0)))
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
    segment: Option<SegmentNumber>,
    start: u64,
    filled: usize,
    /// Number of bytes that the last read asked for. A read that continues from there asks for
    /// twice as many.
    asked: u64,
}

impl Window {
    /// The `len` bytes at `offset`; `None` where the file is too short. The buffer never grows past
    /// the length of the file, whatever `len` a damaged file asks for.
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
            let goes_on =
                self.segment == Some(segment.number) && (have.start..=have.end).contains(&offset);
            self.asked = if goes_on { (2 * self.asked).min(READ_BYTES) } else { READ_BYTES_FIRST };
            let want = len.max(self.asked).min(left);
            // The length is at most a segment's, which is below 4 GiB.
            let want = to_usize(want);
            if self.buffer.len() < want {
                self.buffer.resize(want, 0);
            }
            self.segment = None;
            let read = segment.file.read_at(&mut self.buffer[..want], offset);
            self.filled = read.map_err(|e| OpenError::io("reading", &*segment.name, e))?;
            self.start = offset;
            self.segment = Some(segment.number);
        }
        let first = to_usize(offset - self.start);
        let len = to_usize(len);
        Ok(self.buffer[..self.filled].get(first..).and_then(|rest| rest.get(..len)))
    }
    #[cfg(test)]
    pub(in crate::log) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

/// Removes the snapshots of a directory in which nothing was ever completed; durably, before it is
/// completed.
pub(crate) fn remove_leftovers(disk: &dyn Disk) -> Result<(), OpenError> {
    let files = list_files(disk)?;
    for name in files.snapshots.iter().chain(&files.unfinished) {
        disk.remove(name).map_err(|error| OpenError::io("removing", name, error))?;
    }
    disk.sync_dir().map_err(|error| OpenError::io("syncing", disk.describe(), error))
}
