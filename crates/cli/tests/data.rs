//! Tests of changing and reading data by the command: `cas`, `batch`, `put -`, `keys`, prefixes,
//! `watch`, and snapshot files.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Output, Stdio};

use crate::common::{command, fail, filled, fresh, json, open, sprag, succeed, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json as object};

/// Runs the command with this input.
fn given(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = command(arguments);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // A command that ends early does not read all of its input.
    let _closed = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// The JSON lines of an output.
fn lines(out: &[u8]) -> Vec<Value> {
    let out = std::str::from_utf8(out).unwrap();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn put_takes_a_value_from_standard_input_as_it_is() {
    let (_temporary, dir) = fresh();
    let dir = text(&dir);
    let value = [&b"\0\xff-\n"[..], &vec![7; 300 << 10], b"\n"].concat();
    assert!(given(&["put", dir, "k", "-"], &value).status.success());
    assert_eq!(succeed(["get", dir, "k"]), [&value[..], b"\n"].concat());
    assert!(given(&["put", dir, "k", "-"], b"").status.success());
    assert_eq!(succeed(["get", dir, "k"]), b"\n");
    let output = given(&["put", dir, "k", "-"], &vec![0; (16 << 20) + 1]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("more than 16777216 bytes; nothing was changed"), "{message}");
    assert!(given(&["put", dir, "k", "-"], &vec![0; 16 << 20]).status.success());
}

#[test]
fn cas_changes_a_key_only_if_it_has_the_value_that_is_expected() {
    let (_temporary, dir) = fresh();
    let dir = text(&dir);
    assert_eq!(succeed(["cas", dir, "k", "--absent", "--new", "1"]), b"set at index 1\n");
    let message = fail(1, ["cas", dir, "k", "--absent", "--new", "2"]);
    assert!(message.contains("does not have the value that was expected"), "{message}");
    fail(1, ["cas", dir, "k", "--expected", "2", "--new", "3"]);
    assert_eq!(succeed(["get", dir, "k"]), b"1\n");
    let swapped = json(["cas", dir, "k", "--expected", "1", "--new", "", "--json"]);
    assert_eq!(swapped, object!({"index": 4}));
    assert_eq!(succeed(["cas", dir, "k", "--expected", "", "--delete"]), b"deleted at index 5\n");
    fail(1, ["get", dir, "k"]);
    for wrong in [
        &["cas", dir, "k"][..],
        &["cas", dir, "k", "--new", "1"],
        &["cas", dir, "k", "--absent"],
        &["cas", dir, "k", "--absent", "--expected", "1", "--new", "2"],
        &["cas", dir, "", "--absent", "--new", "2"],
    ] {
        fail(2, wrong);
    }
}

#[test]
fn a_batch_is_one_entry_of_all_its_lines_or_of_none() {
    let (_temporary, dir) = fresh();
    let dir = text(&dir);
    let input = br#"{"kind":"put","key":"a","value":"1"}

{"kind":"put","key":{"base64":"/w=="},"value":{"base64":"AAE="}}
{"kind":"increment","key":"n","by":-3}
{"kind":"delete","key":"a"}
{"kind":"compare_and_set","key":"a","expected":null,"new":"2"}
"#;
    let output = given(&["batch", dir, "--json"], input);
    assert_eq!(lines(&output.stdout), [object!({"index": 1, "commands": 5})]);
    assert_eq!(
        lines(&succeed(["export", dir])),
        [
            object!({"key": "a", "value": "2"}),
            object!({"key": "n", "value": "-3"}),
            object!({"key": {"base64": "/w=="}, "value": "\u{0}\u{1}"}),
        ]
    );
    let state = succeed(["export", dir]);
    for (last, what) in [
        (r#"{"kind":"increment","key":"b","by":1}"#, "command 2: the value under the key is not"),
        (
            r#"{"kind":"compare_and_set","key":"a","expected":"1","new":"2"}"#,
            "command 2: the key does not",
        ),
        (r#"{"kind":"put","key":"a"}"#, "standard input: line 2: missing field `value`"),
        ("{", "standard input: line 2: EOF"),
    ] {
        let input = format!("{{\"kind\":\"put\",\"key\":\"b\",\"value\":\"x\"}}\n{last}");
        let output = given(&["batch", dir, "-"], input.as_bytes());
        assert_eq!(output.status.code(), Some(1));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(what), "{message}");
        assert!(succeed(["export", dir]) == state, "{what}");
    }
    let message = fail(1, ["batch", dir]);
    assert!(message.contains("there is no command in it"), "{message}");
    assert!(fail(1, ["batch", dir, "no/file"]).starts_with("sprag: no/file: No such file"));
}

#[test]
fn what_dump_prints_of_a_command_batch_takes() {
    let (temporary, dir) = fresh();
    let dir = text(&dir);
    succeed(["put", dir, "a", "x\u{1b}\u{e4}\"\\"]);
    succeed(["incr", dir, "n", "7"]);
    succeed(["cas", dir, "a", "--expected", "x\u{1b}\u{e4}\"\\", "--new", "y"]);
    let dumped = lines(&succeed(["dump", dir]));
    let mut commands = String::new();
    for mut entry in dumped {
        let fields = entry.as_object_mut().unwrap();
        fields.retain(|field, _| !["index", "term"].contains(&field.as_str()));
        commands += &format!("{entry}\n");
    }
    let other = temporary.path().join("other");
    assert!(given(&["batch", text(&other)], commands.as_bytes()).status.success());
    assert_eq!(succeed(["export", text(&other)]), succeed(["export", dir]));
}

#[test]
fn keys_and_prefixes_are_those_of_a_directory_and_of_a_snapshot_file() {
    let (temporary, dir) = fresh();
    let file = temporary.path().join("s.snap");
    for key in ["b", "user:1", "user:2", "user;", "a\u{1}"] {
        succeed(["put", text(&dir), key, &format!("of {key}")]);
    }
    succeed(["snapshot", text(&dir), "--out", text(&file)]);
    for from in [text(&dir), text(&file)] {
        assert_eq!(succeed(["keys", from]), b"a\x01\nb\nuser:1\nuser:2\nuser;\n");
        assert_eq!(succeed(["keys", from, "user:"]), b"user:1\nuser:2\n");
        assert_eq!(succeed(["keys", from, "none"]), b"");
        assert_eq!(succeed(["keys", from, "a", "--json"]), b"\"a\\u0001\"\n");
        assert_eq!(
            lines(&succeed(["get", from, "--prefix", "user:"])),
            [
                object!({"key": "user:1", "value": "of user:1"}),
                object!({"key": "user:2", "value": "of user:2"}),
            ]
        );
        assert_eq!(lines(&succeed(["get", from, "--prefix", ""])).len(), 5);
        assert!(fail(1, ["get", from, "--prefix", "none"]).contains("no key begins with that"));
        assert_eq!(succeed(["get", from, "user:2"]), b"of user:2\n");
        assert!(fail(1, ["get", from, "user:"]).contains("the key has no value"));
    }
    for of in ["stats", "inspect", "verify"] {
        let shown = json([of, text(&file), "--json"]);
        assert_eq!((&shown["keys"], &shown["index"]), (&object!(5), &object!(5)), "{of}");
        assert_eq!(shown["bytes"], object!(fs::metadata(&file).unwrap().len()));
        assert_eq!(shown["clean"] == true, of == "verify");
        let shown = String::from_utf8(succeed([of, text(&file)])).unwrap();
        assert!(shown.contains("keys           5\n"), "{shown}");
    }
    let stats = json(["stats", text(&dir), "--json"]);
    assert!(stats["disk_bytes"].as_u64().unwrap() >= 4096);
    // `get` names the damage and its place.
    let bytes = fs::read(&file).unwrap();
    crate::common::flip(&file, bytes.len() as u64 / 3);
    let output = sprag(["verify", "--json", text(&file)]);
    assert_eq!(output.status.code(), Some(1));
    let failure = &lines(&output.stderr)[0];
    assert_eq!(failure["kind"], "damaged");
    assert!(failure["file"].as_str().unwrap().contains("s.snap"), "{failure}");
    let other = temporary.path().join("text");
    fs::write(&other, "nothing of the kind, though it has some length").unwrap();
    for of in ["stats", "verify", "inspect", "keys"] {
        assert!(fail(1, [of, text(&other)]).contains("is not a snapshot of sprag"), "{of}");
    }
}

#[test]
fn watch_follows_what_is_applied_beside_a_writer_until_it_is_interrupted() {
    let (_temporary, dir) = fresh();
    filled(&dir, 5);
    let mut child = command(["watch", text(&dir), "--from", "4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap_or(Value::Null)
    };
    assert_eq!((&next()["index"], &next()["index"]), (&object!(4), &object!(5)));
    // Test a writer that stays open, and commands that open and close.
    let manager = open(&dir, 1);
    for index in 6..=8 {
        let entry = sprag::Entry::put(index, 1, b"k", b"v");
        manager.apply(&entry, crate::common::TIMEOUT).unwrap();
        assert_eq!(next()["index"], object!(index));
    }
    manager.close(crate::common::TIMEOUT).unwrap();
    for index in 9..=12 {
        succeed(["put", text(&dir), "key", &index.to_string()]);
        let entry = next();
        let expected = object!({
            "index": index, "term": 1, "kind": "put", "key": "key", "value": index.to_string()
        });
        assert_eq!(entry, expected);
    }
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    assert_eq!(next(), Value::Null, "no half line");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    // The watch ends after its count, and changes nothing in a directory that it only reads.
    assert_eq!(lines(&succeed(["watch", text(&dir), "--from", "1", "--count", "3"])).len(), 3);
    fail(1, ["watch", "no/directory"]);
    fail(2, ["watch", text(&dir), "--count", "0"]);
}

#[test]
fn watch_names_what_a_compaction_gave_up_before_it_was_read() {
    let (_temporary, dir) = fresh();
    filled(&dir, 2000);
    succeed(["compact", text(&dir)]);
    let first = json(["inspect", text(&dir), "--json"])["meta"]["base_index"].as_u64().unwrap();
    assert!(first > 1);
    let seen = lines(&succeed(["watch", text(&dir), "--from", "1", "--count", "2"]));
    assert_eq!(seen[0], object!({"kind": "compacted", "from": 1, "to": first}));
    assert_eq!((&seen[1]["index"], seen.len()), (&object!(first + 1), 3));
}

#[test]
fn the_version_says_the_formats_that_are_written() {
    let (temporary, dir) = fresh();
    succeed(["put", text(&dir), "k", "v"]);
    let file = temporary.path().join("s.snap");
    succeed(["snapshot", text(&dir), "--out", text(&file)]);
    let version = String::from_utf8(succeed(["--version"])).unwrap();
    let at = |name: &str, offset: usize| {
        let bytes = fs::read(dir.join(name)).unwrap();
        u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
    };
    let (slots, snapshots) = (at("META", 4), at(text(&file), 8));
    let formats = format!("format: META and HARD {slots}, frames 1, snapshots {snapshots}\n");
    assert!(version.ends_with(&formats), "{version}");
    assert!(version.starts_with(&format!("sprag {}", env!("CARGO_PKG_VERSION"))), "{version}");
}
