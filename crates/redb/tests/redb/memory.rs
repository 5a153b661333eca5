//! A test of a state larger than the memory that its process may take.

use std::path::Path;

use sprag_redb::{RedbConfig, RedbStorage};

use crate::over_storage::memory::{self, Sizes};

const SIZES: Sizes = Sizes {
    cache_bytes: 2 << 20,
    memory_bytes: 2 << 20,
    state_bytes: 20 << 20,
    limit_bytes: 16 << 20,
};

fn open(directory: &Path) -> RedbStorage {
    let config = RedbConfig::new().cache_bytes(SIZES.cache_bytes);
    RedbStorage::open(directory.join("state.redb"), config).unwrap()
}

#[test]
fn the_program() {
    memory::program(open, &SIZES);
}

#[test]
fn a_state_ten_times_the_cache_is_written_and_read_under_a_limit_of_memory() {
    memory::check("memory::the_program");
}
