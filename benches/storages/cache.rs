//! Gets and batches of a machine, with the read cache and without it.

use sprag::StorageConfig;
use sprag::machine::storage::{Storage, StorageMachine};
use sprag::testing::Random;

use super::{Machine, Pair, ROUNDS, Target, VALUE_BYTES, each, key, median, timed};

/// Number of hot keys, which all fit the cache.
const HOT_KEYS: u64 = 5_000;
const GETS: usize = 200_000;

/// Microseconds for a get of one of `keys`, the median of the rounds.
fn get<S: Storage>(machine: &Machine<StorageMachine<S>>, keys: u64) -> f64 {
    let (reader, mut random) = (machine.manager.machine(), Random::new(4));
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            timed(|| {
                for _ in 0..GETS {
                    let found = reader.get(&key(random.next_u64() % keys)).unwrap();
                    assert_eq!(found.map(|value| value.len()), Some(VALUE_BYTES));
                }
            })
        })
        .collect();
    each(median(&mut times), GETS)
}

/// Microseconds for an entry of batches that write `keys`.
fn write<S: Storage>(machine: &mut Machine<StorageMachine<S>>, keys: u64) -> f64 {
    let mut random = Random::new(5);
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let number = |random: &mut Random| random.next_u64() % keys;
            let batch = |random: &mut Random| -> Vec<Pair> {
                (0..1_000).map(|_| (key(number(random)), random.bytes(VALUE_BYTES))).collect()
            };
            let work: Vec<_> = (0..10).map(|_| batch(&mut random)).collect();
            timed(|| machine.run(&work))
        })
        .collect();
    each(median(&mut times), 10_000)
}

pub(super) fn measure(target: &impl Target, keys: u64) {
    let directory = tempfile::tempdir().unwrap();
    let config = StorageConfig::new().batch_size(1_000).sync_writes(false);
    let mut filling = Machine::with(target.storage(directory.path()), config.clone());
    let mut random = Random::new(2);
    for first in (0..keys).step_by(1_000) {
        let pair = |number| (key(number), random.bytes(VALUE_BYTES));
        filling.run(&[(first..(first + 1_000).min(keys)).map(pair).collect()]);
    }
    filling.manager.close(super::PATIENT).unwrap();
    println!("| {keys} keys, {VALUE_BYTES} B values, us each | without the cache | with it |");
    println!("|---|---|---|");
    let [mut without, mut with] = [vec![], vec![]];
    for (figures, enable) in [(&mut without, false), (&mut with, true)] {
        let config = config.clone().enable_cache(enable);
        let mut machine = Machine::with(target.storage(directory.path()), config);
        figures.push(get(&machine, HOT_KEYS));
        figures.push(write(&mut machine, HOT_KEYS));
        figures.push(get(&machine, keys));
        figures.push(write(&mut machine, keys));
        machine.manager.close(super::PATIENT).unwrap();
    }
    let names = [
        format!("a get of one of {HOT_KEYS} keys"),
        format!("an entry of a batch that writes {HOT_KEYS} keys"),
        "a get of any key".to_owned(),
        "an entry of a batch that writes any key".to_owned(),
    ];
    for (name, (without, with)) in names.iter().zip(without.iter().zip(&with)) {
        println!("| {name} | {without:.2} | {with:.2} |");
    }
}
