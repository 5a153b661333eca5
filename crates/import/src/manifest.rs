//! The manifest of Redis 7, which lists the files of an append-only file.
//!
//! A line is `file NAME seq NUMBER type LETTER`; the name is quoted as in an inline command if
//! necessary. Type `b` is the base, `i` an increment, `h` a file that was given up.

use super::inline;
use super::stream::decimal;

/// The names of the files to read, in the order of their commands: the base, and the increments by
/// their numbers.
pub(super) fn files(text: &[u8]) -> Result<Vec<String>, String> {
    let (mut base, mut increments) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let wrong = |what: &str| format!("line {number}: {what}");
        let (kind, sequence, name) = file(line).map_err(wrong)?;
        match kind {
            b'b' if base.is_empty() => base.push(name),
            b'b' => return Err(wrong("a second base file")),
            b'i' => increments.push((sequence, name)),
            b'h' => {}
            _ => return Err(wrong("a file of an unknown type")),
        }
    }
    if !increments.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err("the numbers of its increments do not rise".to_owned());
    }
    base.extend(increments.into_iter().map(|(_, name)| name));
    Ok(base)
}

/// Type, number and name of the file in a line. Fields of later versions are passed over.
fn file(line: &[u8]) -> Result<(u8, i64, String), &'static str> {
    let (mut text, mut words) = (Vec::new(), Vec::new());
    inline::split(line, &mut text, &mut words)?;
    let words: Vec<&[u8]> = words.into_iter().filter_map(|place| text.get(place)).collect();
    let (mut name, mut sequence, mut kind) = (None, None, None);
    for field in words.chunks(2) {
        let [field, value] = field else { return Err("a field without a value") };
        match *field {
            b"file" => name = std::str::from_utf8(value).ok(),
            b"seq" => sequence = decimal(value).filter(|sequence| *sequence > 0),
            b"type" => kind = value.first().copied().filter(|_| value.len() == 1),
            _ => {}
        }
    }
    let (Some(name), Some(sequence), Some(kind)) = (name, sequence, kind) else {
        return Err("not \"file NAME seq NUMBER type LETTER\"");
    };
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err("a file that is not beside the manifest");
    }
    Ok((kind, sequence, name.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn files_are_the_base_and_then_the_increments() {
        let text =
            b"file a.1.base.aof seq 1 type b startoffset 0\r\nfile a.1.incr.aof seq 1 type h\n\
                     # a comment\nfile \"a 2\" seq 2 type i\nfile a.3 seq 3 type i\n";
        assert_eq!(files(text).unwrap(), ["a.1.base.aof", "a 2", "a.3"]);
        assert_eq!(files(b"").unwrap(), [""; 0]);
    }

    #[test]
    fn a_line_that_says_something_else_is_named() {
        for (text, why) in [
            (&b"file a seq 1 type i\nfile b seq 1 type i\n"[..], "do not rise"),
            (b"file a seq 1 type b\nfile b seq 2 type b\n", "line 2: a second base"),
            (b"file ../a seq 1 type b\n", "line 1: a file that is not beside"),
            (b"file a seq x type b\n", "line 1: not \"file NAME"),
            (b"file a seq 1 type\n", "line 1: a field without a value"),
            (b"file a seq 1 type z\n", "unknown type"),
            (b"\n\nfile \"a seq 1 type b\n", "line 3: a quote is not closed"),
        ] {
            let found = files(text).unwrap_err();
            assert!(found.contains(why), "{found}");
        }
    }
}
