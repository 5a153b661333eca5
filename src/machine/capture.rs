//! The making of a view: the slots of a store as they were at one index, copied while later entries
//! are applied.
//!
//! A view token passes through the rings like an entry. When a worker reaches the token, its shards
//! have everything before the token and nothing after it. From then on the worker copies a shard
//! before it first writes to it. The thread that takes the view copies the shards that no worker
//! has written to. Each shard is copied once, under its lock; its generation records that.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_utils::CachePadded;
use histogram::AtomicHistogram;
use rustix::time::{ClockId, clock_gettime};

use super::store::Key;
use crate::contract::view::Head;
use crate::sync::{Mutex, Rank};

/// The copies of one shard, in no particular order.
pub(crate) type ShardCopy<C> = Vec<(Key, C)>;

/// All parts of a view.
#[derive(Debug)]
pub(crate) struct Captured<C> {
    pub(crate) head: Head,
    pub(crate) shards: Vec<ShardCopy<C>>,
}

/// The place where copies are gathered, for one view at a time.
pub(crate) struct Capture<C> {
    /// Generation of the view being taken, or of the last one; from 1.
    generation: AtomicU64,
    /// Whether a view is being taken.
    is_taken: AtomicBool,
    /// For each partition, the generation of the last view token that its worker reached. The
    /// thread in the worker's post writes and reads it. For two threads in turn, the hand-over of
    /// the worker's post, or a barrier, orders the accesses.
    reached: Box<[CachePadded<AtomicU64>]>,
    /// Number of partitions that have reached the view token.
    came: AtomicUsize,
    gathered: Mutex<Gathered<C>>,
    /// The most processor time that one copy took of a worker, and the most time by the clock.
    longest_cpu_ns: AtomicU64,
    longest_wall_ns: AtomicU64,
    /// All copies by workers: processor time, and time by the clock.
    cpu_ns: Option<AtomicHistogram>,
    wall_ns: Option<AtomicHistogram>,
}

/// Durations for which workers stopped to copy shards.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stalls {
    pub(crate) longest_cpu_ns: u64,
    pub(crate) longest_wall_ns: u64,
    pub(crate) p999_cpu_ns: u64,
    pub(crate) p999_wall_ns: u64,
}

/// Range of the histograms: up to 2^36 ns (69 seconds), in 2^5 steps for each doubling, a precision
/// of 3 %.
const RANGE_BITS: u8 = 36;

fn histogram() -> Option<AtomicHistogram> {
    // The parameters are constants within the crate's limits.
    AtomicHistogram::new(5, RANGE_BITS).ok()
}

struct Gathered<C> {
    head: Option<Head>,
    /// For each shard, its copies or, until then, room for them.
    shards: Vec<ShardCopy<C>>,
}

impl<C> Capture<C> {
    pub(crate) fn new(partitions_max: usize) -> Self {
        Self {
            generation: AtomicU64::new(0),
            is_taken: AtomicBool::new(false),
            reached: (0..partitions_max).map(|_| CachePadded::default()).collect(),
            came: AtomicUsize::new(0),
            gathered: Mutex::new(Rank::ViewCopies, Gathered { head: None, shards: Vec::new() }),
            longest_cpu_ns: AtomicU64::new(0),
            longest_wall_ns: AtomicU64::new(0),
            cpu_ns: histogram(),
            wall_ns: histogram(),
        }
    }

