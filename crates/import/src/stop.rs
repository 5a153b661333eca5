//! Reasons why an import stops: the error of the input, and its byte offset.

use std::fmt;
use std::io;

use thiserror::Error;

/// An error of the input, and its place. It holds only lengths and offsets, never keys or values.
#[derive(Debug, Error)]
pub struct Stop {
    /// Offset of the command that cannot be imported. For an input that is cut off: the end of its
    /// whole part.
    pub offset: u64,
    /// Offset of the MULTI around the command; nothing of that MULTI is applied.
    pub multi: Option<u64>,
    /// The error.
    #[source]
    pub what: What,
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
pub enum What {
    /// The command is not imported.
    #[error("{0} is not supported (--skip-unknown goes on without it)")]
    Unsupported(Name),
    /// The command is not imported, and what follows depends on it.
    #[error("{name} is not supported, and --skip-unknown does not go on without it: {why}")]
    Decisive {
        /// The command.
        name: Name,
        /// The dependence, in words.
        why: &'static str,
    },
    /// A put with an expiry.
    #[error(
        "{0} with an expiry is not supported (--skip-unknown puts the value without its expiry)"
    )]
    Expiry(Name),
    /// A command that stores to a key, in a form that is not imported.
    #[error("{0} is not supported (--skip-unknown removes the key it stores to, and goes on)")]
    Replaces(Name),
    /// Options that are not known, or that a server would refuse.
    #[error("{0} with these options is not supported")]
    UnsupportedOptions(Name),
    /// A change of the database.
    #[error("SELECT of another database than 0 is not supported")]
    Database,
    /// Too many or too few arguments.
    #[error("{0}: wrong number of arguments")]
    Arguments(Name),
    /// A command that a server would refuse.
    #[error("{name}: {reason}")]
    Rejected {
        /// The command.
        name: Name,
        /// The reason of the server.
        reason: &'static str,
    },
    /// MULTI, EXEC or DISCARD where none may be.
    #[error("{0}")]
    Misplaced(&'static str),
    /// An empty key.
    #[error("{name}: the key is empty")]
    EmptyKey {
        /// The command.
        name: Name,
    },
    /// A key above the limit.
    #[error("{name}: the key has {bytes} bytes, more than the limit of {limit}")]
    KeyTooLong {
        /// The command.
        name: Name,
        /// Length of the key in bytes.
        bytes: usize,
        /// The longest key in bytes.
        limit: usize,
    },
    /// A command would make a value above the limit.
    #[error("the value would have {bytes} bytes, more than the limit of {limit}")]
    ValueTooLong {
        /// Length of the value in bytes.
        bytes: usize,
        /// The longest value in bytes.
        limit: usize,
    },
    /// An argument above the limit.
    #[error("an argument has {bytes} bytes, more than the limit of {limit}")]
    ArgumentTooLong {
        /// The length that the input announces, in bytes.
        bytes: i64,
        /// The longest argument in bytes.
        limit: usize,
    },
    /// A command or MULTI that is too large for one entry.
    #[error("{what}: more than the limit of {limit} bytes; it must be applied as a whole")]
    TooLarge {
        /// The command or the MULTI, in words.
        what: &'static str,
        /// The most bytes.
        limit: usize,
    },
    /// The bytes are no command stream.
    #[error("not a Redis command stream: {0}")]
    Malformed(&'static str),
    /// The end of the input is all zeros.
    #[error(
        "all bytes from byte {from} to the end are zero ({bytes} of them), as a crash may leave them; what was whole before \
         is imported"
    )]
    Zeros {
        /// Offset of the first of them.
        from: u64,
        /// Number of zeros.
        bytes: u64,
    },
    /// The input ends within a command or a MULTI.
    #[error("the input is cut off here; what was whole before it is imported")]
    CutOff,
    /// The input could not be read.
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
pub struct Name(String);

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

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
