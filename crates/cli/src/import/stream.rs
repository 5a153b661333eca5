//! The input as commands: arrays of bulk strings, and inline commands, with the offset and a checksum of what was read.
//!
//! Redis-protocol decodes a frame. What it leaves to its caller is done here before it sees one: no length is believed
//! before it is checked (nor nested arrays, which it takes recursively), the line end after a bulk string is looked at,
//! and a long command that comes in pieces is walked once, not from its start again with every piece.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;

use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;
use xxhash_rust::xxh3::Xxh3;

use super::stop::{Stop, What};
use super::{inline, kind};

/// The longest argument: the longest value there is.
pub(super) const ARGUMENT_BYTES_MAX: usize = 16 << 20;
/// The most arguments of a command, as in Redis.
const ARGUMENTS_MAX: i64 = 1 << 20;
/// The longest command: twice the longest entry, so that what could be one is never refused here.
const COMMAND_BYTES_MAX: usize = 64 << 20;
/// The longest inline command, as in Redis.
const LINE_BYTES_MAX: usize = 64 << 10;
/// The longest `*N` or `$N` line: a sign and digits of an `i64`, and slack.
const HEADER_BYTES_MAX: usize = 32;
/// How much is read at once. The buffer grows by what has come, never by what a length says will.
const READ_BYTES: usize = 256 << 10;

/// What a command is that zeros were found in, and then something else.
const CUT_BY_ZEROS: &str = "zero bytes in a command";

/// How far an input was read, and a checksum of all up to there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position {
    pub(super) offset: u64,
    pub(super) checksum: u64,
}

/// Commands, read from `source` one after the other, and then from the sources after it.
pub(super) struct Stream<R> {
    /// `None` before the first.
    source: Option<R>,
    /// What comes after it. No command is in two sources.
    sources: VecDeque<R>,
    /// Where each source that was begun begins in the whole input.
    starts: Vec<u64>,
    /// What one read fills.
    chunk: Box<[u8]>,
    buffer: Vec<u8>,
    /// What of the buffer is the command read last; what is before it is done with.
    command: Range<usize>,
    /// The words of an inline command, unquoted; those of an array are in the buffer.
    line: Vec<u8>,
    is_inline: bool,
    words: Vec<Range<usize>>,
    /// The end of the command read last, in the whole input.
    end: u64,
    hash: Xxh3,
}

impl<R: Read> Stream<R> {
    #[cfg(any(fuzzing, test))]
    pub(super) fn new(source: R) -> Self {
        Self::of_parts([source])
    }

    /// The commands of several sources, which are one input.
    pub(super) fn of_parts(sources: impl IntoIterator<Item = R>) -> Self {
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

    /// Which of its parts an offset is in, and where that begins.
    pub(super) fn part_of(&self, offset: u64) -> (usize, u64) {
        let part = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        (part, self.starts.get(part).copied().unwrap_or(0))
    }

    /// How far it was read: the end of the last command.
    pub(super) fn position(&self) -> Position {
        Position { offset: self.end, checksum: self.hash.digest() }
    }

    /// Where the next command starts.
    pub(super) fn offset(&self) -> u64 {
        self.end
    }

    /// Reads over the first `offset` bytes; where it got to, which is less if the input ends before.
    pub(super) fn skip(&mut self, offset: u64) -> Result<Position, Stop> {
        while self.end < offset {
            if self.ahead().is_empty() && !self.fill_between()? {
                break;
            }
            let left = usize::try_from(offset - self.end).unwrap_or(usize::MAX);
            self.accept(left.min(self.ahead().len()));
        }
        Ok(self.position())
    }

    /// Reads the next command, and says where it starts; `None` at the end. Its words are [`Stream::words`].
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

    /// The words of the command read last: its name and its arguments. Not empty after [`Stream::next`] found one.
    pub(super) fn words(&self) -> Words<'_> {
        let text = match self.is_inline {
            true => self.line.as_slice(),
            false => self.buffer.get(self.command.clone()).unwrap_or_default(),
        };
        Words { text, places: &self.words }
    }

    /// What was read of the input and not yet taken as a command.
    fn ahead(&self) -> &[u8] {
        self.buffer.get(self.command.end..).unwrap_or_default()
    }

    /// Takes the next `bytes` of what is ahead as one command.
    fn accept(&mut self, bytes: usize) {
        self.command = self.command.end..self.command.end + bytes;
        self.hash.update(self.buffer.get(self.command.clone()).unwrap_or_default());
        self.end += bytes as u64;
    }

    /// Reads more between two commands, of the next source if one ends here; `false` at the end of the last one.
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

