//! Tests of `snapshot`, `restore` and `compact`, and of the other commands on directories with
//! snapshots.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::common::{
    TIMEOUT, command, content, fail, filled, flip, fresh, io, json, open, sprag, succeed, text,
};
use serde_json::json as object;
use sprag::{
    ApplyConfig, CommitMode, Contiguity, Entry, EntryRange, Fatal, Journaled, Partition,
    PersistentStateMachine, Replies, StateMachine,
};

fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let mut names: Vec<_> =
        names.filter(|path| path.extension().is_some_and(|e| e == "snap")).collect();
    names.sort();
    names
}

/// Number of entries: they fill several segments, of which a compaction leaves the last.
const ENTRIES: u64 = 2500;

#[test]
fn a_backup_of_a_directory_restores_to_the_same_state_and_goes_on() {
    let (temporary, dir) = fresh();
    filled(&dir, ENTRIES);
    let state = succeed(["export", text(&dir)]);
    let before = content(&dir);
    let file = temporary.path().join("day.snap");
    let report = json(["snapshot", text(&dir), "--out", text(&file), "--json"]);
    assert_eq!((&report["index"], &report["keys"]), (&object!(ENTRIES), &object!(7)));
    assert_eq!(report["bytes"], fs::metadata(&file).unwrap().len());
    assert_eq!(content(&dir), before, "it was only read");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 2, "nothing temporary is left");
    assert_eq!(succeed(["export", text(&file)]), state);

    let copy = temporary.path().join("copy");
    let report = json(["restore", text(&file), text(&copy), "--json"]);
    assert_eq!((&report["index"], &report["keys"]), (&object!(ENTRIES), &object!(7)));
    assert_eq!(succeed(["export", text(&copy)]), state);
    succeed(["verify", text(&copy)]);
    let put = json(["put", text(&copy), "new", "value", "--json"]);
    assert_eq!(put["index"], ENTRIES + 1);
    assert_eq!(succeed(["get", text(&copy), "new"]), b"value\n");
    let message = fail(1, ["restore", text(&file), text(&copy)]);
    assert!(message.contains("has a log already"), "{message}");
    assert_eq!(succeed(["get", text(&copy), "new"]), b"value\n");

    // A snapshot replaces another one; the name always has the old one or the new one.
    succeed(["snapshot", text(&copy), "--out", text(&file)]);
    assert_eq!(succeed(["export", text(&file)]), succeed(["export", text(&copy)]));
    let by_commit = temporary.path().join("by-commit");
    succeed(["restore", text(&file), text(&by_commit), "--by-commit"]);
    let inspected = json(["inspect", text(&by_commit), "--json"]);
    assert_eq!(inspected["meta"]["commit_mode"], "by commit");
    assert_eq!(inspected["committed_index"], ENTRIES + 1);
    succeed(["compact", text(&by_commit)]);
    // Open the directory as an adapter does.
    let adapter_s = temporary.path().join("monotone");
    succeed(["restore", text(&file), text(&adapter_s), "--by-commit", "--monotone"]);
    let meta = sprag::inspect::meta(&adapter_s).unwrap().unwrap();
    assert_eq!(meta.commit_mode, sprag::CommitMode::ByCommit);
    assert_eq!(meta.contiguity, sprag::Contiguity::Monotone);
    succeed(["snapshot", text(&adapter_s)]);
    succeed(["compact", text(&adapter_s)]);
    assert_eq!(json(["bench", "open", text(&adapter_s), "--json"])["keys"], 8);
}

#[test]
fn a_compaction_shrinks_the_directory_and_everything_says_so() {
    let (_temporary, dir) = fresh();
    filled(&dir, ENTRIES);
    let state = succeed(["export", text(&dir)]);
    let segments = |report: &serde_json::Value| report["segments"].as_array().unwrap().len();
    let before = json(["inspect", text(&dir), "--json"]);
    assert_eq!(
        (&before["snapshots"], &before["meta"]["base_index"]),
        (&object!([]), &object!(null))
    );
    let report = json(["snapshot", text(&dir), "--json"]);
    assert_eq!(report["file"], text(&snapshots(&dir)[0]));
    assert_eq!(segments(&json(["inspect", text(&dir), "--json"])), segments(&before));
    let report = json(["compact", text(&dir), "--json"]);
    let purged = report["purged_index"].as_u64().unwrap();
    assert!(report["segments"].as_u64().unwrap() > 1 && purged > 100, "{report}");

    let after = json(["inspect", text(&dir), "--json"]);
    assert!(segments(&after) < segments(&before));
    assert_eq!(
        (&after["meta"]["base_index"], &after["last_index"]),
        (&object!(purged), &object!(ENTRIES))
    );
    let snapshot = &after["snapshots"][0];
    assert_eq!((&snapshot["index"], &snapshot["keys"]), (&object!(ENTRIES), &object!(7)));
    assert_eq!((&snapshot["kind"], &snapshot["damage"]), (&object!("key-value"), &object!(null)));
    let shown = String::from_utf8(succeed(["inspect", text(&dir)])).unwrap();
    assert!(shown.contains(snapshot["file"].as_str().unwrap()), "{shown}");
    assert!(shown.contains(&format!("after index {purged}")), "{shown}");
    let stats = json(["stats", text(&dir), "--json"]);
    assert_eq!(
        (&stats["snapshot_index"], &stats["purged_index"]),
        (&object!(ENTRIES), &object!(purged))
    );
    assert_eq!(json(["verify", text(&dir), "--json"])["snapshots"], 1);
    assert_eq!(succeed(["export", text(&dir)]), state);
    let put = json(["put", text(&dir), "key", "value", "--json"]);
    assert_eq!(put["index"], ENTRIES + 1);
}

