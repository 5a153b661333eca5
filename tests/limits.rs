//! Tests of a process at its limits: an error names the limit, nothing is lost, and the directory
//! opens when the limit is raised.
//!
//! Limits belong to the process, so each test runs in a child process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;

use crate::common::{LONG, Scratch, child, child_directory};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sprag::{
    ApplyConfig, ApplyManager, Durability, Entry, PersistentConfig, PersistentStateMachine,
};

type Manager = ApplyManager<PersistentStateMachine>;

/// Runs the test `name` in a child process, which must succeed.
fn in_a_child(name: &str) {
    let scratch = Scratch::new();
    let output = child(module_path!(), name, &scratch.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{errors}", output.status);
    assert!(said.contains("1 passed"), "{said}");
}

/// Sets the soft limit, and leaves the hard one.
fn limit(resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: current.or(maximum), maximum }).unwrap();
}

fn config(path: &Path, segment_bytes: usize) -> PersistentConfig {
    crate::common::io::config(path)
        .segment_bytes(segment_bytes)
        .expected_keys(256)
        .durability(Durability::Os)
        .compaction(None)
}

fn open(config: PersistentConfig) -> Manager {
    let machine = PersistentStateMachine::open(config).unwrap();
    let one = NonZeroUsize::MIN;
    crate::common::io::manage(machine, ApplyConfig::new().worker_count(one).pipeline_depth(256))
}

const VALUE_BYTES: usize = 7000;

fn key(index: u64) -> [u8; 8] {
    (index % 200).to_be_bytes()
}

fn value(index: u64) -> Vec<u8> {
    vec![u8::try_from(index % 251).unwrap(); VALUE_BYTES]
}

/// Applies entries up to `last`. Returns the last acknowledged one, and the error that ended it.
fn apply(manager: &Manager, last: u64) -> (u64, Option<String>) {
    let mut next = manager.stats().applied.map_or(1, |applied| applied + 1);
    while next <= last {
        if let Err(error) = manager.apply(&Entry::put(next, 1, &key(next), &value(next)), LONG) {
            return (next - 1, Some(error.to_string()));
        }
        next += 1;
    }
    (last, None)
}

fn check(manager: &Manager, last: u64) {
    for index in last.saturating_sub(199).max(1)..=last {
        let found = manager.reader().get(&key(index)).unwrap();
        assert_eq!(found.as_deref(), Some(&*value(index)), "{index}");
    }
}

/// Proves DUR-10.
#[test]
fn a_limit_of_a_file_s_size_is_an_error_and_not_the_end_of_the_process() {
    in_a_child("child_with_a_limit_of_a_file_s_size");
}

#[test]
fn child_with_a_limit_of_a_file_s_size() {
    let Some(path) = child_directory() else { return };
    for (number, segment_bytes) in [(0, 1 << 20), (1, 64 << 10)] {
        let path = path.with_extension(number.to_string());
        let manager = open(config(&path, segment_bytes));
        assert_eq!(apply(&manager, 30), (30, None));
        limit(Resource::Fsize, Some(48 << 10));
        // A limit below the segment's current length works too.
        let (acknowledged, error) = apply(&manager, 1000);
        let error = error.unwrap();
        assert!(error.contains("RLIMIT_FSIZE") && error.contains(".seg"), "{error}");
        assert!(error.contains("open the directory again"), "{error}");
        drop(manager);
        let refused = PersistentStateMachine::open(config(&path, segment_bytes)).map(drop);
        if let Err(error) = refused {
            assert!(error.to_string().contains("RLIMIT_FSIZE"), "{error}");
        }
        let error = sprag::restore(
            write_snapshot(&path),
            path.with_extension("restored"),
            sprag::CommitMode::OnAppend,
            sprag::Contiguity::Strict,
        );
        assert!(error.unwrap_err().to_string().contains("RLIMIT_FSIZE"));
        limit(Resource::Fsize, None);
        let manager = open(config(&path, segment_bytes));
        let applied = manager.stats().applied.unwrap();
        assert!(applied >= acknowledged, "{applied} is less than {acknowledged}");
        check(&manager, applied);
        assert_eq!(apply(&manager, applied + 300), (applied + 300, None));
        manager.close(LONG).unwrap();
    }
}

/// Makes a snapshot that is longer than the limit, before the limit is set.
fn write_snapshot(path: &Path) -> std::path::PathBuf {
    let before = getrlimit(Resource::Fsize).current;
    limit(Resource::Fsize, None);
    let machine = PersistentStateMachine::open_read_only(path).unwrap();
    let file = path.with_extension("snap");
    let mut bytes = Vec::new();
    machine.view_read_only().unwrap().snapshot_to(&mut bytes).unwrap();
    std::fs::write(&file, bytes).unwrap();
    limit(Resource::Fsize, before);
    file
}

/// Proves DUR-10.
#[test]
fn a_process_without_descriptors_loses_nothing_and_hears_of_the_limit() {
    in_a_child("child_without_descriptors");
}

