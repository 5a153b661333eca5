//! The note that records how far an input was imported.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use super::stream::Position;

/// The first byte of a note of this form.
const VERSION: u8 = 1;

/// Name of an input's note: of the given name, or else of its absolute path.
#[must_use]
pub fn name(given: Option<&str>, path: Option<&Path>) -> String {
    match (given, path) {
        (Some(given), _) => format!("import:name:{given}"),
        (None, Some(path)) => format!("import:path:{:032x}", xxh3_128(path.as_os_str().as_bytes())),
        (None, None) => "import:stdin".to_owned(),
    }
}

/// Encodes the value of the note.
pub(super) fn encode(position: Position) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&position.offset.to_le_bytes());
    value.extend_from_slice(&position.checksum.to_le_bytes());
    value
}

/// Decodes a note; `None` if its form is unknown.
pub(super) fn decode(value: &[u8]) -> Option<Position> {
    let (&VERSION, rest) = value.split_first()? else { return None };
    let (offset, checksum) = rest.split_first_chunk()?;
    let position = Position {
        offset: u64::from_le_bytes(*offset),
        checksum: u64::from_le_bytes(checksum.try_into().ok()?),
    };
    Some(position)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_note_reads_back_and_no_other_length_or_version_does() {
        let position = Position { offset: u64::MAX - 1, checksum: 0x0123_4567_89ab_cdef };
        let value = encode(position);
        assert_eq!(decode(&value), Some(position));
        for len in 0..value.len() {
            assert_eq!(decode(&value[..len]), None);
        }
        assert_eq!(decode(&[value.as_slice(), &[0]].concat()), None);
        assert_eq!(decode(&[&[2], &value[1..]].concat()), None);
    }

    #[test]
    fn names_of_paths_and_given_names_are_apart() {
        let of_path = name(None, Some(Path::new("/a")));
        assert_ne!(of_path, name(None, Some(Path::new("/b"))));
        assert_ne!(of_path, name(Some("/a"), Some(Path::new("/a"))));
        assert_eq!(name(Some("x"), None), name(Some("x"), Some(Path::new("/a"))));
    }
}
