//! A plain reading of a whole command stream, from `docs/operating.md` and the protocol, that
//! shares no code with the importer.

mod words;

use std::collections::BTreeMap;

use self::words::words;

type Keys = BTreeMap<Vec<u8>, Vec<u8>>;
type Words = Vec<Vec<u8>>;

/// Reason why a stream is not read further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    Unsupported,
    /// The command must not be left out.
    Decisive,
    /// Only a part of the command may be left out.
    InPart,
    Options,
    Database,
    Arguments,
    Rejected,
    Misplaced,
    EmptyKey,
    LongKey,
    LongValue,
    LongArgument,
    TooLarge,
    Malformed,
    Zeros,
    CutOff,
    Read,
}

/// Reason and place of a stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stopped {
    pub(super) offset: u64,
    pub(super) multi: Option<u64>,
    pub(super) why: Why,
}

/// Offset of a command, and its error.
type Wrong = (usize, Why);

pub(super) struct Reading<'a> {
    stream: &'a [u8],
    skips: bool,
    /// End of the last unit: a command, or a MULTI with its end.
    pub(super) reached: u64,
    pub(super) keys: Keys,
    pub(super) commands: u64,
    pub(super) skipped: BTreeMap<String, u64>,
}

/// The state after the unit that ends at `offset`.
pub(super) fn state_at(stream: &[u8], skips: bool, offset: u64) -> Keys {
    let mut reading = Reading::new(stream, skips);
    while reading.reached < offset {
        assert_eq!(reading.next_unit(), Ok(true));
    }
    assert_eq!(reading.reached, offset, "no unit ends there");
    reading.keys
}

/// Role of a command in the stream.
enum Role {
    Data,
    Multi,
    Exec,
    Discard,
    Nothing,
    Unknown(Why),
    /// The remaining command if this one is passed over.
    Part(Words),
}

impl<'a> Reading<'a> {
    pub(super) fn new(stream: &'a [u8], skips: bool) -> Self {
        let (keys, skipped) = (Keys::new(), BTreeMap::new());
        Self { stream, skips, reached: 0, keys, commands: 0, skipped }
    }

    /// Reads one unit and does what it says, or nothing of it. Returns `false` at the end of the
    /// stream.
    pub(super) fn next_unit(&mut self) -> Result<bool, Stopped> {
        let mut multi = None;
        self.unit(&mut multi).map_err(|(offset, why)| match (why, multi) {
            (Why::CutOff, Some(multi)) => Stopped { offset: multi, multi: None, why },
            _ => Stopped { offset: offset as u64, multi, why },
        })
    }

    fn unit(&mut self, multi: &mut Option<u64>) -> Result<bool, Wrong> {
        let mut at = usize::try_from(self.reached).unwrap();
        let mut queue: Vec<(usize, Words)> = Vec::new();
        let mut passed_over = Vec::new();
        let is_executed = loop {
            let rest = &self.stream[at..];
            if rest.is_empty() {
                return if multi.is_none() { Ok(false) } else { Err((at, Why::CutOff)) };
            }
            let start = at;
            if start == 0 && begins_as_something_else(rest) {
                return Err((start, Why::Malformed));
            }
            let (words, bytes) = words(rest).map_err(|why| (start, why))?;
            at += bytes;
            if words.is_empty() {
                continue;
            }
            let role = role(&words).map_err(|why| (start, why))?;
            match role {
                Role::Data => queue.push((start, words)),
                Role::Multi if multi.is_none() => *multi = Some(start as u64),
                Role::Exec if multi.is_some() => break true,
                Role::Discard if multi.is_some() => break false,
                Role::Multi | Role::Exec | Role::Discard => return Err((start, Why::Misplaced)),
                Role::Nothing => {}
                Role::Unknown(_) if self.skips => passed_over.push(capitals(&words[0])),
                Role::Unknown(why) => return Err((start, why)),
                Role::Part(part) if self.skips => {
                    passed_over.push(capitals(&words[0]));
                    queue.push((start, part));
                }
                Role::Part(_) => return Err((start, Why::InPart)),
            }
            if multi.is_none() {
                break true;
            }
        };
        if is_executed {
            let mut keys = self.keys.clone();
            for (start, words) in &queue {
                apply(&mut keys, words).map_err(|why| (*start, why))?;
            }
            self.keys = keys;
            self.commands += queue.len() as u64;
        }
        for name in passed_over {
            *self.skipped.entry(name).or_default() += 1;
        }
        self.reached = at as u64;
        Ok(true)
    }
}

