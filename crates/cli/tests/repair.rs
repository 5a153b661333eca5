//! Tests of `sprag repair` by its command line: it only looks unless it is told, copies before it
//! cuts, and changes no other files.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{
    TIMEOUT, content, fail, filled, flip, fresh, json, open, sprag, succeed, text,
};
use serde_json::{Value, json as object};

const ENTRIES: u64 = 1500;
/// Index of the damaged entry; each frame has one entry.
const DAMAGED: u64 = 700;

/// Makes a directory of several segments, and flips a bit in the body of an entry. Returns the
/// damaged file and the offset of its frame.
fn damaged(dir: &Path) -> (String, u64) {
    filled(dir, ENTRIES);
    let mut place = None;
    sprag::inspect::frames(dir, &mut |frame| {
        if frame.first.index == DAMAGED {
            place = Some((frame.file.clone(), frame.offset));
        }
        Ok(())
    })
    .unwrap();
    let (file, offset) = place.unwrap();
    flip(&dir.join(&file), offset + 130);
    (file, offset)
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect()
}

/// The report of a repair, its exit status, and its error output.
fn repair(dir: &Path, options: &[&str]) -> (Value, Option<i32>, String) {
    let output = sprag(["repair", text(dir), "--json"].iter().chain(options));
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (report, output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn backup(dir: &Path, number: u32) -> PathBuf {
    dir.with_file_name(format!("data-backup-{number}"))
}

#[test]
fn unless_told_it_changes_nothing_and_says_what_would_be_lost() {
    let (temporary, dir) = fresh();
    let (file, offset) = damaged(&dir);
    let before = content(&dir);
    let (report, status, error) = repair(&dir, &[]);
    assert_eq!(status, Some(1));
    assert!(error.contains("nothing was changed, --yes repairs it"), "{error}");
    assert_eq!((&report["damaged"], &report["repaired"]), (&object!(true), &object!(false)));
    assert_eq!(report["log"]["file"], object!(file));
    assert_eq!(report["log"]["offset"], object!(offset));
    assert_eq!(report["log"]["index"], object!(DAMAGED));
    assert_eq!(report["log"]["entries"], object!(ENTRIES + 1 - DAMAGED));
    assert_eq!(report["log"]["indexes"], object!([DAMAGED, ENTRIES]));
    assert!(!report["log"]["segments"].as_array().unwrap().is_empty());
    assert_eq!(report["last_index"], object!(DAMAGED - 1));
    assert_eq!((&report["backup"], &report["backed_up"]), (&Value::Null, &object!([])));

    let shown = sprag(["repair", text(&dir)]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    for part in ["would be lost", "damaged: nothing was changed", &file] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(content(&dir) == before, "not a byte, and no time");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1, "no backup");
}

#[test]
fn told_to_it_backs_up_cuts_at_the_damage_and_the_directory_opens_again() {
    let (_temporary, dir) = fresh();
    let (file, _) = damaged(&dir);
    fail(1, ["put", text(&dir), "key", "value"]);
    let before = files(&dir);
    let (report, status, error) = repair(&dir, &["--yes"]);
    assert_eq!((status, &*error), (Some(0), ""));
    assert_eq!(report["repaired"], object!(true));
    let kept = backup(&dir, 1).canonicalize().unwrap();
    assert_eq!(report["backup"], object!(text(&kept)));

    // The backup has every file that changed, as it was.
    let (after, copies) = (files(&dir), files(&kept));
    let mut changed = 0;
    for (name, bytes) in &before {
        let same = after.get(name) == Some(bytes);
        assert!(same || copies.get(name) == Some(bytes), "{name} changed and is not kept");
        changed += u32::from(!same);
    }
    assert!(changed > 2 && copies.contains_key("META") && copies.contains_key(&file));
    assert!(!copies.contains_key(before.keys().next().unwrap()), "what was before is not copied");

    succeed(["verify", text(&dir)]);
    let stats = json(["stats", text(&dir), "--json"]);
    assert_eq!(stats["last_index"], object!(DAMAGED - 1));
    let put = json(["put", text(&dir), "key", "value", "--json"]);
    assert_eq!(put["index"], object!(DAMAGED));
    assert_eq!(succeed(["get", text(&dir), "key"]), b"value\n");

    // The directory is whole now, so another repair does nothing.
    let (report, status, _) = repair(&dir, &["--yes"]);
    assert_eq!((status, &report["damaged"]), (Some(0), &object!(false)));
    assert!(!backup(&dir, 2).exists());
}

#[test]
fn the_copies_put_back_are_the_directory_as_it_was() {
    let (_temporary, dir) = fresh();
    damaged(&dir);
    let before = files(&dir);
    assert_eq!(repair(&dir, &["--yes"]).1, Some(0));
    for (name, bytes) in files(&backup(&dir, 1)) {
        fs::write(dir.join(name), bytes).unwrap();
    }
    // The lock file of the backup is new, and empty.
    assert!(files(&dir) == before);
    assert_eq!(repair(&dir, &[]).0["log"]["index"], object!(DAMAGED));
}

#[test]
fn a_directory_that_is_open_is_refused_and_left_alone() {
    let (_temporary, dir) = fresh();
    filled(&dir, 10);
    let manager = open(&dir, 1);
    let before = files(&dir);
    for options in [&[][..], &["--yes"], &["--yes", "--forget-hard-state"]] {
        let (report, status, error) = repair(&dir, options);
        assert_eq!((report, status), (Value::Null, Some(1)), "{error}");
        assert!(error.contains("already open"), "{error}");
    }
    assert!(files(&dir) == before);
    manager.close(TIMEOUT).unwrap();
    assert_eq!(repair(&dir, &["--yes"]).1, Some(0));
    assert!(!backup(&dir, 1).exists());
}

#[test]
fn a_damaged_vote_is_forgotten_only_on_a_word_of_its_own() {
    let (_temporary, dir) = fresh();
    let manager = open(&dir, 1);
    manager.log().unwrap().save_hard_state(b"first").unwrap();
    manager.log().unwrap().save_hard_state(b"second").unwrap();
    manager.close(TIMEOUT).unwrap();
    let file = dir.join("HARD");
    let whole = fs::read(&file).unwrap();
    // Find the slot with the second value.
    let at = whole.windows(6).position(|window| window == b"second").unwrap();
    flip(&file, at as u64);
    let before = files(&dir);
    for options in [&[][..], &["--yes"]] {
        let (report, status, error) = repair(&dir, options);
        assert_eq!(status, Some(1), "{error}");
        assert!(report["hard"].is_string() && report["log"].is_null(), "{report}");
        assert_eq!(error.contains("--forget-hard-state"), !options.is_empty(), "{error}");
    }
    assert!(files(&dir) == before && !backup(&dir, 1).exists());
    let alone = sprag(["repair", text(&dir), "--forget-hard-state"]);
    assert_eq!(alone.status.code(), Some(2), "a word to be said beside --yes");

    let (report, status, _) = repair(&dir, &["--yes", "--forget-hard-state"]);
    assert_eq!((status, &report["repaired"]), (Some(0), &object!(true)));
    assert_eq!(fs::read(backup(&dir, 1).join("HARD")).unwrap(), before["HARD"]);
    assert_eq!(open(&dir, 1).log().unwrap().hard_state().unwrap().as_deref(), Some(&b"first"[..]));
}
