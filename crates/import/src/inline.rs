//! Inline commands: words of a line, quoted as `redis-cli` quotes them.

use std::ops::Range;

/// Splits `line` (without its end) into words. Their bytes go one after the other into `text`,
/// their places into `words`.
///
/// Words are separated by white space. Between double quotes, `\n`, `\r`, `\t`, `\a`, `\b`, `\xHH`
/// stand for a byte and any other escaped byte for itself. Between single quotes, only `\'` is an
/// escape. A closing quote ends its word. A vertical tab or a form feed is white space before a
/// word and after a quote, and part of a word that has begun. Redis takes a zero byte for the end
/// of the line and drops the rest; that is never intended, so this function refuses it.
pub(super) fn split(
    line: &[u8],
    text: &mut Vec<u8>,
    words: &mut Vec<Range<usize>>,
) -> Result<(), &'static str> {
    if line.contains(&0) {
        return Err("an inline command with a zero byte");
    }
    let mut rest = line;
    loop {
        while let [byte, after @ ..] = rest
            && is_space(*byte)
        {
            rest = after;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let start = text.len();
        rest = word(rest, text)?;
        words.push(start..text.len());
    }
}

/// Takes one word off `rest`.
fn word<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' | b'\'' => {
                let after = if byte == b'"' { double(after, text)? } else { single(after, text)? };
                if after.first().is_some_and(|byte| !is_space(*byte)) {
                    return Err("a closing quote is followed by something else than a space");
                }
                return Ok(after);
            }
            b' ' | b'\n' | b'\r' | b'\t' => return Ok(rest),
            byte => {
                text.push(byte);
                after
            }
        };
    }
    Ok(rest)
}

/// The characters of C's `isspace`, as Redis uses it.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

const UNBALANCED: &str = "a quote is not closed";

fn double<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    loop {
        let (byte, after) = match rest {
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (digit(*high) << 4 | digit(*low), after)
            }
            [b'\\', escaped, after @ ..] => (unescape(*escaped), after),
            [byte, after @ ..] => (*byte, after),
            [] => return Err(UNBALANCED),
        };
        text.push(byte);
        rest = after;
    }
}

fn single<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    loop {
        let (byte, after) = match rest {
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
            [] => return Err(UNBALANCED),
        };
        text.push(byte);
        rest = after;
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 7,
        b'b' => 8,
        other => other,
    }
}

/// The value of a hexadecimal digit; the caller has checked that it is one.
fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        other => (other | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
        let (mut text, mut words) = (Vec::new(), Vec::new());
        split(line, &mut text, &mut words)?;
        Ok(words.into_iter().map(|word| text[word].to_vec()).collect())
    }

    #[test]
    fn words_are_split_and_unquoted_as_redis_does() {
        let cases: [(&[u8], &[&[u8]]); 11] = [
            (b"", &[]),
            (b" \t ", &[]),
            (b"SET a b", &[b"SET", b"a", b"b"]),
            (b"  SET\ta  b \r", &[b"SET", b"a", b"b"]),
            (br#"SET "a b" 'c d'"#, &[b"SET", b"a b", b"c d"]),
            (br#"SET "" ''"#, &[b"SET", b"", b""]),
            (br#""\x00\xfF\n\r\t\a\b\\\"\q""#, &[b"\x00\xff\n\r\t\x07\x08\\\"q"]),
            (br#""\xg0""#, &[b"xg0"]),
            (br"'\n\'\x41'", &[br"\n'\x41"]),
            (b"\x0b\x0cSET a\x0bb\x0cc \x0b\"d\"\x0c", &[b"SET", b"a\x0bb\x0cc", b"d"]),
            (b"\xff\xfe x", &[b"\xff\xfe", b"x"]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).unwrap(), expected, "{line:?}");
        }
    }

    #[test]
    fn bad_quotes_and_zero_bytes_are_refused() {
        let bad: [&[u8]; 9] =
            [b"SET a \0", b"'\0'", b"\"", b"'", b"\"a", b"'a\\'", b"\"a\"b", b"'a'b", b"\"\\"];
        for line in bad {
            assert!(words(line).is_err(), "{line:?}");
        }
    }
}
