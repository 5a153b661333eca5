//! The importer against a naive reading of the same bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{self, Read};

use sprag::{PersistentConfig, PersistentStateMachine};

use super::engine::Engine;
use super::map::{Keys, Map};
use super::*;

/// An input without a name.
pub(super) const SHOWN: Shown<'_> = Shown { name: "input", has_position: true };

/// Increments as the engine does, where the increment is known to be possible.
fn increment(keys: &mut Keys, key: &[u8], by: i64) {
    let found = keys.get(key).map_or(0, |text| std::str::from_utf8(text).unwrap().parse().unwrap());
    keys.insert(key.to_vec(), (found + by).to_string().into_bytes());
}

pub(super) fn import_into<T: Target>(
    target: T,
    bytes: impl Read,
    skip: bool,
) -> (Option<Stop>, Summary, T) {
    let mut importer = Importer::new(target, Stream::new(bytes), skip);
    importer.resume(&SHOWN).unwrap();
    let stop = importer.run(|_| ()).unwrap();
    let (summary, target) = importer.finish();
    (stop, summary, target)
}

pub(super) fn import(bytes: &[u8]) -> (Option<Stop>, Map) {
    let (stop, summary, model) = import_into(Map::default(), bytes, false);
    assert_eq!(summary.offset, model.note.map_or(0, |note| note.offset));
    (stop, model)
}

/// The words of the array at the start of `bytes`, and its length. The input must be whole and
/// well-formed.
fn naive_array(bytes: &[u8]) -> (Vec<&[u8]>, usize) {
    let line = |at: usize| {
        let len = bytes[at..].iter().position(|byte| *byte == b'\r').unwrap();
        let number: usize = std::str::from_utf8(&bytes[at + 1..at + len]).unwrap().parse().unwrap();
        (number, at + len + 2)
    };
    let (count, mut at) = line(0);
    let mut words = Vec::new();
    for _ in 0..count {
        let (len, body) = line(at);
        words.push(&bytes[body..body + len]);
        at = body + len + 2;
    }
    (words, at)
}

fn naive_apply(keys: &mut Keys, words: &[&[u8]]) {
    let number = |at: usize| std::str::from_utf8(words[at]).unwrap().parse::<i64>().unwrap();
    match std::str::from_utf8(words[0]).unwrap().to_ascii_uppercase().as_str() {
        "SET" | "MSET" => {
            for pair in words[1..].chunks(2) {
                keys.insert(pair[0].to_vec(), pair[1].to_vec());
            }
        }
        "SETNX" => {
            keys.entry(words[1].to_vec()).or_insert_with(|| words[2].to_vec());
        }
        "APPEND" => keys.entry(words[1].to_vec()).or_default().extend(words[2]),
        "DEL" | "UNLINK" => words[1..].iter().for_each(|key| drop(keys.remove(*key))),
        "INCR" => increment(keys, words[1], 1),
        "DECR" => increment(keys, words[1], -1),
        "INCRBY" => increment(keys, words[1], number(2)),
        "DECRBY" => increment(keys, words[1], -number(2)),
        "SELECT" => {}
        other => panic!("{other}"),
    }
}

/// The end of each unit (a command, or a MULTI with its EXEC or DISCARD) of a stream of arrays, and
/// the state there.
fn naive_units(bytes: &[u8]) -> Vec<(usize, Keys)> {
    let (mut at, mut keys, mut queue) = (0, Keys::new(), None::<Vec<Vec<&[u8]>>>);
    let mut units = vec![(0, Keys::new())];
    while at < bytes.len() {
        let (words, len) = naive_array(&bytes[at..]);
        at += len;
        match (words[0].to_ascii_uppercase().as_slice(), &mut queue) {
            (b"MULTI", _) => queue = Some(Vec::new()),
            (b"DISCARD", _) => queue = None,
            (b"EXEC", queued) => {
                queued.take().unwrap().iter().for_each(|words| naive_apply(&mut keys, words));
            }
            (_, Some(queued)) => queued.push(words),
            (_, None) => naive_apply(&mut keys, &words),
        }
        if queue.is_none() {
            units.push((at, keys.clone()));
        }
    }
    units
}

