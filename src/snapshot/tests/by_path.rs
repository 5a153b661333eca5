//! Tests of opening a file that the user names.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, mkfifoat};

use super::*;
use crate::disk::Disk;
use crate::disk::names::{parse_snapshot_name, snapshot_name, temporary_name};
use crate::disk::real::{OpenMode, RealDisk};
use crate::snapshot::file::write_snapshot_file;

fn state() -> State {
    [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), vec![2; 5000])].into()
}

/// A directory with one snapshot in it, written as the engine does.
fn directory() -> (tempfile::TempDir, Arc<dyn Disk>) {
    let directory = tempfile::tempdir().unwrap();
    let mode = OpenMode::Write { create: false };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(directory.path(), mode).unwrap());
    write_snapshot_file(&*disk, &snapshot_name(9), false, |mut writer| {
        state().iter().try_for_each(|(key, value)| writer.push(key, value))?;
        writer.finish(&meta())
    })
    .unwrap();
    (directory, disk)
}

#[test]
fn a_file_written_to_a_directory_is_opened_by_its_path_and_outlives_its_removal() {
    let (directory, disk) = directory();
    let path = directory.path().join("0000000000000009.snap");
    assert_eq!(fs::metadata(&path).unwrap().len(), fs::read(&path).unwrap().len() as u64);
    assert_eq!(fs::read(&path).unwrap(), file_of(&state(), &meta(), 4 << 20));
    let snapshot = Snapshot::open(&path).unwrap();
    let inside = Snapshot::open_on(&disk, &snapshot_name(9)).unwrap();
    assert_eq!(snapshot.id(), inside.id());
    let slice = snapshot.chunk_slice(0).unwrap();
    let located = snapshot.locate(b"b").unwrap();
    drop(snapshot);
    disk.remove(&snapshot_name(9)).unwrap();
    let Some((0, offset, len)) = located else { panic!("{located:?}") };
    assert_eq!(slice[offset as usize..][..len as usize], [2; 5000]);
    assert_eq!(entries(&inside).unwrap(), state());
}

/// A value of the snapshot may be kept after everything else is closed, and no writer can open the
/// directory meanwhile.
#[test]
fn a_snapshot_of_a_directory_keeps_it_locked() {
    let (directory, disk) = directory();
    let snapshot = Snapshot::open_on(&disk, &snapshot_name(9)).unwrap();
    let slice = snapshot.chunk_slice(0).unwrap();
    drop((disk, snapshot));
    let mode = OpenMode::Write { create: false };
    assert!(RealDisk::open(directory.path(), mode).is_err());
    drop(slice);
    RealDisk::open(directory.path(), mode).unwrap();
}

#[test]
fn what_is_no_file_is_refused_and_what_another_user_may_write_to_is_copied() {
    let (directory, _disk) = directory();
    let path = |name: &str| directory.path().join(name);
    mkfifoat(CWD, path("fifo"), Mode::RWXU).unwrap();
    fs::create_dir(path("directory")).unwrap();
    for (name, kind) in [
        ("fifo", std::io::ErrorKind::InvalidInput),
        ("directory", std::io::ErrorKind::InvalidInput),
        ("missing", std::io::ErrorKind::NotFound),
    ] {
        let error = Snapshot::open(path(name)).unwrap_err();
        let SnapshotError::Io { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.kind(), kind, "{name}");
    }
    fs::write(path("empty"), b"").unwrap();
    assert!(matches!(Snapshot::open(path("empty")), Err(SnapshotError::NotASnapshot { .. })));
    // Open it through a link that the user made.
    std::os::unix::fs::symlink(path(&snapshot_name(9)), path("link")).unwrap();
    Snapshot::open(path("link")).unwrap();
    fs::set_permissions(path(&snapshot_name(9)), Permissions::from_mode(0o620)).unwrap();
    // Another user may change and cut it from now on, so it is opened as a copy.
    let snapshot = Snapshot::open(path("link")).unwrap();
    fs::File::options().write(true).open(path("link")).unwrap().set_len(0).unwrap();
    snapshot.verify().unwrap();
}

#[test]
fn names_sort_as_indexes_do_and_read_back() {
    assert_eq!(snapshot_name(10_000), "0000000000002710.snap");
    for index in [0, 9, 10, u64::MAX - 1] {
        assert_eq!(parse_snapshot_name(&snapshot_name(index)), Some(index));
        assert!(snapshot_name(index) < snapshot_name(index + 1));
        assert_eq!(parse_snapshot_name(&temporary_name(&snapshot_name(index))), None);
    }
    for name in ["9.snap", "000000000000271G.snap", "000000000000000A.snap", "0000000000002710.seg"]
    {
        assert_eq!(parse_snapshot_name(name), None);
    }
}
