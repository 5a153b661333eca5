//! How numbers lie in bytes on disk: little-endian; and what rkyv makes of them.
//!
//! Callers have checked the lengths of what they give: a number beyond its bytes is a defect of the caller, and panics.

use std::fmt;

/// Writes `bytes` at `at`.
pub(crate) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The little-endian number at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The little-endian number at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

/// The little-endian number at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

/// Layout of an rkyv archive in a build. Cargo unifies rkyv's features over all crates of a build,
/// so another crate could change it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RkyvSettings {
    /// 1 little-endian, 2 big-endian.
    pub(crate) byte_order: u8,
    pub(crate) pointer_bytes: u8,
    /// Alignment of a u64.
    pub(crate) align_bytes: u8,
}

impl fmt::Display for RkyvSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.byte_order {
            1 => "little-endian",
            2 => "big-endian",
            _ => "unknown byte order",
        };
        let (pointer, align) = (u16::from(self.pointer_bytes) * 8, self.align_bytes);
        write!(f, "({order}, {pointer}-bit pointers, u64 aligned to {align})")
    }
}