pub(super) fn array(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Encodes the words of each line as arrays.
fn arrays(lines: &[&str]) -> Vec<u8> {
    let words = |line: &&str| array(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
    lines.iter().flat_map(words).collect()
}

const FIXTURE: &[u8] = include_bytes!("../../cli/tests/fixtures/redis-7.0.15.aof");

/// A stream with every kind of command, small enough to be cut everywhere with a real engine.
fn everything() -> Vec<u8> {
    arrays(&[
        "SELECT 0",
        "SET a 1",
        "multi",
        "INCR a",
        "APPEND a x",
        "SET b 2",
        "EXEC",
        "SETNX b 3",
        "SETNX c 3",
        "MULTI",
        "SET d 4",
        "DISCARD",
        "MSET e 5 f 6",
        "DEL e nothing",
        "UNLINK f",
        "DECRBY b 12",
        "DECR c",
        "INCRBY n 7",
        "APPEND n 0",
        "INCR n",
        "MULTI",
        "EXEC",
        "MULTI",
        "INCR n",
        "APPEND n 1",
        "INCR n",
        "DEL a",
        "SETNX a z",
        "EXEC",
        "APPEND log 1",
        "APPEND log 2",
    ])
}

#[test]
fn a_real_append_only_file_is_what_a_naive_reading_makes_of_it() {
    let units = naive_units(FIXTURE);
    let (stop, model) = import(FIXTURE);
    assert!(stop.is_none(), "{stop:?}");
    assert_eq!(model.keys, units.last().unwrap().1);
    assert!(model.taken.len() < units.len() / 100, "commands are grouped");
}

/// Cuts the fixture at `cut`, and imports the rest from the unit boundary `from` on, over the state
/// there.
fn cut_keeps_whole_units(units: &[(usize, Keys)], from: usize, cut: usize) {
    let (start, before) = &units[from];
    let (end, keys) = &units[units.partition_point(|(end, _)| *end <= cut) - 1];
    let model = Map { keys: before.clone(), ..Map::default() };
    let (stop, _, model) = import_into(model, &FIXTURE[*start..cut], false);
    assert!(model.keys == *keys, "cut at {cut}");
    match stop {
        None => assert_eq!(*end, cut),
        Some(stop) => {
            assert!(matches!(stop.what, What::CutOff), "cut at {cut}: {stop}");
            assert_eq!(stop.offset, (end - start) as u64, "cut at {cut}");
            assert!(cut > *end);
        }
    }
}

#[test]
fn a_real_append_only_file_cut_at_any_byte_keeps_whole_units_and_says_where_it_ends() {
    let units = naive_units(FIXTURE);
    for cut in 0..=FIXTURE.len() {
        // Eight units before the cut cover every state of the parser; all units would take minutes.
        let from = units.partition_point(|(end, _)| *end <= cut).saturating_sub(8);
        cut_keeps_whole_units(&units, from, cut);
    }
    for cut in (0..=FIXTURE.len()).step_by(if cfg!(debug_assertions) { 101 } else { 7 }) {
        cut_keeps_whole_units(&units, 0, cut);
    }
}

/// A reader that returns one, two, three, ... bytes at a time.
pub(super) struct Dribble<'a>(pub(super) &'a [u8], pub(super) usize);

impl Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1 % 7 + 1;
        let bytes = self.1.min(self.0.len());
        let (head, rest) = self.0.split_at(bytes);
        out[..bytes].copy_from_slice(head);
        self.0 = rest;
        Ok(bytes)
    }
}

#[test]
fn it_does_not_matter_in_what_pieces_the_input_comes() {
    let bytes = everything();
    let (stop, _, model) = import_into(Map::default(), Dribble(&bytes, 0), false);
    assert!(stop.is_none());
    assert_eq!(model.keys, naive_units(&bytes).last().unwrap().1);
    assert_eq!(model.note, import(&bytes).1.note);
}

