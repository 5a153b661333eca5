#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use super::*;
use crate::clock::Clock;
use crate::config::IoBackend;
use crate::disk::real::{OpenMode, RealDisk};
use crate::disk::tests::read_all;
use crate::disk::{Access, Disk, DiskFile, Watch};
use crate::image::Image;
use crate::numbers::SegmentNumber;

/// Makes a disk with a ring, unless the kernel refuses one.
fn disk(directory: &tempfile::TempDir) -> Option<(RealDisk, Arc<dyn DiskFile>)> {
    if let Err(error) = UringQueue::new() {
        println!("not run, the kernel refuses: {error}");
        return None;
    }
    let mode = OpenMode::Write { create: false };
    let disk = RealDisk::open(directory.path(), mode).unwrap();
    let disk = disk.with_io(IoBackend::Uring, false);
    let file = disk.open("a", Access::Create).unwrap();
    file.allocate(1 << 20).unwrap();
    Some((disk, file))
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at % 251 + 1).unwrap()).collect()
}

fn cut(image: &Arc<Image>, file: &Arc<dyn DiskFile>, ends: &[usize], sync: bool) -> Vec<LogWrite> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let writes = starts.zip(ends).enumerate().map(|(token, (start, end))| LogWrite {
        token: token as u64,
        file: Arc::clone(file),
        offset: start as u64,
        bytes: Image::slice(image, start, *end).unwrap(),
        sync,
        watch: Watch(Clock::real()),
    });
    writes.collect()
}

#[test]
fn groups_that_share_blocks_are_written_whole_whatever_is_in_flight() {
    let directory = tempfile::tempdir().unwrap();
    let Some((disk, file)) = disk(&directory) else { return };
    let ends = [100, 300, 4096, 4200, 12_288, 12_300, 20_000, 90_000, 90_001, 200_000];
    let bytes = content(200_000);
    let image = Arc::new(Image::new(1 << 20).unwrap());
    let image = Arc::clone(Image::begin(image, SegmentNumber::LOWEST, &bytes).unwrap().image());
    for (sync, depth) in [(true, 1), (true, 8), (false, 8), (true, 3)] {
        let mut queue = disk.queue().unwrap();
        assert_eq!((queue.backend(), queue.fallback()), ("io_uring", None));
        file.write_all_at(&vec![0xee; 200_000], 0).unwrap();
        let (mut tokens, mut flying) = (Vec::new(), 0);
        for write in cut(&image, &file, &ends, sync) {
            if flying == depth {
                let done = queue.complete(true).unwrap();
                done.result.unwrap();
                tokens.push(done.token);
                flying -= 1;
            }
            queue.submit(write);
            flying += 1;
        }
        while let Some(done) = queue.complete(true) {
            done.result.unwrap();
            tokens.push(done.token);
        }
        tokens.sort_unstable();
        assert_eq!(tokens, (0..10).collect::<Vec<u64>>());
        let found = read_all(&*file);
        assert!(found[..200_000] == bytes, "sync {sync}, depth {depth}");
        assert!(found[200_000..].iter().all(|byte| *byte == 0), "the last block ends in zeros");
    }
}

#[test]
fn a_sync_after_writes_that_asked_for_none_is_one_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let Some((disk, file)) = disk(&directory) else { return };
    let image = Arc::new(Image::new(1 << 20).unwrap());
    let image =
        Arc::clone(Image::begin(image, SegmentNumber::LOWEST, &content(9000)).unwrap().image());
    let mut queue = UringQueue::new().unwrap();
    let mut writes = cut(&image, &file, &[5000, 9000], false);
    writes[1].sync = true;
    for write in writes {
        queue.submit(write);
    }
    assert_eq!(queue.groups[1].way, Way::ThenSync);
    let first = queue.complete(true).unwrap();
    first.result.unwrap();
    queue.complete(true).unwrap().result.unwrap();
    assert_eq!(first.token, 0, "the sync comes after what it covers");
    drop(disk);
}

#[test]
fn a_short_write_goes_on_and_is_synced_afresh() {
    let directory = tempfile::tempdir().unwrap();
    let Some((_disk, file)) = disk(&directory) else { return };
    let bytes = content(300_000);
    let image = Arc::new(Image::new(1 << 20).unwrap());
    let image = Arc::clone(Image::begin(image, SegmentNumber::LOWEST, &bytes).unwrap().image());
    let mut queue = UringQueue::new().unwrap();
    queue.submit(cut(&image, &file, &[300_000], true).remove(0));
    assert_eq!(queue.groups[0].way, Way::Writes);
    queue.ring.enter(true).unwrap();
    let mut done = queue.ring.take().unwrap();
    // Overwrite the written part, so that only a continued write can bring it back.
    file.write_all_at(&vec![0xee; 300_000 - 8192], 8192).unwrap();
    done.result = 9000;
    queue.settle(&done);
    assert_eq!(queue.groups[0].way, Way::ThenSync);
    assert_eq!((queue.groups[0].parts[0].start, queue.groups[0].is_done()), (8192, false));
    queue.complete(true).unwrap().result.unwrap();
    assert!(read_all(&*file)[..300_000] == bytes);
}

