//! Frames in segment files, found by the layout of `docs/format.md`, so that tests damage the
//! intended bytes.

use std::fs;
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"SPRG";
pub const HEADER_BYTES: usize = 128;

/// Place and header fields of one frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub file: PathBuf,
    pub offset: usize,
    pub body_bytes: usize,
    pub kind: u8,
    pub first_index: u64,
    pub count: u32,
    pub sequence: u64,
    pub incarnation: u64,
}

impl Frame {
    pub fn name(&self) -> String {
        self.file.file_name().unwrap().to_str().unwrap().to_owned()
    }

    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes
    }

    /// Changes the byte at `at` of the frame.
    pub fn flip(&self, at: usize, xor: u8) {
        flip(&self.file, self.offset + at, xor);
    }
}

pub fn flip(file: &Path, offset: usize, xor: u8) {
    let mut bytes = fs::read(file).unwrap();
    bytes[offset] ^= xor;
    fs::write(file, bytes).unwrap();
}

pub fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    files.sort();
    files
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The number of the log's first segment, according to META.
fn base(directory: &Path) -> u64 {
    let meta = fs::read(directory.join("META")).unwrap();
    let slots = [0, 4096].map(|at| &meta[at..at + 512]);
    let newest = slots.iter().max_by_key(|slot| u64_at(slot, 8)).unwrap();
    u64_at(newest, 80)
}

/// The frames of a directory, in the log's order; damage is not checked here. Earlier content of
/// recycled files, and spare files, do not count.
pub fn frames(directory: &Path) -> Vec<Frame> {
    let (mut found, base) = (Vec::new(), base(directory));
    for file in segments(directory) {
        let number = u64::from_str_radix(file.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
        if number < base {
            continue;
        }
        let bytes = fs::read(&file).unwrap();
        let is_here = |at: usize| {
            let header = bytes.get(at..at + HEADER_BYTES);
            header.is_some_and(|header| {
                header.starts_with(MAGIC)
                    && (u64_at(header, 96), u64_at(header, 104)) == (number, at as u64)
            })
        };
        let mut at = 0;
        while is_here(at) {
            let header = &bytes[at..at + HEADER_BYTES];
            let body_bytes = u32_at(header, 64) as usize;
            found.push(Frame {
                file: file.clone(),
                offset: at,
                body_bytes,
                kind: header[6],
                first_index: u64_at(header, 8),
                count: u32_at(header, 68),
                sequence: u64_at(header, 40),
                incarnation: u64_at(header, 48),
            });
            at = (at + HEADER_BYTES + body_bytes).next_multiple_of(64);
        }
    }
    found
}

/// Rewrites a frame's header and body, and repairs their checksums as the writer makes them.
pub fn forge(directory: &Path, frame: &Frame, change: impl FnOnce(&mut [u8])) {
    let meta = fs::read(directory.join("META")).unwrap();
    // Read the slot that was stored last.
    let slot = if meta[..4] == [0; 4] { 4096 } else { 0 };
    let database_id = &meta[slot + 16..slot + 32];
    let mut bytes = fs::read(&frame.file).unwrap();
    let whole = &mut bytes[frame.offset..frame.offset + frame.bytes()];
    change(whole);
    let body_crc = crc32c::crc32c(&whole[HEADER_BYTES..]);
    whole[112..116].copy_from_slice(&body_crc.to_le_bytes());
    let header_crc = crc32c::crc32c_append(crc32c::crc32c(database_id), &whole[..124]);
    whole[124..128].copy_from_slice(&header_crc.to_le_bytes());
    fs::write(&frame.file, bytes).unwrap();
}
