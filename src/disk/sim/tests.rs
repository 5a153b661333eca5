//! Tests of each promise of [`SimDisk`].

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::io;

use super::*;
use crate::disk::tests::{log_write, read_all};
use crate::disk::{Access, DiskFile, WriteFailure};
use crate::error::is_disk_full;

mod faults;
mod handles;
mod power_cuts;
mod queues;

const SECTOR: usize = 512;

/// A disk with one durable, empty file and nothing unsynced.
fn with_file(seed: u64) -> (SimDisk, Arc<dyn Disk>, Arc<dyn DiskFile>) {
    let sim = SimDisk::new(seed);
    let disk = sim.open(true).unwrap();
    let file = disk.open("a", Access::Create).unwrap();
    disk.sync_dir().unwrap();
    assert_eq!(sim.unsynced(), 0);
    sim.reset_operations();
    (sim, disk, file)
}

fn sectors(fill: &[u8]) -> Vec<u8> {
    fill.iter().flat_map(|byte| [*byte; SECTOR]).collect()
}

/// The outcome of each mask of `0..1 << items`, on a disk that `prepare` makes anew each time.
fn outcomes<T>(
    items: usize,
    prepare: impl Fn() -> SimDisk,
    observe: impl Fn(&SimDisk) -> T,
) -> Vec<T> {
    (0..1_u64 << items)
        .map(|mask| {
            let sim = prepare();
            assert_eq!(sim.unsynced(), items);
            sim.power_cut_keeping(mask);
            assert_eq!(sim.unsynced(), 0);
            observe(&sim)
        })
        .collect()
}

fn fails_with(error: &io::Error, expected: FaultError) {
    assert_eq!(error.raw_os_error(), io::Error::from(expected).raw_os_error());
}
