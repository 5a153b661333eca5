//! Commands of so much work, applied by one and by two workers: nanoseconds a command.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use sprag::{
    ApplyConfig, ApplyManager, Entry, EntryRange, Fatal, Footprint, LogId, Partition, Payload,
    PayloadRef, Replies, StateMachine,
};

use super::{Settings, each};
use crate::measure::{Case, Figure, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::submit_all;
use crate::workload::{Key, key_of, uniform};

/// Work of a command.
const WORKS: [(&str, Duration); 5] = [
    ("50 ns", Duration::from_nanos(50)),
    ("250 ns", Duration::from_nanos(250)),
    ("1 us", Duration::from_micros(1)),
    ("10 us", Duration::from_micros(10)),
    ("100 us", Duration::from_micros(100)),
];
const KEYS: usize = 100_000;

/// Work that takes no memory: so many steps, each of which needs the one before.
fn work(steps: u64) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..steps {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
}

/// Steps that take so long on this machine.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of steps is positive and fits"
)]
fn steps_of(duration: Duration) -> u64 {
    const PROBE: u64 = 5_000_000;
    let fastest = (0..5).map(|_| {
        let started = Instant::now();
        work(PROBE);
        started.elapsed()
    });
    let fastest = fastest.min().expect("five probes");
    (PROBE as f64 * duration.as_secs_f64() / fastest.as_secs_f64()) as u64
}

/// A machine whose commands take so many steps, each for the partition of its key.
struct Busy {
    steps: u64,
}

impl StateMachine for Busy {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        match payload {
            PayloadRef::Opaque(key) => Footprint::key(key),
            _ => Footprint::All,
        }
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        _: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            entry?;
            work(self.steps);
        }
        Ok(())
    }
}

/// Does the work of `count` commands on so many threads, without an engine.
fn alone(threads: usize, count: usize, steps: u64) -> Result<()> {
    thread::scope(|scope| {
        let run = |at| (at..count).step_by(threads).for_each(|_| work(steps));
        let others: Vec<_> = (1..threads).map(|at| scope.spawn(move || run(at))).collect();
        run(0);
        others
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread of work panicked")))
    })
}

fn count_of(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// One command for each key; the first has index `first`.
fn entries_of(keys: &[Key], first: u64) -> Vec<Entry<'_>> {
    let entry = |(key, index)| Entry::new(LogId::new(index, 1), Payload::Opaque(key));
    keys.iter().map(|key| &key[..]).zip(first..).map(entry).collect()
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, duration) in WORKS {
        let steps = steps_of(duration);
        let of_round = Duration::from_millis(settings.scaled(200) as u64);
        let count = usize::try_from(of_round.as_nanos() / duration.as_nanos())?.min(1_000_000);
        let keys: Vec<Key> =
            uniform(KEYS, count, 1).iter().map(|at| key_of(*at as usize)).collect();
        for workers in [1, 2] {
            let threads = NonZeroUsize::new(workers).ok_or_else(|| anyhow!("no workers"))?;
            let config = ApplyConfig::new().worker_count(threads);
            let manager = ApplyManager::new(Busy { steps }, config)?;
            let mut next = 1;
            let (keys, manager) = (&keys, &manager);
            let subjects = vec![
                Subject::new(
                    format!("the work alone, {}", count_of(workers, "thread")),
                    Role::Limit,
                    move || {
                        let started = Instant::now();
                        alone(workers, count, steps)?;
                        Ok(each(started, count).into())
                    },
                ),
                Subject::new(
                    format!("sprag, {}", count_of(workers, "worker")),
                    Role::Sprag,
                    move || {
                        let entries = entries_of(keys, next);
                        next += entries.len() as u64;
                        let started = Instant::now();
                        submit_all(manager, &entries)?;
                        Ok(each(started, count).into())
                    },
                ),
            ];
            let name = format!("{name} a command, {}", count_of(workers, "worker"));
            let figures = Figure::only(Unit::NanosecondsEach);
            rows.extend(Case { group: "workers", name, figures, subjects }.run(settings.rounds)?);
        }
    }
    Ok(rows)
}
