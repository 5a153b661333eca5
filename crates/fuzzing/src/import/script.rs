//! Command streams written from few bytes. Whole commands in every form let a fuzzer get past the
//! framing, and long streams make more than one entry. Mutations of bytes cover lengths and line
//! ends.

use super::Input;

/// Length from which on a stream does not grow: enough to fill an entry, in commands and in bytes.
const STREAM_BYTES_MAX: usize = 320 << 10;

/// Names of commands, with the kind of each argument: a key, a value, one of the options, or
/// itself.
const COMMANDS: [(&str, &str); 38] = [
    ("SET", "kv"),
    ("SETNX", "kv"),
    ("APPEND", "kv"),
    ("INCR", "k"),
    ("DECR", "k"),
    ("INCRBY", "kv"),
    ("DECRBY", "kv"),
    ("DEL", "k"),
    ("DEL", "kkk"),
    ("UNLINK", "kk"),
    ("MSET", "kv"),
    ("MSET", "kvkvkv"),
    ("MULTI", ""),
    ("MULTI", ""),
    ("EXEC", ""),
    ("EXEC", ""),
    ("DISCARD", ""),
    ("SELECT", "0"),
    ("SELECT", "v"),
    ("EXPIRE", "kv"),
    ("HSET", "kkv"),
    ("SET", "kvv"),
    ("MSET", "kvk"),
    ("PING", ""),
    ("FLUSHALL", ""),
    ("FLUSHDB", "A"),
    ("SET", "kvK"),
    ("SET", "kvN"),
    ("SET", "kvXG"),
    ("SET", "kvPv"),
    ("SETEX", "kvv"),
    ("GETSET", "kv"),
    ("GETDEL", "k"),
    ("MSETNX", "kvkv"),
    ("SUNIONSTORE", "kk"),
    ("SWAPDB", "01"),
    ("RENAME", "kk"),
    ("SORT", "kSk"),
];
const COMMAND_COUNT: u8 = 38;
/// Options that an argument may be.
const OPTIONS: [(u8, &str); 7] = [
    (b'A', "ASYNC"),
    (b'G', "GET"),
    (b'K', "keepttl"),
    (b'N', "NX"),
    (b'P', "PX"),
    (b'S', "STORE"),
    (b'X', "XX"),
];

/// Operation that repeats; the operations of the commands come before it.
pub(super) const REPEAT: u8 = COMMAND_COUNT;
pub(super) const DAMAGE: u8 = REPEAT + 1;
pub(super) const RAW: u8 = DAMAGE + 1;
pub(super) const NOTHING: u8 = RAW + 1;
const OPERATION_COUNT: u8 = NOTHING + 1;

/// The operation that writes this command, which must be in the table.
pub(super) fn operation(name: &str, arguments: &str) -> u8 {
    let of_it = |command: &(&str, &str)| *command == (name, arguments);
    u8::try_from(COMMANDS.iter().position(of_it).unwrap()).unwrap()
}

/// The stream that `script` describes.
pub(super) fn write(script: &mut Input<'_>) -> Vec<u8> {
    let (mut stream, mut last) = (Vec::new(), 0..0);
    while !script.is_empty() && stream.len() < STREAM_BYTES_MAX {
        let start = stream.len();
        match script.u8() % OPERATION_COUNT {
            REPEAT => {
                let command = stream[last.clone()].to_vec();
                let room = STREAM_BYTES_MAX / command.len().max(1);
                stream.extend(command.repeat(usize::from(script.u16() % 600).min(room)));
            }
            DAMAGE => {
                let (at, bits) = (usize::from(script.u16()), script.u8());
                let command = &mut stream[last.clone()];
                let bytes = command.len().max(1);
                command.iter_mut().skip(at % bytes).take(1).for_each(|byte| *byte ^= bits);
            }
            RAW => {
                let bytes = usize::from(script.u8() % 24);
                stream.extend(script.bytes(bytes));
                last = start..stream.len();
            }
            NOTHING => {
                const NOTHINGS: [&[u8]; 6] =
                    [b"\r\n", b"\n", b"*0\r\n", b"*-1\r\n", b"#TS:1700000000\r\n", b" \t\n"];
                stream.extend(NOTHINGS[usize::from(script.u8()) % NOTHINGS.len()]);
            }
            command => {
                let words = words(COMMANDS[usize::from(command)], script);
                match script.u8() % 8 {
                    0 => line(&mut stream, &words, quoted),
                    1 => line(&mut stream, &words, bare),
                    2 => line(&mut stream, &words, single),
                    _ => array(&mut stream, &words),
                }
                last = start..stream.len();
            }
        }
    }
    stream
}

