//! Printing of bytes, indexes and sizes.

use std::fmt;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, Serializer};
use sprag::Cut;

use crate::error::Outcome;

/// Bytes as a JSON string if they are UTF-8, and otherwise as `{"base64": ".."}`. Both forms are
/// lossless.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(self.0))?;
                map.end()
            }
        }
    }
}

/// Writes one JSON object as a line.
pub(crate) fn line(out: &mut dyn Write, value: &impl Serialize) -> Outcome {
    // serde_json hides the kind of an output's failure behind its own error.
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number, or a dash for `None`.
pub(crate) struct Maybe<T>(pub(crate) Option<T>);

impl<T: fmt::Display> fmt::Display for Maybe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.pad("-"),
        }
    }
}

/// A number of bytes, in a readable unit.
pub(crate) fn size(bytes: u64) -> impl fmt::Display {
    indicatif::BinaryBytes(bytes)
}

/// A torn end, in words.
pub(crate) fn torn(cut: Option<&Cut>) -> String {
    cut.map_or_else(
        || "none".to_owned(),
        |cut| {
            let indexes = cut.indexes.map_or(String::new(), |(first, last)| {
                format!(", with frame headers of indexes {first} to {last} among them")
            });
            format!("{} bytes at {} offset {}{indexes}", cut.bytes, cut.file, cut.offset)
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn bytes_are_text_if_they_can_be_and_base64_if_not() {
        let json = |bytes| serde_json::to_string(&Bytes(bytes)).unwrap();
        assert_eq!(json(b"key"), r#""key""#);
        assert_eq!(json(b""), r#""""#);
        assert_eq!(json(b"a\"\n\0"), r#""a\"\n\u0000""#);
        assert_eq!(json(&[0xff, 0xfe]), r#"{"base64":"//4="}"#);
    }

    #[test]
    fn what_is_not_there_is_a_dash() {
        assert_eq!(format!("{:>4}|{:<4}|", Maybe(Some(7)), Maybe::<u64>(None)), "   7|-   |");
    }
}
