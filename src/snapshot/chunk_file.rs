//! Writing gathered chunks to a file: archived, checksummed, written. Either the gathering thread
//! writes them, or a second thread while the next one is gathered: gathering waits for memory, and
//! writing for the kernel.

use std::io;
use std::mem;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crc32c::crc32c;
use rkyv::api::high::{HighSerializer, to_bytes_in};
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;

use super::file::FileSink;
use super::format::{
    ALIGN_BYTES, Chunk, ChunkEntry, FOOTER_BYTES, Footer, Index, SnapshotKind, header,
};
use super::stream::SnapshotSink;
use super::writer::in_chunk;
use crate::error::snapshot::SnapshotError;

/// A snapshot's file, up to the bytes written.
pub(super) struct ChunkFile<'a, S: SnapshotSink + ?Sized> {
    out: &'a mut S,
    /// Offset that the sink has reached.
    position: u64,
    /// The archive of the chunk that was written last.
    archive: AlignedVec,
    chunks: Vec<ChunkEntry>,
}

impl<'a, S: SnapshotSink + ?Sized> ChunkFile<'a, S> {
    pub(super) fn new(out: &'a mut S) -> Self {
        Self { out, position: 0, archive: AlignedVec::new(), chunks: Vec::new() }
    }

    /// Writes the header, unless it is written.
    fn start(&mut self, kind: SnapshotKind) -> Result<(), SnapshotError> {
        if self.position == 0 { self.write(&header(kind)) } else { Ok(()) }
    }

    fn write_chunk(&mut self, kind: SnapshotKind, chunk: &Chunk) -> Result<(), SnapshotError> {
        self.start(kind)?;
        let mut archive = mem::take(&mut self.archive);
        archive.clear();
        let bytes = match kind {
            SnapshotKind::KeyValue => {
                archive = archived(chunk, archive)?;
                &archive[..]
            }
            SnapshotKind::Blob => &chunk.bytes[..],
        };
        let (length, crc) = (bytes.len() as u64, crc32c(bytes));
        self.write_padded(bytes)?;
        self.archive = archive;
        let records = in_chunk(chunk.records.len())?;
        let first_key_bytes = chunk.records.first().map_or(0, |first| first.key_bytes);
        self.chunks.push(ChunkEntry { bytes: length, crc, records, first_key_bytes, zero: 0 });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let written = self.out.write(bytes);
        written.map_err(|error| SnapshotError::io("writing", "a snapshot", error))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn write_padded(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.write(bytes)?;
        let short = bytes.len().next_multiple_of(ALIGN_BYTES) - bytes.len();
        if short > 0 { self.write(&[0; ALIGN_BYTES][..short]) } else { Ok(()) }
    }

    /// Writes the parts after the chunks, for which `index` is given. Returns the length of the
    /// file.
    fn finish(&mut self, kind: SnapshotKind, index: &mut Index) -> Result<u64, SnapshotError> {
        self.start(kind)?;
        index.chunks = mem::take(&mut self.chunks);
        self.archive.clear();
        let archive = archived(index, mem::take(&mut self.archive))?;
        let footer = Footer {
            index_offset: self.position,
            index_bytes: archive.len() as u64,
            file_bytes: self.position + padded(archive.len() as u64) + FOOTER_BYTES as u64,
            index_crc: crc32c(&archive),
        };
        self.write_padded(&archive)?;
        self.write(&footer.to_bytes())?;
        Ok(self.position)
    }
}

/// Result of writing.
type Ended<'a> = Result<ChunkFile<'a, FileSink<'a>>, SnapshotError>;

/// The way of gathered chunks.
pub(super) enum ChunkLane<'a> {
    /// Into the file, in the gathering thread.
    Here(ChunkFile<'a, dyn SnapshotSink + 'a>),
    /// A lane to a thread that writes the chunks.
    Beside(Beside<'a>),
}

/// The gathering end of the channel to a thread that writes.
pub(super) struct Beside<'a> {
    full: SyncSender<(SnapshotKind, Chunk)>,
    empty: Receiver<Chunk>,
    done: Receiver<Ended<'a>>,
}

/// The writing end.
pub(super) struct ChunkThread<'a> {
    file: ChunkFile<'a, FileSink<'a>>,
    full: Receiver<(SnapshotKind, Chunk)>,
    empty: Sender<Chunk>,
    done: Sender<Ended<'a>>,
}

/// Makes both ends. At most three chunks exist: one that is gathered, one that waits, and one that
/// is written.
pub(super) fn beside<'a>(out: &'a mut FileSink<'a>) -> (ChunkLane<'a>, ChunkThread<'a>) {
    let (full, to_write) = sync_channel(1);
    let (written, empty) = channel();
    let (ended, done) = channel();
    for _ in 0..2 {
        // The other end exists.
        let _sent = written.send(Chunk::default());
    }
    let file = ChunkFile::new(out);
    let lane = ChunkLane::Beside(Beside { full, empty, done });
    (lane, ChunkThread { file, full: to_write, empty: written, done: ended })
}

