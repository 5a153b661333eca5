//! Files on a simulated disk, as a crash left them.

use std::collections::BTreeMap;

use sprag::disk::{Access, Disk};
use sprag::testing::SimDisk;

pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// A disk with these files, all durable.
pub(super) fn disk_with(files: &Files) -> SimDisk {
    let sim = SimDisk::new(1);
    {
        let disk = sim.open(true).unwrap();
        for (name, bytes) in files {
            let file = disk.open(name, Access::Create).unwrap();
            file.write_all_at(bytes, 0).unwrap();
            file.sync_data().unwrap();
        }
        disk.sync_dir().unwrap();
    }
    sim.reset_operations();
    sim
}

/// The files of a disk.
pub(super) fn files_of(sim: &SimDisk) -> Files {
    let names = sim.file_names().into_iter();
    names.map(|name| (name.clone(), sim.read_file(&name).unwrap())).collect()
}

/// Runs `read` with the directory open for reading.
pub(super) fn with_disk<R>(sim: &SimDisk, read: impl FnOnce(&dyn Disk) -> R) -> R {
    read(&*sim.open(false).unwrap())
}