/// Proves OPS-1.
#[test]
fn an_input_cut_anywhere_and_then_whole_is_imported_once_by_a_real_engine() {
    let bytes = everything();
    let units = naive_units(&bytes);
    let expected = &units.last().unwrap().1;
    for cut in (0..bytes.len()).step_by(if cfg!(debug_assertions) { 3 } else { 1 }) {
        let dir = tempfile::tempdir().unwrap();
        let config = PersistentConfig::new(dir.path()).segment_bytes(256 << 10);
        let open = || {
            let machine = PersistentStateMachine::open(config.clone()).unwrap();
            Engine::of(machine, "import:name:x".to_owned()).unwrap()
        };
        let (_, _, engine) = import_into(open(), &bytes[..cut], false);
        engine.close(true).unwrap();
        let (stop, summary, engine) = import_into(open(), bytes.as_slice(), false);
        assert!(stop.is_none(), "cut at {cut}");
        let whole = units.iter().rev().find(|(end, _)| *end <= cut).unwrap().0;
        assert_eq!(summary.resumed_at, whole as u64);
        engine.close(true).unwrap();
        let (stop, summary, engine) = import_into(open(), bytes.as_slice(), false);
        assert!(stop.is_none());
        assert_eq!(
            (summary.commands, summary.entries),
            (0, 0),
            "the third time there is nothing left"
        );
        engine.close(true).unwrap();
        let state = PersistentStateMachine::open_read_only(dir.path()).unwrap();
        let state = state.scan_sorted().unwrap();
        let state: Keys = state.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        assert_eq!(state, *expected, "cut at {cut}");
    }
}

/// Imports `lines`. Returns why the import stops, and the keys.
fn lines(lines: &[&str]) -> (Option<String>, Keys) {
    let bytes: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let (stop, model) = import(bytes.as_bytes());
    (stop.map(|stop| stop.to_string()), model.keys)
}

#[track_caller]
fn stops(input: &[&str], with: &str, keys: &[(&str, &str)]) {
    let (stop, state) = lines(input);
    let stop = stop.unwrap_or_default();
    assert!(stop.contains(with), "{input:?}: {stop:?}");
    let pair = |(key, value): &(&str, &str)| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    assert_eq!(state, keys.iter().map(pair).collect(), "{input:?}");
}

#[test]
fn what_cannot_be_imported_stops_with_name_and_offset_after_all_before_it() {
    let kept: &[(&str, &str)] = &[("a", "1")];
    let stop =
        |line, with: &str| stops(&["SET a 1", line, "SET b 2"], &format!("byte 8: {with}"), kept);
    stop("EXPIRE a 10", "EXPIRE is not supported");
    stop("set a 1 EX 10", "SET with an expiry is not supported");
    stop("SET a 1 NX XX", "SET with these options is not supported");
    stop("SETEX a 10 2", "SETEX with an expiry is not supported");
    stop("SETEX a 0 2", "SETEX: the expiry is not a positive number");
    stop("SUNIONSTORE a b", "SUNIONSTORE is not supported");
    stop("FLUSHALL NOW", "FLUSHALL: wrong number of arguments");
    stop("SELECT 1", "SELECT of another database");
    stop("INCR a b", "INCR: wrong number of arguments");
    stop("MSET b 1 c", "MSET: wrong number of arguments");
    stop("SET", "SET: wrong number of arguments");
    stop("DEL", "DEL: wrong number of arguments");
    stop("EXEC", "EXEC without MULTI");
    stop("DISCARD", "DISCARD without MULTI");
    stop("INCRBY a +1", "INCRBY: the argument is not a decimal");
    stop("INCRBY a 9223372036854775807", "INCRBY: the result does not fit");
    stop("DECRBY a -9223372036854775808", "DECRBY: the decrement is out of range");
    stop("SET \"\" x", "SET: the key is empty");
    stop("SET \"b x", "not a Redis command stream: a quote is not closed");
    stop("\u{1}\u{2}secret x", "not a Redis command stream: a word that is no command's name");
    stop("$3", "not a Redis command stream");
}

