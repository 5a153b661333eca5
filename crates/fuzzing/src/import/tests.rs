//! Runs of every committed seed and every input found, on the stable toolchain, and canaries of the
//! oracle.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sprag_import::Map;

use super::import;
use super::reading::{Reading, Stopped, Why};
use super::run::run;
use super::seeds::seeds;
use crate::tests::{folder, inputs};

#[test]
fn imports_hold_for_every_input_kept() {
    let seeds = inputs(&folder("seeds", "import"));
    assert!(seeds.len() >= 50, "{} seeds", seeds.len());
    for (name, bytes) in inputs(&folder("regressions", "import")).iter().chain(&seeds) {
        // The name is shown if the test fails.
        println!("import {name}");
        import(bytes);
    }
    for len in 0..9 {
        import(&[0; 9][..len]);
    }
}

/// Run `SPRAG_WRITE_SEEDS=1 cargo test --workspace seeds_of_the_import` to write the seeds anew.
#[test]
fn the_committed_seeds_of_the_import_are_what_the_code_makes() {
    let folder = folder("seeds", "import");
    let mut made: Vec<_> = seeds().into_iter().map(|seed| (seed.name, seed.bytes)).collect();
    made.sort();
    if std::env::var_os("SPRAG_WRITE_SEEDS").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in &made {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let names = |seeds: &[(String, Vec<u8>)]| -> Vec<_> {
        seeds.iter().map(|(name, _)| name.clone()).collect()
    };
    let kept = inputs(&folder);
    assert_eq!(names(&made), names(&kept));
    assert!(made == kept);
    assert!(made.iter().all(|(_, bytes)| bytes.len() <= 4096), "the fuzzer cuts what is longer");
    assert!(made.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() < 256 << 10);
}

/// The plain reading is an oracle only if it reads right by itself.
#[test]
fn the_plain_reading_reads_what_redis_says_of_the_same_file() {
    let aof: &[u8] = include_bytes!("../../../cli/tests/fixtures/redis-7.0.15.aof");
    let held: &[u8] = include_bytes!("../../../cli/tests/fixtures/redis-7.0.15.expected");
    let mut reading = Reading::new(aof, false);
    while reading.next_unit().unwrap() {}
    let mut shown: Vec<u8> = Vec::new();
    for bytes in reading.keys.iter().flat_map(|(key, value)| [key, value]) {
        shown.extend(format!("${}\r\n", bytes.len()).as_bytes());
        shown.extend(bytes);
        shown.extend(b"\r\n");
    }
    assert!(shown == held);
}

#[test]
fn the_plain_reading_stops_where_it_must() {
    let stops: [(&str, u64, Option<u64>, Why); 12] = [
        ("SET a 1\nEXPIRE a 1\n", 8, None, Why::Unsupported),
        ("MULTI\nINCR a\nSET b x\nINCR b\nEXEC\n", 21, Some(0), Why::Rejected),
        ("SET a 1\nMULTI\nINCR a\n", 8, None, Why::CutOff),
        ("SET a 1\nSET a", 8, None, Why::CutOff),
        ("SET a 1\nSET a\0\0", 8, None, Why::Zeros),
        ("MULTI\nSWAPDB 0 1\n", 6, Some(0), Why::Decisive),
        ("SET a 1\nSET a 2 EX 9\n", 8, None, Why::InPart),
        ("SET a 1\nSET a 2 NX XX\n", 8, None, Why::Options),
        ("*1\r\n$99999999\r\n", 0, None, Why::LongArgument),
        ("\n\nSET a \"x\n", 2, None, Why::Malformed),
        ("MULTI\nMULTI\n", 6, Some(0), Why::Misplaced),
        ("DECRBY a -9223372036854775808\n", 0, None, Why::Rejected),
    ];
    for (stream, offset, multi, why) in stops {
        let mut reading = Reading::new(stream.as_bytes(), false);
        let stopped = loop {
            match reading.next_unit() {
                Ok(more) => assert!(more, "{stream:?}"),
                Err(stopped) => break stopped,
            }
        };
        assert_eq!(stopped, Stopped { offset, multi, why }, "{stream:?}");
    }
}

/// The oracle fails where an import counts twice, applies half a MULTI, or passes over what it must
/// not.
#[test]
fn canary_what_the_oracle_is_for_is_seen() {
    let stream: &[u8] = b"INCR a\nINCR a\nMULTI\nINCR a\nEXPIRE a 1\nEXEC\n";
    let fails = |check: &dyn Fn()| catch_unwind(AssertUnwindSafe(check)).is_err();
    let whole = run(Map::default(), stream, true);
    assert!(!fails(&|| whole.is_what_a_plain_reading_makes_of(stream, true)));

    let first = run(Map::default(), &stream[..14], true);
    let rest = run(first.map.clone(), stream, true);
    assert!(!fails(&|| whole.is_the_sum_of(&[&first, &rest])));
    let forgetful = run(Map { note: None, ..first.map.clone() }, stream, true);
    assert!(fails(&|| whole.is_the_sum_of(&[&first, &forgetful])), "it begins anew");

    let without_multi: &[u8] = b"INCR a\nINCR a\nINCR a\nEXPIRE a 1\n";
    let half = run(Map::default(), without_multi, false);
    assert!(fails(&|| half.is_what_a_plain_reading_makes_of(stream, false)), "half a MULTI");
    assert!(fails(&|| whole.is_what_a_plain_reading_makes_of(stream, false)), "passed over");
}
