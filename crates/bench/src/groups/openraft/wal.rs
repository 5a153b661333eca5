//! A plain write-ahead log: one file whose every byte was written before, and a checksum around
//! each change.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use openraft::EntryPayload;

use super::gather::Sink;
use super::log::Change;
use super::types::Entry;

/// Length and checksum of what follows.
pub(crate) const HEADER_BYTES: usize = 8;

/// The file, written from its start.
#[derive(Debug)]
pub(crate) struct Wal {
    file: File,
    file_bytes: u64,
    at: u64,
}

impl Wal {
    /// Begins a log at the start of the file, which is made in full length if it is not there.
    pub(crate) fn create(path: &Path, file_bytes: u64) -> io::Result<Self> {
        Ok(Self { file: prepared(path, file_bytes)?, file_bytes, at: 0 })
    }
}

impl Sink for Wal {
    type Batch = Vec<u8>;

    fn gather(bytes: &mut Vec<u8>, change: &Change<'_>) -> io::Result<()> {
        encode(bytes, change)
    }

    fn write(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        if self.at + bytes.len() as u64 > self.file_bytes {
            return Err(io::Error::other("the file of the plain log is full: run shorter rounds"));
        }
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        bytes.clear();
        self.file.sync_data()
    }
}

/// A file of the full length whose every byte was written, so that no sync has to write the
/// metadata of the file system.
pub(crate) fn prepared(path: &Path, file_bytes: u64) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    if file.metadata()?.len() < file_bytes {
        let block = vec![0xa5; 1 << 20];
        for at in 0..file_bytes >> 20 {
            file.write_all_at(&block, at << 20)?;
        }
        file.sync_all()?;
    }
    Ok(file)
}

/// Appends one change: length, CRC, and what it says.
fn encode(out: &mut Vec<u8>, change: &Change<'_>) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    match change {
        Change::Append(entries) => {
            out.push(0);
            for entry in *entries {
                encode_entry(out, entry)?;
            }
        }
        Change::TruncateAfter(index) => {
            out.push(1);
            out.extend_from_slice(&index.unwrap_or(u64::MAX).to_le_bytes());
        }
        Change::Purge(upto) => {
            out.push(2);
            out.extend_from_slice(&upto.index.to_le_bytes());
        }
        Change::Vote(vote) => {
            out.push(3);
            serde_json::to_writer(&mut *out, vote)?;
        }
    }
    let body = &out[start + HEADER_BYTES..];
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let checksum = crc32c::crc32c(body);
    out[start..][..4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..][..4].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

fn encode_entry(out: &mut Vec<u8>, entry: &Entry) -> io::Result<()> {
    let id = &entry.log_id;
    for number in [id.index, id.leader_id.term, id.leader_id.node_id] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let membership;
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (0, &[][..]),
        EntryPayload::Normal(put) => (1, put.bytes()),
        EntryPayload::Membership(change) => {
            membership = serde_json::to_vec(change)?;
            (2, &membership[..])
        }
    };
    out.push(kind);
    out.extend_from_slice(&u32::try_from(payload.len()).map_err(io::Error::other)?.to_le_bytes());
    out.extend_from_slice(payload);
    Ok(())
}