#[test]
fn a_number_is_what_redis_takes_for_one() {
    for text in ["x", "01", "+1", "-0", "\" 1\"", "1.0", "\"\"", "9223372036854775808"] {
        let set = format!("SET a {text}");
        let (stop, keys) = lines(&[&set, "INCR a", "SET b 1"]);
        assert!(stop.unwrap().contains("INCR: the value is not a decimal 64-bit number"), "{text}");
        assert_eq!(keys.len(), 1);
    }
}

#[test]
fn a_multi_with_anything_wrong_in_it_is_not_applied_at_all() {
    let kept: &[(&str, &str)] = &[("a", "x"), ("log", "1")];
    for wrong in ["INCR a", "EXPIRE a 1", "MULTI", "SELECT 1", "INCR", "SET \"\" 1"] {
        let input = [
            "SET a x",
            "APPEND log 1",
            "MULTI",
            "SET b 1",
            "APPEND log 2",
            wrong,
            "DEL a",
            "EXEC",
            "SET c 1",
        ];
        stops(&input, "in the MULTI at byte 21, of which nothing is applied", kept);
    }
    stops(&["SET a x", "APPEND log 1", "MULTI", "SET b 1"], "byte 21: the input is cut off", kept);
}

#[test]
fn unknown_commands_are_counted_and_passed_over_if_asked() {
    let input =
        b"SET a 1\nEXPIRE a 9\nMULTI\nINCR a\nHSET h f v\nexpire a 9\nEXEC\nSET c 3\nPING\n";
    let (stop, summary, model) = import_into(Map::default(), input.as_slice(), true);
    assert!(stop.is_none());
    let skipped: Vec<_> = summary.skipped.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(skipped, [("EXPIRE", 2), ("HSET", 1), ("PING", 1)]);
    assert_eq!(summary.commands, 3);
    assert_eq!(
        model.note.unwrap().offset,
        input.len() as u64,
        "what was passed over is not counted again"
    );
    assert_eq!(model.keys, [("a", "2"), ("c", "3")].map(|(k, v)| (k.into(), v.into())).into());
    for never in ["SELECT 1\n", "SET a\n", "EXEC\n", "\u{1} a\n", "*1\r\n$1\r\n\u{1}\r\n"] {
        let (stop, ..) = import_into(Map::default(), never.as_bytes(), true);
        assert!(stop.is_some(), "{never:?}");
    }
}

#[test]
fn what_is_passed_over_in_a_multi_is_counted_when_the_multi_ends() {
    let input: &[u8] = b"MULTI\nHSET h f v\nEXEC\nMULTI\nHSET h f v\nDISCARD\nMULTI\nHSET h f v\n";
    let counted = |summary: &Summary| summary.skipped.values().sum::<u64>();
    let (stop, first, map) = import_into(Map::default(), input, true);
    assert!(matches!(stop.unwrap().what, What::CutOff));
    assert_eq!(counted(&first), 2, "the last one is read again");
    let input = [input, b"EXEC\n"].concat();
    let (stop, second, _) = import_into(map, input.as_slice(), true);
    assert!(stop.is_none());
    assert_eq!(counted(&second), 1);
}

#[test]
fn lengths_are_checked_before_they_are_believed() {
    for (header, with) in [
        ("$99999999999\r\n", "99999999999 bytes, more than the limit of 16777216"),
        ("$16777217\r\n", "16777217 bytes, more than the limit of 16777216"),
        ("$99999999999999999999\r\n", "a length is no number"),
        ("$-1\r\n", "negative length"),
        ("$+1\r\n", "a length is no number"),
        ("$1\r\nab\r\n", "does not end where it says"),
        ("$111111111111111111111111111111111111111111", "a length is no number"),
        (":1\r\n", "a bulk string expected"),
        ("*1\r\n", "a bulk string expected"),
    ] {
        let bytes = [b"SET a 1\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n", header.as_bytes()].concat();
        let (stop, model) = import(&bytes);
        let stop = stop.unwrap().to_string();
        assert!(stop.starts_with("byte 9: ") && stop.contains(with), "{header}: {stop}");
        assert_eq!(model.keys.len(), 1);
    }
    for count in ["*99999999999\r\n", "*1048577\r\n", "*x\r\n", "*1 \r\n", "*\r\n"] {
        let stop = import(count.as_bytes()).0.unwrap().to_string();
        assert!(stop.starts_with("byte 0: not a Redis command stream"), "{count}: {stop}");
    }
    // A thousand nested arrays, which a recursive parser would follow.
    let stop = import("*1\r\n".repeat(100_000).as_bytes()).0.unwrap();
    assert!(stop.to_string().contains("a bulk string expected"));
    // An announced length takes no memory, so this ends at once.
    assert!(matches!(import(b"*1048576\r\n$16777216\r\n").0.unwrap().what, What::CutOff));
}

