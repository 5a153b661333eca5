//! The files of a simulated directory, copied from one disk to another.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sprag::disk::Access;
use sprag::testing::SimDisk;

pub type Files = BTreeMap<String, Vec<u8>>;

/// A simulated disk with these files, all durable.
pub fn disk_with(files: &Files) -> SimDisk {
    let sim = SimDisk::new(1);
    let disk = sim.open(true).unwrap();
    for (name, bytes) in files {
        let file = disk.open(name, Access::Create).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir().unwrap();
    drop(disk);
    sim.reset_operations();
    sim
}

/// The files of a simulated disk.
pub fn files_of(disk: &SimDisk) -> Files {
    let names = disk.file_names().into_iter();
    names.map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}

/// A real directory below `scratch` with these files.
pub fn write_to(scratch: &Path, files: &Files) -> PathBuf {
    let path = scratch.join("data");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    for (name, bytes) in files {
        fs::write(path.join(name), bytes).unwrap();
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    path
}