    /// Begins a view, before its token is put into the rings. `room` holds the copies of each
    /// shard. Its memory has been touched, because a worker that asked for it would wait
    /// milliseconds for the allocator and the kernel.
    pub(crate) fn begin(&self, room: Vec<ShardCopy<C>>) {
        *self.gathered.lock() = Gathered { head: None, shards: room };
        self.came.store(0, Ordering::Relaxed);
        self.is_taken.store(true, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Whether a view is being taken, or its taking has failed. A hint: it may come late.
    #[inline]
    pub(crate) fn is_taken(&self) -> bool {
        self.is_taken.load(Ordering::Relaxed)
    }

    /// The generation of the view being taken, or of the last one.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Notes that the worker of `partition` has reached the view token. `head` comes from the
    /// worker that keeps it: the first.
    pub(crate) fn reach_token(&self, partition: usize, head: Option<Head>) {
        if let Some(head) = head {
            self.gathered.lock().head = Some(head);
        }
        if let Some(reached) = self.reached.get(partition) {
            reached.store(self.generation(), Ordering::Relaxed);
        }
        // Release: a thread that sees all partitions may copy the shards of each.
        self.came.fetch_add(1, Ordering::Release);
    }

    /// Number of partitions that have reached the view token.
    pub(crate) fn partitions_reached(&self) -> usize {
        self.came.load(Ordering::Acquire)
    }

    /// The generation below which shards must be copied before the worker of `partition` writes to
    /// them.
    #[inline]
    pub(crate) fn reached_token(&self, partition: usize) -> u64 {
        self.reached.get(partition).map_or(0, |reached| reached.load(Ordering::Relaxed))
    }

    /// Lets `copy` fill the room of a shard. The caller holds the shard's lock.
    pub(crate) fn add(&self, shard: usize, copy: impl FnOnce(&mut ShardCopy<C>)) {
        let room = |gathered: &mut Gathered<C>| gathered.shards.get_mut(shard).map(std::mem::take);
        let mut copies = room(&mut self.gathered.lock()).unwrap_or_default();
        copy(&mut copies);
        if let Some(place) = self.gathered.lock().shards.get_mut(shard) {
            *place = copies;
        }
    }

    /// Copies a shard in a worker, which holds the shard's lock meanwhile, and records the time.
    #[cold]
    pub(crate) fn copy_before_write(&self, shard: usize, copy: impl FnOnce(&mut ShardCopy<C>)) {
        let began = Instant::now();
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        self.add(shard, copy);
        let cpu = clock_gettime(ClockId::ThreadCPUTime) - cpu;
        let wall = began.elapsed();
        // A thread has no more than 584 years of time.
        let ns = |seconds: u64, nanos: u64| seconds.saturating_mul(1_000_000_000) + nanos;
        // Only the figures of copies count them, and a clock does not go backwards.
        let cpu_ns = ns(cpu.tv_sec.try_into().unwrap_or(0), cpu.tv_nsec.try_into().unwrap_or(0));
        let wall_ns = ns(wall.as_secs(), wall.subsec_nanos().into());
        for (histogram, took_ns) in [(&self.cpu_ns, cpu_ns), (&self.wall_ns, wall_ns)] {
            if let Some(histogram) = histogram {
                let _beyond_range = histogram.add(took_ns.min((1 << RANGE_BITS) - 1), 1);
            }
        }
        self.longest_cpu_ns.fetch_max(cpu_ns, Ordering::Relaxed);
        self.longest_wall_ns.fetch_max(wall_ns, Ordering::Relaxed);
    }

    /// The durations of these copies.
    pub(crate) fn stalls(&self) -> Stalls {
        let longest_cpu_ns = self.longest_cpu_ns.load(Ordering::Relaxed);
        let longest_wall_ns = self.longest_wall_ns.load(Ordering::Relaxed);
        let p999 = |histogram: &Option<AtomicHistogram>| {
            // The quantile is a constant, so there is no error.
            let bucket = histogram.as_ref()?.load().quantile_bucket(0.999).ok()??;
            Some(bucket.end())
        };
        Stalls {
            longest_cpu_ns,
            longest_wall_ns,
            p999_cpu_ns: p999(&self.cpu_ns).unwrap_or(0).min(longest_cpu_ns),
            p999_wall_ns: p999(&self.wall_ns).unwrap_or(0).min(longest_wall_ns),
        }
    }

    /// The gathered view, once all partitions have reached the token and all shards were copied.
    pub(crate) fn take(&self) -> Captured<C> {
        self.is_taken.store(false, Ordering::Relaxed);
        let mut gathered = self.gathered.lock();
        let head = gathered.head.take().unwrap_or_default();
        Captured { head, shards: std::mem::take(&mut gathered.shards) }
    }
}

impl<C> fmt::Debug for Capture<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("generation", &self.generation)
            .field("came", &self.came)
            .finish_non_exhaustive()
    }
}
