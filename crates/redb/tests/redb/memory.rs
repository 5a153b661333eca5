//! A state larger than memory, in a process that may not take as much memory as the state has.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};
use sprag::testing::Random;
use sprag::{Entry, StorageConfig};
use sprag_redb::{RedbConfig, RedbStorage};

use crate::machine::{PATIENT, manage};

const DIRECTORY: &str = "SPRAG_REDB_TEST_MEMORY_DIRECTORY";

const CACHE_BYTES: usize = 2 << 20;
const STATE_BYTES: usize = 10 * CACHE_BYTES;
/// What the process may take beside what it has when it begins.
const LIMIT_BYTES: u64 = 16 << 20;
const VALUE_BYTES: usize = 8 << 10;

/// Kilobytes that the kernel counts under `name` for this process.
fn kilobytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn value(key: usize) -> Vec<u8> {
    Random::new(key as u64).bytes(VALUE_BYTES)
}

/// Fills a state and reads all of it, under the limit.
#[test]
fn the_program() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let config = RedbConfig::new().cache_bytes(CACHE_BYTES);
    let storage = RedbStorage::open(directory.join("state.redb"), config).unwrap();
    let manager = manage(storage, StorageConfig::default().sync_writes(false)).unwrap();
    let limit = kilobytes("VmData:") * 1024 + LIMIT_BYTES;
    setrlimit(Resource::Data, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();

    let keys = STATE_BYTES / VALUE_BYTES;
    for key in 0..keys {
        let (name, value) = ((key as u64).to_be_bytes(), value(key));
        let _ = manager.apply_entries(&[Entry::put(key as u64 + 1, 1, &name, &value)]).unwrap();
        if key % 64 == 63 {
            manager.wait_for_apply(key as u64 + 1, PATIENT).unwrap();
        }
    }
    manager.flush_pending(PATIENT).unwrap();
    let mut random = Random::new(1);
    for _ in 0..keys {
        let key = random.below(keys);
        let found = manager.machine().get(&(key as u64).to_be_bytes()).unwrap();
        assert!(found.as_deref() == Some(&value(key)[..]), "key {key}");
    }
    let stats = manager.machine().storage_stats();
    assert!(stats.disk_bytes.unwrap() >= STATE_BYTES as u64, "{stats:?}");
    assert!(stats.memory_bytes.unwrap() <= CACHE_BYTES as u64, "{stats:?}");
    println!("{STATE_BYTES} bytes of state, {} kB resident at most", kilobytes("VmHWM:"));
    manager.close(PATIENT).unwrap();
}

#[test]
fn a_state_ten_times_the_cache_is_written_and_read_under_a_limit_of_memory() {
    let directory = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::the_program", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory.path())
        // One arena: what the allocator keeps for each thread is no matter of the storage.
        .env("MALLOC_ARENA_MAX", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let len = std::fs::metadata(directory.path().join("state.redb")).unwrap().len();
    assert!(len >= STATE_BYTES as u64, "{len}");
}
