//! Tests that every command does what its help says, and says what is wrong when it cannot.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::common::{command, content, fail, filled, fresh, json, open, sprag, succeed, text};
use serde_json::json as object;

#[test]
fn put_get_incr_and_delete_take_their_places_in_the_log() {
    let (_temporary, dir) = fresh();
    let dir = text(&dir);
    assert_eq!(succeed(["put", dir, "name", "value"]), b"put at index 1 (new)\n");
    assert_eq!(succeed(["get", dir, "name"]), b"value\n");
    let put = json(["put", dir, "name", "other", "--json"]);
    assert_eq!(put, object!({"index": 2, "replaced": true}));
    let got = json(["get", dir, "name", "--json"]);
    assert_eq!(got, object!({"key": "name", "value": "other"}));
    assert_eq!(succeed(["incr", dir, "number"]), b"1\n");
    assert_eq!(succeed(["incr", dir, "number", "41"]), b"42\n");
    assert_eq!(json(["--json", "incr", dir, "number", "-50"]), object!({"index": 5, "value": -8}));
    let deleted = succeed(["delete", dir, "name"]);
    assert_eq!(deleted, b"deleted at index 6 (it had a value)\n");
    let deleted = json(["delete", dir, "name", "--json"]);
    assert_eq!(deleted, object!({"index": 7, "existed": false}));
    assert!(fail(1, ["get", dir, "name"]).contains("no value"));
    assert_eq!(succeed(["put", dir, "--", "-k", "-v"]), b"put at index 8 (new)\n");
    assert_eq!(succeed(["get", dir, "--", "-k"]), b"-v\n");

    let stats = json(["stats", dir, "--json"]);
    assert_eq!((&stats["last_index"], &stats["applied_index"]), (&object!(8), &object!(8)));
    assert_eq!((&stats["keys"], &stats["cut"]), (&object!(2), &object!(null)));
    assert!(stats["open_ms"].as_f64().unwrap() > 0.0);
    assert!(String::from_utf8(succeed(["stats", dir])).unwrap().contains("keys           2\n"));
}

#[test]
fn what_is_refused_changes_nothing_and_is_said() {
    let (_temporary, dir) = fresh();
    let dir = text(&dir);
    succeed(["put", dir, "word", "five"]);
    assert!(fail(1, ["incr", dir, "word"]).contains("not a decimal"));
    succeed(["put", dir, "large", &i64::MAX.to_string()]);
    assert!(fail(1, ["incr", dir, "large"]).contains("does not fit"));
    assert!(fail(2, ["put", dir, "", "value"]).contains("the key is empty"));
    let long = "k".repeat((64 << 10) + 1);
    assert!(fail(2, ["put", dir, &long, "value"]).contains("more than the limit of 65536"));
    assert_eq!(succeed(["get", dir, "word"]), b"five\n");
    assert_eq!(succeed(["get", dir, "large"]), format!("{}\n", i64::MAX).as_bytes());
}

