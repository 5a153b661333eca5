//! Random operations that collide: few keys, and values that are numbers, nearly numbers, binary,
//! empty, or large.

use proptest::collection::vec;
use proptest::prelude::*;
use sprag::testing::Random;

use super::ops::{Cmd, Op};

/// Keys with lengths at internal limits (22 bytes fit a slot), and with the first and last byte.
pub fn keys() -> Vec<Vec<u8>> {
    vec![
        vec![0],
        vec![0xff],
        vec![0xff, 0xfe],
        b"a".to_vec(),
        b"b".to_vec(),
        b"counter".to_vec(),
        b"counter2".to_vec(),
        vec![0; 22],
        vec![b'k'; 23],
        vec![0xc3; 300],
        "\u{fc}nicode".as_bytes().to_vec(),
    ]
}

pub fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(keys())
}

/// Values that an increment must distinguish.
fn numberish() -> impl Strategy<Value = Vec<u8>> {
    let texts: &[&str] = &[
        "0",
        "1",
        "-1",
        "7",
        "-0",
        "00",
        "01",
        "+1",
        " 1",
        "1 ",
        "1.0",
        "1e3",
        "-",
        "0x10",
        "9007199254740993",
        "9223372036854775806",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775807",
        "-9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999999",
        "\u{664}",
    ];
    prop::sample::select(texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>())
}

fn run_of(byte: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| byte.wrapping_add(at as u8)).collect()
}

fn small() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(Vec::new()),
        10 => numberish(),
        8 => vec(any::<u8>(), 1..24),
        6 => (any::<u8>(), prop::sample::select(vec![127, 128, 129, 255, 256, 1000, 4096]))
            .prop_map(|(byte, len)| run_of(byte, len)),
    ]
}

pub fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        28 => small(),
        1 => (any::<u8>(), 60_000..=70 * 1024_usize).prop_map(|(byte, len)| run_of(byte, len)),
    ]
}

fn by() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => -3..4_i64,
        1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, -1, 1, i64::MAX - 1, i64::MAX]),
        1 => any::<i64>(),
    ]
}

/// A command whose values come from `value`.
fn command(value: impl Strategy<Value = Vec<u8>> + Clone + 'static) -> impl Strategy<Value = Cmd> {
    prop_oneof![
        4 => (key(), value.clone()).prop_map(|(key, value)| Cmd::Put { key, value }),
        2 => key().prop_map(|key| Cmd::Delete { key }),
        4 => (key(), by()).prop_map(|(key, by)| Cmd::Increment { key, by }),
        // Absent, empty and small-number values are likely to match.
        3 => (key(), expected(), prop::option::of(value))
            .prop_map(|(key, expected, new)| Cmd::CompareAndSet { key, expected, new }),
    ]
}

fn expected() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        3 => Just(None),
        2 => Just(Some(Vec::new())),
        2 => (-3..4_i64).prop_map(|number| Some(number.to_string().into_bytes())),
        1 => numberish().prop_map(Some),
    ]
}

pub fn op() -> impl Strategy<Value = Op> {
    // Use small values in batches, so that an entry fits a segment of 128 KiB.
    let note = (prop::sample::select(vec![b"n".to_vec(), b"a".to_vec()]), small());
    let value = value().boxed();
    let small = small().boxed();
    prop_oneof![
        30 => command(value).prop_map(Op::One),
        4 => (vec(command(small), 0..5), prop::option::of(note))
            .prop_map(|(commands, note)| Op::Batch { commands, note }),
        1 => Just(Op::Noop),
        1 => vec(any::<u8>(), 0..40).prop_map(Op::Membership),
        1 => vec(any::<u8>(), 0..40).prop_map(Op::Opaque),
    ]
}

/// Random numbers of a seed, for tests that are loops instead of properties.
#[derive(Debug)]
pub struct Dice(Random);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit
    }
}