fn take_descriptors() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn child_without_descriptors() {
    let Some(path) = child_directory() else { return };
    limit(Resource::Nofile, Some(100));
    let manager = open(config(&path, 64 << 10));
    apply(&manager, 20);
    let mut taken = take_descriptors();
    // The log continues over many segments with its descriptors.
    let (acknowledged, error) = apply(&manager, 200);
    assert_eq!((acknowledged, error), (200, None));
    check(&manager, 200);
    taken.extend(take_descriptors());
    let error = manager.snapshots().write().unwrap_err().to_string();
    assert!(error.contains("RLIMIT_NOFILE") && error.contains("ulimit -n"), "{error}");
    let error = PersistentStateMachine::open(config(&path.with_extension("2"), 64 << 10));
    let error = error.map(drop).unwrap_err().to_string();
    assert!(error.contains("RLIMIT_NOFILE"), "{error}");
    // Another part of the process takes each free descriptor, so the log ends at some segment.
    let (mut acknowledged, mut error) = (200, None);
    for last in 201..400 {
        taken.extend(take_descriptors());
        (acknowledged, error) = apply(&manager, last);
        if error.is_some() {
            break;
        }
    }
    if let Some(error) = error {
        assert!(error.contains("RLIMIT_NOFILE") && error.contains(".seg"), "{error}");
    }
    drop(taken);
    drop(manager);
    let manager = open(config(&path, 64 << 10));
    let applied = manager.stats().applied.unwrap();
    assert!(applied >= acknowledged, "{applied} is less than {acknowledged}");
    check(&manager, applied);
    manager.snapshots().write().unwrap();
    manager.close(LONG).unwrap();
}

/// Proves DUR-10.
#[test]
fn segments_that_the_kernel_gives_no_mapping_for_are_read_from_their_files() {
    in_a_child("child_without_address_space");
}

fn address_space_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

fn maps_of_segments() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.ends_with(".seg")).count()
}

#[test]
fn child_without_address_space() {
    let Some(path) = child_directory() else { return };
    let segment_bytes = 32 << 20;
    let entries_of_a_segment = (segment_bytes / VALUE_BYTES) as u64;
    let manager = open(config(&path, segment_bytes));
    // Fill segments until all images exist.
    let last = 4 * entries_of_a_segment;
    assert_eq!(apply(&manager, last), (last, None));
    let mapped = maps_of_segments();
    assert!(mapped >= 2, "{mapped}");
    limit(Resource::As, Some(address_space_bytes() + (24 << 20)));
    let view = manager.snapshots().view().unwrap();
    let more = last + 3 * entries_of_a_segment;
    assert_eq!(apply(&manager, more), (more, None));
    assert_eq!(maps_of_segments(), mapped, "no segment was mapped");
    check(&manager, more);
    // Reads of the earlier state return the same.
    let old = view.get(&key(last)).unwrap();
    assert_eq!(old.as_deref(), Some(&*value(last)));
    let first = more - 2 * entries_of_a_segment;
    let entries = manager.log().unwrap().entries(first..=first + 9, 1 << 20).unwrap();
    assert_eq!(entries.len(), 10);
    // Resubmitted entries are compared with the log.
    let again = manager.apply_entries(&[Entry::put(first, 1, &key(first), &value(first))]);
    assert_eq!(again.unwrap().known_same, 1);
    let other = manager.apply_entries(&[Entry::put(first, 1, &key(first), b"other")]);
    assert!(other.unwrap_err().to_string().contains("conflict"));
    let held = manager.reader().get(&key(first + 300)).unwrap().unwrap();
    // The view and its segments outlive the names of their files.
    manager.snapshots().compact().unwrap();
    let old = view.get(&key(last)).unwrap();
    assert_eq!(old.as_deref(), Some(&*value(last)));
    drop(view);
    check(&manager, more);
    manager.close(LONG).unwrap();
    drop(held);
    // Opening needs images again, and reports it if it gets none.
    limit(Resource::As, Some(address_space_bytes() + (24 << 20)));
    let refused = PersistentStateMachine::open(config(&path, segment_bytes)).map(drop);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("RLIMIT_AS"), "{refused}");
    limit(Resource::As, None);
    let manager = open(config(&path, segment_bytes));
    check(&manager, more);
    manager.close(LONG).unwrap();
}

/// Proves DUR-10.
#[test]
fn a_thread_that_cannot_be_started_is_an_error_that_names_the_limit() {
    in_a_child("child_without_threads");
}

#[test]
fn child_without_threads() {
    let Some(path) = child_directory() else { return };
    let machine = PersistentStateMachine::open(config(&path, 64 << 10)).unwrap();
    let one = NonZeroUsize::MIN;
    let threads = ApplyConfig::new().worker_count(one).pipeline_depth(16);
    // There is no room for a thread's stack. A limit of threads would act alike, but root is exempt
    // from it.
    limit(Resource::As, Some(address_space_bytes() + (1 << 20)));
    let error = ApplyManager::new(machine, threads).map(drop).unwrap_err().to_string();
    limit(Resource::As, None);
    assert!(error.contains("thread") && error.contains("RLIMIT_NPROC"), "{error}");
    let manager = open(config(&path, 64 << 10));
    assert_eq!(apply(&manager, 3), (3, None));
    manager.close(LONG).unwrap();
}