#[test]
fn what_the_kernel_put_off_is_written_again_and_what_it_refused_is_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let Some((_disk, file)) = disk(&directory) else { return };
    let bytes = content(5000);
    let image = Arc::new(Image::new(1 << 20).unwrap());
    let image = Arc::clone(Image::begin(image, SegmentNumber::LOWEST, &bytes).unwrap().image());
    for (error, fails) in [
        (libc::EAGAIN, false),
        (libc::EINTR, false),
        (libc::ECANCELED, false),
        (libc::EINVAL, false),
        (libc::EIO, true),
        (libc::ENOSPC, true),
    ] {
        let mut queue = UringQueue::new().unwrap();
        queue.submit(cut(&image, &file, &[5000], true).remove(0));
        queue.ring.enter(true).unwrap();
        let mut done = queue.ring.take().unwrap();
        file.write_all_at(&vec![0xee; 5000], 0).unwrap();
        done.result = -error;
        queue.settle(&done);
        let result = queue.complete(true).unwrap().result;
        match result {
            Err(WriteFailure::Write(found)) => {
                assert!(fails && found.raw_os_error() == Some(error), "{error}");
            }
            Err(WriteFailure::Sync(_)) => panic!("{error}: no sync was tried"),
            Ok(()) => assert!(!fails && read_all(&*file)[..5000] == bytes, "{error}"),
        }
    }
}

#[test]
fn a_failed_sync_is_final() {
    let directory = tempfile::tempdir().unwrap();
    let Some((_disk, file)) = disk(&directory) else { return };
    let image = Arc::new(Image::new(1 << 20).unwrap());
    let image =
        Arc::clone(Image::begin(image, SegmentNumber::LOWEST, &content(5000)).unwrap().image());
    for error in [libc::EIO, libc::EINTR] {
        let mut queue = UringQueue::new().unwrap();
        queue.unsynced = true;
        queue.submit(cut(&image, &file, &[5000], true).remove(0));
        queue.ring.enter(true).unwrap();
        let done = queue.ring.take().unwrap();
        queue.settle(&done);
        queue.advance();
        queue.ring.enter(true).unwrap();
        let mut done = queue.ring.take().unwrap();
        done.result = -error;
        queue.settle(&done);
        let result = queue.complete(true).unwrap().result;
        assert!(matches!(result, Err(WriteFailure::Sync(_))), "{error}: {result:?}");
    }
}

#[test]
fn a_sync_that_the_kernel_did_not_begin_is_asked_for_again_and_not_without_end() {
    let directory = tempfile::tempdir().unwrap();
    let Some((_disk, file)) = disk(&directory) else { return };
    let image = Arc::new(Image::new(1 << 20).unwrap());
    let image =
        Arc::clone(Image::begin(image, SegmentNumber::LOWEST, &content(5000)).unwrap().image());
    for (retries, cancelled, asked_in_all, succeeds) in
        [(0, 1, 2, true), (0, 2, 3, true), (RETRIES_MAX - 1, 2, 2, false)]
    {
        let mut queue = UringQueue::new().unwrap();
        queue.unsynced = true;
        queue.submit(cut(&image, &file, &[5000], true).remove(0));
        queue.ring.enter(true).unwrap();
        let written = queue.ring.take().unwrap();
        queue.settle(&written);
        queue.groups.front_mut().unwrap().sync_retries = retries;
        let (mut asked, mut result) = (0, None);
        while result.is_none() {
            queue.advance();
            queue.ring.enter(true).unwrap();
            let mut synced = queue.ring.take().unwrap();
            asked += 1;
            if asked <= cancelled {
                synced.result = -libc::ECANCELED;
            }
            queue.settle(&synced);
            let group = queue.groups.front().unwrap();
            result = group.is_done().then_some(group.failure.is_none());
        }
        assert_eq!((asked, result), (asked_in_all, Some(succeeds)), "after {retries} retries");
    }
}

#[test]
fn a_queue_dropped_with_writes_in_flight_lets_go_of_their_memory_and_files() {
    let directory = tempfile::tempdir().unwrap();
    let Some((_disk, file)) = disk(&directory) else { return };
    let image = Arc::new(Image::new(1 << 20).unwrap());
    let image =
        Arc::clone(Image::begin(image, SegmentNumber::LOWEST, &content(900_000)).unwrap().image());
    for round in 0..50 {
        let mut queue = UringQueue::new().unwrap();
        for write in cut(&image, &file, &[4096, 100_000, 100_500, 900_000], true) {
            queue.submit(write);
        }
        if round % 2 == 0 {
            assert!(queue.complete(false).is_none_or(|done| done.result.is_ok()));
        }
        drop(queue);
        assert_eq!((Arc::strong_count(&image), Arc::strong_count(&file)), (1, 1), "{round}");
    }
}
