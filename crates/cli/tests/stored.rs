//! Tests of directories of fjall and redb: recognised by their content, and read and changed as
//! directories of our log.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::fs;
use std::path::Path;

use crate::common::{fail, fresh, json, sprag, succeed, text};
use serde_json::{Value, json as object};

const STORAGES: [&str; 2] = ["fjall", "redb"];
const ALL: [&str; 3] = ["log", "fjall", "redb"];

/// Makes `dir` a directory of `storage` with a little state, from a snapshot of a directory of the
/// log.
fn make(folder: &Path, dir: &Path, storage: &str) {
    let (log, file) = (folder.join("seed"), folder.join("seed.snap"));
    succeed(["put", text(&log), "name", "value"]);
    succeed(["incr", text(&log), "number", "41"]);
    succeed(["snapshot", text(&log), "--out", text(&file)]);
    let said = succeed(["restore", text(&file), text(dir), "--storage", storage]);
    assert!(String::from_utf8(said).unwrap().contains("restored to 2 (term 1)"));
}

/// Proves OPS-2.
#[test]
fn a_command_does_the_same_on_every_storage() {
    for storage in STORAGES {
        let (temporary, path) = fresh();
        make(temporary.path(), &path, storage);
        let dir = text(&path);
        assert_eq!(succeed(["get", dir, "name"]), b"value\n");
        assert_eq!(succeed(["put", dir, "name", "other"]), b"put at index 3 (replaced)\n");
        assert_eq!(json(["incr", dir, "number", "--json"]), object!({"index": 4, "value": 42}));
        assert!(fail(1, ["incr", dir, "name"]).contains("not a decimal"));
        succeed(["cas", dir, "name", "--expected", "other", "--new", "third"]);
        let refused = fail(1, ["cas", dir, "name", "--absent", "--new", "x"]);
        assert!(refused.contains("nothing was changed"), "{refused}");
        assert_eq!(succeed(["delete", dir, "gone"]), b"deleted at index 8 (it had no value)\n");
        succeed(["put", dir, "names", "more"]);
        assert_eq!(succeed(["keys", dir]), b"name\nnames\nnumber\n");
        assert_eq!(succeed(["keys", dir, "nu"]), b"number\n");
        let pairs = succeed(["get", dir, "name", "--prefix"]);
        assert_eq!(
            pairs,
            b"{\"key\":\"name\",\"value\":\"third\"}\n{\"key\":\"names\",\"value\":\"more\"}\n"
        );
        let exported = succeed(["export", dir]);
        assert_eq!(exported.iter().filter(|byte| **byte == b'\n').count(), 3);
        assert!(fail(1, ["get", dir, "gone"]).contains("no value"));

        let stats = json(["stats", dir, "--json"]);
        assert_eq!((&stats["storage"], &stats["keys"]), (&object!(storage), &object!(3)));
        assert_eq!((&stats["applied_index"], &stats["applied_term"]), (&object!(9), &object!(1)));
        assert!(stats["disk_bytes"].as_u64().unwrap() > 0, "{stats}");
        let shown = String::from_utf8(succeed(["stats", dir])).unwrap();
        assert!(shown.contains(&format!("storage        {storage}\n")), "{shown}");
    }
}

/// Proves OPS-2.
#[test]
fn a_state_moves_from_any_storage_to_any_other_and_is_the_same_file_again() {
    let (temporary, _) = fresh();
    let at = |name: &str| temporary.path().join(name);
    make(temporary.path(), &at("from-log"), "log");
    succeed(["put", text(&at("from-log")), "color", "green"]);
    let file = at("first.snap");
    succeed(["snapshot", text(&at("from-log")), "--out", text(&file)]);
    let expected = (fs::read(&file).unwrap(), succeed(["export", text(&file)]));
    let mut file = file;
    // The walk contains every ordered pair of storages.
    for (step, storage) in
        ["fjall", "redb", "log", "redb", "fjall", "log", "log"].into_iter().enumerate()
    {
        let (dir, next) = (at(&format!("{step}")), at(&format!("{step}.snap")));
        succeed(["restore", text(&file), text(&dir), "--storage", storage]);
        succeed(["snapshot", text(&dir), "--out", text(&next)]);
        assert_eq!(succeed(["export", text(&dir)]), expected.1, "{storage}");
        assert_eq!(fs::read(&next).unwrap(), expected.0, "{storage}");
        file = next;
    }
}

