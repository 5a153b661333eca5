//! Standard output. Text printed to a terminal contains nothing that the terminal would obey. A
//! failed write is remembered, even if the command ignores it.

use std::io::{self, BufWriter, IsTerminal, Write};

const BUFFER_BYTES: usize = 64 << 10;

/// Standard output, or a substitute in tests.
pub(crate) struct Stdout<W: Write> {
    out: BufWriter<W>,
    /// Escapes text; set if the output is a terminal.
    escaper: Option<Escaper>,
    failure: Option<io::Error>,
}

impl Stdout<io::StdoutLock<'static>> {
    pub(crate) fn new() -> Self {
        let out = io::stdout().lock();
        let is_terminal = out.is_terminal();
        Self::of(out, is_terminal)
    }
}

impl<W: Write> Stdout<W> {
    fn of(out: W, is_terminal: bool) -> Self {
        let escaper = is_terminal.then(Escaper::default);
        Self { out: BufWriter::with_capacity(BUFFER_BYTES, out), escaper, failure: None }
    }

    /// Writes the buffered rest, and returns the first failure of any write.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let last = self.flush();
        // Dropping the buffer must not retry a failed write.
        let _unwritten = self.out.into_parts();
        match self.failure {
            Some(error) => Err(error),
            None => last,
        }
    }

    fn checked<T>(&mut self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.inspect_err(|error| {
            let copy = || io::Error::new(error.kind(), error.to_string());
            self.failure.get_or_insert_with(copy);
        })
    }
}

impl<W: Write> Write for Stdout<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.escaper {
            Some(escaper) => {
                let text = escaper.text(bytes);
                self.out.write_all(text.as_bytes()).map(|()| bytes.len())
            }
            None => self.out.write(bytes),
        };
        self.checked(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let rest = self.escaper.as_mut().map(Escaper::rest).unwrap_or_default();
        let flushed = self.out.write_all(rest.as_bytes()).and_then(|()| self.out.flush());
        self.checked(flushed)
    }
}

/// Turns bytes into printable text. Line ends and tabs stay. Control characters and bytes that are
/// not UTF-8 become `\x1b` and the like.
#[derive(Default)]
struct Escaper {
    /// First bytes of a character whose other bytes have not arrived.
    begun: Vec<u8>,
}

impl Escaper {
    fn text(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut text = String::with_capacity(all.len());
        let mut rest = all.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    push(&mut text, valid);
                    return text;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    push(&mut text, std::str::from_utf8(valid).unwrap_or_default());
                    let Some(invalid) = error.error_len() else {
                        self.begun = after.to_vec();
                        return text;
                    };
                    let (invalid, after) = after.split_at(invalid);
                    push_bytes(&mut text, invalid);
                    rest = after;
                }
            }
        }
    }

    /// The escaped bytes of an unfinished character.
    fn rest(&mut self) -> String {
        let mut text = String::new();
        push_bytes(&mut text, &std::mem::take(&mut self.begun));
        text
    }
}

fn push(text: &mut String, valid: &str) {
    for letter in valid.chars() {
        if letter.is_control() && !matches!(letter, '\n' | '\t') {
            push_bytes(text, letter.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            text.push(letter);
        }
    }
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.extend(['\\', 'x']);
        text.extend(
            [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('?')),
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn shown(pieces: &[&[u8]], is_terminal: bool) -> Vec<u8> {
        let mut shown = Vec::new();
        let mut out = Stdout::of(&mut shown, is_terminal);
        for piece in pieces {
            out.write_all(piece).unwrap();
        }
        out.finish().unwrap();
        shown
    }

    #[test]
    fn a_terminal_gets_no_control_byte_and_a_pipe_gets_all() {
        let bytes = b"a\x1b[2J\tb\x7f\r\n\xff\xc2\x9b\xc3\xa4";
        assert_eq!(shown(&[bytes], false), bytes);
        let text = "a\\x1b[2J\tb\\x7f\\x0d\n\\xff\\xc2\\x9b\u{e4}";
        assert_eq!(shown(&[bytes], true), text.as_bytes());
        // The bytes of a character may arrive one by one, or only its first ones.
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(shown(&pieces, true), text.as_bytes());
        assert_eq!(shown(&[b"a\xe2\x82"], true), b"a\\xe2\\x82");
    }

    #[test]
    fn the_first_failure_to_write_is_kept() {
        let mut small = [0; 4];
        let mut out = Stdout::of(&mut small[..], false);
        out.write_all(b"more than four bytes").unwrap();
        assert!(out.flush().is_err());
        assert_eq!(out.finish().unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}
