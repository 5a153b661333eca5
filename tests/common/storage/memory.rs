//! A test of a state larger than the memory that its process may take.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};
use sprag::machine::storage::Storage;
use sprag::testing::Random;
use sprag::{Entry, StorageConfig};

use super::{Open, PATIENT, manage};

const DIRECTORY: &str = "SPRAG_MEMORY_CHILD_DIRECTORY";
const VALUE_BYTES: usize = 8 << 10;

/// Sizes of the test.
pub struct Sizes {
    /// Cache of the storage, in bytes.
    pub cache_bytes: usize,
    /// Limit of caches and write buffers, by the storage's own figure.
    pub memory_bytes: u64,
    /// Bytes of the values.
    pub state_bytes: usize,
    /// Memory that the process may take beside its memory at the start.
    pub limit_bytes: u64,
}

/// Kilobytes that the kernel reports under `name` for this process.
fn kilobytes(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn value(key: usize) -> Vec<u8> {
    Random::new(key as u64).bytes(VALUE_BYTES)
}

/// The child's program: fills a state and reads all of it, under the limit.
pub fn program<S: Storage>(how: Open<S>, sizes: &Sizes) {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    assert!(sizes.state_bytes >= 10 * sizes.cache_bytes);
    assert!(sizes.limit_bytes < sizes.state_bytes as u64);
    let manager = manage(how(&directory), StorageConfig::new().sync_writes(false)).unwrap();
    let limit = kilobytes("VmData:") * 1024 + sizes.limit_bytes;
    setrlimit(Resource::Data, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();

    let keys = sizes.state_bytes / VALUE_BYTES;
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
    assert!(stats.disk_bytes.unwrap() >= sizes.state_bytes as u64, "{stats:?}");
    assert!(stats.memory_bytes.unwrap() <= sizes.memory_bytes, "{stats:?}");
    println!("{} bytes of state, {} kB resident at most", sizes.state_bytes, kilobytes("VmHWM:"));
    manager.close(PATIENT).unwrap();
}

/// Runs the test `program`.
pub fn check(program: &str) {
    let directory = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", program, "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory.path())
        // Use one arena: the allocator's memory for each thread does not belong to the storage.
        .env("MALLOC_ARENA_MAX", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}
