//! A key-value machine over fjall: killed, and with less memory than its state.

use std::path::Path;

use sprag_fjall::FjallStorage;

use crate::over_storage::{kill, memory};
use crate::small;

fn open(directory: &Path) -> FjallStorage {
    FjallStorage::open(directory.join("state"), small().write_buffer_bytes(10_000)).unwrap()
}

#[test]
fn the_killed_program() {
    kill::program(open);
}

/// Proves DUR-29.
#[test]
fn sigkill_takes_nothing_acknowledged_and_nothing_is_applied_twice() {
    kill::kill_again_and_again("machine::the_killed_program", open, (true, 9), |_| {});
}

#[test]
fn sigkill_takes_nothing_flushed_where_batches_are_not_synced() {
    kill::kill_again_and_again("machine::the_killed_program", open, (false, 6), |_| {});
}

/// `memory_bytes` has room for the cache and the write buffer, which may grow to twice its size. It
/// also has room for three buffers that are being written, and for blocks of indexes and filters.
/// How many of the buffers are written when the figure is read depends on the disk.
const SIZES: memory::Sizes = memory::Sizes {
    cache_bytes: 2 << 20,
    memory_bytes: (2 + 2 + 3 + 3) << 20,
    state_bytes: 32 << 20,
    limit_bytes: 24 << 20,
};

fn open_with_little_memory(directory: &Path) -> FjallStorage {
    let config =
        small().cache_bytes(SIZES.cache_bytes as u64).write_buffer_bytes(1 << 20).worker_threads(1);
    FjallStorage::open(directory.join("state"), config).unwrap()
}

#[test]
fn the_program_with_little_memory() {
    memory::program(open_with_little_memory, &SIZES);
}

#[test]
fn a_state_many_times_the_cache_is_written_and_read_under_a_limit_of_memory() {
    memory::check("machine::the_program_with_little_memory");
}
