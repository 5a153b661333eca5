//! A digest of a whole state.

use std::fmt;

use sprag::Value;
use xxhash_rust::xxh3::Xxh3;

/// xxh3-128 over keys and values in key order, each with its length before it.
#[derive(Default)]
pub(crate) struct Digest(Xxh3);

impl Digest {
    /// Adds the next key and its value; keys are added in order.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    /// The digest of a sorted state.
    pub(crate) fn of(state: &[(Box<[u8]>, Value)]) -> Self {
        let mut digest = Self::default();
        state.iter().for_each(|(key, value)| digest.add(key, value));
        digest
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0.digest128())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&[u8], &[u8])]) -> String {
        let mut digest = Digest::default();
        pairs.iter().for_each(|(key, value)| digest.add(key, value));
        digest.to_string()
    }

    #[test]
    fn every_byte_and_every_border_counts() {
        let digests = [
            of(&[]),
            of(&[(b"a", b"")]),
            of(&[(b"a", b"b")]),
            of(&[(b"ab", b"")]),
            of(&[(b"", b"ab")]),
            of(&[(b"a", b""), (b"b", b"")]),
        ];
        for (at, digest) in digests.iter().enumerate() {
            assert_eq!(digest.len(), 32);
            assert!(digests[..at].iter().all(|other| other != digest), "{at}");
        }
    }
}
