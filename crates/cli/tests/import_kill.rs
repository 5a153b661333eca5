//! Tests with `kill -9` at any moment of an import, and the same import again until it is done. The
//! result is that of one import.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Random, command, fresh, json, json_after_kill, succeed, text};
use serde_json::{Value, json as object};

const COMMANDS: u64 = 10_000;
const KILLS: u32 = 16;

/// Commands whose loss, repetition or swap always shows: each counts in `all`, and most change
/// another key too.
fn input(random: &mut Random) -> String {
    let mut text = String::new();
    for number in 0..COMMANDS {
        let key = random.below(200);
        match random.below(8) {
            0 => writeln!(text, "SET s{key} {number}"),
            // The command above keeps the values short.
            1 | 2 => writeln!(text, "APPEND s{key} .{number}"),
            3 => writeln!(text, "INCRBY n{key} {}", random.below(1000)),
            4 => writeln!(text, "DEL d{key}"),
            5 => writeln!(text, "SETNX d{key} {number}"),
            6 => writeln!(text, "MULTI\nINCR m\nDECRBY n{key} {number}\nSET m{key} {number}\nEXEC"),
            _ => writeln!(text, "SET long{key} {}", "x".repeat(random.below(300) as usize + 1)),
        }
        .unwrap();
        writeln!(text, "INCR all").unwrap();
    }
    text
}

fn import(dir: &Path, file: &Path) -> Value {
    json(["import", "--json", text(dir), text(file)])
}

/// The visible outcome of a directory: all keys and values, and the number of entries that made
/// them.
fn outcome(dir: &Path) -> (Vec<u8>, Value) {
    let stats = json(["stats", text(dir), "--json"]);
    (succeed(["export", text(dir)]), stats["last_index"].clone())
}

/// Proves OPS-1.
#[test]
fn an_import_that_is_killed_and_begun_again_until_it_is_done_counts_everything_once() {
    let mut random = Random::of_now();
    let (temporary, whole) = fresh();
    let file = temporary.path().join("commands");
    let input = input(&mut random);
    fs::write(&file, &input).unwrap();
    let started = Instant::now();
    let summary = import(&whole, &file);
    let length = started.elapsed();
    assert_eq!(summary["offset"], object!(input.len()));
    let expected = outcome(&whole);
    let counted = succeed(["get", text(&whole), "all"]);
    assert_eq!(counted, format!("{COMMANDS}\n").into_bytes());

    let started = Instant::now();
    import(&whole, &file);
    // Time to open the directory, and to read the input up to its position.
    let resuming = started.elapsed();

    let (mut kills, mut done) = (0, 0);
    let mut dir = temporary.path().join(format!("killed-{done}"));
    // Repeat until one import was done in spite of the kills, however slow the machine is.
    while kills < KILLS || done == 0 {
        let mut child = command(["import", "--json", text(&dir), text(&file)])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Kill while the directory is made or opened, or the input passed over; or else during the
        // import.
        let delay_us = match random.below(3) {
            0 => random.below(resuming.as_micros() as u64),
            _ => resuming.as_micros() as u64 / 2 + random.below(length.as_micros() as u64),
        };
        let delay_us = delay_us << (kills / KILLS).min(10);
        thread::sleep(Duration::from_micros(delay_us));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.code().is_none() {
            kills += 1;
            continue;
        }
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        check(&dir, &file, &expected);
        done += 1;
        dir = temporary.path().join(format!("killed-{done}"));
    }
    println!(
        "{length:?}, {resuming:?} to resume: {kills} kills, {done} imports done in spite of them"
    );
    // The last one may have been killed.
    json_after_kill(&dir, ["import", "--json", text(&dir), text(&file)]);
    check(&dir, &file, &expected);
}

/// Checks that the result is that of an import without kills, and that another import adds nothing.
fn check(dir: &Path, file: &Path, expected: &(Vec<u8>, Value)) {
    succeed(["verify", text(dir)]);
    let found = outcome(dir);
    assert!(found.0 == expected.0, "the state differs");
    assert_eq!(found.1, expected.1, "entries of the log");
    let again = import(dir, file);
    assert_eq!((&again["commands"], &again["entries"]), (&object!(0), &object!(0)));
}
