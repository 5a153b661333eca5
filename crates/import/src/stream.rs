//! Decoding of the input into commands: arrays of bulk strings, and inline commands. The stream
//! counts the offset and a checksum of the bytes read.
//!
//! The crate redis-protocol decodes a frame. This module does what the crate leaves to its caller.
//! It checks each length before it is used, and refuses nested arrays, which the crate decodes
//! recursively. It checks the line end after a bulk string. It walks a long command that comes in
//! pieces once, and not again from its start with every piece.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::slice::SliceIndex;

use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;
use xxhash_rust::xxh3::Xxh3;

use super::stop::{Stop, What};
use super::{inline, kind};

/// The longest argument: the longest value there is.
pub(super) const ARGUMENT_BYTES_MAX: usize = 16 << 20;
/// The most arguments of a command, as in Redis.
const ARGUMENTS_MAX: i64 = 1 << 20;
/// The longest command: twice the longest entry, so that no command that fits an entry is refused
/// here.
const COMMAND_BYTES_MAX: usize = 64 << 20;
/// The longest inline command, as in Redis.
const LINE_BYTES_MAX: usize = 64 << 10;
/// The longest `*N` or `$N` line: a sign and digits of an `i64`, and slack.
const HEADER_BYTES_MAX: usize = 32;
/// Number of bytes that one read asks for. The buffer grows by bytes that have arrived, never by an
/// announced length.
const READ_BYTES: usize = 256 << 10;

/// Error of a command in which other bytes follow zeros.
const CUT_BY_ZEROS: &str = "zero bytes in a command";

/// Offset up to which an input was read, and a checksum of everything before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Number of bytes read.
    pub offset: u64,
    /// Checksum of these bytes.
    pub checksum: u64,
}

/// Commands, read from `source` one after the other, and then from the sources after it.
pub struct Stream<R> {
    /// The current source; `None` before the first.
    source: Option<R>,
    /// The sources after the current one. No command spans two sources.
    sources: VecDeque<R>,
    /// Offset in the whole input of each source that was begun.
    starts: Vec<u64>,
    /// Buffer of one read.
    chunk: Box<[u8]>,
    buffer: Vec<u8>,
    /// Range of the last command in the buffer; earlier bytes are finished.
    command: Range<usize>,
    /// The words of an inline command, unquoted. The words of an array are in the buffer.
    line: Vec<u8>,
    is_inline: bool,
    words: Vec<Range<usize>>,
    /// End of the last command, as an offset in the whole input.
    end: u64,
    hash: Xxh3,
}

impl<R: Read> Stream<R> {
    /// A stream of one source.
    pub fn new(source: R) -> Self {
        Self::of_parts([source])
    }

    /// A stream of several sources, which are one input.
    pub fn of_parts(sources: impl IntoIterator<Item = R>) -> Self {
        Self {
            source: None,
            sources: sources.into_iter().collect(),
            starts: Vec::new(),
            chunk: vec![0; READ_BYTES].into_boxed_slice(),
            buffer: Vec::new(),
            command: 0..0,
            line: Vec::new(),
            is_inline: false,
            words: Vec::new(),
            end: 0,
            hash: Xxh3::new(),
        }
    }

    /// The number of the part that contains an offset, and the start of that part.
    pub(super) fn part_of(&self, offset: u64) -> (usize, u64) {
        // The first part starts at 0, so at least one part is counted.
        let part = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        // The first part starts at 0.
        (part, self.starts.get(part).copied().unwrap_or(0))
    }

    /// Position of the stream: the end of the last command.
    pub(super) fn position(&self) -> Position {
        Position { offset: self.end, checksum: self.hash.digest() }
    }

    /// Offset of the next command.
    pub(super) fn offset(&self) -> u64 {
        self.end
    }