#[test]
fn damage_of_a_snapshot_is_named_and_nothing_is_made_of_a_damaged_one() {
    let (temporary, dir) = fresh();
    filled(&dir, ENTRIES);
    succeed(["snapshot", text(&dir)]);
    let path = snapshots(&dir).remove(0);
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    flip(&path, 4096 + 77);
    let message = fail(1, ["verify", text(&dir)]);
    assert!(message.contains(&format!("{name} is damaged at offset 4096")), "{message}");
    let copy = temporary.path().join("copy");
    let message = fail(1, ["restore", text(&path), text(&copy)]);
    assert!(message.contains("corrupt at offset 4096"), "{message}");
    assert!(!copy.exists());
    assert!(fail(1, ["export", text(&path)]).contains("corrupt"));
    // The log still has all entries.
    let stats = json(["stats", text(&dir), "--json"]);
    assert_eq!(stats["last_index"], ENTRIES);
    assert_eq!(stats["damaged_snapshots"], object!([name]));
    flip(&path, 4096 + 77);
    succeed(["compact", text(&dir)]);
    let path = snapshots(&dir).remove(0);
    flip(&path, 40);
    for arguments in [&["inspect", text(&dir)][..], &["verify", text(&dir)], &["stats", text(&dir)]]
    {
        assert!(fail(1, arguments).contains(".snap"), "{arguments:?}");
    }
    let message = fail(1, ["restore", text(&dir.join("META")), text(&copy)]);
    assert!(message.contains("not a snapshot"), "{message}");
    assert!(fail(1, ["restore", "/nonexistent.snap", text(&copy)]).contains("nonexistent.snap"));
    assert!(fail(1, ["restore", text(&path), "/nonexistent/dir"]).contains("sprag: "));
}

#[test]
fn a_backup_is_taken_beside_a_writer_and_never_of_a_part() {
    let (temporary, dir) = fresh();
    let file = temporary.path().join("day.snap");
    let manager = open(&dir, 1);
    for index in 1..=100 {
        manager.apply(&Entry::put(index, 1, &index.to_le_bytes(), b"value"), TIMEOUT).unwrap();
    }
    let report = json(["snapshot", text(&dir), "--out", text(&file), "--json"]);
    assert_eq!((&report["index"], &report["keys"]), (&object!(100), &object!(100)));
    assert!(fail(1, ["snapshot", text(&dir)]).contains("already open"));
    assert!(fail(1, ["compact", text(&dir)]).contains("already open"));
    manager.close(TIMEOUT).unwrap();

    let segment = dir.join("0000000000000001.seg");
    flip(&segment, 1000);
    let before = fs::read(&file).unwrap();
    let message = fail(1, ["snapshot", text(&dir), "--out", text(&file)]);
    assert!(message.contains("damage"), "{message}");
    assert_eq!(fs::read(&file).unwrap(), before);
    let (_other, empty) = fresh();
    fs::create_dir(&empty).unwrap();
    assert!(fail(1, ["snapshot", text(&empty), "--out", text(&file)]).contains("nothing"));
    assert!(fail(1, ["compact", text(&empty)]).contains("nothing"));
    assert!(fail(1, ["compact", "/nonexistent"]).contains("no such directory"));
    assert_eq!(fs::read(&file).unwrap(), before);
}

/// An embedder's machine, whose commands look like those of the built-in one.
#[derive(Debug)]
struct Ledger;

impl StateMachine for Ledger {
    fn apply(&self, _: &EntryRange<'_>, _: Partition, _: &mut Replies<'_>) -> Result<(), Fatal> {
        Ok(())
    }
}

#[test]
fn a_directory_of_another_machine_is_not_taken_for_one_of_keys_and_values() {
    let (temporary, dir) = fresh();
    let machine = Journaled::open(io::config(&dir), Ledger).unwrap();
    let manager = io::manage(machine, ApplyConfig::new());
    manager.apply(&Entry::put(1, 1, b"account", b"100"), TIMEOUT).unwrap();
    manager.close(TIMEOUT).unwrap();
    let before = content(&dir);
    let file = temporary.path().join("file.snap");
    for arguments in [
        &["compact", text(&dir)][..],
        &["snapshot", text(&dir)],
        &["snapshot", text(&dir), "--out", text(&file)],
    ] {
        let message = fail(1, arguments);
        assert!(
            message.contains("it is of another state machine than the built-in one"),
            "{message}"
        );
    }
    for arguments in [&["get", text(&dir), "account"][..], &["export", text(&dir)]] {
        let message = fail(1, arguments);
        assert!(message.contains("open it with the machine that it was made with"), "{message}");
    }
    assert!(content(&dir) == before && !file.exists());
    let said = String::from_utf8(succeed(["inspect", text(&dir)])).unwrap();
    assert!(said.contains("state machine     custom"));
    assert_eq!(json(["inspect", text(&dir), "--json"])["meta"]["state_machine"], "custom");
}

