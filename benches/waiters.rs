//! The cost of a waiter, by the number of other waiters: registering, and being woken. 1,000 to
//! 1,000,000 futures wait, for different indexes in rising or in random order, or all for the same
//! one. Then the entries are applied.
//!
//! `cargo bench --bench waiters -- WAITERS_MAX` (default 1,000,000). It prints nanoseconds a
//! waiter, the best of several rounds.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a bench"
)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use sprag::{Acknowledged, ApplyConfig, ApplyManager, Entry, MemoryConfig, MemoryStateMachine};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LONG: Duration = Duration::from_secs(60);

/// A waker that counts its calls.
#[derive(Default)]
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The indexes that the waiters wait for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Indexes {
    Rising,
    Random,
    Same,
}

struct Engine {
    manager: ApplyManager<MemoryStateMachine>,
    next: u64,
}

impl Engine {
    fn new() -> Self {
        let machine = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
        Self { manager: ApplyManager::new(machine, ApplyConfig::new()).unwrap(), next: 1 }
    }

    fn apply(&mut self, count: u64) {
        let entries = (self.next..self.next + count).map(|index| Entry::noop(index, 1));
        self.manager.apply_batch(entries, LONG, |_, _| ()).unwrap();
        self.next += count;
    }

    /// Nanoseconds a waiter: registering, and being woken, without the time of applying.
    fn round(&mut self, waiters: u64, indexes: Indexes, applying: f64) -> (f64, f64) {
        let last = self.next + waiters - 1;
        let mut order: Vec<u64> = match indexes {
            Indexes::Same => vec![last; waiters as usize],
            _ => (self.next..=last).collect(),
        };
        if indexes == Indexes::Random {
            let mut random = 88_172_645_463_325_252_u64;
            for at in (1..order.len()).rev() {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                order.swap(at, (random % (at as u64 + 1)) as usize);
            }
        }
        let mut futures: Vec<Acknowledged> =
            order.into_iter().map(|index| self.manager.acknowledged(index)).collect();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mut poll = |future: &mut Acknowledged| Pin::new(future).poll(&mut context).is_ready();
        let began = Instant::now();
        for future in &mut futures {
            assert!(!poll(future));
        }
        let registering = began.elapsed().as_nanos() as f64 / waiters as f64;
        let began = Instant::now();
        self.apply(waiters);
        while count.0.load(Ordering::Relaxed) < waiters {
            std::thread::yield_now();
        }
        let woken = began.elapsed().as_nanos() as f64 / waiters as f64;
        assert!(futures.iter_mut().all(poll));
        (registering, woken - applying)
    }
}

fn main() {
    let given = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let waiters_max: u64 = given.unwrap_or(1_000_000);
    let mut engine = Engine::new();
    // The cost of an entry without waiters, which is subtracted.
    engine.apply(1 << 20);
    let began = Instant::now();
    engine.apply(1 << 20);
    let applying = began.elapsed().as_nanos() as f64 / f64::from(1 << 20);
    println!("applying: {applying:.0} ns an entry");
    println!("{:>9}  {:<8}{:>12}{:>9}", "waiters", "indexes", "registering", "waking");
    for indexes in [Indexes::Rising, Indexes::Random, Indexes::Same] {
        let mut waiters = 1000;
        while waiters <= waiters_max {
            let rounds = (3_000_000 / waiters).clamp(3, 300);
            let mut best = (f64::MAX, f64::MAX);
            for _round in 0..rounds {
                let (registering, waking) = engine.round(waiters, indexes, applying);
                best = (best.0.min(registering), best.1.min(waking));
            }
            println!("{waiters:>9}  {:<8}{:>12.0}{:>9.0}", format!("{indexes:?}"), best.0, best.1);
            waiters *= 10;
        }
    }
}