/// Whether a stream begins like a file of another kind.
fn begins_as_something_else(stream: &[u8]) -> bool {
    const STARTS: [&[u8]; 17] = [
        b"REDIS0",
        &[0x1f, 0x8b],
        &[0x28, 0xb5, 0x2f, 0xfd],
        &[0xfd, b'7', b'z', b'X', b'Z', 0],
        b"BZh",
        &[4, 0x22, 0x4d, 0x18],
        &[b'P', b'K', 3, 4],
        b"SPRG",
        b"SPRM",
        b"SPRH",
        b"SQLite format 3",
        &[0x7f, b'E', b'L', b'F'],
        &[0xff, 0xfe],
        &[0xfe, 0xff],
        &[0xef, 0xbb, 0xbf],
        b"{",
        b"file ",
    ];
    STARTS.iter().any(|start| stream.starts_with(start))
}

fn capitals(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_uppercase()
}

/// The role of a command, or its error independent of its place.
fn role(words: &[Vec<u8>]) -> Result<Role, Why> {
    let (name, arguments) = (&words[0], &words[1..]);
    let plain =
        |byte: &u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let is_name = matches!(name.first(), Some(b'a'..=b'z' | b'A'..=b'Z'));
    if !is_name || name.len() > 32 || !name.iter().all(plain) {
        return Err(Why::Malformed);
    }
    let name = capitals(name);
    let count = arguments.len();
    let fits = match name.as_str() {
        "MULTI" | "EXEC" | "DISCARD" => count == 0,
        "SELECT" | "INCR" | "DECR" => count == 1,
        "SET" if count > 2 => return set(arguments),
        "SETEX" | "PSETEX" if count == 3 => {
            if number(&arguments[1])? <= 0 {
                return Err(Why::Rejected);
            }
            check_key(&arguments[0])?;
            let put = ["SET".into(), arguments[0].clone(), arguments[2].clone()];
            return Ok(Role::Part(put.into()));
        }
        "SETEX" | "PSETEX" => false,
        "FLUSHALL" | "FLUSHDB" => match arguments {
            [] => true,
            [how] => ["SYNC", "ASYNC"].contains(&&*capitals(how)),
            _ => false,
        },
        "GETDEL" => count == 1,
        "MSETNX" => count > 0 && count % 2 == 0,
        "GETSET" | "SET" | "SETNX" | "APPEND" | "INCRBY" | "DECRBY" => count == 2,
        "DEL" | "UNLINK" => count > 0,
        "MSET" => count > 0 && count % 2 == 0,
        "SDIFFSTORE" | "SINTERSTORE" | "SUNIONSTORE" | "ZDIFFSTORE" | "ZINTERSTORE"
        | "ZUNIONSTORE" | "ZRANGESTORE" | "GEOSEARCHSTORE"
            if count > 0 =>
        {
            check_key(&arguments[0])?;
            return Ok(Role::Part(vec!["DEL".into(), arguments[0].clone()]));
        }
        other => {
            let stores = |word: &Vec<u8>| ["STORE", "STOREDIST"].contains(&&*capitals(word));
            let is_decisive = DECISIVE.contains(&other)
                || ["SORT", "GEORADIUS", "GEORADIUSBYMEMBER"].contains(&other)
                    && arguments.iter().any(stores);
            return if is_decisive {
                Err(Why::Decisive)
            } else {
                Ok(Role::Unknown(Why::Unsupported))
            };
        }
    };
    if !fits {
        return Err(Why::Arguments);
    }
    let keys_every = match name.as_str() {
        "MULTI" => return Ok(Role::Multi),
        "EXEC" => return Ok(Role::Exec),
        "DISCARD" => return Ok(Role::Discard),
        "SELECT" if arguments[0] == b"0" => return Ok(Role::Nothing),
        "SELECT" => return Err(Why::Database),
        "FLUSHALL" | "FLUSHDB" => return Ok(Role::Data),
        "DEL" | "UNLINK" => 1,
        _ => 2,
    };
    for key in arguments.iter().step_by(keys_every) {
        check_key(key)?;
    }
    if name.ends_with("RBY") {
        step(&name, arguments)?;
    }
    Ok(Role::Data)
}

/// Names of commands without which later commands would do something else.
const DECISIVE: [&str; 35] = [
    "SWAPDB",
    "MOVE",
    "RENAME",
    "RENAMENX",
    "COPY",
    "RESTORE",
    "RESTORE-ASKING",
    "MIGRATE",
    "SETRANGE",
    "SETBIT",
    "BITFIELD",
    "BITOP",
    "INCRBYFLOAT",
    "PFADD",
    "PFMERGE",
    "PFDEBUG",
    "MSETEX",
    "DELEX",
    "DELIFEQ",
    "EVAL",
    "EVALSHA",
    "FCALL",
    "REPLICAOF",
    "SLAVEOF",
    "FAILOVER",
    "DEBUG",
    "SHUTDOWN",
    "QUIT",
    "RESET",
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "SSUBSCRIBE",
    "MONITOR",
    "SYNC",
    "PSYNC",
];

