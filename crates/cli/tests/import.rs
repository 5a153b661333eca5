//! `sprag import`, as it is called.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sprag::PersistentStateMachine;

type Keys = BTreeMap<Vec<u8>, Vec<u8>>;

const AOF: &[u8] = include_bytes!("fixtures/redis-7.0.15.aof");
const EXPECTED: &[u8] = include_bytes!("fixtures/redis-7.0.15.expected");

fn sprag(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sprag"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that ends early does not read all of it.
    let _closed = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

struct Run {
    output: Output,
    summary: Value,
}

impl Run {
    fn error(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn number(&self, field: &str) -> u64 {
        self.summary[field].as_u64().unwrap()
    }
}

/// Imports by standard input.
fn import(dir: &Path, input: &[u8], options: &[&str]) -> Run {
    let mut arguments = vec!["import", "--json", dir.to_str().unwrap(), "-"];
    arguments.extend(options);
    let output = sprag(&arguments, input);
    let summary = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Run { output, summary }
}

fn state(dir: &Path) -> Keys {
    let state = PersistentStateMachine::open_read_only(dir).unwrap().scan_sorted().unwrap();
    state.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

/// The bulk strings that `bytes` are.
fn bulk_strings(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut strings = Vec::new();
    while let Some(rest) = bytes.strip_prefix(b"$") {
        let end = rest.iter().position(|byte| *byte == b'\r').unwrap();
        let len: usize = std::str::from_utf8(&rest[..end]).unwrap().parse().unwrap();
        strings.push(&rest[end + 2..end + 2 + len]);
        bytes = &rest[end + 4 + len..];
    }
    assert!(bytes.is_empty());
    strings
}

fn expected() -> Keys {
    bulk_strings(EXPECTED).chunks(2).map(|pair| (pair[0].to_vec(), pair[1].to_vec())).collect()
}

#[test]
fn the_append_only_file_of_a_redis_server_becomes_its_keys_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/redis-7.0.15.aof");
    let output = sprag(&["import", "--json", data.to_str().unwrap(), file], b"");
    assert!(output.status.success(), "{output:?}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["offset"], AOF.len());
    assert_eq!(summary["stopped"], Value::Null);
    let (found, expected) = (state(&data), expected());
    assert_eq!(expected.len(), 344);
    for (key, value) in &expected {
        assert_eq!(found.get(key), Some(value), "key {key:?}");
    }
    assert_eq!(found.len(), expected.len());

    // Again, by another path to the same file: counters are not counted twice.
    let again = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/../tests/fixtures/redis-7.0.15.aof");
    let output = sprag(&["import", "--json", data.to_str().unwrap(), again], b"");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["commands"], &summary["entries"]), (&0.into(), &0.into()));
    assert_eq!(state(&data), expected);
    let output = sprag(&["verify", data.to_str().unwrap()], b"");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_half_and_then_the_whole_by_standard_input_is_the_whole_once() {
    let dir = tempfile::tempdir().unwrap();
    let half = import(dir.path(), &AOF[..AOF.len() / 2], &[]);
    assert_eq!(half.output.status.code(), Some(1));
    assert!(half.error().contains("the input is cut off here"), "{}", half.error());
    let whole = import(dir.path(), AOF, &[]);
    assert!(whole.output.status.success(), "{}", whole.error());
    assert_eq!(whole.number("resumed_at"), half.number("offset"));
    assert_eq!(state(dir.path()), expected());
}

#[test]
fn an_unknown_command_stops_with_name_and_offset_and_can_be_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let input = b"SET marker-key marker-value\nINCR n\nZADD marker-key 1 marker-value\nINCR n\n";
    let run = import(dir.path(), input, &[]);
    assert_eq!(run.output.status.code(), Some(1));
    assert!(
        run.error().contains("-: stopped at: byte 35: ZADD is not supported"),
        "{}",
        run.error()
    );
    assert!(!run.error().contains("marker"));
    assert_eq!(run.summary["stopped"]["offset"], 35);
    assert_eq!((run.number("commands"), run.number("offset")), (2, 35));
    assert_eq!(state(dir.path())[b"n".as_slice()], b"1");

    let run = import(dir.path(), input, &["--skip-unknown"]);
    assert!(run.output.status.success(), "{}", run.error());
    assert_eq!((run.number("resumed_at"), run.number("skipped")), (35, 1));
    assert_eq!(run.summary["skipped_commands"]["ZADD"], 1);
    assert_eq!(state(dir.path())[b"n".as_slice()], b"2");
}

#[test]
fn names_keep_inputs_apart_and_a_changed_input_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(import(dir.path(), b"INCR n\n", &[]).output.status.success());
    let changed = import(dir.path(), b"INCR m\nINCR m\n", &[]);
    assert_eq!(changed.output.status.code(), Some(1));
    assert!(changed.error().contains("not those that were imported before"), "{}", changed.error());
    assert!(import(dir.path(), b"INCR m\n", &["--name", "other"]).output.status.success());
    assert_eq!(
        state(dir.path()),
        [("m", "1"), ("n", "1")].map(|(k, v)| (k.into(), v.into())).into()
    );
}

#[test]
fn what_sprag_exports_it_imports() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    assert!(import(&one, AOF, &[]).output.status.success());
    let exported = sprag(&["export", "--format", "resp", one.to_str().unwrap()], b"");
    assert!(import(&other, &exported.stdout, &[]).output.status.success());
    assert_eq!(state(&other), expected());
}

#[test]
fn a_missing_file_makes_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("file"));
    let output = sprag(&["import", data.to_str().unwrap(), file.to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(!data.exists());
}

#[test]
fn the_largest_values_and_units_are_taken_by_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let value = vec![0xfe; 16 << 20];
    let set = |key: &str, len: usize| {
        let mut bytes = format!("*3\r\n$3\r\nSET\r\n$1\r\n{key}\r\n${len}\r\n").into_bytes();
        bytes.extend_from_slice(&value[..len]);
        bytes.extend_from_slice(b"\r\n");
        bytes
    };
    let input = [
        set("a", 16 << 20),
        b"MULTI\n".to_vec(),
        set("b", 16 << 20),
        set("c", 15 << 20),
        b"EXEC\nINCR n\nAPPEND b \"\"\n".to_vec(),
    ]
    .concat();
    let run = import(dir.path(), &input, &[]);
    assert!(run.output.status.success(), "{}", run.error());
    let state = state(dir.path());
    let lengths: Vec<_> = state.values().map(Vec::len).collect();
    assert_eq!(lengths, [16 << 20, 16 << 20, 15 << 20, 1]);
}
