//! Round trips between two threads, and descriptors flat out. A bare `ArrayQueue` in each direction
//! stands beside a synchronous call whose worker is another thread. Descriptors of 32 bytes stand
//! beside ranges of 128 entries that do nothing.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_queue::ArrayQueue;
use sprag::error::SubmitError;
use sprag::{
    ApplyConfig, ApplyManager, Entry, EntryRange, Fatal, Footprint, LogId, Partition, PayloadRef,
    Replies, StateMachine,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Descriptor of the same size as the engine's.
type Descriptor = [u64; 4];
const RANGE: u64 = 128;
const TIMEOUT: Duration = Duration::from_secs(60);

/// A machine that applies nothing, so only the hand-off is measured.
struct Nothing;

impl StateMachine for Nothing {
    fn footprint(&self, _payload: &PayloadRef<'_>) -> Footprint {
        Footprint::Key(0)
    }

    fn apply(&self, _: &EntryRange<'_>, _: Partition, _: &mut Replies<'_>) -> Result<(), Fatal> {
        Ok(())
    }

    fn applied(&self) -> Option<LogId> {
        None
    }
}

fn engine() -> ApplyManager<Nothing> {
    let config = ApplyConfig::new().worker_count(NonZeroUsize::MIN).inline_apply(false);
    ApplyManager::new(Nothing, config).unwrap()
}

/// A thread that moves descriptors from one queue to another (or just takes them) until it is
/// dropped.
struct Echo {
    there: Arc<ArrayQueue<Descriptor>>,
    back: Arc<ArrayQueue<Descriptor>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Echo {
    fn start() -> Self {
        let queue = || Arc::new(ArrayQueue::<Descriptor>::new(4096));
        let (there, back, stop) = (queue(), queue(), Arc::new(AtomicBool::new(false)));
        let (from, to, stopped) = (Arc::clone(&there), Arc::clone(&back), Arc::clone(&stop));
        let run = move || {
            while !stopped.load(Ordering::Relaxed) {
                match from.pop() {
                    // The first word of a descriptor asks for an answer.
                    Some(descriptor) if descriptor[0] == 1 => to.push(descriptor).unwrap(),
                    Some(_) => {}
                    None => std::hint::spin_loop(),
                }
            }
        };
        Self { there, back, stop, thread: Some(thread::spawn(run)) }
    }

    fn push(&self, descriptor: Descriptor) {
        while self.there.push(descriptor).is_err() {
            std::hint::spin_loop();
        }
    }

    fn round_trip(&self) {
        self.push([1, 0, 0, 0]);
        while self.back.pop().is_none() {
            std::hint::spin_loop();
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn there_and_back(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("there and back");
    let echo = Echo::start();
    group.bench_function("bare: an ArrayQueue each way", |bencher| {
        bencher.iter(|| echo.round_trip());
    });
    drop(echo);
    let (manager, mut index) = (engine(), 0);
    group.bench_function("engine: apply one no-op, not inline", |bencher| {
        bencher.iter(|| {
            index += 1;
            manager.apply(&Entry::noop(index, 1), TIMEOUT).unwrap()
        });
    });
    group.finish();
}

fn flat_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flat out");
    group.throughput(Throughput::Elements(RANGE));
    let echo = Echo::start();
    group.bench_function("bare: a descriptor for 128 entries", |bencher| {
        bencher.iter_custom(|ranges| {
            let started = Instant::now();
            (0..ranges).for_each(|range| echo.push([0, range, 0, 0]));
            echo.round_trip();
            started.elapsed()
        });
    });
    drop(echo);
    let (manager, mut next) = (engine(), 1);
    group.bench_function("engine: 128 no-ops, encoded and handed over", |bencher| {
        bencher.iter_custom(|ranges| {
            let started = Instant::now();
            for _ in 0..ranges {
                let entries: [Entry<'_>; 128] =
                    std::array::from_fn(|position| Entry::noop(next + position as u64, 1));
                while let Err(error) = manager.apply_entries(&entries) {
                    assert!(matches!(error, SubmitError::Full { .. }), "{error}");
                    thread::yield_now();
                }
                next += RANGE;
            }
            manager.wait_for_apply(next - 1, TIMEOUT).unwrap();
            started.elapsed()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = there_and_back, flat_out
}
criterion_main!(benches);
