//! The buffer of a value, which its slot shares with values in use.

use std::fmt;

use triomphe::{Arc, ThinArc};

use crate::bytes::at_most;

/// A value's bytes, on the heap, behind one pointer and a reference count.
///
/// [`triomphe`] has two things that [`std::sync::Arc`] does not have. The pointer is thin, so that
/// two slots of a store fill a cache line. There are no weak references, so that one load and no
/// locked instruction tells whether the buffer is shared.
#[derive(Clone)]
pub(crate) struct Buffer(
    /// The number is the value's length, at most that of the slice.
    ThinArc<u32, u8>,
);

const _: () = assert!(size_of::<Buffer>() == 8);

impl Buffer {
    /// A buffer as long as the value.
    #[inline]
    pub(crate) fn new(value: &[u8]) -> Self {
        Self::with_room(value, value.len())
    }

    /// A buffer with room for longer values, of the value that is the first `len` bytes of `room`.
    pub(crate) fn with_room(room: &[u8], len: usize) -> Self {
        debug_assert!(len <= room.len(), "a part of the bytes");
        // The format refuses values of more than 16 MiB.
        let len = at_most(len as u64, u32::MAX);
        Self(ThinArc::from_header_and_slice(len, room))
    }

    /// Length of the value.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.header.header as usize
    }

    /// Length of the longest value that the buffer has room for.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.0.header.length
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0.slice[..self.len()]
    }

    /// Replaces the value in place. Returns `false`, and changes nothing, if another value shares
    /// the buffer or `value` has no room in it.
    #[inline]
    pub(crate) fn overwrite(&mut self, value: &[u8]) -> bool {
        self.0.with_arc_mut(|buffer| {
            let Some(buffer) = Arc::get_mut(buffer) else { return false };
            let Some(target) = buffer.slice_mut().get_mut(..value.len()) else { return false };
            target.copy_from_slice(value);
            *buffer.header_mut() = at_most(value.len() as u64, u32::MAX);
            true
        })
    }

    /// Address of the counts, which the value follows.
    #[inline]
    pub(crate) fn address(&self) -> *const u8 {
        self.0.ptr().cast()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.len(), self.room())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_overwritten_only_while_it_is_not_shared_and_only_by_what_has_room() {
        let mut buffer = Buffer::new(&[1; 150]);
        assert!(buffer.overwrite(&[2; 20]));
        assert_eq!((buffer.as_slice(), buffer.room()), (&[2; 20][..], 150));
        assert!(buffer.overwrite(&[3; 150]));
        assert!(!buffer.overwrite(&[4; 151]));
        let held = buffer.clone();
        assert!(!buffer.overwrite(&[5; 10]));
        assert_eq!((buffer.as_slice(), held.as_slice()), (&[3; 150][..], &[3; 150][..]));
        drop(held);
        assert!(buffer.overwrite(&[]));
        assert_eq!(buffer.as_slice(), b"");
    }

    #[test]
    fn a_value_begins_right_behind_the_header() {
        let buffer = Buffer::new(&[7; 9]);
        let start = buffer.as_slice().as_ptr().addr();
        // A count of references, and two lengths.
        assert_eq!(start - buffer.address().addr(), 24);
    }
}
