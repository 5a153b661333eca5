//! Tests of properties that only a real directory has: owners, permissions, links, and names that
//! are no files.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::io::{FdFlags, fcntl_getfd};
use tempfile::TempDir;

use super::*;
use crate::disk::tests::read_all;

const WRITE: OpenMode = OpenMode::Write { create: false };
const CREATE: OpenMode = OpenMode::Write { create: true };

fn parent() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    (parent, path)
}

fn permissions(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_permissions(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_missing_directory_is_created_only_when_asked() {
    let (_parent, path) = parent();
    for mode in [WRITE, OpenMode::ReadOnly] {
        assert!(matches!(RealDisk::open(&path, mode).unwrap_err(), OpenError::Missing { .. }));
        assert!(!path.exists());
    }
    let disk = RealDisk::open(&path, CREATE).unwrap();
    assert_eq!(disk.describe(), path.display().to_string());
    drop(disk);
    drop(RealDisk::open(&path, CREATE).unwrap());
    drop(RealDisk::open(&path, WRITE).unwrap());
}

#[test]
fn a_missing_parent_is_not_created() {
    let (_parent, path) = parent();
    let error = RealDisk::open(&path.join("deeper"), CREATE).unwrap_err();
    let missing = path.display().to_string();
    assert!(error.to_string().contains("make the parent first"), "{error}");
    assert!(matches!(error, OpenError::MissingParent { parent, .. } if parent == missing));
    assert!(!path.exists());
}

#[test]
fn a_dangling_link_is_missing_and_a_link_to_a_directory_is_followed() {
    let (parent, path) = parent();
    let link = parent.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(RealDisk::open(&link, CREATE).unwrap_err(), OpenError::Missing { .. }));
    drop(RealDisk::open(&path, CREATE).unwrap());
    let disk = RealDisk::open(&link, WRITE).unwrap();
    assert!(matches!(RealDisk::open(&path, WRITE).unwrap_err(), OpenError::Locked { .. }));
    drop(disk);
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let (_parent, path) = parent();
    fs::write(&path, "").unwrap();
    for mode in [CREATE, WRITE, OpenMode::ReadOnly] {
        let error = RealDisk::open(&path, mode).unwrap_err();
        assert!(matches!(error, OpenError::NotADirectory { .. }));
    }
}

#[test]
fn a_directory_of_another_user_is_not_written_to_and_never_mapped() {
    if !geteuid().is_root() {
        return;
    }
    let (_parent, path) = parent();
    fs::create_dir(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
    for mode in [CREATE, WRITE] {
        match RealDisk::open(&path, mode).unwrap_err() {
            OpenError::ForeignOwner { owner, user, .. } => assert_eq!((owner, user), (12_345, 0)),
            other => panic!("{other}"),
        }
    }
    assert!(!path.join("LOCK").exists());
    fs::write(path.join("LOCK"), "").unwrap();
    fs::write(path.join("META"), "abc").unwrap();
    let disk = RealDisk::open(&path, OpenMode::ReadOnly).unwrap();
    let file = disk.open("META", Access::Read).unwrap();
    assert!(matches!(file.map(3).unwrap(), Mapping::Copied(bytes) if *bytes == *b"abc"));
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let (_parent, path) = parent();
    fs::create_dir(&path).unwrap();
    for (bits, allowed) in
        [(0o700, true), (0o755, true), (0o720, false), (0o702, false), (0o777, false)]
    {
        set_permissions(&path, bits);
        assert_eq!(RealDisk::open(&path, OpenMode::ReadOnly).unwrap().held.is_ours, allowed);
        for mode in [WRITE] {
            match RealDisk::open(&path, mode) {
                Ok(_) => assert!(allowed, "{bits:o}"),
                Err(OpenError::WritableByOthers { mode, .. }) => {
                    assert!(!allowed, "{bits:o}");
                    assert_eq!(mode, bits);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// The umask belongs to the process, so this test runs in a separate one.
#[test]
fn the_umask_changes_no_permissions() {
    const CHILD: &str = "SPRAG_TEST_UMASK";
    if std::env::var_os(CHILD).is_none() {
        let name = "disk::real::tests::the_umask_changes_no_permissions";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    }
    for umask in [0, 0o377] {
        let (parent, path) = parent();
        let before = rustix::process::umask(Mode::from_raw_mode(umask));
        let disk = RealDisk::open(&path, CREATE).unwrap();
        disk.open("a", Access::Create).unwrap();
        rustix::process::umask(before);
        assert_eq!(permissions(&path), 0o700, "umask {umask:o}");
        assert_eq!(permissions(&path.join("a")), 0o600, "umask {umask:o}");
        assert_eq!(permissions(&path.join("LOCK")), 0o600, "umask {umask:o}");
        drop(parent);
    }
}

#[test]
fn reading_creates_no_lock_file_and_honours_the_one_that_is_there() {
    let (_parent, path) = parent();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("META"), "abc").unwrap();
    let reader = RealDisk::open(&path, OpenMode::ReadOnly).unwrap();
    assert!(!path.join("LOCK").exists());

    // No lock keeps a writer out, so nothing may be mapped.
    let file = reader.open("META", Access::Read).unwrap();
    assert!(matches!(file.map(3).unwrap(), Mapping::Copied(bytes) if *bytes == *b"abc"));
    // A writer of this release is still kept out, by the lock on the directory itself.
    assert!(matches!(RealDisk::open(&path, WRITE).unwrap_err(), OpenError::Locked { .. }));
    drop((reader, file));
    let writer = RealDisk::open(&path, WRITE).unwrap();
    let file = writer.open("META", Access::Read).unwrap();
    assert!(matches!(file.map(3).unwrap(), Mapping::Mapped(bytes) if *bytes == *b"abc"));
    let error = RealDisk::open(&path, OpenMode::ReadOnly).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
}

#[test]
fn a_lock_file_that_is_a_link_is_refused_and_its_target_left_alone() {
    let (parent, path) = parent();
    fs::create_dir(&path).unwrap();
    let target = parent.path().join("target");
    fs::write(&target, "").unwrap();
    set_permissions(&target, 0o644);
    symlink(&target, path.join("LOCK")).unwrap();
    let error = RealDisk::open(&path, WRITE).unwrap_err();
    assert!(matches!(error, OpenError::NameTaken { file, .. } if file == "LOCK"));
    // No lock keeps a writer out, so the file is copied.
    assert!(RealDisk::open(&path, OpenMode::ReadOnly).unwrap().may_change());
    fs::remove_file(path.join("LOCK")).unwrap();
    fs::hard_link(&target, path.join("LOCK")).unwrap();
    assert!(matches!(RealDisk::open(&path, WRITE).unwrap_err(), OpenError::Io { .. }));
    assert_eq!(permissions(&target), 0o644);
}

#[test]
fn only_regular_files_with_one_link_are_opened() {
    let (parent, path) = parent();
    let disk = RealDisk::open(&path, CREATE).unwrap();
    let outside = parent.path().join("outside");
    fs::write(&outside, "").unwrap();
    symlink(&outside, path.join("symlink")).unwrap();
    fs::hard_link(&outside, path.join("hardlink")).unwrap();
    fs::create_dir(path.join("directory")).unwrap();
    mkfifoat(CWD, path.join("fifo"), Mode::RWXU).unwrap();
    for name in ["symlink", "hardlink", "directory", "fifo"] {
        disk.open(name, Access::Read).unwrap_err();
        disk.open(name, Access::Write).unwrap_err();
    }
    let error = disk.open("symlink", Access::Create).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::metadata(&outside).unwrap().len(), 0);
}

#[test]
fn names_that_are_not_ours_are_listed() {
    let (_parent, path) = parent();
    let disk = RealDisk::open(&path, CREATE).unwrap();
    fs::write(path.join(OsStr::from_bytes(b"\xff")), "").unwrap();
    fs::create_dir(path.join("lost+found")).unwrap();
    let mut names = disk.list().unwrap();
    names.sort();
    assert_eq!(names, ["lost+found", "\u{fffd}"]);
    assert_eq!(disk.list().unwrap().len(), 2, "the second listing starts at the beginning");
}

#[test]
fn the_directory_is_the_one_that_was_opened_whatever_its_path_leads_to_later() {
    let (parent, path) = parent();
    let disk = RealDisk::open(&path, CREATE).unwrap();
    fs::rename(&path, parent.path().join("moved")).unwrap();
    fs::create_dir(&path).unwrap();
    disk.open("a", Access::Create).unwrap();
    disk.sync_dir().unwrap();
    assert!(parent.path().join("moved/a").exists());
    assert!(!path.join("a").exists());
}

#[test]
fn allocation_reserves_blocks_and_its_substitute_sets_the_length() {
    let (_parent, path) = parent();
    let disk = RealDisk::open(&path, CREATE).unwrap();
    let file = disk.open("a", Access::Create).unwrap();
    file.allocate(1 << 20).unwrap();
    let stat = fs::metadata(path.join("a")).unwrap();
    assert_eq!((stat.len(), stat.blocks() >= 2048), (1 << 20, true), "{} blocks", stat.blocks());

    disk.open("b", Access::Create).unwrap().write_all_at(b"kept", 0).unwrap();
    let file = fs::OpenOptions::new().write(true).read(true).open(path.join("b")).unwrap();
    let (held, direct) = (Arc::clone(&disk.held), OnceLock::new());
    let file = RealFile { file: file.into(), name: "a".into(), held, direct };
    file.lengthen(100).unwrap();
    file.lengthen(50).unwrap();
    let mut expected = b"kept".to_vec();
    expected.resize(100, 0);
    assert_eq!(read_all(&file), expected);
}

#[test]
fn a_child_process_does_not_keep_the_directory_locked() {
    let (_parent, path) = parent();
    let disk = RealDisk::open(&path, CREATE).unwrap();
    let lock = disk.held.lock.as_ref().unwrap();
    for inherited in [lock, &disk.held.directory] {
        assert!(fcntl_getfd(inherited).unwrap().contains(FdFlags::CLOEXEC));
    }
    // A child between fork and exec has these.
    let forked = (lock.try_clone().unwrap(), disk.held.directory.try_clone().unwrap());
    drop(disk);
    drop(RealDisk::open(&path, WRITE).unwrap());
    drop(forked);
}