impl ChunkThread<'_> {
    /// Writes chunks until no more can come, or until writing fails, and reports the result.
    pub(super) fn run(mut self) {
        let mut result = Ok(());
        while result.is_ok()
            && let Ok((kind, chunk)) = self.full.recv()
        {
            result = self.file.write_chunk(kind, &chunk);
            // At the end the other side no longer wants it.
            let _wanted = self.empty.send(chunk);
        }
        let _wanted = self.done.send(result.map(|()| self.file));
    }
}

impl Beside<'_> {
    /// Reason why the other end is gone.
    fn failure(&self) -> SnapshotError {
        match self.done.recv() {
            Ok(Err(error)) => error,
            _ => SnapshotError::io("writing", "a snapshot", io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl ChunkLane<'_> {
    /// Has `chunk` written, and replaces it by one with undefined content.
    pub(super) fn send(
        &mut self,
        kind: SnapshotKind,
        chunk: &mut Chunk,
    ) -> Result<(), SnapshotError> {
        match self {
            Self::Here(file) => file.write_chunk(kind, chunk),
            Self::Beside(beside) => {
                // This waits where writing is slower than gathering.
                let next = beside.empty.recv().map_err(|_| beside.failure())?;
                let full = mem::replace(chunk, next);
                beside.full.send((kind, full)).map_err(|_| beside.failure())
            }
        }
    }

    /// Waits until all chunks are written, and writes the parts after them. Returns the length of
    /// the file, and the number of chunks.
    pub(super) fn finish(
        self,
        kind: SnapshotKind,
        mut index: Index,
    ) -> Result<(u64, u64), SnapshotError> {
        let bytes = match self {
            Self::Here(mut file) => file.finish(kind, &mut index),
            Self::Beside(Beside { full, empty, done }) => {
                drop(full);
                let gone = |_| {
                    SnapshotError::io("writing", "a snapshot", io::ErrorKind::BrokenPipe.into())
                };
                let mut file = done.recv().map_err(gone)??;
                drop(empty);
                file.finish(kind, &mut index)
            }
        }?;
        Ok((bytes, index.chunks.len() as u64))
    }
}

/// Rounds up to the next place where a part may start.
pub(super) fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN_BYTES as u64)
}

type Serializer<'s> = HighSerializer<AlignedVec, ArenaHandle<'s>, RkyvError>;

fn archived(
    value: &impl for<'s> rkyv::Serialize<Serializer<'s>>,
    into: AlignedVec,
) -> Result<AlignedVec, SnapshotError> {
    to_bytes_in(value, into).map_err(|error| {
        SnapshotError::io("archiving a chunk of", "a snapshot", io::Error::other(error))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::file::write_snapshot_file;
    use super::super::writer::SnapshotMeta;
    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::testing::{Fault, FaultError};

    /// Writes a snapshot of some chunks, in this thread or beside it.
    fn write(sim: &SimDisk, beside: bool) -> Result<(), SnapshotError> {
        let disk = sim.open(true).unwrap();
        let written = write_snapshot_file(&*disk, "00000000000000ff.snap", beside, |writer| {
            let mut writer = writer.with_chunk_bytes(2000);
            for number in 0..500_u32 {
                writer.push(&number.to_be_bytes(), &[7; 30])?;
            }
            writer.finish(&SnapshotMeta::default())
        });
        written.map(|summary| assert!(summary.chunks > 5))
    }

    #[test]
    fn what_a_thread_writes_beside_is_what_is_written_here() {
        let file = |beside| {
            let sim = SimDisk::new(1);
            write(&sim, beside).unwrap();
            sim.read_file("00000000000000ff.snap").unwrap()
        };
        assert_eq!(file(true), file(false));
    }

    #[test]
    fn an_error_of_the_thread_that_writes_fails_the_whole_and_is_told() {
        let sim = SimDisk::new(1);
        write(&sim, true).unwrap();
        let writes = sim.trace().iter().filter(|line| line.starts_with("write")).count();
        assert!(writes > 5);
        for failing in 0..writes {
            let sim = SimDisk::new(1);
            // The fault comes after the file was made.
            sim.fail_at(1 + failing as u64, Fault::Error(FaultError::Enospc));
            let error = write(&sim, true).unwrap_err();
            assert!(error.to_string().contains("the disk is full"), "write {failing}: {error}");
            assert_eq!(sim.file_names(), Vec::<String>::new());
        }
    }
}
