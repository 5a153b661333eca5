//! The destination and the source of a snapshot's bytes.

use std::io;

use crate::bytes::filled;
use crate::error::snapshot::SnapshotError;

/// Number of bytes that one read asks for.
const PIECE_BYTES: usize = 64 << 10;

/// A destination of bytes in order: a `Vec<u8>`, a socket, a file, or anything else that is
/// [`io::Write`].
pub trait SnapshotSink {
    /// Takes all of `bytes`, which follow those of the call before.
    ///
    /// # Errors
    ///
    /// Returns the error of the receiving end; it is then unknown how much of `bytes` was taken.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl<W: io::Write + ?Sized> SnapshotSink for W {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }
}

/// A source of bytes in order: a `&[u8]`, a socket, a file, or anything else that is [`io::Read`].
pub trait SnapshotSource {
    /// Fills the front of `buffer` with the next bytes. Returns their number, 0 at the end.
    ///
    /// # Errors
    ///
    /// Returns the error of the sending end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Reads all bytes to the end, at most `bytes_max`. The call takes as much memory as their
    /// length.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::Io`] with the error of the sending end, and
    /// [`SnapshotError::Corrupt`] if there are more bytes.
    fn read_all(&mut self, bytes_max: usize) -> Result<Vec<u8>, SnapshotError> {
        let (mut bytes, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
        loop {
            match self.read(&mut piece) {
                Ok(0) => return Ok(bytes),
                Ok(read) => {
                    let failed = |error| SnapshotError::io("reading", "a snapshot", error);
                    bytes.extend_from_slice(filled(&piece, read).map_err(failed)?);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SnapshotError::io("reading", "a snapshot", error)),
            }
            if bytes.len() > bytes_max {
                let (file, offset) = ("a snapshot".to_owned(), bytes_max as u64);
                let what = "it is longer than the state machine takes";
                return Err(SnapshotError::Corrupt { file, offset, what });
            }
        }
    }
}

impl<R: io::Read + ?Sized> SnapshotSource for R {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(self, buffer)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A source of `count` bytes that returns a few at a time, is interrupted now and then, and
    /// fails on demand.
    struct Odd {
        count: usize,
        calls: usize,
        fails: bool,
    }

    impl SnapshotSource for Odd {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls.is_multiple_of(3) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if self.count == 0 && self.fails {
                return Err(io::Error::other("on purpose"));
            }
            let few = buffer.len().min(self.count).min(1000);
            buffer[..few].fill(7);
            self.count -= few;
            Ok(few)
        }
    }

    #[test]
    fn all_of_a_source_is_read_or_none_is_taken() {
        let odd = |count, fails| Odd { count, calls: 0, fails };
        assert_eq!(odd(200_000, false).read_all(200_000).unwrap(), vec![7; 200_000]);
        assert_eq!(odd(0, false).read_all(0).unwrap(), [0_u8; 0]);
        let longer = odd(200_001, false).read_all(200_000).unwrap_err();
        assert!(matches!(longer, SnapshotError::Corrupt { offset: 200_000, .. }), "{longer}");
        let failed = odd(10, true).read_all(usize::MAX).unwrap_err();
        assert!(matches!(failed, SnapshotError::Io { .. }), "{failed}");
    }
}
