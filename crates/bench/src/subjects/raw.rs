//! The same writes, bare.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Result, ensure};

use super::{Store, locked};
use crate::workload::Key;

/// The bare limit: encode, checksum, `pwrite`, `fdatasync`, in a file whose every byte was written
/// before, or whose room is reserved.
pub(crate) struct Raw {
    file: File,
    bytes: usize,
    at_and_buffer: Mutex<(u64, Vec<u8>)>,
}

impl Raw {
    /// Length of the file, as long as a segment of sprag's log.
    pub(crate) const FILE_BYTES: usize = 64 << 20;
    /// Bytes of a frame's header in sprag's format.
    const FRAME_BYTES: usize = 128;
    const ENTRY_BYTES: usize = 8;

    /// A file with room for so many bytes, none of which was written.
    pub(crate) fn reserved(path: &Path, bytes: usize) -> Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes as u64)?;
        file.sync_all()?;
        Ok(Self { file, bytes, at_and_buffer: Mutex::default() })
    }

    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        let block = vec![0xa5; 1 << 20];
        for at in 0..Self::FILE_BYTES >> 20 {
            file.write_all_at(&block, (at << 20) as u64)?;
        }
        file.sync_all()?;
        let at_and_buffer = Mutex::new((0, Vec::with_capacity(1 << 20)));
        Ok(Self { file, bytes: Self::FILE_BYTES, at_and_buffer })
    }
}

impl Store for Raw {
    fn write(&self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()> {
        let mut guard = locked(&self.at_and_buffer)?;
        let (at, buffer) = &mut *guard;
        buffer.clear();
        buffer.resize(Self::FRAME_BYTES, 0);
        for (key, value) in writes {
            buffer.extend_from_slice(&[0; Self::ENTRY_BYTES]);
            buffer.extend_from_slice(key);
            buffer.extend_from_slice(value);
        }
        // The sum goes into the header, as a frame's does.
        let sum = crc32c::crc32c(&buffer[Self::FRAME_BYTES..]);
        buffer[..4].copy_from_slice(&sum.to_le_bytes());
        ensure!(buffer.len() <= self.bytes, "the group is longer than the file");
        let length = buffer.len() as u64;
        if *at + length > self.bytes as u64 {
            *at = 0;
        }
        self.file.write_all_at(buffer, *at)?;
        *at = (*at + length).next_multiple_of(64);
        Ok(self.file.sync_data()?)
    }
}