#[test]
fn a_command_about_the_log_says_that_a_directory_has_none() {
    for storage in STORAGES {
        let (temporary, path) = fresh();
        make(temporary.path(), &path, storage);
        let dir = text(&path);
        for arguments in [
            &["verify", dir][..],
            &["inspect", dir],
            &["dump", dir],
            &["repair", dir],
            &["repair", dir, "--yes"],
            &["compact", dir],
            &["watch", dir, "--count", "1"],
            &["import", dir, "-"],
            &["bench", "open", dir],
            &["snapshot", dir],
            &["restore", text(&temporary.path().join("seed.snap")), dir],
        ] {
            let message = fail(1, arguments);
            let reason = format!("its state is in {storage}, which has no log");
            assert!(message.contains(&reason), "{arguments:?}: {message}");
        }
        let before = succeed(["export", dir]);
        for other in ALL {
            let file = temporary.path().join("seed.snap");
            fail(1, ["restore", text(&file), dir, "--storage", other]);
        }
        assert_eq!(succeed(["export", dir]), before);
    }
}

/// Runs the main job shortly, and returns its figures.
fn run(arguments: &[&str]) -> Value {
    let common =
        ["run", "--json", "--entries", "3000", "--keys", "500", "--gets", "100"].as_slice();
    let report = json([common, arguments].concat());
    assert_eq!(report["verified"], object!(true), "{report}");
    report
}

#[test]
fn the_main_job_comes_to_the_same_state_in_every_storage_and_goes_on_there() {
    let mut digests = Vec::new();
    for storage in ALL {
        let (_temporary, dir) = fresh();
        let report = run(&["--storage", storage, "--dir", text(&dir), "--durability", "os"]);
        assert_eq!(report["storage"], object!(storage));
        assert_eq!(
            (&report["applied_index"], &report["len_after"]),
            (&object!(3500), &object!(500))
        );
        digests.push(report["digest_after"].clone());
        let more = run(&["--storage", storage, "--dir", text(&dir), "--durability", "os"]);
        assert_eq!(more["applied_index"], object!(7000));
        for other in ALL.into_iter().filter(|other| *other != storage) {
            let message = fail(1, ["run", "--storage", other, "--dir", text(&dir)]);
            assert!(message.contains(&format!("run it with --storage {storage}")), "{message}");
        }
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    for storage in ALL {
        let durable = run(&["--storage", storage]);
        assert_eq!(durable["durability"], object!("sync"));
    }
    for arguments in [
        ["run", "--storage", "redb", "--machine", "memory"],
        ["run", "--storage", "redb", "--segment-bytes", "65536"],
        ["run", "--storage", "fjall", "--io", "pwrite"],
    ] {
        assert!(fail(2, arguments).contains("without --storage"), "{arguments:?}");
    }
}

#[test]
fn a_storage_that_another_process_has_open_is_waited_for_and_then_named() {
    for storage in STORAGES {
        let (temporary, path) = fresh();
        make(temporary.path(), &path, storage);
        let held: Box<dyn std::any::Any> = match storage {
            "redb" => {
                let config = sprag_redb::RedbConfig::new();
                Box::new(sprag_redb::RedbStorage::open(path.join("state.redb"), config).unwrap())
            }
            _ => {
                let config = sprag_fjall::FjallConfig::new();
                Box::new(sprag_fjall::FjallStorage::open(&path, config).unwrap())
            }
        };
        for arguments in
            [&["get", text(&path), "name", "--json"][..], &["stats", text(&path), "--json"]]
        {
            let output = sprag(arguments);
            assert_eq!(output.status.code(), Some(1));
            let failure: Value = serde_json::from_slice(&output.stderr).unwrap();
            assert_eq!(failure["kind"], object!("locked"), "{failure}");
        }
        drop(held);
        assert_eq!(succeed(["get", text(&path), "name"]), b"value\n");
    }
}

#[test]
fn damage_in_a_storage_is_named_as_such() {
    let (temporary, path) = fresh();
    make(temporary.path(), &path, "redb");
    let file = path.join("state.redb");
    let mut bytes = fs::read(&file).unwrap();
    bytes[9..4096].fill(0xa5);
    fs::write(&file, bytes).unwrap();
    let output = sprag(["get", text(&path), "name", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let failure: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(failure["error"].as_str().unwrap().contains("state.redb"), "{failure}");
}
