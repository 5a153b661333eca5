//! The write paths of the log, compared through the whole engine: one entry in flight, and flat
//! out, interleaved.
//!
//! `cargo bench --bench log_io -- ROUNDS MS` prints medians over the rounds; figures are in
//! `docs/benchmarks.md`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::time::{Duration, Instant};

use sprag::error::SubmitError;
use sprag::{
    ApplyConfig, ApplyManager, Entry, IoBackend, PersistentConfig, PersistentStateMachine,
};

const BACKENDS: [IoBackend; 2] = [IoBackend::Pwrite, IoBackend::Uring];
const LONG: Duration = Duration::from_secs(60);

/// Entries per second, median microseconds to the acknowledgement, and bytes of a group.
type Figures = [f64; 3];

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let rounds = numbers.first().copied().unwrap_or(5);
    let length = Duration::from_millis(numbers.get(1).copied().unwrap_or(1000));
    for value_bytes in [3900, 16_000, 130_000] {
        compare(rounds, &format!("one in flight, {value_bytes} bytes"), |io| {
            one_in_flight(io, value_bytes, length)
        });
    }
    for value_bytes in [64, 1024] {
        compare(rounds, &format!("flat out, {value_bytes} bytes"), |io| {
            flat_out(io, value_bytes, length)
        });
    }
}

fn compare(rounds: u64, title: &str, run: impl Fn(IoBackend) -> Figures) {
    let mut figures = [const { Vec::new() }; 2];
    for round in 0..rounds {
        for turn in 0..2 {
            let at = usize::try_from((round + turn) % 2).unwrap();
            figures[at].push(run(BACKENDS[at]));
        }
    }
    for (io, rounds) in BACKENDS.iter().zip(&figures) {
        let [rate, wait, group] = [0, 1, 2].map(|at| median(rounds.iter().map(|row| row[at])));
        println!(
            "{title:28} {io:8?} {rate:10.0} entries/s  {wait:8.0} us  {group:9.0} bytes a group"
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn engine(directory: &tempfile::TempDir, io: IoBackend) -> ApplyManager<PersistentStateMachine> {
    let config = PersistentConfig::new(directory.path()).io(io);
    let machine = PersistentStateMachine::open(config).unwrap();
    ApplyManager::new(machine, ApplyConfig::new()).unwrap()
}

#[allow(clippy::cast_precision_loss, reason = "figures")]
fn figures(
    manager: ApplyManager<PersistentStateMachine>,
    io: IoBackend,
    began: Instant,
) -> Figures {
    let stats = manager.stats();
    assert!(stats.io_fallback.is_none(), "{io:?}: {:?}", stats.io_fallback);
    let rate = stats.total_applied as f64 / began.elapsed().as_secs_f64();
    let group = stats.log_writer.bytes as f64 / stats.log_writer.groups.max(1) as f64;
    let wait = stats.latency.p50_ns as f64 / 1e3;
    manager.close(LONG).unwrap();
    [rate, wait, group]
}

fn one_in_flight(io: IoBackend, value_bytes: usize, length: Duration) -> Figures {
    let directory = tempfile::tempdir_in(".").unwrap();
    let manager = engine(&directory, io);
    let (value, began) = (vec![7; value_bytes], Instant::now());
    let mut index = 1_u64;
    while began.elapsed() < length {
        let key = (index % 1000).to_le_bytes();
        manager.apply(&Entry::put(index, 1, &key, &value), LONG).unwrap();
        index += 1;
    }
    figures(manager, io, began)
}

fn flat_out(io: IoBackend, value_bytes: usize, length: Duration) -> Figures {
    let directory = tempfile::tempdir_in(".").unwrap();
    let manager = engine(&directory, io);
    let value = vec![7; value_bytes];
    let keys: Vec<[u8; 8]> = (0..10_000_u64).map(u64::to_le_bytes).collect();
    let began = Instant::now();
    let mut index = 1_u64;
    while began.elapsed() < length {
        let entries: Vec<Entry<'_>> = (index..index + 128)
            .zip(keys.iter().cycle())
            .map(|(index, key)| Entry::put(index, 1, key, &value))
            .collect();
        match manager.apply_entries(&entries) {
            Ok(_) => index += 128,
            Err(SubmitError::Full { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    manager.flush_pending(LONG).unwrap();
    figures(manager, io, began)
}
