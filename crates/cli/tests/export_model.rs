//! A test that `export` equals, byte for byte, what a small independent model makes of `dump`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::collections::BTreeMap;

use crate::common::{TIMEOUT, fresh, json, open, succeed, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sprag::{Command, Entry, LogId, Note, Payload, testing};

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// The model: the effect of one line of a dump on a state. It is written from the engine's
/// documents only.
fn apply(state: &mut State, entry: &Value) -> Option<()> {
    let key = || bytes(&entry["key"]);
    match entry["kind"].as_str().unwrap() {
        "noop" | "membership" | "opaque" => {}
        "put" => drop(state.insert(key(), bytes(&entry["value"]))),
        "delete" => drop(state.remove(&key())),
        "increment" => {
            let old = match state.get(&key()) {
                None => 0,
                Some(old) => number(old)?,
            };
            let new = old.checked_add(entry["by"].as_i64().unwrap())?;
            state.insert(key(), new.to_string().into_bytes());
        }
        "compare_and_set" => {
            let expected = (!entry["expected"].is_null()).then(|| bytes(&entry["expected"]));
            if state.get(&key()) != expected.as_ref() {
                return None;
            }
            if entry["new"].is_null() {
                state.remove(&key());
            } else {
                state.insert(key(), bytes(&entry["new"]));
            }
        }
        "batch" => {
            let mut changed = state.clone();
            for command in entry["commands"].as_array().unwrap() {
                apply(&mut changed, command)?;
            }
            *state = changed;
        }
        other => panic!("an unknown kind: {other}"),
    }
    Some(())
}

/// Parses a number in the form that Redis writes, and in no other.
fn number(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        other => STANDARD.decode(other["base64"].as_str().unwrap()).unwrap(),
    }
}

fn exported(state: &State) -> String {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::to_string(text).unwrap(),
        Err(_) => format!("{{\"base64\":\"{}\"}}", STANDARD.encode(bytes)),
    };
    let line = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        format!("{{\"key\":{},\"value\":{}}}\n", text(key), text(value))
    };
    state.iter().map(line).collect()
}

/// Keys, values and numbers that are the same in every run.
struct Random(testing::Random);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit
    }

    fn key(&mut self) -> Vec<u8> {
        match self.below(50) {
            0 => vec![0xff, 0xfe],
            1 => vec![0],
            2 => "\u{e9}\"\\\n".as_bytes().to_vec(),
            3 => vec![b'k'; 3000],
            n => format!("key {n}").into_bytes(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.below(8) {
            0 => Vec::new(),
            1 => vec![0xff, 0x00, 0xfe],
            2 => i64::MAX.to_string().into_bytes(),
            3 => b"007".to_vec(),
            4 => vec![b'v'; self.below(3000) as usize],
            _ => self.below(100).to_string().into_bytes(),
        }
    }

    fn by(&mut self) -> i64 {
        [1, -1, 0, i64::MAX, i64::MIN, 1000][self.below(6) as usize]
    }
}

/// The parts of one command, owned.
enum Made {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Increment(Vec<u8>, i64),
    CompareAndSet(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>),
}

impl Made {
    fn random(random: &mut Random) -> Self {
        let key = random.key();
        match random.below(10) {
            0..4 => Self::Put(key, random.value()),
            4 => Self::Delete(key),
            5..8 => Self::Increment(key, random.by()),
            _ => {
                let mut maybe = || (random.below(3) > 0).then(|| random.value());
                let (expected, new) = (maybe(), maybe());
                Self::CompareAndSet(key, expected, new)
            }
        }
    }

    fn command(&self) -> Command<'_> {
        match self {
            Self::Put(key, value) => Command::Put { key, value },
            Self::Delete(key) => Command::Delete { key },
            Self::Increment(key, by) => Command::Increment { key, by: *by },
            Self::CompareAndSet(key, expected, new) => {
                Command::CompareAndSet { key, expected: expected.as_deref(), new: new.as_deref() }
            }
        }
    }
}

fn run(workers: usize, entries: u64) -> Vec<u8> {
    let (_temporary, dir) = fresh();
    let mut random = Random(testing::Random::new(1));
    let mut index = 1_u64;
    // Open twice, so that the second run continues from a replayed state.
    for _ in 0..2 {
        let manager = open(&dir, workers);
        for _ in 0..entries / 2 {
            let made: Vec<Made> =
                (0..1 + random.below(4)).map(|_| Made::random(&mut random)).collect();
            let commands: Vec<Command<'_>> = made.iter().map(Made::command).collect();
            let note = Note { name: b"position", value: &index.to_le_bytes() };
            let payload = match random.below(20) {
                0 => Payload::Noop,
                1 => Payload::Membership(b"\xffmembers"),
                2 => Payload::Opaque(b"opaque"),
                3..6 => Payload::Command(Command::Batch {
                    commands: &commands,
                    note: (random.below(2) == 0).then_some(note),
                }),
                _ => Payload::Command(commands[0]),
            };
            let entry = Entry::new(LogId::new(index, 1 + index / 1000), payload);
            while manager.apply_entries(&[entry]).is_err() {
                manager.wait_for_apply(index - 1, TIMEOUT).unwrap();
            }
            index += 1;
        }
        manager.close(TIMEOUT).unwrap();
    }

    let dump = String::from_utf8(succeed(["dump", text(&dir)])).unwrap();
    let (mut state, mut rejected, mut next) = (State::new(), 0, 1);
    for line in dump.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry["index"].as_u64(), Some(next));
        rejected += u64::from(apply(&mut state, &entry).is_none());
        next += 1;
    }
    assert_eq!(next, index);
    assert!(rejected > entries / 20, "rejections are part of the mix: {rejected}");
    let export = succeed(["export", text(&dir)]);
    assert!(export == exported(&state).into_bytes(), "the export is not the model's");
    assert!(export.windows(8).any(|window| window == b"\"base64\""));
    assert_eq!(json(["stats", text(&dir), "--json"])["keys"].as_u64(), Some(state.len() as u64));
    export
}

#[test]
fn the_export_is_what_the_model_makes_of_the_dump_for_every_number_of_workers() {
    let exports = [1, 2, 4].map(|workers| run(workers, 4000));
    assert!(exports.iter().all(|export| *export == exports[0]));
}
