//! Tests of the main job: its figures, its checks, and continuing where it left off.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::common::{command, fail, fresh, is_ignored, json, last_acknowledged, succeed, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json as object};

fn check(report: &Value, entries: u64, keys: u64) {
    for key in [
        "entries_per_second",
        "ack_p50_us",
        "ack_p90_us",
        "ack_p99_us",
        "ack_p999_us",
        "ack_max_us",
        "open_ms",
        "seconds",
    ] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key} of {report}");
    }
    for key in ["get_p50_ns", "get_p90_ns", "get_p99_ns", "get_p999_ns", "get_max_ns", "workers"] {
        assert!(report[key].as_u64().unwrap() > 0, "{key} of {report}");
    }
    assert!(report["allocations_per_entry"].as_f64().is_some(), "{report}");
    assert!(report["fulls"].as_u64().is_some(), "{report}");
    for percentiles in [
        ["ack_p50_us", "ack_p90_us", "ack_p99_us", "ack_p999_us", "ack_max_us"],
        ["get_p50_ns", "get_p90_ns", "get_p99_ns", "get_p999_ns", "get_max_ns"],
    ] {
        assert!(percentiles.is_sorted_by_key(|key| report[key].as_f64().unwrap() as u64));
    }
    check_times(report);
    assert_eq!(report["entries"], object!(entries));
    assert_eq!(report["acknowledged"], object!(entries));
    assert_eq!(report["len_after"], object!(keys));
    assert_eq!(report["digest_before"].as_str().unwrap().len(), 32);
    assert_eq!(report["digest_before"], report["digest_after"]);
    assert_eq!(report["digest_before"], report["digest_model"]);
    assert_eq!(report["verified"], object!(true));
}

fn check_times(report: &Value) {
    let (has_log, syncs) = (report["machine"] == "persistent", report["durability"] == "sync");
    let times = &report["times"];
    for (name, is_there) in [
        ("apply_range", true),
        ("submit_to_applied", true),
        ("log_write", has_log),
        ("recovery", has_log),
        ("log_sync", syncs),
        ("submit_to_durable", syncs),
    ] {
        let took = &times[name];
        let count = took["count"].as_u64().unwrap();
        // By time or by the system, the log may be synced in the timed part or not.
        assert!(if is_there { count > 0 } else { count == 0 || has_log }, "{name} of {times}");
        let figures = ["p50_us", "p90_us", "p99_us", "max_us"];
        assert!(figures.is_sorted_by_key(|key| (took[key].as_f64().unwrap() * 1e3) as u64));
    }
    for name in ["group_entries", "group_bytes"] {
        assert_eq!(times[name]["sum"].as_u64().unwrap() > 0, has_log, "{name} of {times}");
    }
}

