//! Tests of the promises of every disk, run on the real and on the simulated one.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::sync::Arc;

use super::real::{OpenMode, RealDisk};
use super::sim::SimDisk;
use super::{Access, Disk, DiskFile, LogWrite, Watch};
use crate::clock::Clock;
use crate::error::OpenError;
use crate::image::{Image, ImageSlice};
use crate::numbers::SegmentNumber;

type Open<'a> = &'a dyn Fn(bool) -> Result<Arc<dyn Disk>, OpenError>;

/// Runs a test on an empty directory of each kind; the test may open it any number of times, for
/// writing or not.
fn on_both(test: fn(Open<'_>)) {
    let directory = tempfile::tempdir().unwrap();
    test(&|write| {
        let mode = if write { OpenMode::Write { create: false } } else { OpenMode::ReadOnly };
        Ok(Arc::new(RealDisk::open(directory.path(), mode)?))
    });
    let sim = SimDisk::new(1);
    test(&|write| sim.open(write));
}

fn sorted(disk: &dyn Disk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.sort();
    names
}

pub(super) fn read_all(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

pub(super) fn image_slice(bytes: &[u8]) -> ImageSlice {
    let image = Arc::new(Image::new(bytes.len().max(1)).unwrap());
    let writer = Image::begin(image, SegmentNumber::LOWEST, bytes).unwrap();
    Image::slice(writer.image(), 0, bytes.len()).unwrap()
}

pub(super) fn log_write(
    token: u64,
    file: &Arc<dyn DiskFile>,
    offset: u64,
    bytes: &[u8],
    sync: bool,
) -> LogWrite {
    let (bytes, watch) = (image_slice(bytes), Watch(Clock::real()));
    LogWrite { token, file: Arc::clone(file), offset, bytes, sync, watch }
}

#[test]
fn files_are_created_once_listed_renamed_and_removed() {
    on_both(|open| {
        let disk = open(true).unwrap();
        assert!(sorted(&*disk).is_empty(), "the lock file is not listed");
        for name in ["b", "a"] {
            disk.open(name, Access::Create).unwrap();
        }
        assert_eq!(sorted(&*disk), ["a", "b"]);
        let again = disk.open("a", Access::Create).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        disk.rename("a", "c").unwrap();
        assert_eq!(sorted(&*disk), ["b", "c"]);
        disk.remove("b").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(sorted(&*disk), ["c"]);
    });
}

#[test]
fn renaming_over_a_file_replaces_it() {
    on_both(|open| {
        let disk = open(true).unwrap();
        let new = disk.open("new", Access::Create).unwrap();
        new.write_all_at(b"new", 0).unwrap();
        let old = disk.open("old", Access::Create).unwrap();
        old.write_all_at(b"old", 0).unwrap();
        disk.rename("new", "old").unwrap();
        assert_eq!(sorted(&*disk), ["old"]);
        assert_eq!(read_all(&*disk.open("old", Access::Read).unwrap()), b"new");
        assert_eq!(read_all(&*old), b"old", "what is open stays readable");
    });
}

#[test]
fn a_missing_file_is_not_found() {
    on_both(|open| {
        let disk = open(true).unwrap();
        let kinds = [
            disk.open("x", Access::Read).unwrap_err().kind(),
            disk.open("x", Access::Write).unwrap_err().kind(),
            disk.rename("x", "y").unwrap_err().kind(),
            disk.remove("x").unwrap_err().kind(),
        ];
        assert_eq!(kinds, [io::ErrorKind::NotFound; 4]);
    });
}

#[test]
fn names_that_lead_out_of_the_directory_or_to_the_lock_are_refused() {
    on_both(|open| {
        let disk = open(true).unwrap();
        disk.open("a", Access::Create).unwrap();
        for name in ["", ".", "..", "../a", "/a", "a/b", "a\0b", "\u{e4}", "LOCK"] {
            let kinds = [
                disk.open(name, Access::Create).unwrap_err().kind(),
                disk.open(name, Access::Read).unwrap_err().kind(),
                disk.rename(name, "a").unwrap_err().kind(),
                disk.rename("a", name).unwrap_err().kind(),
                disk.remove(name).unwrap_err().kind(),
            ];
            assert_eq!(kinds, [io::ErrorKind::InvalidInput; 5], "{name:?}");
        }
    });
}

#[test]
fn what_was_written_is_read_and_gaps_are_zeros() {
    on_both(|open| {
        let disk = open(true).unwrap();
        let file = disk.open("a", Access::Create).unwrap();
        assert!(file.is_empty().unwrap());
        let long: Vec<u8> = (0..5000_u32).map(|n| n.to_le_bytes()[0]).collect();
        file.write_all_at(&long, 700).unwrap();
        file.write_all_at(b"", 9000).unwrap();
        assert_eq!(file.len().unwrap(), 5700);
        file.write_all_at(b"over", 1022).unwrap();
        file.sync_data().unwrap();

        let mut expected = vec![0; 700];
        expected.extend_from_slice(&long);
        expected[1022..1026].copy_from_slice(b"over");
        assert_eq!(read_all(&*disk.open("a", Access::Read).unwrap()), expected);
    });
}

#[test]
fn a_read_ends_with_the_file() {
    on_both(|open| {
        let file = open(true).unwrap().open("a", Access::Create).unwrap();
        file.write_all_at(b"abcdef", 0).unwrap();
        let mut buffer = [b'-'; 4];
        assert_eq!(file.read_at(&mut buffer, 4).unwrap(), 2);
        assert_eq!(&buffer, b"ef--");
        assert_eq!(file.read_at(&mut buffer, 6).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
    });
}

#[test]
fn allocation_lengthens_with_zeros_and_never_shortens() {
    on_both(|open| {
        let file = open(true).unwrap().open("a", Access::Create).unwrap();
        file.allocate(0).unwrap();
        assert_eq!(file.len().unwrap(), 0);
        file.write_all_at(b"kept", 0).unwrap();
        file.allocate(10_000).unwrap();
        let mut expected = b"kept".to_vec();
        expected.resize(10_000, 0);
        assert_eq!(read_all(&*file), expected);
        file.allocate(100).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
    });
}

#[test]
fn a_mapping_is_as_long_as_asked_and_never_longer_than_the_file() {
    on_both(|open| {
        let disk = open(true).unwrap();
        let file = disk.open("a", Access::Create).unwrap();
        file.write_all_at(b"abcdef", 0).unwrap();
        assert_eq!(&*file.map(6).unwrap(), b"abcdef");
        assert_eq!(&*file.map(4).unwrap(), b"abcd");
        assert_eq!(&*file.map(0).unwrap(), b"");
        assert_eq!(file.map(7).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_file_opened_to_read_cannot_be_written() {
    on_both(|open| {
        let disk = open(true).unwrap();
        disk.open("a", Access::Create).unwrap();
        let file = disk.open("a", Access::Read).unwrap();
        file.write_all_at(b"x", 0).unwrap_err();
        file.allocate(5).unwrap_err();
        assert_eq!(file.len().unwrap(), 0);
        file.sync_data().unwrap();
    });
}

#[test]
fn a_second_opener_is_refused_until_the_directory_and_its_files_are_dropped() {
    on_both(|open| {
        let refused = |write| matches!(open(write).unwrap_err(), OpenError::Locked { .. });
        let disk = open(true).unwrap();
        assert!(refused(true) && refused(false));
        let file = disk.open("a", Access::Create).unwrap();
        drop(disk);
        assert!(refused(true), "an open file keeps the lock");
        drop(file);
        drop(open(true).unwrap());
    });
}

#[test]
fn readers_share_the_directory_and_keep_writers_out() {
    on_both(|open| {
        drop(open(true).unwrap().open("a", Access::Create).unwrap());
        let first = open(false).unwrap();
        let second = open(false).unwrap();
        assert!(matches!(open(true).unwrap_err(), OpenError::Locked { .. }));
        drop(first);
        assert!(matches!(open(true).unwrap_err(), OpenError::Locked { .. }));
        drop(second);
        drop(open(true).unwrap());
    });
}

#[test]
fn a_read_only_directory_changes_nothing() {
    on_both(|open| {
        open(true).unwrap().open("a", Access::Create).unwrap().write_all_at(b"kept", 0).unwrap();
        let disk = open(false).unwrap();
        let kinds = [
            disk.open("a", Access::Write).unwrap_err().kind(),
            disk.open("b", Access::Create).unwrap_err().kind(),
            disk.rename("a", "b").unwrap_err().kind(),
            disk.remove("a").unwrap_err().kind(),
            disk.sync_dir().unwrap_err().kind(),
            disk.queue().unwrap_err().kind(),
        ];
        assert_eq!(kinds, [io::ErrorKind::ReadOnlyFilesystem; 6]);
        assert_eq!(sorted(&*disk), ["a"]);
        let file = disk.open("a", Access::Read).unwrap();
        assert_eq!(read_all(&*file), b"kept");
        assert_eq!(&*file.map(4).unwrap(), b"kept");
    });
}

#[test]
fn a_queue_of_depth_one_writes_when_waited_for() {
    on_both(|open| {
        let disk = open(true).unwrap();
        let file = disk.open("a", Access::Create).unwrap();
        let mut queue = disk.queue().unwrap();
        assert_eq!(queue.depth(), 1);
        assert!(queue.complete(true).is_none(), "nothing is in flight");
        for (token, offset, bytes, sync) in [(7, 0, "abc", false), (8, 3, "def", true)] {
            queue.submit(log_write(token, &file, offset, bytes.as_bytes(), sync));
            assert!(queue.complete(false).is_none(), "a poll does not block");
            let completion = queue.complete(true).unwrap();
            assert_eq!(completion.token, token);
            completion.result.unwrap();
        }
        assert_eq!(read_all(&*file), b"abcdef");
    });
}

#[test]
fn a_failed_write_of_the_queue_says_so() {
    on_both(|open| {
        let disk = open(true).unwrap();
        disk.open("a", Access::Create).unwrap();
        let unwritable = disk.open("a", Access::Read).unwrap();
        let mut queue = disk.queue().unwrap();
        queue.submit(log_write(1, &unwritable, 0, b"x", true));
        let completion = queue.complete(true).unwrap();
        assert!(matches!(completion.result, Err(super::WriteFailure::Write(_))));
    });
}
