//! Tests with `kill -9` at any moment of a run: acknowledged entries are there.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    Random, command, fail, fresh, json, json_after_kill, last_acknowledged, succeed, text,
};

fn start(dir: &Path, file: &Path, entries: &str) -> Child {
    command([
        "run",
        "--dir",
        text(dir),
        "--entries",
        entries,
        "--keys",
        "1000",
        "--ack-file",
        text(file),
        "--segment-bytes",
        "1048576",
        "--value-bytes",
        "40",
        "--batch",
        "32",
    ])
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .spawn()
    .unwrap()
}

/// Waits until an index above `index` is acknowledged, or the run ends.
fn wait_for(child: &mut Child, file: &Path, index: u64) {
    let started = Instant::now();
    while last_acknowledged(file).unwrap_or(0) <= index {
        if child.try_wait().unwrap().is_some() || started.elapsed() > Duration::from_secs(60) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn check(dir: &Path, file: &Path) {
    let acknowledged = last_acknowledged(file);
    if !dir.exists() {
        assert_eq!(acknowledged, None);
        return;
    }
    let report = json(["verify", text(dir), "--json"]);
    assert_eq!(report["clean"], true, "{report}");
    let stats = json(["stats", text(dir), "--json"]);
    let last = stats["last_index"].as_u64();
    assert!(last >= acknowledged, "{last:?} is less than {acknowledged:?}");
    assert_eq!(stats["applied_index"].as_u64(), last);
    // The next command continues from there.
    let put = json_after_kill(dir, ["put", text(dir), "key", "value", "--json"]);
    assert_eq!(put["index"].as_u64(), Some(last.map_or(1, |last| last + 1)));
    assert_eq!(succeed(["get", text(dir), "key"]), b"value\n");
    succeed(["verify", text(dir)]);
}

/// Proves DUR-1.
#[test]
fn what_was_acknowledged_survives_kill_9() {
    let mut random = Random::of_now();
    let mut killed = 0;
    for round in 0..12 {
        let (temporary, dir) = fresh();
        let file = temporary.path().join("acknowledged");
        let is_early = round < 6;
        // An early kill hits the making of the directory or the first entries. A later one hits the
        // timed part.
        let mut child = start(&dir, &file, if is_early { "5000000" } else { "400000" });
        let delay_us = if is_early {
            random.below(if round < 4 { 15_000 } else { 300_000 })
        } else {
            wait_for(&mut child, &file, 1000);
            random.below(150_000)
        };
        thread::sleep(Duration::from_micros(delay_us));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        println!("round {round}: {delay_us} us, acknowledged {:?}", last_acknowledged(&file));
        check(&dir, &file);
    }
    assert!(killed > 6, "most runs were killed before their end: {killed}");
    assert!(fail(1, ["verify", "/nonexistent/directory"]).contains("no such directory"));
}

#[test]
fn a_directory_that_is_killed_again_and_again_only_grows() {
    let (temporary, dir) = fresh();
    let file = temporary.path().join("acknowledged");
    let mut random = Random::new(0x1234_5678_9abc_def1);
    let mut last = 0;
    for _ in 0..4 {
        let mut child = start(&dir, &file, "400000");
        wait_for(&mut child, &file, last + 1000);
        thread::sleep(Duration::from_micros(random.below(60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let report = json(["verify", text(&dir), "--json"]);
        assert_eq!(report["clean"], true, "{report}");
        let now = json(["stats", text(&dir), "--json"])["last_index"].as_u64().unwrap();
        assert!(now >= last_acknowledged(&file).unwrap_or(0) && now >= last);
        last = now;
    }
}