#[test]
fn usage_errors_have_a_status_of_their_own() {
    let (_temporary, dir) = fresh();
    let dir = text(&dir);
    for arguments in [
        &[][..],
        &["nonsense"],
        &["put", dir],
        &["get", dir],
        &["stats"],
        &["incr", dir, "key", "many"],
        &["export", dir, "--format", "xml"],
        &["dump", dir, "--from", "-1"],
        &["run", "--entries", "0"],
        &["run", "--workers", "0"],
        &["run", "--workers", "65"],
        &["run", "--durability", "maybe"],
        &["run", "--batch", "100", "--pipeline", "99"],
        &["run", "--machine", "memory", "--dir", dir],
        &["run", "--value-bytes", "99999999999"],
        &["run", "--value-bytes", "16777216", "--entries", "1099511627776"],
        &["run", "--keys", "1000000000", "--value-bytes", "16777216", "--machine", "memory"],
        &["run", "--dir", dir, "--segment-bytes", "1000"],
        &["run", "--dir", dir, "--segment-bytes", "99999999999999"],
        &["run", "--pipeline", "9999999999999"],
        &["run", "--entries", "5", "--batch", "5", "--keys", "1", "--value-bytes", "16777216"],
        &["bench", "snapshot", "--value-bytes", "99999999999"],
        &["bench", "snapshot", "--entries", "1000000000", "--value-bytes", "16777216"],
        &["bench", "snapshot", "--rate", "0"],
        &["dump", dir, "--from", "3", "--to", "2"],
        &["get", dir, ""],
        &["delete", dir, ""],
        &["incr", dir, ""],
        &["restore", dir, dir, "--monotone"],
        &["import", dir, "-", "--name", ""],
    ] {
        assert!(!fail(2, arguments).is_empty(), "{arguments:?}");
    }
    assert!(!std::path::Path::new(dir).exists());
    let help = String::from_utf8(succeed(["--help"])).unwrap();
    for name in [
        "run", "put", "delete", "incr", "get", "stats", "export", "verify", "inspect", "dump",
        "snapshot", "restore", "compact", "bench", "cas", "batch", "keys", "watch", "import",
        "repair",
    ] {
        assert!(help.contains(&format!("\n  {name} ")), "{name}");
        let help = String::from_utf8(succeed([name, "--help"])).unwrap();
        assert!(help.contains("Usage: sprag"), "{name}");
    }
}

/// Runs the command, which must fail with `status`, and parses its standard error as JSON.
fn json_failure(status: i32, arguments: &[&str]) -> serde_json::Value {
    let output = sprag(arguments);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}");
    assert_eq!(output.stderr.iter().filter(|byte| **byte == b'\n').count(), 1);
    serde_json::from_slice(&output.stderr).unwrap()
}

#[test]
fn with_json_a_failure_is_one_object_too() {
    let (_temporary, dir) = fresh();
    let name = text(&dir);
    let kind = |status, arguments: &[&str]| json_failure(status, arguments)["kind"].clone();
    assert_eq!(kind(2, &["--json", "put", name]), "usage");
    assert_eq!(kind(2, &["run", "--json", "--batch", "9", "--pipeline", "8"]), "usage");
    let missing = json_failure(1, &["stats", name, "--json"]);
    let error = format!("{name}: no such directory");
    assert_eq!(missing, object!({"error": error, "kind": "missing", "file": name}));
    filled(&dir, 300);
    assert_eq!(kind(1, &["get", name, "nothing", "--json"]), "no_value");
    assert_eq!(kind(1, &["incr", name, "key-1", "--json"]), "rejected");
    let lock = open(&dir, 1);
    assert_eq!(kind(1, &["put", name, "k", "v", "--json"]), "locked");
    drop(lock);
    let segments = sprag::inspect::inspect(&dir).unwrap().segments;
    crate::common::flip(&dir.join(&segments[0].file), 200);
    let damage = json_failure(1, &["verify", name, "--json"]);
    assert_eq!(
        (&damage["kind"], &damage["file"]),
        (&object!("damaged"), &object!(segments[0].file))
    );
    assert_eq!((&damage["offset"], &damage["index"]), (&object!(192), &object!(2)));
    let damage = json_failure(1, &["put", name, "k", "v", "--json"]);
    assert_eq!((&damage["kind"], &damage["offset"]), (&object!("damaged"), &object!(192)));
    let input = json_failure(1, &["import", "--json", name, "-"]);
    assert_eq!(input["kind"], "damaged");
}