#[test]
fn inspect_shows_what_an_adapter_s_directory_may_have_and_what_is_not_of_its_log() {
    let (_temporary, dir) = fresh();
    let config = io::config(&dir).commit_mode(CommitMode::ByCommit);
    let config = config.contiguity(Contiguity::Monotone);
    let manager = io::manage(PersistentStateMachine::open(config).unwrap(), ApplyConfig::new());
    let _ = manager
        .consensus()
        .unwrap()
        .append(&[Entry::put(1, 1, b"one", b"1"), Entry::put(2, 1, b"two", b"2")])
        .unwrap();
    manager.consensus().unwrap().apply_committed(1..=2, TIMEOUT, &mut Vec::new()).unwrap();
    manager
        .consensus()
        .unwrap()
        .apply_only(&[Entry::put(9, 1, b"nine", b"9")], TIMEOUT, &mut Vec::new())
        .unwrap();
    manager.close(TIMEOUT).unwrap();

    let out = String::from_utf8(succeed(["inspect", text(&dir), "--frames", "--json"])).unwrap();
    let lines = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines[0]["meta"]["contiguity"], "monotone");
    let kinds: Vec<_> = lines[1..].iter().map(|frame| &frame["kind"]).collect();
    assert_eq!(kinds, ["entries", "apply_only"]);
    let shown = String::from_utf8(succeed(["inspect", text(&dir), "--frames"])).unwrap();
    assert!(shown.contains("contiguity        monotone\n"), "{shown}");
    assert_eq!(shown.matches("for the state only, not of the log").count(), 1, "{shown}");
    assert_eq!(succeed(["dump", text(&dir)]).iter().filter(|byte| **byte == b'\n').count(), 2);
    let (_other, strict) = fresh();
    filled(&strict, 1);
    assert_eq!(json(["inspect", text(&strict), "--json"])["meta"]["contiguity"], "strict");
}

#[test]
fn a_kill_at_any_moment_leaves_a_directory_with_everything_in_it() {
    let (temporary, dir) = fresh();
    filled(&dir, 2500);
    let state = succeed(["export", text(&dir)]);
    let file = temporary.path().join("day.snap");
    let copy = temporary.path().join("copy");
    for round in 0..30_u64 {
        let delay = Duration::from_micros(round * 1200);
        for arguments in [
            vec!["compact", text(&dir)],
            vec!["snapshot", text(&dir), "--out", text(&file)],
            vec!["restore", text(&file), text(&copy)],
        ] {
            let mut child =
                command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            thread::sleep(delay);
            child.kill().unwrap();
            child.wait().unwrap();
        }
        succeed(["verify", text(&dir)]);
        assert_eq!(succeed(["export", text(&dir)]), state);
        if file.exists() {
            assert_eq!(succeed(["export", text(&file)]), state);
        }
        if copy.exists() {
            succeed(["verify", text(&copy)]);
            let restored = succeed(["export", text(&copy)]);
            assert!(restored.is_empty() || restored == state, "round {round}");
            if restored.is_empty() {
                // The rest of an interrupted restore does not prevent the next one.
                succeed(["snapshot", text(&dir), "--out", text(&file)]);
                succeed(["restore", text(&file), text(&copy)]);
                assert_eq!(succeed(["export", text(&copy)]), state);
            }
            fs::remove_dir_all(&copy).unwrap();
        }
    }
    assert!(sprag(["put", text(&dir), "key", "value"]).status.success());
}

#[test]
fn a_bench_of_snapshots_has_every_figure_it_promises() {
    let (temporary, _) = fresh();
    let report = json([
        "bench",
        "snapshot",
        "--entries",
        "3000",
        "--rounds",
        "1",
        "--rate",
        "20000",
        "--dir",
        text(temporary.path()),
        "--json",
    ]);
    for name in [
        "snapshot_idle_ms",
        "limit_ms",
        "longest_stall_us",
        "stall_p999_us",
        "stall_wall_p999_us",
        "apply_ratio_during",
        "open_first_read_ms",
        "open_complete_ms",
        "bytes_per_entry",
        "resident_bytes_per_entry",
    ] {
        assert!(report[name].as_f64().unwrap() >= 0.0, "{name}: {report}");
    }
    assert!(report["bytes_per_entry"].as_f64().unwrap() > 132.0, "a key, a value and a record");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    let (_other, dir) = fresh();
    filled(&dir, 50);
    assert_eq!(json(["bench", "open", text(&dir), "--json"])["keys"], 7);
}