fn words((name, arguments): (&str, &str), script: &mut Input<'_>) -> Vec<Vec<u8>> {
    let mut words = vec![name.as_bytes().to_vec()];
    for argument in arguments.bytes() {
        words.push(match argument {
            b'k' => key(script),
            b'v' => value(script),
            other => {
                let option = OPTIONS.iter().find(|(letter, _)| *letter == other);
                option.map_or(vec![other], |(_, option)| option.as_bytes().to_vec())
            }
        });
    }
    words
}

/// A key, mostly one of few, so that commands meet.
fn key(script: &mut Input<'_>) -> Vec<u8> {
    match script.u8() {
        255 => vec![b'k'; 64 << 10],
        254 => vec![b'k'; (64 << 10) + 1],
        253 => Vec::new(),
        252 => (0..=u8::MAX).collect(),
        251 => b"a b\r\n\"'\\".to_vec(),
        250 => b"*1\r\n$4\r\nEXEC\r\n".to_vec(),
        few => vec![b'a' + few % 6],
    }
}

/// A value, mostly a number, so that it counts.
fn value(script: &mut Input<'_>) -> Vec<u8> {
    match script.u8() {
        255 => vec![b'v'; 130 << 10],
        254 => vec![b'v'; 70 << 10],
        253 => vec![b'v'; 5 << 10],
        252 => i64::MAX.to_string().into_bytes(),
        251 => i64::MIN.to_string().into_bytes(),
        250 => b"-0".to_vec(),
        249 => b"+1".to_vec(),
        248 => b"01".to_vec(),
        247 => b"9223372036854775808".to_vec(),
        246 => b"*1\r\n$4\r\nEXEC\r\n".to_vec(),
        len @ 230..=245 => script.bytes(usize::from(len - 230)).to_vec(),
        number => (i32::from(number) - 100).to_string().into_bytes(),
    }
}

pub(super) fn array(stream: &mut Vec<u8>, words: &[impl AsRef<[u8]>]) {
    stream.extend(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        let word = word.as_ref();
        stream.extend(format!("${}\r\n", word.len()).as_bytes());
        stream.extend(word);
        stream.extend(b"\r\n");
    }
}

fn line(stream: &mut Vec<u8>, words: &[Vec<u8>], form: fn(&[u8]) -> Vec<u8>) {
    let words: Vec<_> = words.iter().map(|word| form(word)).collect();
    stream.extend(words.join(&b' '));
    stream.extend(b"\r\n");
}

/// A word as `redis-cli` shows it: other than printable characters are escaped.
fn quoted(word: &[u8]) -> Vec<u8> {
    let mut text = vec![b'"'];
    for byte in word {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', *byte]),
            b'\n' => text.extend(b"\\n"),
            b' '..=b'~' => text.push(*byte),
            byte => text.extend(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    text.push(b'"');
    text
}

/// A word as it is, which may become several words or lines.
fn bare(word: &[u8]) -> Vec<u8> {
    word.to_vec()
}

/// A word between single quotes, which a line end in it breaks.
fn single(word: &[u8]) -> Vec<u8> {
    let mut text = vec![b'\''];
    for byte in word {
        if *byte == b'\'' {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text.push(b'\'');
    text
}
