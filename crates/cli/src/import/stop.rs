//! Reasons why an import stops: the error of the input, and its byte offset.

use std::fmt;
use std::io;

use thiserror::Error;

/// An error of the input, and its place. It holds only lengths and offsets, never keys or values.
#[derive(Debug, Error)]
pub(crate) struct Stop {
    /// Offset of the command that cannot be imported. For an input that is cut off: the end of its
    /// whole part.
    pub(crate) offset: u64,
    /// Offset of the MULTI around the command; nothing of that MULTI is applied.
    pub(crate) multi: Option<u64>,
    /// The error.
    #[source]
    pub(crate) what: What,
}

impl Stop {
    /// The same stop, with offsets counted from `start`.
    pub(crate) fn after(mut self, start: u64) -> Self {
        // An offset is at or behind `start`, where the part begins.
        self.offset = self.offset.saturating_sub(start);
        self.multi = self.multi.map(|multi| multi.saturating_sub(start));
        if let What::Zeros { from, .. } = &mut self.what {
            // Zeros may begin before the part; in the part they begin at 0.
            *from = from.saturating_sub(start);
        }
        self
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.what)?;
        match self.multi {
            Some(multi) => {
                write!(f, " (in the MULTI at byte {multi}, of which nothing is applied)")
            }
            None => Ok(()),
        }
    }
}

/// An error of the input.
#[derive(Debug, Error)]
pub(crate) enum What {
    #[error("{0} is not supported (--skip-unknown goes on without it)")]
    Unsupported(Name),
    #[error("{name} is not supported, and --skip-unknown does not go on without it: {why}")]
    Decisive { name: Name, why: &'static str },
    #[error(
        "{0} with an expiry is not supported (--skip-unknown puts the value without its expiry)"
    )]
    Expiry(Name),
    #[error("{0} is not supported (--skip-unknown removes the key it stores to, and goes on)")]
    Replaces(Name),
    #[error("{0} with these options is not supported")]
    UnsupportedOptions(Name),
    #[error("SELECT of another database than 0 is not supported")]
    Database,
    #[error("{0}: wrong number of arguments")]
    Arguments(Name),
    #[error("{name}: {reason}")]
    Rejected { name: Name, reason: &'static str },
    #[error("{0}")]
    Misplaced(&'static str),
    #[error("{name}: the key is empty")]
    EmptyKey { name: Name },
    #[error("{name}: the key has {bytes} bytes, more than the limit of {limit}")]
    KeyTooLong { name: Name, bytes: usize, limit: usize },
    #[error("the value would have {bytes} bytes, more than the limit of {limit}")]
    ValueTooLong { bytes: usize, limit: usize },
    #[error("an argument has {bytes} bytes, more than the limit of {limit}")]
    ArgumentTooLong { bytes: i64, limit: usize },
    #[error("{what}: more than the limit of {limit} bytes; it must be applied as a whole")]
    TooLarge { what: &'static str, limit: usize },
    #[error("not a Redis command stream: {0}")]
    Malformed(&'static str),
    #[error(
        "all bytes from byte {from} to the end are zero ({bytes} of them), as a crash may leave them; what was whole before \
         is imported"
    )]
    Zeros { from: u64, bytes: u64 },
    #[error("the input is cut off here; what was whole before it is imported")]
    CutOff,
    #[error("reading the input failed: {0}")]
    Read(io::Error),
}

impl What {
    /// Adds the offset, for a command outside of a MULTI.
    pub(crate) fn at(self, offset: u64) -> Stop {
        Stop { offset, multi: None, what: self }
    }
}

/// The name of a command, in capitals.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Name(String);

impl Name {
    const BYTES_MAX: usize = 32;

    /// Returns `None` for a word that cannot be a command's name. A stream out of step may show
    /// user data there, so it is not printed.
    pub(crate) fn new(word: &[u8]) -> Option<Self> {
        let fits = (1..=Self::BYTES_MAX).contains(&word.len()) && word[0].is_ascii_alphabetic();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let name = std::str::from_utf8(word).ok()?;
        (fits && word.iter().all(plain)).then(|| Self(name.to_ascii_uppercase()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
