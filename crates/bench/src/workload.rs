//! The standard work: keys of 16 bytes, values of a given length, updates zipfian 0.99, gets
//! uniform.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use sprag::Entry;

/// Length of every key.
pub(crate) const KEY_BYTES: usize = 16;
const EXPONENT: f64 = 0.99;

/// A key of the standard work.
pub(crate) type Key = [u8; KEY_BYTES];

/// The key of a number.
pub(crate) fn key_of(number: usize) -> Key {
    let mut key = *b"key-000000000000";
    let digits = number.to_string();
    let at = KEY_BYTES - digits.len();
    key[at..].copy_from_slice(digits.as_bytes());
    key
}

/// Key numbers of `count` updates: zipfian over `keys`, popular ones spread over the key space.
pub(crate) fn zipfian(keys: usize, count: usize, seed: u64) -> Vec<u32> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut order: Vec<u32> = (0..).take(keys).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, random.random_range(0..=at));
    }
    let ranks = Zipf::new(keys as f64, EXPONENT).expect("a positive number of ranks");
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is a whole number from 1 to the number of keys"
    )]
    let draw = |random: &mut SmallRng| order[ranks.sample(random) as usize - 1];
    (0..count).map(|_| draw(&mut random)).collect()
}

/// Key numbers of `count` reads, uniform.
pub(crate) fn uniform(keys: usize, count: usize, seed: u64) -> Vec<u32> {
    let mut random = SmallRng::seed_from_u64(seed);
    let keys = u32::try_from(keys).expect("a number of keys that fits into memory");
    (0..count).map(|_| random.random_range(0..keys)).collect()
}

/// Writes of every key once, in pieces that take little memory.
pub(crate) fn pieces(keys: usize, value_bytes: usize) -> impl Iterator<Item = Writes> {
    const PIECE: usize = 8_192;
    (0..keys)
        .step_by(PIECE)
        .map(move |first| Writes::new(first..keys.min(first + PIECE), value_bytes, first as u64))
}

/// Keys and values of writes, one behind the other, made before a clock starts.
#[derive(Debug)]
pub(crate) struct Writes {
    bytes: Vec<u8>,
    record_bytes: usize,
}

impl Writes {
    /// One write for each key number, its value `value_bytes` of noise.
    pub(crate) fn new(numbers: impl Iterator<Item = usize>, value_bytes: usize, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let record_bytes = KEY_BYTES + value_bytes;
        let mut bytes = Vec::with_capacity(numbers.size_hint().0 * record_bytes);
        for number in numbers {
            bytes.extend_from_slice(&key_of(number));
            let from = bytes.len();
            bytes.resize(from + value_bytes, 0);
            random.fill_bytes(&mut bytes[from..]);
        }
        Self { bytes, record_bytes }
    }

    /// One write for each key number of a list.
    pub(crate) fn of(numbers: &[u32], value_bytes: usize, seed: u64) -> Self {
        Self::new(numbers.iter().map(|number| *number as usize), value_bytes, seed)
    }

    pub(crate) fn value_bytes(&self) -> usize {
        self.record_bytes - KEY_BYTES
    }

    /// Number of writes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / self.record_bytes
    }

    /// Key and value of each.
    pub(crate) fn pairs(&self) -> impl ExactSizeIterator<Item = (&Key, &[u8])> + Clone {
        self.bytes.chunks_exact(self.record_bytes).map(|record| {
            let (key, value) = record.split_first_chunk().expect("a record starts with its key");
            (key, value)
        })
    }

    /// Key and value of number `at`.
    pub(crate) fn pair(&self, at: usize) -> (&Key, &[u8]) {
        let from = at * self.record_bytes;
        let record = &self.bytes[from..from + self.record_bytes];
        record.split_first_chunk().expect("a record starts with its key")
    }

    /// The writes as puts; the first has index `first`.
    pub(crate) fn entries(&self, first: u64) -> Vec<Entry<'_>> {
        (first..)
            .zip(self.pairs())
            .map(|(at, (key, value))| Entry::put(at, 1, key, value))
            .collect()
    }
}