    /// Reads more; `false` at the end of the source.
    fn fill(&mut self) -> Result<bool, Stop> {
        // What is moved is part of one command, and moved once: the next time nothing is before it.
        self.buffer.drain(..self.command.end);
        self.command = 0..0;
        let bytes = self.read()?;
        self.buffer.extend_from_slice(self.chunk.get(..bytes).unwrap_or_default());
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

    /// Refuses, at its start, a source that is known to be something else.
    fn check_kind(&mut self) -> Result<(), Stop> {
        while kind::is_begun_by(self.ahead()) && self.fill()? {}
        match kind::of(self.ahead()) {
            Some(what) => Err(self.stop(What::Malformed(what))),
            None => Ok(()),
        }
    }

    /// What is wrong with the byte at `at` of what is ahead: `what` says, unless it and all after it are zeros. A crash
    /// leaves such an end where the size of a file was on disk before its content.
    fn malformed(&mut self, at: usize, what: &'static str) -> Stop {
        let rest = self.ahead().get(at..).unwrap_or_default();
        if rest.is_empty() || rest.iter().any(|byte| *byte != 0) {
            return self.stop(What::Malformed(what));
        }
        // Those before it, which were taken for part of a value.
        let before = self.ahead().get(..at).unwrap_or_default();
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

    /// At the command that is being read.
    fn stop(&self, what: What) -> Stop {
        what.at(self.end)
    }

    /// At the end of the source, within a command in which the first zero byte that can not be in one is at `zero`.
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
        let decoded = decode_range(self.ahead().get(..bytes).unwrap_or_default());
        match decoded {
            Ok(Some((RangeFrame::Array(frames), used))) if used == bytes => {
                for frame in frames {
                    let RangeFrame::BulkString((start, end)) = frame else {
                        return Err(self.stop(What::Malformed("an array of bulk strings expected")));
                    };
                    self.words.push(start..end);
                }
            }
            // `*-1`, which Redis passes over like `*0`.
            Ok(Some((RangeFrame::Null, used))) if used == bytes => {}
            _ => return Err(self.stop(What::Malformed("the array does not decode"))),
        }
        self.accept(bytes);
        Ok(())
    }

    /// The bytes of the array that is next, all of them ahead and every length in it in its limits.
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
                // Where the value is whole, and zeros are where its end would be.
                let is_zero = self.ahead().get(at - 2) == Some(&0);
                return Err(if is_zero { self.malformed(at - 2, CUT_BY_ZEROS) } else { stop });
            }
            if self.ahead().get(at - 2..at) != Some(b"\r\n") {
                let end = self.ahead().get(at - 2..at).unwrap_or_default();
                let wrong = at - 2 + usize::from(end.first() == Some(&b'\r'));
                return Err(self.malformed(wrong, "a bulk string does not end where it says"));
            }
        }
        Ok(at)
    }

    /// The number of the header line at `at`, and where what follows it starts.
    fn header(
        &mut self,
        at: usize,
        kind: u8,
        expected: &'static str,
    ) -> Result<(i64, usize), Stop> {
        loop {
            let line = self.ahead().get(at..).unwrap_or_default();
            if line.first().is_some_and(|byte| *byte != kind) {
                return Err(self.malformed(at, expected));
            }
            let line = line.get(..HEADER_BYTES_MAX).unwrap_or(line);
            let end = line.iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let digits = line.get(1..end).unwrap_or_default();
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

    /// Reads an inline command, an empty line or an annotation (`#...`), which an append-only file may have.
    fn read_line(&mut self) -> Result<(), Stop> {
        let mut searched = 0;
        let end = loop {
            let ahead = self.ahead();
            if ahead.starts_with(kind::RDB) {
                return Err(self.stop(What::Malformed(kind::RDB_IS)));
            }
            let found = ahead.iter().skip(searched).position(|byte| *byte == b'\n');
            if let Some(found) = found.map(|found| searched + found) {
                break found;
            }
            searched = ahead.len();
            let zero = ahead.iter().take(LINE_BYTES_MAX).position(|byte| *byte == 0);
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
        let line = self.buffer.get(start..start + end).unwrap_or_default();
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
        self.places.first().and_then(|place| self.text.get(place.clone())).unwrap_or_default()
    }

    /// What follows the name.
    pub(super) fn arguments(&self) -> Vec<&'a [u8]> {
        let places = self.places.iter().skip(1);
        places.filter_map(|place| self.text.get(place.clone())).collect()
    }
}

/// The `i64` that `text` is the one decimal form of, by the rules of Redis: an optional minus sign, digits without
/// leading zeros, nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
