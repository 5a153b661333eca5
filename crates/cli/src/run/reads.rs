//! Timed gets, apart from the entries, and other reads of a machine.

use std::hint::black_box;
use std::time::Instant;

use histogram::Histogram;
use sprag::error::ReadError;
use sprag::{
    MemoryStateMachine, PersistentStateMachine, StateMachine, Storage, StorageMachine, Value,
};

use super::workload::key_of;
use super::zipf::{Random, below, mix};
use crate::error::{Outcome, about};

/// All keys, sorted, and their values.
pub(super) type State = Vec<(Box<[u8]>, Value)>;

/// A machine whose keys and values can be read.
pub(super) trait Readable: StateMachine {
    fn get_with<R>(
        &self,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, ReadError>;
    fn scan_sorted(&self) -> Result<State, ReadError>;
    fn len(&self) -> Result<usize, ReadError>;
}

macro_rules! readable {
    ($machine:ident $(, $of:ident: $storage:ident)?) => {
        impl $(<$of: $storage>)? Readable for $machine $(<$of>)? {
            fn get_with<R>(
                &self,
                key: &[u8],
                read: impl FnOnce(&[u8]) -> R,
            ) -> Result<Option<R>, ReadError> {
                $machine::get_with(self, key, read)
            }

            fn scan_sorted(&self) -> Result<State, ReadError> {
                $machine::scan_sorted(self)
            }

            fn len(&self) -> Result<usize, ReadError> {
                $machine::len(self)
            }
        }
    };
}

readable!(MemoryStateMachine);
readable!(PersistentStateMachine);
readable!(StorageMachine, S: Storage);

/// Durations of gets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GetFigures {
    /// Number of gets that were timed one by one.
    pub(super) count: u64,
    /// Median, percentiles 90, 99 and 99.9, and maximum; the clock's own time is included.
    pub(super) p50_ns: u64,
    pub(super) p90_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) p999_ns: u64,
    pub(super) max_ns: u64,
    /// Gets a second, of as many gets that were not timed one by one.
    pub(super) per_second: f64,
}

/// Number of bits of the longest time: gets of 2^36 ns (69 s) and longer are counted alike.
const LONGEST_BITS: u8 = 36;
/// Number of keys that are chosen at a time, before the clock starts.
const AT_ONCE: u64 = 1 << 20;

/// Times `count` gets one by one, and then as many without a clock around each. Keys are chosen
/// uniformly, and every byte of every value is read.
#[allow(clippy::cast_precision_loss, reason = "a rate")]
pub(super) fn gets(
    machine: &impl Readable,
    keys: u32,
    count: u64,
    seed: u64,
) -> Outcome<GetFigures> {
    // 2^10 steps for each doubling: 0.1 % of precision.
    let mut histogram = Histogram::new(10, LONGEST_BITS).map_err(about("histogram"))?;
    let mut max_ns = 0;
    let mut random = Random::new(mix(seed ^ 0x6765_7473));
    let mut untimed_seconds = 0.0;
    let mut left = count;
    while left > 0 {
        let chosen: Vec<_> =
            (0..left.min(AT_ONCE)).map(|_| key_of(below(&mut random, keys))).collect();
        left -= chosen.len() as u64;
        let started = Instant::now();
        for key in &chosen {
            get(machine, key)?;
        }
        untimed_seconds += started.elapsed().as_secs_f64();
        // Choose other keys, so that the caches are as cold as before.
        let chosen: Vec<_> = chosen.iter().map(|_| key_of(below(&mut random, keys))).collect();
        for key in &chosen {
            let started = Instant::now();
            get(machine, key)?;
            // A read takes less than 584 years.
            let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            max_ns = took.max(max_ns);
            histogram.increment(took.min((1 << LONGEST_BITS) - 1)).map_err(about("histogram"))?;
        }
    }
    let at = |quantile| {
        // The quantiles are constants from 0 to 1, so there is no error.
        let bucket = histogram.quantile_bucket(quantile).ok().flatten();
        bucket.map_or(0, |bucket| bucket.end().min(max_ns))
    };
    Ok(GetFigures {
        count,
        p50_ns: at(0.50),
        p90_ns: at(0.90),
        p99_ns: at(0.99),
        p999_ns: at(0.999),
        max_ns,
        per_second: count as f64 / untimed_seconds.max(f64::MIN_POSITIVE),
    })
}

fn get(machine: &impl Readable, key: &[u8]) -> Outcome {
    match machine.get_with(black_box(key), touch)? {
        Some(sum) => {
            black_box(sum);
            Ok(())
        }
        None => Err("a key that was put has no value".into()),
    }
}

/// A sum that depends on every byte.
fn touch(value: &[u8]) -> u64 {
    let (words, rest) = value.as_chunks::<8>();
    let sum = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_byte_of_a_value_is_touched() {
        for len in 1..40 {
            let zeros = vec![0; len];
            for at in 0..len {
                let mut value = zeros.clone();
                value[at] = 1;
                assert_ne!(super::touch(&value), super::touch(&zeros), "{at} of {len}");
            }
        }
    }
}