/// Proves ORD-1.
#[test]
fn both_machines_are_verified_with_one_worker_and_two_and_come_to_the_same_state() {
    let mut digests = Vec::new();
    for machine in ["memory", "persistent"] {
        for workers in ["1", "2"] {
            let report = json([
                "run",
                "--entries",
                "20000",
                "--keys",
                "1000",
                "--gets",
                "2000",
                "--json",
                "--machine",
                machine,
                "--workers",
                workers,
            ]);
            check(&report, 20_000, 1000);
            assert_eq!(report["machine"], object!(machine));
            assert_eq!(report["workers"].to_string(), workers);
            assert_eq!(report["applied_index"], object!(21_000));
            if machine == "memory" {
                assert_eq!(report["io_backend"], object!("memory"));
                assert_eq!(report["durable_index"], object!(null));
            } else {
                // `json` has checked which back-end it is.
                let backend = report["io_backend"].as_str().unwrap();
                assert!(["io_uring", "pwrite"].contains(&backend), "{backend}");
                assert_eq!(report["durable_index"], object!(21_000));
                assert!(report["disk_bytes"].as_u64().unwrap() > 21_000 * 116);
            }
            digests.push(report["digest_after"].clone());
        }
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn every_option_has_its_effect() {
    let (_temporary, dir) = fresh();
    let report = json([
        "run",
        "--dir",
        text(&dir),
        "--entries",
        "3000",
        "--keys",
        "10",
        "--gets",
        "100",
        "--value-bytes",
        "7",
        "--batch",
        "5",
        "--pipeline",
        "50",
        "--segment-bytes",
        "65536",
        "--durability",
        "os",
        "--io",
        "pwrite",
        "--seed",
        "9",
        "--json",
    ]);
    check(&report, 3000, 10);
    assert_eq!((&report["batch"], &report["pipeline"]), (&object!(5), &object!(50)));
    assert!(report["fulls"].as_u64().unwrap() > 0, "3000 entries do not fit into 50: {report}");
    assert_eq!(report["io_backend"], object!("pwrite"));
    assert_eq!((&report["durability"], &report["value_bytes"]), (&object!("os"), &object!(7)));
    let inspected = json(["inspect", text(&dir), "--json"]);
    assert!(inspected["segments"].as_array().unwrap().len() > 1);
    let value = succeed(["get", text(&dir), "key-000000000003"]);
    assert_eq!(value.len(), 8);

    let other_seed = json([
        "run",
        "--entries",
        "10",
        "--keys",
        "10",
        "--gets",
        "1",
        "--seed",
        "2",
        "--machine",
        "memory",
        "--json",
    ]);
    let seed = json([
        "run",
        "--entries",
        "10",
        "--keys",
        "10",
        "--gets",
        "1",
        "--machine",
        "memory",
        "--json",
    ]);
    assert_ne!(seed["digest_after"], other_seed["digest_after"]);
    let periodic = json([
        "run",
        "--entries",
        "10",
        "--keys",
        "10",
        "--gets",
        "1",
        "--durability",
        "periodic",
        "--json",
    ]);
    check(&periodic, 10, 10);
}

#[test]
fn a_run_goes_on_in_a_directory_that_has_entries_and_keeps_its_other_keys() {
    let (_temporary, dir) = fresh();
    succeed(["put", text(&dir), "aaa", "before all keys"]);
    succeed(["put", text(&dir), "zzz", "after all keys"]);
    let run = |first: u64| {
        let report = json([
            "run",
            "--dir",
            text(&dir),
            "--entries",
            "500",
            "--keys",
            "20",
            "--gets",
            "50",
            "--json",
        ]);
        check(&report, 500, 22);
        assert_eq!(report["first_index"], object!(first));
        report["digest_after"].clone()
    };
    let first = run(2 + 20 + 1);
    let second = run(2 + 520 + 20 + 1);
    assert_ne!(first, second, "each run writes values of its own");
    assert_eq!(succeed(["get", text(&dir), "zzz"]), b"after all keys\n");
}

#[test]
fn the_ack_file_rises_to_the_last_index() {
    let (temporary, dir) = fresh();
    let file = temporary.path().join("acknowledged");
    let run = || {
        let report = json([
            "run",
            "--dir",
            text(&dir),
            "--entries",
            "20000",
            "--keys",
            "100",
            "--gets",
            "1",
            "--ack-file",
            text(&file),
            "--json",
        ]);
        check(&report, 20_000, 100);
        assert_eq!(last_acknowledged(&file), report["applied_index"].as_u64());
    };
    run();
    run();
    let missing = temporary.path().join("no").join("such").join("directory");
    let message = fail(1, ["run", "--entries", "10", "--keys", "10", "--ack-file", text(&missing)]);
    assert!(message.contains("directory"), "{message}");
}

#[test]
fn an_interrupted_run_leaves_no_temporary_directory() {
    let signals = [Signal::INT, Signal::TERM];
    for signal in signals.into_iter().filter(|signal| !is_ignored(signal.as_raw())) {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = command(["run", "--entries", "1000000", "--keys", "100000"]);
        let mut child =
            child.env("TMPDIR", temporary.path()).stdout(Stdio::null()).spawn().unwrap();
        let made = || fs::read_dir(temporary.path()).unwrap().next().map(|entry| entry.unwrap());
        // Interrupt as late as when the log is being written.
        while !made().is_some_and(|made| made.path().join("data/META").exists()) {
            assert!(child.try_wait().unwrap().is_none(), "it has ended by itself");
            thread::sleep(Duration::from_millis(1));
        }
        let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
        assert!(made().is_none(), "{:?}", made());
    }
}

#[test]
fn people_get_a_page_and_machines_an_object() {
    let shown = succeed(["run", "--entries", "1000", "--keys", "100", "--gets", "100"]);
    let shown = String::from_utf8(shown).unwrap();
    for word in ["throughput", "p99.9", "allocations", "verified: 100 keys"] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    assert!(serde_json::from_str::<Value>(&shown).is_err());
}

#[test]
fn a_profile_sets_what_its_name_says_and_other_options_count_before_it() {
    let run = |options: &[&str]| {
        let arguments =
            ["run", "--json", "--entries", "20000", "--keys", "1000", "--gets", "100"].as_slice();
        let report = json([arguments, options].concat());
        check(&report, 20_000, 1000);
        report
    };
    let pipeline = |report: &Value| report["pipeline"].as_u64().unwrap();
    let memory = |report: &Value| report["memory_bytes"].as_u64().unwrap();
    let default = run(&[]);
    assert_eq!((&default["profile"], pipeline(&default)), (&Value::Null, 65_536));
    let lean = run(&["--profile", "memory-efficient"]);
    assert_eq!((&lean["profile"], pipeline(&lean)), (&object!("memory-efficient"), 4096));
    assert!(memory(&lean) * 10 < memory(&default), "{lean}");
    let quick = run(&["--profile", "low-latency", "--durability", "os", "--pipeline", "512"]);
    assert_eq!((&quick["durability"], pipeline(&quick)), (&object!("os"), 512));
    let of_memory = run(&["--profile", "low-latency", "--machine", "memory"]);
    assert_eq!((&of_memory["durability"], pipeline(&of_memory)), (&Value::Null, 1024));
    let help = String::from_utf8(succeed(["run", "--help"])).unwrap();
    for profile in sprag::Profile::ALL {
        assert!(help.contains(profile.name()), "{}", profile.name());
        assert!(!fail(2, ["run", "--profile", &profile.name().to_uppercase()]).is_empty());
    }
}
