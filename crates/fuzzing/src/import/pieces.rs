//! A source that gives its bytes a few at a time, is interrupted, and may end in a failure.

use std::io::{self, Read};

/// End of a source.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The source ends.
    Silence,
    /// A read that fails.
    Failure,
}

pub(super) struct Pieces<'a> {
    left: &'a [u8],
    /// Cycle of sizes: each read returns this number of bytes, less one. The largest size stands
    /// for an interrupted read first.
    sizes: [u8; 3],
    reads: usize,
    was_interrupted: bool,
    end: End,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(bytes: &'a [u8], sizes: [u8; 3], end: End) -> Self {
        Self { left: bytes, sizes, reads: 0, was_interrupted: false, end }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes[self.reads % self.sizes.len()];
        if size == u8::MAX && !self.was_interrupted {
            self.was_interrupted = true;
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.was_interrupted = false;
        self.reads += 1;
        if self.left.is_empty() && self.end == End::Failure {
            return Err(io::Error::other("unplugged"));
        }
        let bytes = (usize::from(size) + 1).min(self.left.len()).min(out.len());
        let (head, rest) = self.left.split_at(bytes);
        out[..bytes].copy_from_slice(head);
        self.left = rest;
        Ok(bytes)
    }
}
