//! A value that a get returned.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::buffer::Buffer;
use crate::places::table::PinnedBytes;

/// The longest value that is copied rather than shared. Up to this length a copy costs less than a
/// reference count that several readers of one key contend for.
pub(crate) const INLINE_BYTES_MAX: usize = 128;

/// The bytes of a key as they were when it was read; they never change.
///
/// Values of up to 128 bytes are copies, and longer ones are shared with the state machine, so
/// cloning never copies more than 128 bytes. Unless it had to be copied, a longer value of a
/// persistent machine keeps its log segment or snapshot alive. After `close()` it also keeps the
/// directory's lock.
#[derive(Clone)]
pub struct Value(Kind);

#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "the large one is there so as not to allocate")]
enum Kind {
    Inline {
        len: u8,
        bytes: [u8; INLINE_BYTES_MAX],
    },
    Shared(Arc<[u8]>),
    /// The value is in a buffer of a store in memory.
    Buffered(Buffer),
    Pinned(PinnedBytes),
}

impl Value {
    /// Copies `bytes`, without allocation if they are few.
    #[inline]
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        let mut inline = [0; INLINE_BYTES_MAX];
        match (inline.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(target), Ok(len)) => {
                target.copy_from_slice(bytes);
                Self(Kind::Inline { len, bytes: inline })
            }
            _ => Self(Kind::Shared(bytes.into())),
        }
    }

    /// The value of the first `len` bytes.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the length of a part of 128 bytes")]
    pub(crate) fn short(bytes: [u8; INLINE_BYTES_MAX], len: usize) -> Self {
        debug_assert!(len <= INLINE_BYTES_MAX, "a part of the bytes");
        Self(Kind::Inline { len: len as u8, bytes })
    }

    /// The value of a buffer that no thread changes while it is shared.
    pub(crate) fn buffered(buffer: Buffer) -> Self {
        Self(Kind::Buffered(buffer))
    }

    /// The value of shared bytes: a copy if they are few.
    #[inline]
    pub(crate) fn held(bytes: &Arc<[u8]>) -> Self {
        if bytes.len() <= INLINE_BYTES_MAX {
            Self::copied(bytes)
        } else {
            Self(Kind::Shared(Arc::clone(bytes)))
        }
    }

    /// The bytes as a shared slice: a copy if they are not in one yet.
    pub(crate) fn to_shared(&self) -> Arc<[u8]> {
        match &self.0 {
            Kind::Shared(bytes) => Arc::clone(bytes),
            _ => Arc::from(&**self),
        }
    }

    /// A value whose bytes stay in their segment.
    pub(crate) fn pinned(bytes: PinnedBytes) -> Self {
        Self(Kind::Pinned(bytes))
    }
}

/// Copies the bytes.
impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::copied(bytes)
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Kind::Shared(bytes) => bytes,
            Kind::Buffered(buffer) => buffer.as_slice(),
            Kind::Pinned(bytes) => bytes.as_slice(),
        }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Shows the length only, because values do not belong into logs.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.len())
    }
}

impl Eq for Value {}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl PartialEq<[u8]> for Value {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialEq<&[u8]> for Value {
    fn eq(&self, other: &&[u8]) -> bool {
        **self == **other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Value {
    fn eq(&self, other: &[u8; N]) -> bool {
        **self == other[..]
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Value {
    fn eq(&self, other: &&[u8; N]) -> bool {
        **self == other[..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_any_length_reads_back_and_shows_only_its_length() {
        for len in [0, 1, 127, 128, 129, 255, 256, 257, 70_000] {
            let bytes: Vec<u8> = (0..len).map(|at: usize| at.to_le_bytes()[0]).collect();
            let value = Value::copied(&bytes);
            assert_eq!(value, bytes[..]);
            assert_eq!(value.clone(), value);
            assert_eq!(format!("{value:?}"), format!("Value({len} bytes)"));
            let inline = matches!(value.0, Kind::Inline { .. });
            assert_eq!(inline, len <= INLINE_BYTES_MAX);
        }
    }

    #[test]
    fn a_shared_value_ends_where_its_length_says() {
        let value = Value::buffered(Buffer::with_room(&[1, 2, 3], 2));
        assert_eq!(value, &[1, 2]);
        assert_ne!(value, &[1, 2, 3]);
    }
}
