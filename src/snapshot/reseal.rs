//! Recomputes the checksums of a damaged snapshot, so that later checks meet the damage. It is
//! written from `docs/format.md`, without the reader's code.

use crc32c::crc32c;

use crate::bytes::to_usize;
use crate::bytes::{put, u32_at, u64_at};

const HEADER_BYTES: usize = 4096;
const FOOTER_BYTES: usize = 64;
const ROOT_BYTES: usize = 128;
const ENTRY_BYTES: usize = 24;

/// Recomputes the checksums as far as the lengths in the file lead.
pub fn reseal(file: &mut [u8]) {
    if let Some(header) = file.get_mut(..HEADER_BYTES) {
        let crc = crc32c(&header[..HEADER_BYTES - 4]);
        put(header, HEADER_BYTES - 4, &crc.to_le_bytes());
    }
    let Some(footer_at) = file.len().checked_sub(FOOTER_BYTES) else { return };
    let at = |offset: u64| usize::try_from(offset).ok();
    let index_at = at(u64_at(file, footer_at + 8));
    // A sum that saturates lies behind the file, and is left alone below.
    let index_end = at(u64_at(file, footer_at + 8).saturating_add(u64_at(file, footer_at + 16)));
    if let (Some(start), Some(end)) = (index_at, index_end)
        && start <= end
        && end <= footer_at
    {
        reseal_chunks(file, start, end);
        let crc = crc32c(&file[start..end]);
        put(file, footer_at + 32, &crc.to_le_bytes());
    }
    let crc = crc32c(&file[footer_at..footer_at + FOOTER_BYTES - 4]);
    put(file, footer_at + FOOTER_BYTES - 4, &crc.to_le_bytes());
}

/// Recomputes the checksums in the index; the length of the blob before the table determines the
/// table's place.
fn reseal_chunks(file: &mut [u8], index_at: usize, index_end: usize) {
    let Some(root) = index_end.checked_sub(ROOT_BYTES).filter(|root| *root >= index_at) else {
        return;
    };
    let blob_bytes = u32_at(file, root + 4) as usize;
    let mut entry = index_at + blob_bytes.next_multiple_of(8);
    let mut chunk = HEADER_BYTES;
    for _ in 0..u32_at(file, root + 12) {
        if entry + ENTRY_BYTES > root {
            return;
        }
        let bytes = to_usize(u64_at(file, entry));
        let Some(end) = chunk.checked_add(bytes).filter(|end| *end <= index_at) else { return };
        let crc = crc32c(&file[chunk..end]);
        put(file, entry + 8, &crc.to_le_bytes());
        (chunk, entry) = (end.next_multiple_of(16), entry + ENTRY_BYTES);
    }
}