#[test]
fn empty_arrays_empty_lines_and_annotations_are_passed_over() {
    let (stop, model) = import(b"\r\n*0\r\n*-1\r\n#TS:1700000000\r\n \nSET a 1\r\n\n");
    assert!(stop.is_none(), "{stop:?}");
    assert_eq!(model.keys.len(), 1);
}

#[test]
fn limits_of_keys_values_and_units_are_named_with_the_offset() {
    let (key, long) = (vec![b'k'; 64 << 10], vec![b'k'; (64 << 10) + 1]);
    assert!(import(&array(&[b"SET", &key, b"v"])).0.is_none());
    let stop = import(&array(&[b"SET", &long, b"v"])).0.unwrap().to_string();
    assert!(stop.contains("SET: the key has 65537 bytes, more than the limit of 65536"), "{stop}");

    let half = vec![0xff; 8 << 20];
    let set = array(&[b"SET", b"k", &half]);
    let append = array(&[b"APPEND", b"k", &half]);
    let over = array(&[b"APPEND", b"k", b"x"]);
    let (stop, model) = import(&[set.clone(), append.clone(), over, set.clone()].concat());
    let stop = stop.unwrap();
    assert_eq!(stop.offset, (set.len() + append.len()) as u64);
    assert!(stop.to_string().contains("16777217 bytes, more than the limit of 16777216"), "{stop}");
    assert_eq!(model.keys[b"k".as_slice()].len(), 16 << 20);

    let multi = |sets: usize| [b"MULTI\n", set.repeat(sets).as_slice(), b"EXEC\n"].concat();
    assert!(import(&multi(3)).0.is_none());
    let (stop, model) = import(&[b"SET a 1\n", multi(4).as_slice()].concat());
    let stop = stop.unwrap().to_string();
    assert!(stop.starts_with("byte 8: the MULTI: more than the limit"), "{stop}");
    assert_eq!(model.keys.len(), 1);
}

#[test]
fn an_input_that_is_not_what_was_imported_before_is_refused() {
    let (_, _, model) = import_into(Map::default(), b"SET a 1\nSET b 2\n".as_slice(), false);
    let note = model.note;
    let resume = |bytes: &[u8]| {
        let model = Map { note, ..Map::default() };
        let mut importer = Importer::new(model, Stream::new(bytes), false);
        importer.resume(&SHOWN).map_err(|error| error.to_string())
    };
    assert!(resume(b"SET a 1\nSET b 2\n").is_ok());
    assert!(resume(b"SET a 1\nSET b 2\nSET").is_ok());
    let shorter = resume(b"SET a 1\n").unwrap_err();
    assert!(
        shorter.contains("16 bytes of it were imported before, and it has only 8 bytes"),
        "{shorter}"
    );
    let changed = resume(b"SET a 1\nSET b 3\nSET c 4\n").unwrap_err();
    assert!(
        changed.contains("16 bytes of it were imported before, and it begins with other ones"),
        "{changed}"
    );
}

#[test]
fn a_failing_read_keeps_what_was_whole() {
    struct Fails<'a>(&'a [u8]);
    impl Read for Fails<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::Error::other("unplugged")) } else { self.0.read(out) }
        }
    }
    let (stop, _, model) = import_into(Map::default(), Fails(b"SET a 1\nSET b"), false);
    assert_eq!(stop.unwrap().to_string(), "byte 8: reading the input failed: unplugged");
    assert_eq!(model.keys.len(), 1);
}
