//! Tests of the memory of a process: calls leave none behind, and idle engines take little.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::common::io;
use crate::common::machines::memory;
use crate::common::{LONG, Scratch, apply_config, child, child_directory, manage};
use sprag::error::SubmitError;
use sprag::{ApplyConfig, ApplyManager, Entry, IoBackend, PersistentStateMachine};

/// Resident memory of this process in KiB, without pages of files: the program is read in as it
/// runs.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The test runs in a child, because it measures the memory of the whole process.
///
/// Proves OPS-3.
#[test]
fn memory_does_not_grow_with_the_number_of_calls() {
    let name = "memory_does_not_grow_with_the_number_of_calls";
    if child_directory().is_some() {
        return call_and_measure();
    }
    let scratch = Scratch::new();
    let output = child(module_path!(), name, &scratch.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

fn call_and_measure() {
    let manager = manage(memory(), apply_config(1).pipeline_depth(1024));
    let mut next = 1;
    let mut call = |count: u64| {
        for index in next..next + count {
            let key = [(index % 64) as u8];
            while let Err(error) = manager.apply_entries(&[Entry::put(index, 1, &key, b"value")]) {
                assert!(matches!(error, SubmitError::Full { .. }), "{error}");
                manager.flush_pending(LONG).unwrap();
            }
            if index % 16 == 0 {
                // The future is never polled or waited for.
                let _unused = manager.acknowledged(index + 5);
            }
        }
        next += count;
        manager.flush_pending(LONG).unwrap();
    };
    // Every image of the pool has been used by then.
    call(400_000);
    let before = resident_kib();
    call(200_000);
    let grown = resident_kib().saturating_sub(before);
    // A leak of 40 bytes a call would be 8 MB.
    assert!(grown < 4096, "{grown} KiB more after 200,000 calls");
}

/// Bytes that the files of a directory take on the disk.
fn disk_bytes(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

/// The test runs in a child, because it measures the memory of the whole process.
#[test]
fn an_idle_engine_takes_memory_and_disk_as_it_is_used() {
    let name = "an_idle_engine_takes_memory_and_disk_as_it_is_used";
    if let Some(directory) = child_directory() {
        return open_and_measure(&directory);
    }
    let scratch = Scratch::new();
    let output = child(module_path!(), name, &scratch.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

fn open_and_measure(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let path = |number: u64| -> PathBuf { directory.join(format!("engine-{number}")) };
    let open = |number: u64| {
        let config = io::config(path(number)).io(IoBackend::Pwrite);
        let machine = PersistentStateMachine::open(config).unwrap();
        let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
        manager.apply(&Entry::put(1, 1, b"key", b"value"), LONG).unwrap();
        manager
    };
    // The first engine also pays for what a process has once.
    let _first = open(0);
    let before = resident_kib();
    let engines: Vec<_> = (1..=16).map(open).collect();
    let each_kib = resident_kib().saturating_sub(before) / 16;
    // The rings alone are 5.8 MB long.
    assert!(each_kib < 4096, "{each_kib} KiB of memory each");
    let largest = (0..=16).map(|number| disk_bytes(&path(number))).max();
    assert!(largest < Some(1 << 20), "{largest:?} bytes of disk");
    drop(engines);
}
