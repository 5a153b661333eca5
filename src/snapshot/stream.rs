//! Where a snapshot's bytes go to and come from.

use std::io;

/// Takes bytes in order: a `Vec<u8>`, a socket, a file, or anything else that is [`io::Write`].
pub trait SnapshotSink {
    /// Takes all of `bytes`, after those of the call before.
    ///
    /// # Errors
    ///
    /// What the receiving end says; how much of `bytes` it took is then unknown.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl<W: io::Write + ?Sized> SnapshotSink for W {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }
}

/// Gives bytes in order: a `&[u8]`, a socket, a file, or anything else that is [`io::Read`].
pub trait SnapshotSource {
    /// Fills the front of `buffer` with the next bytes; how many they are, 0 at the end.
    ///
    /// # Errors
    ///
    /// What the giving end says.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl<R: io::Read + ?Sized> SnapshotSource for R {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(self, buffer)
    }
}