#[test]
fn a_file_that_is_to_be_restored_and_is_missing_is_named() {
    let (temporary, dir) = fresh();
    let file = temporary.path().join("nofile");
    let message = fail(1, ["restore", text(&file), text(&dir)]);
    assert!(message.starts_with(&format!("sprag: {}: No such file", file.display())), "{message}");
    let message = fail(1, ["restore", text(temporary.path()), text(&dir)]);
    assert!(message.contains("a directory; give a snapshot file"), "{message}");
    std::fs::write(&file, "text, and not a short one, but no snapshot").unwrap();
    let message = fail(1, ["restore", text(&file), text(&dir)]);
    assert!(message.starts_with(&format!("sprag: {} is not a snap", file.display())), "{message}");
    assert!(!dir.exists());
    let snapshot = temporary.path().join("s.snap");
    filled(&dir, 3);
    succeed(["snapshot", text(&dir), "--out", text(&snapshot)]);
    let message = fail(1, ["restore", text(&snapshot), text(&file)]);
    assert!(
        message.starts_with(&format!("sprag: {}: not a directory", file.display())),
        "{message}"
    );
}

/// Runs the command with a terminal as its output and its standard error. Returns the bytes shown
/// there.
fn on_a_terminal(arguments: &[&str]) -> Vec<u8> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
    let terminal = OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut child = command(arguments);
    child.stdout(terminal.try_clone().unwrap()).stderr(terminal);
    let mut running = child.spawn().unwrap();
    // Dropping the child closes the other handles of the terminal, so the read ends.
    drop(child);
    let mut shown = Vec::new();
    let _hung_up = fs::File::from(controller).read_to_end(&mut shown);
    running.wait().unwrap();
    shown
}

#[test]
fn a_terminal_gets_no_control_bytes_and_a_pipe_gets_the_value_as_it_is() {
    let (_temporary, dir) = fresh();
    let value = "a\u{1b}[31mb\u{7}";
    succeed(["put", text(&dir), "k\u{1b}]0;x", value]);
    let got = succeed(["get", text(&dir), "k\u{1b}]0;x"]);
    assert_eq!(got, format!("{value}\n").as_bytes());
    for arguments in [
        &["get", text(&dir), "k\u{1b}]0;x"][..],
        &["export", text(&dir)],
        &["export", text(&dir), "--format", "resp"],
        &["dump", text(&dir)],
        &["get", "no\u{1b}[2Jdir", "k"],
    ] {
        let shown = String::from_utf8(on_a_terminal(arguments)).unwrap();
        for harmful in ["\u{1b}[31m", "\u{7}", "\u{1b}]0", "\u{1b}[2Jdir"] {
            assert!(!shown.contains(harmful), "{arguments:?}: {shown:?}");
        }
        assert!(shown.contains("1b"), "{arguments:?}: {shown:?}");
    }
}

#[test]
fn a_spinner_shows_what_is_being_done() {
    let (_temporary, dir) = fresh();
    filled(&dir, 10);
    let shown = String::from_utf8(on_a_terminal(&["verify", text(&dir)])).unwrap();
    assert!(shown.contains("reading every byte") && !shown.contains("0/0"), "{shown:?}");
    let arguments = ["run", "--entries", "2000", "--keys", "100", "--gets", "1"];
    let shown = String::from_utf8(on_a_terminal(&arguments)).unwrap();
    for step in ["opening", "generating entries", "checking"] {
        assert!(shown.contains(step), "{step}: {shown:?}");
    }
}

const READERS: [&[&str]; 6] = [
    &["stats"],
    &["export"],
    &["export", "--format", "resp"],
    &["verify"],
    &["inspect", "--frames"],
    &["dump"],
];

#[test]
fn a_missing_directory_is_an_error_of_every_reader_and_stays_missing() {
    let (_temporary, dir) = fresh();
    for reader in READERS {
        let message = fail(1, [reader, &[text(&dir)]].concat());
        assert!(message.contains("no such directory"), "{message}");
    }
    assert!(fail(1, ["get", text(&dir), "key"]).contains("no such directory"));
    assert!(!dir.exists());
    let nowhere = dir.join("below");
    assert!(fail(1, ["put", text(&nowhere), "key", "value"]).contains("no such directory"));
    assert!(!dir.exists());
}

