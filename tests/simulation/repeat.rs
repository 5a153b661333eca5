//! Tests that a seed repeats a run to the byte: the content of the disk, and every operation.

use std::collections::BTreeMap;

use sprag::Durability;
use sprag::testing::Fault;

use crate::simulation::world::{Crash, World};

/// Every file, and the operations of the disk since the last crash.
type Left = (BTreeMap<String, Vec<u8>>, Vec<String>);

/// A life with a power cut in it, which the same seed decides.
fn left_by(seed: u64, durability: Durability) -> Left {
    let mut world = World::random(seed);
    world.shape.durability = durability;
    world.run(40).unwrap();
    let operation = world.random.below(40) as u64;
    world.arm(operation, Fault::PowerCut);
    world.run(40).unwrap();
    let mask = world.random.next();
    world.crash(Crash::Power(mask));
    world.recover(1, 10).unwrap();
    let names = world.disk.file_names().into_iter();
    let files = names.map(|name| (name.clone(), world.disk.read_file(&name).unwrap()));
    (files.collect(), world.disk.trace())
}

#[test]
fn the_same_seed_leaves_the_same_bytes() {
    for seed in 0..20 {
        for durability in [Durability::Sync, Durability::Os] {
            let (files, trace) = left_by(seed, durability);
            assert!(files.contains_key("META") && files.len() > 1 && !trace.is_empty());
            let again = left_by(seed, durability);
            assert_eq!(trace, again.1, "seed {seed}");
            for (name, bytes) in &files {
                assert!(again.0.get(name) == Some(bytes), "{name} differs, seed {seed}");
            }
            assert_eq!(files.len(), again.0.len());
        }
    }
}

#[test]
fn another_seed_is_another_directory() {
    let identity = |seed: u64| {
        let (files, _) = left_by(seed, Durability::Sync);
        // Database id and hash seed are in the slot that is written first.
        let slot = &files["META"][4096..];
        (slot[16..32].to_vec(), slot[64..72].to_vec())
    };
    let (first, second) = (identity(1), identity(2));
    assert!(first.0 != second.0 && first.1 != second.1);
    assert_ne!(first.0, [0; 16]);
}
