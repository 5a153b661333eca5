//! The entries of a run, made before the clock starts, and the state that they must lead to.

use std::collections::BTreeMap;

use sprag::Entry;

use super::digest::Digest;
use super::zipf::{Random, Zipf, below, mix};

/// Length of every key of a run.
pub(crate) const KEY_BYTES: usize = 16;
const EXPONENT: f64 = 0.99;
/// Number of entries that are made between two updates of the progress bar.
const SAID_EVERY: usize = 4096;

/// The keys and values that a run writes. A value is a function of the seed and of the write's
/// number, so the workload keeps no values.
#[derive(Debug)]
pub(crate) struct Workload {
    seed: u64,
    value_bytes: usize,
    /// Key number of each popularity: the rank less 1 is the position. The order is random, so
    /// popular keys lie apart.
    key_of_rank: Vec<u32>,
    /// For each key number, the write that determines its value. Writes 0 to K - 1 are the preload.
    last_write: Vec<u64>,
}

/// Encoded keys and values, back to back, of consecutive writes.
#[derive(Debug)]
pub(crate) struct Writes {
    bytes: Vec<u8>,
    record_bytes: usize,
}

impl Workload {
    pub(crate) fn new(keys: u32, value_bytes: usize, seed: u64) -> Self {
        let mut random = Random::new(mix(seed));
        let mut key_of_rank: Vec<u32> = (0..keys).collect();
        for at in (1..keys).rev() {
            key_of_rank.swap(at as usize, below(&mut random, at + 1) as usize);
        }
        let last_write = (0..u64::from(keys)).collect();
        Self { seed, value_bytes, key_of_rank, last_write }
    }

    /// Number of keys.
    pub(crate) fn keys(&self) -> u32 {
        // The length fits, because it was made from a u32.
        u32::try_from(self.last_write.len()).unwrap_or(u32::MAX)
    }

    /// Bytes of a key and its value.
    pub(crate) fn record_bytes(&self) -> usize {
        KEY_BYTES + self.value_bytes
    }

    /// The first writes: one for each of these keys.
    pub(crate) fn preload(&self, keys: std::ops::Range<u32>) -> Writes {
        let mut writes = Writes::with_room_for(keys.len(), self.value_bytes);
        for number in keys {
            writes.push(number, self.value_bytes, &mut self.value_of(u64::from(number)));
        }
        writes
    }

    /// The writes after the preload, of keys by popularity; the model includes them from now on.
    /// Calls `made` now and then, with the number of writes made so far.
    pub(crate) fn updates(&mut self, count: usize, mut made: impl FnMut(u64)) -> Writes {
        let zipf = Zipf::new(self.keys(), EXPONENT);
        let mut random = Random::new(mix(self.seed ^ 0x7a69_7066));
        let mut writes = Writes::with_room_for(count, self.value_bytes);
        for (number, write) in (u64::from(self.keys())..).take(count).enumerate() {
            if number % SAID_EVERY == 0 {
                made(number as u64);
            }
            let rank = zipf.draw(&mut random) as usize;
            let number = self.key_of_rank[rank - 1];
            self.last_write[number as usize] = write;
            writes.push(number, self.value_bytes, &mut self.value_of(write));
        }
        writes
    }

    fn value_of(&self, write: u64) -> Random {
        Random::new(mix(mix(self.seed).wrapping_add(write)))
    }

    /// The digest and the number of keys of the expected state. `others` are keys from before that
    /// the workload does not write.
    pub(crate) fn model(&self, others: &BTreeMap<Vec<u8>, Vec<u8>>) -> (Digest, usize) {
        let mut digest = Digest::default();
        let count = others.len();
        let mut others = others.iter().peekable();
        let mut value = Vec::with_capacity(self.value_bytes);
        for number in 0..self.keys() {
            let key = key_of(number);
            while let Some((other, value)) = others.next_if(|(other, _)| other[..] < key[..]) {
                digest.add(other, value);
            }
            value.clear();
            fill(
                &mut value,
                self.value_bytes,
                &mut self.value_of(self.last_write[number as usize]),
            );
            digest.add(&key, &value);
        }
        others.for_each(|(other, value)| digest.add(other, value));
        (digest, self.last_write.len() + count)
    }

    /// Whether a key belongs to this workload.
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        let digits = key.strip_prefix(b"key-").filter(|digits| digits.len() == KEY_BYTES - 4);
        let number = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_digit))
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
        number.is_some_and(|number| number < u64::from(self.keys()))
    }
}

