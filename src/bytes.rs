//! How numbers lie in bytes on disk: little-endian; and what rkyv makes of them.
//!
//! Callers have checked the lengths of what they give: a number beyond its bytes is a defect of the
//! caller, and panics.

use std::fmt;
use std::io;
use std::time::Duration;

const _: () = assert!(
    usize::BITS == 64,
    "sprag needs a 64-bit target: lengths of files are lengths in memory, too"
);

/// A length or an offset of a file as one in memory. It loses nothing, because both have 64 bits.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "a usize has 64 bits, as asserted above")]
pub(crate) const fn to_usize(number: u64) -> usize {
    number as usize
}

/// The lesser of a number and a limit of 32 bits.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "a number below the limit has 32 bits")]
pub(crate) const fn at_most(number: u64, limit: u32) -> u32 {
    if number < limit as u64 { number as u32 } else { limit }
}

/// Nanoseconds of a time. A time of more than 584 years counts as 584 years.
pub(crate) fn nanos(time: Duration) -> u64 {
    // A figure of such a time means nothing, so it is no error.
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The part of `buffer` that a read has filled, by what the read returned.
///
/// # Errors
///
/// Returns [`io::ErrorKind::InvalidData`] if that is more than there was room for.
pub(crate) fn filled(buffer: &[u8], read: usize) -> io::Result<&[u8]> {
    buffer.get(..read).ok_or_else(|| {
        let message = format!("a read returned {read} bytes for a buffer of {}", buffer.len());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// Writes `bytes` at `at`.
pub fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The little-endian number at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The little-endian number at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

/// The little-endian number at `at`.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
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
