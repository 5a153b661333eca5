//! Tests of the choice between two ways of writing, on disks whose times are known.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::clock::Clock;
use crate::disk::{Access, DiskFile, Watch};
use crate::image::Image;
use crate::numbers::SegmentNumber;
use crate::testing::SimDisk;

/// Time of a write of so many bytes, in microseconds.
type Takes = Arc<dyn Fn(usize) -> u64 + Send + Sync>;

/// A queue over a slow disk, whose time the clock shows.
struct SlowQueue {
    name: &'static str,
    depth: usize,
    nanos: Arc<AtomicU64>,
    takes: Takes,
    waiting: VecDeque<LogWrite>,
    written: Arc<AtomicU64>,
}

impl fmt::Debug for SlowQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl WriteQueue for SlowQueue {
    fn backend(&self) -> &'static str {
        self.name
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn submit(&mut self, write: LogWrite) {
        assert!(self.waiting.len() < self.depth, "{}: more than the depth", self.name);
        self.waiting.push_back(write);
    }

    fn complete(&mut self, _wait: bool) -> Option<Completion> {
        let write = self.waiting.pop_front()?;
        let took = (self.takes)(write.bytes.as_ref().len());
        self.nanos.fetch_add(took * 1_000, Ordering::Relaxed);
        self.written.fetch_add(1, Ordering::Relaxed);
        Some(Completion { token: write.token, result: Ok(()), written_at: None })
    }
}

/// A log writer's part: keeps as many writes in flight as the queue takes.
struct Writer {
    queue: AutoQueue,
    watch: Watch,
    file: Arc<dyn DiskFile>,
    image: Arc<Image>,
    next_token: u64,
    in_flight: usize,
    /// Number of writes that the ring has done.
    by_ring: Arc<AtomicU64>,
}

impl Writer {
    fn new(plain: Takes, ring: Option<Takes>) -> Self {
        let nanos = Arc::new(AtomicU64::new(0));
        let by_ring = Arc::new(AtomicU64::new(0));
        let slow = |name, depth, takes: Takes, written: &Arc<AtomicU64>| SlowQueue {
            name,
            depth,
            nanos: Arc::clone(&nanos),
            takes,
            waiting: VecDeque::new(),
            written: Arc::clone(written),
        };
        let plain = slow("pwrite", 1, plain, &Arc::default());
        let ring = ring.map(|takes| slow("io_uring", 8, takes, &by_ring));
        let make: MakeRing = Box::new(move || match ring {
            Some(ring) => Ok(Box::new(ring) as Box<dyn WriteQueue>),
            None => Err(io::ErrorKind::PermissionDenied.into()),
        });
        let disk = SimDisk::new(1).open(true).unwrap();
        let image = Arc::new(Image::new(4 << 20).unwrap());
        let content = vec![1; 3 << 20];
        let image = Image::begin(image, SegmentNumber::new(1), &content).unwrap();
        let image = Arc::clone(image.image());
        Self {
            queue: AutoQueue::new(Box::new(plain), make),
            watch: Watch(Clock::Manual(nanos)),
            file: disk.open("a", Access::Create).unwrap(),
            image,
            next_token: 0,
            in_flight: 0,
            by_ring,
        }
    }

    /// Writes `groups` groups of `bytes`. Returns how many of 1,000 went through the ring.
    fn write(&mut self, groups: u64, bytes: usize, sync: bool) -> u64 {
        let before = self.by_ring.load(Ordering::Relaxed);
        let mut left = groups;
        while left > 0 || self.in_flight > 0 {
            while left > 0 && self.in_flight < self.queue.depth() {
                left -= 1;
                self.in_flight += 1;
                self.next_token += 1;
                self.queue.submit(LogWrite {
                    token: self.next_token,
                    file: Arc::clone(&self.file),
                    offset: 0,
                    bytes: Image::slice(&self.image, 0, bytes).unwrap(),
                    sync,
                    watch: self.watch.clone(),
                });
            }
            while self.queue.complete(true).is_some() {
                self.in_flight -= 1;
            }
        }
        (self.by_ring.load(Ordering::Relaxed) - before) * 1_000 / groups
    }
}

const SHORT: usize = 4 << 10;
const LONG: usize = 1 << 20;

fn always(us: u64) -> Takes {
    Arc::new(move |_bytes| us)
}

#[test]
fn the_faster_way_is_taken_for_each_length_of_groups() {
    let plain: Takes = Arc::new(|bytes| if bytes == SHORT { 100 } else { 900 });
    let ring: Takes = Arc::new(|bytes| if bytes == SHORT { 160 } else { 400 });
    let mut writer = Writer::new(plain, Some(ring));
    writer.write(200, SHORT, true);
    writer.write(200, LONG, true);
    assert_eq!(writer.queue.backend(), "io_uring");
    let (short, long) = (writer.write(4_000, SHORT, true), writer.write(4_000, LONG, true));
    assert!(short < 20, "{short} of 1,000 short groups went the slower way");
    assert!(long > 980, "{long} of 1,000 long groups went the faster way");
}

#[test]
fn a_disk_that_changes_changes_the_way() {
    let ring_us = Arc::new(AtomicU64::new(50));
    let changing = Arc::clone(&ring_us);
    let ring: Takes = Arc::new(move |_bytes| changing.load(Ordering::Relaxed));
    let mut writer = Writer::new(always(100), Some(ring));
    writer.write(500, SHORT, true);
    assert!(writer.write(1_000, SHORT, true) > 900);
    ring_us.store(300, Ordering::Relaxed);
    writer.write(5_000, SHORT, true);
    assert!(writer.write(1_000, SHORT, true) < 100, "{:?}", writer.queue);
}

#[test]
fn ways_that_are_equally_fast_do_not_alternate_and_one_pause_decides_nothing() {
    let count = AtomicU64::new(0);
    // Of 100 groups, one meets a pause of the disk.
    let plain: Takes =
        Arc::new(
            move |_bytes| {
                if count.fetch_add(1, Ordering::Relaxed) % 100 == 63 { 50_000 } else { 100 }
            },
        );
    let mut writer = Writer::new(plain, Some(always(98)));
    writer.write(1_000, SHORT, true);
    assert!(writer.write(10_000, SHORT, true) < 20, "{:?}", writer.queue);
}

#[test]
fn what_is_not_synced_and_what_a_kernel_refuses_goes_through_pwrite() {
    let mut writer = Writer::new(always(100), Some(always(1)));
    assert_eq!(writer.write(1_000, SHORT, false), 0);
    let mut writer = Writer::new(always(100), None);
    assert_eq!(writer.write(1_000, LONG, true), 0);
    assert_eq!(writer.queue.backend(), "pwrite");
}
