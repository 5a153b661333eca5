//! Tests of `sprag import` by its command line.

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
    // A command that ends early does not read all of its input.
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

/// Splits `bytes` into its bulk strings.
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

    // Import again, by another path to the same file: counters are not counted twice.
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
        run.error().contains("standard input: stopped at: byte 35: ZADD is not supported"),
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
    assert!(
        changed
            .error()
            .contains("imported before by a pipe without a --name, and it begins with other ones"),
        "{}",
        changed.error()
    );
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

/// Runs a line in a shell, with `$S` for the command.
fn shell(within: &Path, line: &str) -> Output {
    Command::new("bash")
        .args(["-c", line])
        .env("S", env!("CARGO_BIN_EXE_sprag"))
        .current_dir(within)
        .output()
        .unwrap()
}

#[test]
fn every_kind_of_pipe_is_read_and_shares_a_position_until_it_has_a_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x.aof"), "INCR a\r\n").unwrap();
    for (number, line) in [
        "$S import d0 <(cat x.aof)",
        "cat x.aof | $S import d1 /dev/stdin",
        "cat x.aof | $S import d2 -",
        "$S import d3 /dev/stdin <x.aof",
        "mkfifo f; cat x.aof >f & $S import d4 f",
    ]
    .iter()
    .enumerate()
    {
        let output = shell(dir.path(), line);
        assert!(output.status.success(), "{line}: {output:?}");
        let keys = state(&dir.path().join(format!("d{number}")));
        assert_eq!(keys, [(b"a".to_vec(), b"1".to_vec())].into(), "{line}");
    }
    // Another pipe counts as the same input; another input needs a name.
    assert!(shell(dir.path(), "$S import d0 - <x.aof").status.success());
    let other = shell(dir.path(), "echo INCR b | $S import d0 <(cat)");
    assert_eq!(other.status.code(), Some(1));
    let error = String::from_utf8(other.stderr).unwrap();
    assert!(error.contains("by a pipe without a --name") && error.contains("--name"), "{error}");
    assert!(shell(dir.path(), "echo INCR b | $S import d0 - --name b").status.success());
    let keys = state(&dir.path().join("d0"));
    assert_eq!(keys, [("a", "1"), ("b", "1")].map(|(k, v)| (k.into(), v.into())).into());
}

/// Writes a directory in the form of Redis 7.
fn redis_7(dir: &Path, base: &str) {
    let files = dir.join("appendonlydir");
    std::fs::create_dir(&files).unwrap();
    let write = |name: &str, text: &str| std::fs::write(files.join(name), text).unwrap();
    write("a.aof.2.base.aof", base);
    write("a.aof.1.incr.aof", "SET old 1\r\n");
    write("a.aof.2.incr.aof", "SELECT 0\r\nINCR a\r\n");
    write("a.aof.3.incr.aof", "SELECT 0\r\nINCR a\r\nSET b 1\r\n");
    write(
        "a.aof.manifest",
        "file a.aof.2.base.aof seq 2 type b\nfile a.aof.1.incr.aof seq 1 type h\n\
         file a.aof.2.incr.aof seq 2 type i\nfile a.aof.3.incr.aof seq 3 type i\n",
    );
}

#[test]
fn a_redis_7_directory_or_manifest_is_the_files_it_names_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    redis_7(dir.path(), "SET a 40\r\n");
    let files = dir.path().join("appendonlydir");
    let expected: Keys = [("a", "42"), ("b", "1")].map(|(k, v)| (k.into(), v.into())).into();
    for (number, from) in
        [dir.path().to_owned(), files.clone(), files.join("a.aof.manifest")].iter().enumerate()
    {
        let data = dir.path().join(format!("data{number}"));
        let output =
            sprag(&["import", "--json", data.to_str().unwrap(), from.to_str().unwrap()], b"");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(state(&data), expected, "{}", from.display());
    }
    // The last file grows, and the import continues there. A stop names the file.
    let last = files.join("a.aof.3.incr.aof");
    let whole = std::fs::read_to_string(&last).unwrap();
    std::fs::write(&last, format!("{whole}INCR a\r\nSWAPDB 0 1\r\n")).unwrap();
    let data = dir.path().join("data0");
    let output = sprag(
        &["import", "--json", data.to_str().unwrap(), files.to_str().unwrap(), "--skip-unknown"],
        b"",
    );
    let error = String::from_utf8(output.stderr).unwrap();
    let at = whole.len() + 8;
    assert!(error.contains(&format!("a.aof.3.incr.aof: stopped at: byte {at}: SWAPDB")), "{error}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["commands"], &summary["stopped"]["offset"]), (&1.into(), &at.into()));
    assert_eq!(state(&data)[b"a".as_slice()], b"43");
}

