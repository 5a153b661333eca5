//! Snapshot files: writing one, beside gathering, writing and syncing the same bytes by hand, and
//! reading one.
//!
//! `cargo bench --bench snapshot -- ROUNDS MIB` prints medians over the rounds, which alternate.
//! Figures are in `docs/benchmarks.md`. Files go to the directory of the `TMPDIR` variable.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use sprag::Snapshot;
use sprag::snapshot::probe;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEY_BYTES: usize = 16;
const CHUNK_BYTES: usize = 4 << 20;
const GETS: usize = 1_000_000;

/// Keys and values in random places, as in a running machine.
struct State {
    keys: Vec<[u8; KEY_BYTES]>,
    values: Vec<Box<[u8]>>,
}

impl State {
    fn new(bytes: usize, value_bytes: usize) -> Self {
        let count = bytes / (KEY_BYTES + value_bytes);
        let key = |number: usize| *format!("{number:016}").as_bytes().first_chunk().unwrap();
        let mut values: Vec<Box<[u8]>> =
            (0..count).map(|_| vec![0_u8; value_bytes].into()).collect();
        let mut random = 1_u64;
        for at in (1..count).rev() {
            values.swap(at, below(&mut random, at + 1));
        }
        for (number, value) in values.iter_mut().enumerate() {
            value.fill(number.to_le_bytes()[0]);
        }
        Self { keys: (0..count).map(key).collect(), values }
    }

    fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.keys.iter().map(|key| &key[..]).zip(self.values.iter().map(|value| &value[..]))
    }
}

fn below(random: &mut u64, limit: usize) -> usize {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    usize::try_from(*random >> 33).unwrap() % limit
}

/// The lower bound of writing a state: fill a buffer of 4 MiB in key order, write it, and sync. A
/// table as long as the records' is written too. There is no checksum and no format.
fn by_hand(directory: &Path, state: &State) -> u64 {
    let path = directory.join("by-hand");
    let mut file = File::create(&path).unwrap();
    let mut buffer = Vec::with_capacity(2 * CHUNK_BYTES);
    let mut bytes = 0;
    let mut write = |buffer: &mut Vec<u8>| {
        file.write_all(buffer).unwrap();
        bytes += buffer.len() as u64;
        buffer.clear();
    };
    for (key, value) in state.entries() {
        buffer.extend_from_slice(key);
        buffer.extend_from_slice(value);
        buffer.extend_from_slice(&[0; 16]);
        if buffer.len() >= CHUNK_BYTES {
            write(&mut buffer);
        }
    }
    write(&mut buffer);
    file.sync_data().unwrap();
    std::fs::rename(&path, directory.join("by-hand.done")).unwrap();
    File::open(directory).unwrap().sync_all().unwrap();
    bytes
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let rounds = numbers.first().copied().unwrap_or(5);
    let mib = numbers.get(1).copied().unwrap_or(256);
    for value_bytes in [100, 4096, 1 << 20] {
        let state = State::new(mib << 20, value_bytes);
        println!("{} entries of {KEY_BYTES} + {value_bytes} bytes", state.keys.len());
        let directory = tempfile::tempdir().unwrap();
        writing(rounds, directory.path(), &state);
        reading(rounds, &directory.path().join("0000000000000001.snap"), &state);
    }
}

fn writing(rounds: usize, directory: &Path, state: &State) {
    let mut figures = [Vec::new(), Vec::new()];
    for round in 0..2 * rounds {
        // The order of the two alternates.
        let which = (round + round / 2) % 2;
        let started = Instant::now();
        let bytes = if which == 0 {
            probe::write(directory, state.entries()).unwrap()
        } else {
            by_hand(directory, state)
        };
        figures[which].push(mb_per_s(bytes, started));
    }
    let [snapshot, by_hand] = figures.map(median);
    println!("  write, durable   {snapshot:8.0} MB/s");
    println!("  the same by hand {by_hand:8.0} MB/s   ({:.0} %)", 100.0 * snapshot / by_hand);
}

fn reading(rounds: usize, path: &Path, state: &State) {
    let (mut opens, mut checks, mut walks, mut gets) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        let started = Instant::now();
        let snapshot = Snapshot::open(path).unwrap();
        opens.push(started.elapsed().as_secs_f64() * 1e6);
        let started = Instant::now();
        snapshot.verify().unwrap();
        checks.push(mb_per_s(snapshot.bytes(), started));
        let started = Instant::now();
        let bytes: usize = snapshot.iter().map(|entry| entry.unwrap().1.len()).sum();
        walks.push(started.elapsed().as_secs_f64() * 1e9 / state.keys.len() as f64);
        black_box(bytes);
        let mut random = round as u64;
        let started = Instant::now();
        for _ in 0..GETS {
            let key = &state.keys[below(&mut random, state.keys.len())];
            black_box(snapshot.get(key).unwrap().unwrap());
        }
        gets.push(started.elapsed().as_secs_f64() * 1e9 / GETS as f64);
    }
    println!("  open             {:8.0} us", median(opens));
    println!("  check all chunks {:8.0} MB/s", median(checks));
    println!("  walk             {:8.1} ns an entry", median(walks));
    println!("  random get       {:8.0} ns", median(gets));
}

fn mb_per_s(bytes: u64, started: Instant) -> f64 {
    bytes as f64 / 1e6 / started.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