#[test]
fn a_directory_that_others_may_write_to_or_have_open_is_read_only() {
    let (_temporary, dir) = fresh();
    filled(&dir, 3);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o770)).unwrap();
    assert!(fail(1, ["put", text(&dir), "key", "value"]).contains("others may write"));
    succeed(["verify", text(&dir)]);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    let manager = open(&dir, 1);
    assert!(fail(1, ["put", text(&dir), "key", "value"]).contains("already open"));
    // Reading continues beside a writer.
    succeed(["verify", text(&dir)]);
    drop(manager);
    succeed(["verify", text(&dir)]);
}

#[test]
fn foreign_files_are_passed_over_and_shown_by_stats_inspect_and_verify() {
    let (_temporary, dir) = fresh();
    filled(&dir, 3);
    fs::create_dir(dir.join("lost+found")).unwrap();
    fs::write(dir.join("notes\n.txt"), "mine").unwrap();
    fs::create_dir(dir.join("00000000000000ff.seg")).unwrap();
    let said = |arguments: &[&str]| String::from_utf8(succeed(arguments)).unwrap();
    for command in ["stats", "inspect", "verify"] {
        let shown = said(&[command, text(&dir)]);
        assert!(shown.contains(r#"passed over: "lost+found""#), "{command}: {shown}");
        assert!(shown.contains(r#"passed over: "notes\n.txt""#), "{command}: {shown}");
        assert!(shown.contains(r#"NAME TAKEN: "00000000000000ff.seg""#), "{command}: {shown}");
        let json = said(&["--json", command, text(&dir)]);
        assert!(json.contains(r#""foreign":{"count":2,"#), "{command}: {json}");
    }
    assert!(fail(1, ["put", text(&dir), "key", "value"]).contains("move it out"));
    fs::remove_dir(dir.join("00000000000000ff.seg")).unwrap();
    succeed(["put", text(&dir), "key", "value"]);
    succeed(["repair", text(&dir)]);
    succeed(["compact", text(&dir)]);
    assert!(dir.join("lost+found").exists());
}

#[test]
fn a_directory_of_something_else_is_not_taken_for_a_data_directory() {
    let (_temporary, dir) = fresh();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("thesis.doc"), "mine").unwrap();
    for arguments in [&["put", text(&dir), "key", "value"][..], &["stats", text(&dir)]] {
        assert!(fail(1, arguments).contains("thesis.doc"));
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "not even a lock file is made");
}

/// Proves DUR-16.
#[test]
fn a_reader_changes_no_byte_and_no_time_of_any_file() {
    let (_temporary, dir) = fresh();
    filled(&dir, 300);
    let torn = |content: &[u8]| {
        let inspection = sprag::inspect::inspect(&dir).unwrap();
        let last = inspection.segments.iter().rfind(|segment| segment.frames > 0).unwrap();
        let mut file = OpenOptions::new().write(true).open(dir.join(&last.file)).unwrap();
        file.seek(SeekFrom::Start(last.used_bytes.next_multiple_of(64))).unwrap();
        file.write_all(content).unwrap();
    };
    for tail in [&b""[..], b"the start of something that was never acknowledged"] {
        torn(tail);
        let before = content(&dir);
        for reader in READERS {
            succeed([reader, &[text(&dir)]].concat());
            succeed([reader, &[text(&dir), "--json"]].concat());
        }
        succeed(["get", text(&dir), "key-1"]);
        assert_eq!(content(&dir), before);
        let stats = json(["stats", text(&dir), "--json"]);
        assert_eq!((&stats["last_index"], &stats["keys"]), (&object!(300), &object!(7)));
        assert_eq!(stats["cut"]["bytes"].as_u64().is_some(), !tail.is_empty());
        let verified = String::from_utf8(succeed(["verify", text(&dir)])).unwrap();
        assert_eq!(verified.contains("torn end, not known to be durable: "), !tail.is_empty());
        assert!(
            verified.ends_with("clean: 300 frames, 300 entries, 0 snapshots read\n"),
            "{verified}"
        );
    }
    // Opening for writing cuts the torn end, says so, and continues.
    let put = sprag(["put", text(&dir), "key", "value"]);
    assert_eq!((put.status.code(), &put.stdout[..]), (Some(0), &b"put at index 301 (new)\n"[..]));
    let said = String::from_utf8(put.stderr).unwrap();
    assert!(said.contains("the log had a torn end, which was cut: 50 bytes"), "{said}");
    let verified = json(["verify", text(&dir), "--json"]);
    assert_eq!((&verified["clean"], &verified["findings"]), (&object!(true), &object!([])));
    assert_eq!(verified["entries"], object!(301));
}

#[test]
fn inspect_and_dump_show_segments_frames_and_entries() {
    let (_temporary, dir) = fresh();
    filled(&dir, 1000);
    let inspected = json(["inspect", text(&dir), "--json"]);
    assert_eq!(inspected["last_index"], object!(1000));
    assert_eq!(inspected["meta"]["clean_close"], object!(true));
    let segments = inspected["segments"].as_array().unwrap();
    let frames: u64 = segments.iter().map(|segment| segment["frames"].as_u64().unwrap()).sum();
    assert!(segments.len() > 1 && frames == 1000);
    let shown = String::from_utf8(succeed(["inspect", text(&dir), "--frames"])).unwrap();
    for segment in segments {
        assert!(shown.contains(segment["file"].as_str().unwrap()));
    }
    assert_eq!(shown.lines().filter(|line| line.starts_with("frame ")).count(), 1000);

    let dumped = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let out = succeed([&["dump", text(&dir)], arguments].concat());
        let out = String::from_utf8(out).unwrap();
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = dumped(&[]);
    assert_eq!(all.len(), 1000);
    assert_eq!(all[4]["index"], object!(5));
    assert_eq!((&all[4]["term"], &all[4]["kind"]), (&object!(1), &object!("put")));
    assert_eq!(all[4]["key"], object!("key-5"));
    assert_eq!(dumped(&["--from", "10", "--to", "12"]), all[9..12]);
    assert_eq!(dumped(&["--from", "999"]), all[998..]);
    assert_eq!(dumped(&["--to", "2"]), all[..2]);
    assert_eq!(dumped(&["--from", "1001"]), all[..0]);
}

#[test]
fn an_empty_directory_reads_as_empty() {
    let (_temporary, dir) = fresh();
    fs::create_dir(&dir).unwrap();
    for reader in READERS {
        succeed([reader, &[text(&dir)]].concat());
    }
    assert_eq!(json(["stats", text(&dir), "--json"])["last_index"], object!(null));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn resp_export_is_a_stream_of_set_commands() {
    let (_temporary, dir) = fresh();
    succeed(["put", text(&dir), "b", ""]);
    succeed(["put", text(&dir), "a", "x\r\ny"]);
    let out = succeed(["export", text(&dir), "--format", "resp"]);
    let expected =
        "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\nx\r\ny\r\n*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$0\r\n\r\n";
    assert_eq!(out, expected.as_bytes());
}

#[test]
fn a_reader_of_the_output_that_goes_away_is_no_failure() {
    let (_temporary, dir) = fresh();
    filled(&dir, 2000);
    for arguments in [&["dump", text(&dir)][..], &["inspect", text(&dir), "--frames"]] {
        let mut child =
            command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        assert_eq!(output.stderr, b"", "{arguments:?}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_a_failure() {
    let (_temporary, dir) = fresh();
    filled(&dir, 10);
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else {
        println!("skipped: there is no /dev/full");
        return;
    };
    let output = command(["dump", text(&dir)]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("sprag: writing to standard output: No space left"), "{message}");
    assert!(sprag(["dump", text(&dir)]).status.success());
}