#[test]
fn what_can_not_be_imported_is_named_and_makes_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    redis_7(dir.path(), "REDIS0011\u{1}redis-ver");
    let line = "mkdir empty many; touch many/a.manifest many/b.manifest; $S put own a 1; \
                $S snapshot own --out s.snap; printf '\\037\\213\\010\\000' >x.gz; \
                head -c 9000 /dev/zero >zeros; : >e.manifest; \
                printf 'file gone seq 1 type b\\n' >gone.manifest; printf 'SWAPDB 0 1\\n' >swap";
    assert!(shell(dir.path(), line).status.success());
    for (from, what) in [
        ("appendonlydir", "a.aof.2.base.aof: an RDB file or preamble"),
        ("empty", "a directory without a manifest"),
        ("many", "a directory with several manifests"),
        ("own", "a directory of sprag (sprag export DIR"),
        ("s.snap", "a snapshot of sprag (sprag restore"),
        ("x.gz", "compressed with gzip (gunzip -c"),
        ("zeros", "byte 0: all bytes from byte 0 to the end are zero (9000 of them)"),
        ("gone.manifest", "gone: No such file"),
        ("swap", "SWAPDB is not supported"),
        ("nothing", "nothing: No such file"),
    ] {
        for options in [&[][..], &["--skip-unknown"]] {
            let data = at("data");
            let (data, from) = (data.to_str().unwrap(), at(from));
            let output = sprag(&[&["import", data, from.to_str().unwrap()], options].concat(), b"");
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{error}");
            assert!(error.contains(what) && error.lines().count() == 1, "{error}");
            assert!(!at("data").exists(), "{what}");
        }
    }
    // An empty input is complete.
    assert!(shell(dir.path(), "$S import data e.manifest && $S verify data").status.success());
    let missing = shell(dir.path(), "$S import no/data swap");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no: no such directory"));
}

#[test]
fn a_flush_deletes_all_keys_of_the_directory_in_entries_of_bounded_length() {
    let dir = tempfile::tempdir().unwrap();
    let mut input = Vec::new();
    for number in 0..30_000 {
        writeln!(input, "SET key-{number:060} {number}").unwrap();
    }
    assert!(import(dir.path(), &input, &["--name", "fill"]).output.status.success());
    let before = state(dir.path()).len();
    let flush = import(dir.path(), b"MULTI\nSET a 1\nFLUSHALL\nEXEC\nSETNX a 2\n", &[]);
    assert!(flush.output.status.success(), "{}", flush.error());
    assert_eq!((before, flush.number("entries")), (30_000, 2));
    assert_eq!(state(dir.path()), [(b"a".to_vec(), b"2".to_vec())].into());

    assert!(import(dir.path(), &input, &["--name", "again"]).output.status.success());
    let flush = import(dir.path(), b"FLUSHDB\nSETNX a 3\n", &["--name", "flush"]);
    assert!(flush.output.status.success(), "{}", flush.error());
    assert!(flush.number("entries") > 5 && flush.number("commands") == 2);
    assert_eq!(state(dir.path()), [(b"a".to_vec(), b"3".to_vec())].into());
    // The note of an import is no key.
    let again = import(dir.path(), b"FLUSHDB\nSETNX a 3\n", &["--name", "flush"]);
    assert_eq!((again.number("commands"), again.number("entries")), (0, 0));
    assert!(sprag(&["verify", dir.path().to_str().unwrap()], b"").status.success());
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
