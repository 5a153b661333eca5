//! Workloads: sequences of keys that are read.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt::Write;

use rand_core::TryRng;
use rand_distr::Distribution;
use sprag::testing::Random;

pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) gets: Vec<u32>,
}

const KEYS: u32 = 100_000;
const GETS: usize = 1_000_000;

fn below(random: &mut Random, bound: u32) -> u32 {
    (random.next_u64() % u64::from(bound)) as u32
}

/// The generator as the crate `rand` takes it.
struct Source<'a>(&'a mut Random);

impl TryRng for Source<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0.next_u64() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

/// Ranks from 0 on, whose shares fall with a power of the rank.
pub(crate) struct Zipf(rand_distr::Zipf<f64>);

impl Zipf {
    pub(crate) fn new(keys: u32, exponent: f64) -> Self {
        Self(rand_distr::Zipf::new(f64::from(keys), exponent).unwrap())
    }

    pub(crate) fn next(&self, random: &mut Random) -> u32 {
        self.0.sample(&mut Source(random)) as u32 - 1
    }
}

pub(crate) fn made_up() -> Vec<Workload> {
    let zipf = |exponent, seed| {
        let (zipf, mut random) = (Zipf::new(KEYS, exponent), Random::new(seed));
        (0..GETS).map(|_| zipf.next(&mut random)).collect()
    };
    let cycle = |keys| (0..keys).cycle().take(GETS).collect();
    let trace = read_trace(&write_trace(&database())).unwrap();
    let workload = |name: &str, gets| Workload { name: name.to_owned(), gets };
    vec![
        workload("zipf 0.8", zipf(0.8, 1)),
        workload("zipf 0.99", zipf(0.99, 2)),
        workload("scan: all keys in order, ten times", cycle(KEYS)),
        workload("loop over 20% of the keys, then zipf", loop_then_zipf()),
        workload("mixed: zipf 0.99, half of the gets in scans", mixed()),
        workload("trace in the ARC format, made up", trace),
    ]
}

/// Half a loop over more keys than the cache holds, of which it should not lose all; half zipf over
/// all keys.
fn loop_then_zipf() -> Vec<u32> {
    let (zipf, mut random) = (Zipf::new(KEYS, 0.99), Random::new(3));
    let around = (0..KEYS / 5).cycle().take(GETS / 2);
    around.chain((0..GETS / 2).map(|_| zipf.next(&mut random))).collect()
}

/// Scans of 10,000 keys in a row from random places, between as many gets of hot keys.
fn mixed() -> Vec<u32> {
    let (zipf, mut random) = (Zipf::new(KEYS, 0.99), Random::new(4));
    let mut gets = Vec::with_capacity(GETS);
    while gets.len() < GETS {
        for _ in 0..10_000 {
            gets.push(zipf.next(&mut random));
        }
        let start = below(&mut random, KEYS);
        gets.extend((start..start + 10_000).map(|key| key % KEYS));
    }
    gets
}

/// Reads of a database's file: short runs of hot blocks whose place moves, some long runs, and a
/// loop.
fn database() -> Vec<u32> {
    let (zipf, mut random) = (Zipf::new(KEYS / 8, 0.9), Random::new(5));
    let mut gets = Vec::with_capacity(GETS);
    while gets.len() < GETS {
        // The hot blocks move on as the file grows.
        let moved = (gets.len() / 50_000) as u32 * 400;
        match below(&mut random, 1_000) {
            0 => {
                let start = below(&mut random, KEYS);
                gets.extend((start..start + 5_000).map(|key| key % KEYS));
            }
            1 => gets.extend((50_000..54_000).cycle().take(12_000)),
            _ => {
                let start = (zipf.next(&mut random) * 8 + moved) % KEYS;
                gets.extend(start..(start + 1 + below(&mut random, 8)).min(KEYS));
            }
        }
    }
    gets
}

pub(crate) fn distinct(gets: &[u32]) -> usize {
    gets.iter().collect::<HashSet<_>>().len()
}

/// Parses lines of `start count ignored number`: `count` blocks in a row are read, from `start` on.
pub(crate) fn read_trace(text: &str) -> Result<Vec<u32>, String> {
    let mut gets = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(start)), Some(Ok(count))) = (fields.next(), fields.next()) else {
            return Err(format!("{line:?} does not begin with two numbers"));
        };
        gets.extend(start..start.checked_add(count).ok_or("a block number above 2^32")?);
    }
    Ok(gets)
}

/// Writes gets in the format that [`read_trace`] parses.
pub(crate) fn write_trace(gets: &[u32]) -> String {
    let mut text = String::new();
    let runs = gets.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    for (number, run) in runs.enumerate() {
        writeln!(text, "{} {} 0 {number}", run[0], run.len()).unwrap();
    }
    text
}