/// The key of a number; keys sort as their numbers do.
pub(crate) fn key_of(number: u32) -> [u8; KEY_BYTES] {
    let mut key = *b"key-000000000000";
    let mut left = number;
    for digit in key.iter_mut().rev() {
        if left == 0 {
            break;
        }
        // A digit fits a byte.
        *digit = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
    }
    key
}

/// Appends `len` printable characters from `random`.
fn fill(out: &mut Vec<u8>, len: usize, random: &mut Random) {
    const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut left = len;
    while left > 0 {
        let mut bits = random.next_u64();
        for _ in 0..left.min(10) {
            out.push(ALPHABET[(bits & 63) as usize]);
            bits >>= 6;
        }
        // The last word may have more letters than are wanted.
        left = left.saturating_sub(10);
    }
}

impl Writes {
    fn with_room_for(count: usize, value_bytes: usize) -> Self {
        let record_bytes = KEY_BYTES + value_bytes;
        Self { bytes: Vec::with_capacity(count * record_bytes), record_bytes }
    }

    fn push(&mut self, number: u32, value_bytes: usize, random: &mut Random) {
        self.bytes.extend_from_slice(&key_of(number));
        fill(&mut self.bytes, value_bytes, random);
    }

    /// The writes as puts; the first has the index `first`.
    pub(crate) fn entries(&self, first: u64, term: u64) -> Vec<Entry<'_>> {
        let records = self.bytes.chunks_exact(self.record_bytes);
        (first..)
            .zip(records)
            .map(|(index, record)| {
                let (key, value) = record.split_at(KEY_BYTES);
                Entry::put(index, term, key, value)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state_after(writes: &[&Writes]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let records = writes.iter().flat_map(|writes| writes.bytes.chunks(writes.record_bytes));
        records.map(|record| (record[..KEY_BYTES].to_vec(), record[KEY_BYTES..].to_vec())).collect()
    }

    fn digest_of(state: &BTreeMap<Vec<u8>, Vec<u8>>) -> String {
        let mut digest = Digest::default();
        state.iter().for_each(|(key, value)| digest.add(key, value));
        digest.to_string()
    }

    #[test]
    fn the_model_is_what_the_writes_lead_to() {
        for value_bytes in [0, 1, 10, 33] {
            let mut workload = Workload::new(50, value_bytes, 3);
            let preload = workload.preload(0..50);
            let updates = workload.updates(500, |_| ());
            let others: BTreeMap<_, _> = [&b"a"[..], b"key-", b"key-000000000007x", b"z"]
                .map(|key| (key.to_vec(), b"other".to_vec()))
                .into();
            assert!(others.keys().all(|key| !workload.has(key)));
            let mut state = state_after(&[&preload, &updates]);
            assert!(state.keys().all(|key| workload.has(key)));
            assert_eq!(workload.model(&BTreeMap::new()).0.to_string(), digest_of(&state));
            state.extend(others.clone());
            let (digest, keys) = workload.model(&others);
            assert_eq!((digest.to_string(), keys), (digest_of(&state), 50 + 4));
            assert_ne!(digest_of(&state_after(&[&preload])), digest_of(&state));
        }
    }

    #[test]
    fn values_differ_and_another_seed_makes_others() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in [1, 2] {
            let mut workload = Workload::new(10, 20, seed);
            let writes = [workload.preload(0..10), workload.updates(1000, |_| ())];
            for record in writes.iter().flat_map(|writes| writes.bytes.chunks(36)) {
                assert!(seen.insert(record[KEY_BYTES..].to_vec()));
            }
        }
    }

    #[test]
    fn keys_sort_as_their_numbers() {
        assert_eq!(&key_of(0), b"key-000000000000");
        assert_eq!(&key_of(u32::MAX), b"key-004294967295");
        assert!((0..2000).is_sorted_by_key(key_of));
        let workload = Workload::new(10, 0, 1);
        assert!(workload.has(&key_of(9)) && !workload.has(&key_of(10)));
    }

    #[test]
    fn entries_follow_each_other() {
        let workload = Workload::new(10, 5, 1);
        let writes = workload.preload(3..6);
        let entries = writes.entries(100, 2);
        let ids: Vec<_> =
            entries.iter().map(|entry| (entry.log_id.index, entry.log_id.term)).collect();
        assert_eq!(ids, [(100, 2), (101, 2), (102, 2)]);
    }
}
