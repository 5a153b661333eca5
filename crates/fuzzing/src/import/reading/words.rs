//! Splitting of the first command of a stream into words.

use super::{Why, Words};

const LINE_BYTES_MAX: usize = 64 << 10;
const ARGUMENT_BYTES_MAX: i128 = 16 << 20;
const ARGUMENTS_MAX: i128 = 1 << 20;
/// Longest header line; a line without an end by then is no header.
const HEADER_BYTES_MAX: usize = 32;

/// The words, and the number of bytes of the whole command. A command without words asks for
/// nothing.
pub(super) fn words(stream: &[u8]) -> Result<(Words, usize), Why> {
    if stream[0] == b'*' { array(stream) } else { line(stream) }
}

fn array(stream: &[u8]) -> Result<(Words, usize), Why> {
    let (count, mut at) = header(stream, b'*')?;
    if !(-1..=ARGUMENTS_MAX).contains(&count) {
        return Err(Why::Malformed);
    }
    let mut words = Words::new();
    for _ in 0..count {
        let (bytes, header_bytes) = header(&stream[at..], b'$')?;
        at += header_bytes;
        if bytes < 0 {
            return Err(Why::Malformed);
        }
        if bytes > ARGUMENT_BYTES_MAX {
            return Err(Why::LongArgument);
        }
        let bytes = usize::try_from(bytes).unwrap();
        let end = at + bytes;
        let body = stream.get(at..end + 2).ok_or_else(|| or_zeros(stream, end, Why::CutOff))?;
        let wrong = if stream[end] == b'\r' { end + 1 } else { end };
        let word = body.strip_suffix(b"\r\n");
        let word = word.ok_or_else(|| or_zeros(stream, wrong, Why::Malformed))?;
        words.push(word.to_vec());
        at += bytes + 2;
    }
    Ok((words, at))
}

/// The error at a byte, or `Zeros` if only zeros follow.
fn or_zeros(stream: &[u8], at: usize, why: Why) -> Why {
    match stream.get(at..) {
        Some(rest @ [_, ..]) if rest.iter().all(|byte| *byte == 0) => Why::Zeros,
        _ => why,
    }
}

/// Position of the first zero byte, or the end.
fn zero(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())
}

/// The number of a header line, and the bytes of the line.
fn header(stream: &[u8], kind: u8) -> Result<(i128, usize), Why> {
    match stream.first() {
        None => return Err(Why::CutOff),
        Some(first) if *first != kind => return Err(or_zeros(stream, 0, Why::Malformed)),
        Some(_) => {}
    }
    let window = &stream[..stream.len().min(HEADER_BYTES_MAX)];
    let Some(line) =
        window.split_inclusive(|byte| *byte == b'\n').next().filter(|line| line.ends_with(b"\n"))
    else {
        let is_cut = window.len() < HEADER_BYTES_MAX;
        let why = if is_cut { Why::CutOff } else { Why::Malformed };
        return Err(or_zeros(stream, zero(window), why));
    };
    let digits = line[1..].strip_suffix(b"\r\n").ok_or(Why::Malformed)?;
    let number = super::number(digits).map_err(|_| Why::Malformed)?;
    Ok((number, line.len()))
}

fn line(stream: &[u8]) -> Result<(Words, usize), Why> {
    if stream.starts_with(b"REDIS0") {
        return Err(Why::Malformed);
    }
    let end = match stream.iter().position(|byte| *byte == b'\n') {
        Some(end) if end <= LINE_BYTES_MAX => end,
        None if stream.len() <= LINE_BYTES_MAX => {
            return Err(or_zeros(stream, zero(stream), Why::CutOff));
        }
        None => {
            let start = &stream[..LINE_BYTES_MAX];
            return Err(or_zeros(stream, zero(start), Why::Malformed));
        }
        Some(_) => return Err(Why::Malformed),
    };
    let line = &stream[..end];
    let words = if line[..].first() == Some(&b'#') { Words::new() } else { split(line)? };
    Ok((words, end + 1))
}

/// State of the splitter after a byte of the line.
enum State {
    Between,
    Bare,
    Double,
    /// State after a backslash between double quotes.
    Escape,
    Single,
    /// State after a closing quote.
    Closed,
}

fn split(line: &[u8]) -> Result<Words, Why> {
    let (mut words, mut word, mut state) = (Words::new(), Vec::new(), State::Between);
    let mut at = 0;
    while at < line.len() {
        let byte = line[at];
        at += 1;
        let is_space = matches!(byte, b' ' | 9..=13);
        state = match (state, byte) {
            (_, 0) => return Err(Why::Malformed),
            (State::Between | State::Closed, _) if is_space => State::Between,
            (State::Closed, _) => return Err(Why::Malformed),
            (State::Between | State::Bare, b'"') => State::Double,
            (State::Between | State::Bare, b'\'') => State::Single,
            (State::Bare, b' ' | b'\t' | b'\r') => {
                words.push(std::mem::take(&mut word));
                State::Between
            }
            (State::Between | State::Bare, _) => {
                word.push(byte);
                State::Bare
            }
            (State::Double, b'\\') => State::Escape,
            (State::Double, b'"') => {
                words.push(std::mem::take(&mut word));
                State::Closed
            }
            (State::Escape, b'x') => {
                let digits =
                    line.get(at..at + 2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                match digits.map(|digits| std::str::from_utf8(digits).unwrap()) {
                    Some(digits) => {
                        word.push(u8::from_str_radix(digits, 16).unwrap());
                        at += 2;
                    }
                    None => word.push(b'x'),
                }
                State::Double
            }
            (State::Escape, _) => {
                let plain = b"nrtab".iter().position(|escaped| *escaped == byte);
                word.push(plain.map_or(byte, |at| b"\n\r\t\x07\x08"[at]));
                State::Double
            }
            (State::Single, b'\\') if line.get(at) == Some(&b'\'') => {
                at += 1;
                word.push(b'\'');
                State::Single
            }
            (State::Single, b'\'') => {
                words.push(std::mem::take(&mut word));
                State::Closed
            }
            (state @ (State::Double | State::Single), _) => {
                word.push(byte);
                state
            }
        };
    }
    match state {
        State::Between | State::Closed => Ok(words),
        State::Bare => {
            words.push(word);
            Ok(words)
        }
        State::Double | State::Escape | State::Single => Err(Why::Malformed),
    }
}
