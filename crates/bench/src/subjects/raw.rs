//! The same writes, bare.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Result;

use super::Store;
use crate::workload::Key;

/// The bare limit: encode, `pwrite`, `fdatasync`, in a file whose every byte was written before.
pub(crate) struct Raw {
    file: File,
    at: u64,
    buffer: Vec<u8>,
}

impl Raw {
    const FILE_BYTES: u64 = 64 << 20;
    /// Bytes of a frame's header in sprag's format.
    const FRAME_BYTES: usize = 128;
    const ENTRY_BYTES: usize = 8;

    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        let block = vec![0xa5; 1 << 20];
        for at in 0..Self::FILE_BYTES >> 20 {
            file.write_all_at(&block, at << 20)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0, buffer: Vec::with_capacity(1 << 20) })
    }
}

impl Store for Raw {
    fn write(&mut self, writes: &mut dyn Iterator<Item = (&Key, &[u8])>) -> Result<()> {
        self.buffer.clear();
        self.buffer.resize(Self::FRAME_BYTES, 0);
        for (key, value) in writes {
            self.buffer.extend_from_slice(&[0; Self::ENTRY_BYTES]);
            self.buffer.extend_from_slice(key);
            self.buffer.extend_from_slice(value);
        }
        let length = self.buffer.len() as u64;
        if self.at + length > Self::FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(&self.buffer, self.at)?;
        self.at = (self.at + length).next_multiple_of(64);
        Ok(self.file.sync_data()?)
    }
}
