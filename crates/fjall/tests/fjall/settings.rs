//! Tests of the settings' effects, and of the statistics.

use std::time::{Duration, Instant};

use sprag::machine::storage::Storage;
use sprag::testing::Random;
use sprag_fjall::{FjallConfig, FjallStorage};

use crate::{STATE, Scratch, get, put, small};

#[test]
fn the_statistics_have_the_bytes_on_disk_and_in_memory() {
    let scratch = Scratch::new();
    let storage = scratch.open();
    let empty = storage.stats().disk_bytes.unwrap();
    assert!(empty < 1 << 20, "what fjall reserves takes no room yet: {empty}");
    let mut random = Random::new(1);
    for round in 0..60_u8 {
        put(&storage, &[round], &random.bytes(50_000), false);
    }
    storage.sync().unwrap();
    let stats = storage.stats();
    assert!(stats.disk_bytes.unwrap() > 60 * 50_000, "{stats:?}");
    for round in 0..60_u8 {
        assert_eq!(get(&storage, STATE, &[round]).map(|value| value.len()), Some(50_000));
    }
    let memory = storage.stats().memory_bytes.unwrap();
    // Memory is the cache and write buffers of 256 KiB; the last buffer may be waiting for fjall's
    // threads.
    assert!((100_000..4 << 20).contains(&memory), "{memory}");
    assert!(stats.compactions_running.is_some());
}

#[test]
fn large_values_lie_in_files_apart_unless_that_is_switched_off() {
    for (separate_from, is_apart) in [(Some(1000), true), (Some(3000), false), (None, false)] {
        let scratch = Scratch::new();
        let config = small().write_buffer_bytes(50_000).separate_from(separate_from);
        let storage = FjallStorage::open(scratch.path(), config).unwrap();
        storage.create_table(STATE).unwrap();
        let mut random = Random::new(1);
        for round in 0..100_u8 {
            put(&storage, &[round], &random.bytes(2000), false);
        }
        let keyspace = scratch.path().join("keyspaces").join("1");
        let lengths = |folder: &str| {
            let files = std::fs::read_dir(keyspace.join(folder)).into_iter().flatten().flatten();
            files.filter_map(|file| Some(file.metadata().ok()?.len())).collect::<Vec<_>>()
        };
        // A write buffer that is being written has a file of values for a moment, even if it stays
        // empty.
        let is_as_set = || {
            let apart = lengths("blobs");
            let whole_value = apart.iter().any(|length| *length > 2000);
            !lengths("tables").is_empty() && if is_apart { whole_value } else { apart.is_empty() }
        };
        let patient = Instant::now() + Duration::from_secs(60);
        while !is_as_set() && Instant::now() < patient {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(is_as_set(), "from {separate_from:?}: {:?}", lengths("blobs"));
    }
}

#[test]
fn the_storage_syncs_in_time_what_was_committed_without_sync() {
    let interval = Duration::from_millis(20);
    let scratch = Scratch::new();
    let storage = FjallStorage::open(scratch.path(), small().sync_every(Some(interval))).unwrap();
    assert_eq!(storage.syncs_every(), Some(interval));
    storage.create_table(STATE).unwrap();
    for round in 0..30_u8 {
        put(&storage, &[round], b"value", false);
        std::thread::sleep(Duration::from_millis(2));
    }
    storage.sync().unwrap();
    drop(storage);
    assert_eq!(get(&scratch.open(), STATE, &[29]), Some(b"value".to_vec()));
    assert_eq!(scratch_config_default_interval(), Some(Duration::from_secs(1)));
    assert_eq!(FjallStorage::open(Scratch::new().path(), small()).unwrap().syncs_every(), None);
}

fn scratch_config_default_interval() -> Option<Duration> {
    let scratch = Scratch::new();
    FjallStorage::open(scratch.path(), FjallConfig::new()).unwrap().syncs_every()
}