fn check_key(key: &[u8]) -> Result<(), Why> {
    match key.len() {
        0 => Err(Why::EmptyKey),
        1..=0x1_0000 => Ok(()),
        _ => Err(Why::LongKey),
    }
}

/// A SET with options; without its expiry, it is only a part of the command.
fn set(arguments: &[Vec<u8>]) -> Result<Role, Why> {
    check_key(&arguments[0])?;
    let options: Vec<_> = arguments[2..].iter().map(|word| capitals(word)).collect();
    let has = |name: &str| options.iter().any(|option| option == name);
    let mut times = 0;
    let mut at = 0;
    while at < options.len() {
        match &*options[at] {
            "NX" | "XX" | "GET" | "KEEPTTL" => {}
            "EX" | "PX" | "EXAT" | "PXAT" => {
                at += 1;
                let time = arguments.get(2 + at).and_then(|text| number(text).ok());
                if time.is_none_or(|time| time <= 0) {
                    return Err(Why::Options);
                }
                times += 1;
            }
            _ => return Err(Why::Options),
        }
        at += 1;
    }
    if has("NX") && has("XX") || times > 1 || times == 1 && has("KEEPTTL") {
        return Err(Why::Options);
    }
    let mut put = vec![b"SET".to_vec(), arguments[0].clone(), arguments[1].clone()];
    put.extend(["NX", "XX"].iter().filter(|name| has(name)).map(|name| name.as_bytes().to_vec()));
    if times > 0 { Ok(Role::Part(put)) } else { Ok(Role::Data) }
}

/// Carries out a command of data.
fn apply(keys: &mut Keys, words: &[Vec<u8>]) -> Result<(), Why> {
    let (name, arguments) = (capitals(&words[0]), &words[1..]);
    match name.as_str() {
        "SET" if arguments.len() > 2 => {
            let is_there = keys.contains_key(&arguments[0]);
            let has = |name: &str| arguments[2..].iter().any(|word| capitals(word) == name);
            if !(has("NX") && is_there || has("XX") && !is_there) {
                keys.insert(arguments[0].clone(), arguments[1].clone());
            }
        }
        "MSETNX" if arguments.chunks(2).any(|pair| keys.contains_key(&pair[0])) => {}
        "FLUSHALL" | "FLUSHDB" => keys.clear(),
        "SET" | "MSET" | "MSETNX" | "GETSET" => {
            for pair in arguments.chunks(2) {
                keys.insert(pair[0].clone(), pair[1].clone());
            }
        }
        "SETNX" => drop(keys.entry(arguments[0].clone()).or_insert_with(|| arguments[1].clone())),
        "APPEND" => {
            let value = keys.entry(arguments[0].clone()).or_default();
            value.extend(&arguments[1]);
            if value.len() > 16 << 20 {
                return Err(Why::LongValue);
            }
        }
        "DEL" | "UNLINK" | "GETDEL" => arguments.iter().for_each(|key| drop(keys.remove(key))),
        _ => {
            let before = keys.get(&arguments[0]).map_or(Ok(0), |text| number(text))?;
            let after = before + step(&name, arguments)?;
            i64::try_from(after).map_err(|_| Why::Rejected)?;
            keys.insert(arguments[0].clone(), after.to_string().into_bytes());
        }
    }
    Ok(())
}

/// The number that INCR, INCRBY, DECR or DECRBY adds. The number that is subtracted must have a
/// counterpart that can be added.
fn step(name: &str, arguments: &[Vec<u8>]) -> Result<i128, Why> {
    let by = arguments.get(1).map_or(Ok(1), |text| number(text))?;
    let by = if name.starts_with("DECR") { -by } else { by };
    if by > i128::from(i64::MAX) { Err(Why::Rejected) } else { Ok(by) }
}

/// Parses a number as Redis does: an optional minus sign, then digits, in 64 bits. The first digit
/// is not 0, except in "0" itself.
fn number(text: &[u8]) -> Result<i128, Why> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    let is_zero = sign == 1 && digits == b"0";
    let starts = matches!(digits.first(), Some(b'1'..=b'9'));
    if !(is_zero || starts && digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit)) {
        return Err(Why::Rejected);
    }
    let value = digits.iter().fold(0, |value, digit| value * 10 + i128::from(digit - b'0'));
    let value = sign * value;
    if i64::try_from(value).is_ok() { Ok(value) } else { Err(Why::Rejected) }
}