    /// Skips the first `offset` bytes. Returns the position reached, which is lower if the input
    /// ends before.
    pub(super) fn skip(&mut self, offset: u64) -> Result<Position, Stop> {
        while self.end < offset {
            if self.ahead().is_empty() && !self.fill_between()? {
                break;
            }
            // More than memory can have is more than is ahead.
            let left = usize::try_from(offset - self.end).unwrap_or(usize::MAX);
            self.accept(left.min(self.ahead().len()));
        }
        Ok(self.position())
    }

    /// Reads the next command, and returns its start; `None` at the end. [`Stream::words`] returns
    /// its words.
    pub(super) fn next(&mut self) -> Result<Option<u64>, Stop> {
        loop {
            if self.ahead().is_empty() && !self.fill_between()? {
                return Ok(None);
            }
            let start = self.end;
            if self.starts.last() == Some(&start) {
                self.check_kind()?;
            }
            self.words.clear();
            self.is_inline = self.ahead().first() != Some(&b'*');
            if self.is_inline {
                self.read_line()?
            } else {
                self.read_array()?
            }
            if !self.words.is_empty() {
                return Ok(Some(start));
            }
        }
    }

    /// The words of the last command: its name and its arguments. They are not empty after
    /// [`Stream::next`] found a command.
    pub(super) fn words(&self) -> Words<'_> {
        let text = match self.is_inline {
            true => self.line.as_slice(),
            false => part(&self.buffer, self.command.clone()),
        };
        Words { text, places: &self.words }
    }

    /// Bytes of the input that were read and not yet taken as a command.
    fn ahead(&self) -> &[u8] {
        part(&self.buffer, self.command.end..)
    }

    /// Takes the next `bytes` bytes ahead as one command.
    fn accept(&mut self, bytes: usize) {
        self.command = self.command.end..self.command.end + bytes;
        self.hash.update(part(&self.buffer, self.command.clone()));
        self.end += bytes as u64;
    }

    /// Reads more between two commands, from the next source if the current one ends here. Returns
    /// `false` at the end of the last source.
    fn fill_between(&mut self) -> Result<bool, Stop> {
        loop {
            if self.fill()? {
                return Ok(true);
            }
            let Some(source) = self.sources.pop_front() else { return Ok(false) };
            self.source = Some(source);
            self.starts.push(self.end);
        }
    }

    /// Reads more; returns `false` at the end of the source.
    fn fill(&mut self) -> Result<bool, Stop> {
        // The moved bytes belong to one command, and move once: the next time nothing is before
        // them.
        self.buffer.drain(..self.command.end);
        self.command = 0..0;
        let bytes = self.read()?;
        self.buffer.extend_from_slice(part(&self.chunk, ..bytes));
        Ok(bytes > 0)
    }

    /// Reads into the chunk.
    fn read(&mut self) -> Result<usize, Stop> {
        let Some(source) = &mut self.source else { return Ok(0) };
        let outcome = loop {
            match source.read(&mut self.chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        outcome.map_err(|error| self.stop(What::Read(error)))
    }

    /// Refuses, at its start, a source of another known kind.
    fn check_kind(&mut self) -> Result<(), Stop> {
        while kind::is_begun_by(self.ahead()) && self.fill()? {}
        match kind::of(self.ahead()) {
            Some(what) => Err(self.stop(What::Malformed(what))),
            None => Ok(()),
        }
    }

    /// The error of the byte at `at` ahead: `what`, unless this byte and all after it are zeros. A
    /// crash leaves zeros at the end if the size of a file reached the disk before its content.
    fn malformed(&mut self, at: usize, what: &'static str) -> Stop {
        let rest = part(self.ahead(), at..);
        if rest.is_empty() || rest.iter().any(|byte| *byte != 0) {
            return self.stop(What::Malformed(what));
        }
        // Zeros before it, which were taken for part of a value.
        let before = part(self.ahead(), ..at);
        let before = before.iter().rev().take_while(|byte| **byte == 0).count();
        let from = self.end + (at - before) as u64;
        let mut bytes = (rest.len() + before) as u64;
        loop {
            match self.read() {
                Ok(0) => return self.stop(What::Zeros { from, bytes }),
                Ok(read) if self.chunk.iter().take(read).all(|byte| *byte == 0) => {
                    bytes += read as u64;
                }
                Ok(_) => return self.stop(What::Malformed(what)),
                Err(stop) => return stop,
            }
        }
    }

    /// A stop at the command that is being read.
    fn stop(&self, what: What) -> Stop {
        what.at(self.end)
    }

    /// A stop at the end of the source, within a command. `zero` is the place of the first zero
    /// byte that cannot be part of a command.
    fn cut_off(&mut self, zero: Option<usize>) -> Stop {
        let only_zeros = |zero: &usize| self.ahead().iter().skip(*zero).all(|byte| *byte == 0);
        match zero.filter(only_zeros) {
            Some(zero) => self.malformed(zero, CUT_BY_ZEROS),
            None => self.stop(What::CutOff),
        }
    }

    /// Reads on until `bytes` are ahead.
    fn require(&mut self, bytes: usize) -> Result<(), Stop> {
        while self.ahead().len() < bytes {
            if !self.fill()? {
                return Err(self.stop(What::CutOff));
            }
        }
        Ok(())
    }

    fn read_array(&mut self) -> Result<(), Stop> {
        let bytes = self.walk_array()?;
        let decoded = decode_range(part(self.ahead(), ..bytes));
        match decoded {
            Ok(Some((RangeFrame::Array(frames), used))) if used == bytes => {
                for frame in frames {
                    let RangeFrame::BulkString((start, end)) = frame else {
                        return Err(self.stop(What::Malformed("an array of bulk strings expected")));
                    };
                    self.words.push(start..end);
                }
            }
            // Redis passes over `*-1`, as over `*0`.
            Ok(Some((RangeFrame::Null, used))) if used == bytes => {}
            _ => return Err(self.stop(What::Malformed("the array does not decode"))),
        }
        self.accept(bytes);
        Ok(())
    }

    /// Number of bytes of the next array. All of them are ahead then, and every length in it is
    /// within its limits.
    fn walk_array(&mut self) -> Result<usize, Stop> {
        let (count, mut at) = self.header(0, b'*', "an array expected")?;
        if count > ARGUMENTS_MAX {
            return Err(self.stop(What::Malformed("an array of more than 1048576 arguments")));
        }
        for _ in 0..count {
            let (len, body) = self.header(at, b'$', "a bulk string expected")?;
            let too_long = What::ArgumentTooLong { bytes: len, limit: ARGUMENT_BYTES_MAX };
            let bytes = match usize::try_from(len) {
                Ok(bytes) if bytes > ARGUMENT_BYTES_MAX => return Err(self.stop(too_long)),
                Ok(bytes) => bytes,
                Err(_) => {
                    return Err(self.stop(What::Malformed("a bulk string of negative length")));
                }
            };
            at = body + bytes + 2;
            if at > COMMAND_BYTES_MAX {
                let what = "the command";
                return Err(self.stop(What::TooLarge { what, limit: COMMAND_BYTES_MAX }));
            }
            if let Err(stop) = self.require(at) {
                // The value is whole here, and zeros stand in place of its end.
                let is_zero = self.ahead().get(at - 2) == Some(&0);
                return Err(if is_zero { self.malformed(at - 2, CUT_BY_ZEROS) } else { stop });
            }
            if self.ahead().get(at - 2..at) != Some(b"\r\n") {
                let end = part(self.ahead(), at - 2..at);
                let wrong = at - 2 + usize::from(end.first() == Some(&b'\r'));
                return Err(self.malformed(wrong, "a bulk string does not end where it says"));
            }
        }
        Ok(at)
    }

    /// The number in the header line at `at`, and the offset after the line.
    fn header(
        &mut self,
        at: usize,
        kind: u8,
        expected: &'static str,
    ) -> Result<(i64, usize), Stop> {
        loop {
            let line = part(self.ahead(), at..);
            if line.first().is_some_and(|byte| *byte != kind) {
                return Err(self.malformed(at, expected));
            }
            let line = line.get(..HEADER_BYTES_MAX).unwrap_or(line);
            let end = line.iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let digits = part(line, 1..end);
                if let Some(number) = digits.strip_suffix(b"\r").and_then(decimal) {
                    return Ok((number, at + end + 1));
                }
                let what = match decimal(digits) {
                    Some(_) => {
                        "its lines end with LF only, and Redis writes CR LF: something has changed the file"
                    }
                    None => "a length is no number",
                };
                return Err(self.stop(What::Malformed(what)));
            }
            if line.len() == HEADER_BYTES_MAX {
                let zero = line.iter().position(|byte| *byte == 0).unwrap_or(0);
                return Err(self.malformed(at + zero, "a length is no number"));
            }
            let zero = line.iter().position(|byte| *byte == 0);
            if !self.fill()? {
                return Err(self.cut_off(zero.map(|zero| at + zero)));
            }
        }
    }

    /// Reads an inline command, an empty line or an annotation (`#...`), which an append-only file
    /// may have.
    fn read_line(&mut self) -> Result<(), Stop> {
        // Input may come a byte at a time, so no byte is searched twice.
        let (mut searched, mut zero) = (0, None);
        let end = loop {
            let ahead = self.ahead();
            if ahead.starts_with(kind::RDB) {
                return Err(self.stop(What::Malformed(kind::RDB_IS)));
            }
            let found = ahead.iter().skip(searched).position(|byte| *byte == b'\n');
            if let Some(found) = found.map(|found| searched + found) {
                break found;
            }
            zero = zero.or_else(|| {
                let mut rest = ahead.iter().take(LINE_BYTES_MAX).skip(searched);
                rest.position(|byte| *byte == 0).map(|zero| searched + zero)
            });
            searched = ahead.len();
            if searched > LINE_BYTES_MAX {
                let what = "an inline command longer than 65536 bytes";
                return Err(self.malformed(zero.unwrap_or(0), what));
            }
            if !self.fill()? {
                // The last line without an end may have been longer.
                return Err(self.cut_off(zero));
            }
        };
        let start = self.command.end;
        let line = part(&self.buffer, start..start + end);
        self.line.clear();
        let split = if line.len() > LINE_BYTES_MAX {
            Err("an inline command longer than 65536 bytes")
        } else if line.starts_with(b"#") {
            Ok(())
        } else {
            inline::split(line, &mut self.line, &mut self.words)
        };
        split.map_err(|what| self.stop(What::Malformed(what)))?;
        self.accept(end + 1);
        Ok(())
    }
}

/// The words of one command.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    text: &'a [u8],
    places: &'a [Range<usize>],
}

impl<'a> Words<'a> {
    /// The name of the command.
    pub(super) fn name(&self) -> &'a [u8] {
        // A command without words has no name.
        self.places.first().and_then(|place| self.text.get(place.clone())).unwrap_or_default()
    }

    /// The words after the name.
    pub(super) fn arguments(&self) -> Vec<&'a [u8]> {
        let places = self.places.iter().skip(1);
        places.filter_map(|place| self.text.get(place.clone())).collect()
    }
}

/// Parses the only decimal form of an `i64`, by the rules of Redis: an optional minus sign, digits
/// without leading zeros, nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// The part of `bytes` at `range`. Nothing is outside: a caller has found both ends in these bytes.
fn part<I: SliceIndex<[u8], Output = [u8]>>(bytes: &[u8], range: I) -> &[u8] {
    // An empty part reads as cut off, and the import says where.
    bytes.get(range).unwrap_or_default()
}
