//! Tests of lost, misdirected, duplicated or flipped sectors: refused where they were durable, and
//! a prefix where not.

use std::collections::BTreeMap;

use sprag::error::OpenError;
use sprag::testing::SimDisk;
use sprag::{PersistentStateMachine, StateMachine};

use crate::simulation::random::{Random, for_seeds};
use crate::simulation::world::{Crash, Shape, World};

const SECTOR_BYTES: u64 = 512;

type Files = BTreeMap<String, Vec<u8>>;

fn files(disk: &SimDisk) -> Files {
    disk.file_names()
        .into_iter()
        .map(|name| (name.clone(), disk.read_file(&name).unwrap()))
        .collect()
}

/// Makes the sector at `offset` read as `bytes`, on the medium. Returns whether that changes it.
fn overwrite(disk: &SimDisk, file: &str, offset: u64, bytes: &[u8]) -> bool {
    let now = disk.read_file(file).unwrap();
    let mut changed = false;
    for (at, byte) in (offset..).zip(bytes) {
        let xor = now.get(at as usize).map_or(0, |known| known ^ byte);
        if xor != 0 {
            assert!(disk.corrupt(file, at, xor));
            changed = true;
        }
    }
    changed
}

fn sector(bytes: &[u8], number: u64) -> &[u8] {
    let start = (number * SECTOR_BYTES) as usize;
    &bytes[start.min(bytes.len())..(start + SECTOR_BYTES as usize).min(bytes.len())]
}

/// A world of a few segments, closed or killed, with its files from halfway.
fn written(seed: u64, closed: bool) -> (World, Files) {
    let shape = Shape { value_bytes_max: 1200, ..Shape::plain() };
    let mut world = World::new(seed, shape);
    let node = world.open_whole().unwrap();
    world.drive(&node, 40).unwrap();
    let earlier = files(&world.disk);
    world.drive(&node, 40).unwrap();
    if closed {
        node.close().unwrap();
    } else {
        drop(node);
    }
    world.crash(Crash::Process);
    (world, earlier)
}

/// Damages something. Returns the kind of damage, the file and the offset.
fn damage(random: &mut Random, disk: &SimDisk, earlier: &Files) -> Option<(String, String, u64)> {
    let now = files(disk);
    let names: Vec<&String> = now.keys().collect();
    let name = names[random.below(names.len())];
    let bytes = &now[name];
    let used = bytes.iter().rposition(|byte| *byte != 0)? as u64 + 1;
    let number = random.next() % used.div_ceil(SECTOR_BYTES);
    let offset = number * SECTOR_BYTES;
    let other = names[random.below(names.len())];
    let elsewhere = sector(&now[other], random.next() % (now[other].len() as u64 / SECTOR_BYTES));
    let (what, done) = match random.below(5) {
        0 => {
            let at = random.next() % used;
            let done = disk.corrupt(name, at, 1 << random.below(8));
            return done.then(|| ("a flipped bit".to_owned(), name.clone(), at));
        }
        1 => ("a lost sector", overwrite(disk, name, offset, &[0; SECTOR_BYTES as usize])),
        2 => {
            let stale = earlier.get(name)?;
            ("a stale sector", overwrite(disk, name, offset, sector(stale, number)))
        }
        3 => ("a misdirected sector", {
            let target = random.next() % used.div_ceil(SECTOR_BYTES) * SECTOR_BYTES;
            let stale = earlier.get(name).map_or(&[][..], |stale| sector(stale, number));
            let moved = overwrite(disk, name, target, sector(bytes, number));
            // The earlier content stays at the intended place.
            (target != offset && overwrite(disk, name, offset, stale)) || moved
        }),
        _ => ("a duplicated sector", overwrite(disk, name, offset, elsewhere)),
    };
    done.then(|| (what.to_owned(), name.clone(), offset))
}

/// Opens. Returns whether it was refused, and checks that everything is there otherwise.
fn open_damaged(world: &World, least: usize) -> Result<bool, String> {
    let before = files(&world.disk);
    let disk = world.disk.open(true).unwrap();
    match PersistentStateMachine::open_on_disk(disk, world.config()) {
        Err(OpenError::Corrupt(_)) => {
            if files(&world.disk) != before {
                return Err("a refused directory was changed".to_owned());
            }
            Ok(true)
        }
        Err(error) => Err(format!("refused, but not as corrupt: {error}")),
        Ok(machine) => {
            let count = world.history.count_to(machine.applied().map(|last| last.index));
            if count < least || count > world.history.len() {
                return Err(format!("{count} entries instead of {least} or more"));
            }
            world.compare_state(&machine, count)?;
            Ok(false)
        }
    }
}

#[test]
fn campaign_damage_below_the_durable_watermark() {
    let (mut refused, mut damaged) = (0, 0);
    for_seeds("campaign_damage_below_the_durable_watermark", 200, |seed| {
        let (world, earlier) = written(seed % 4, true);
        let mut random = Random::new(seed);
        let Some((what, file, at)) = damage(&mut random, &world.disk, &earlier) else {
            return Ok(0);
        };
        // Bytes between frames, or in the earlier META, report nothing; but nothing is missing
        // either.
        let all = world.history.len();
        let outcome = open_damaged(&world, all);
        damaged += 1;
        refused +=
            u64::from(outcome.map_err(|wrong| format!("{what} in {file} at {at}: {wrong}"))?);
        Ok(1)
    });
    println!("{refused} of {damaged} were refused");
    assert!(damaged < 100 || refused * 10 > damaged * 8);
}

/// Proves DUR-12.
#[test]
fn campaign_damage_at_the_end_of_a_log_that_was_not_closed() {
    let (mut refused, mut opened) = (0, 0);
    for_seeds("campaign_damage_at_the_end_of_a_log_that_was_not_closed", 200, |seed| {
        let (world, earlier) = written(seed % 4, false);
        let mut random = Random::new(seed);
        let Some((what, file, at)) = damage(&mut random, &world.disk, &earlier) else {
            return Ok(0);
        };
        let outcome = open_damaged(&world, 0);
        match outcome.map_err(|wrong| format!("{what} in {file} at {at}: {wrong}"))? {
            true => refused += 1,
            false => opened += 1,
        }
        Ok(1)
    });
    println!("{refused} were refused, {opened} cut or opened whole");
    assert!(refused + opened < 100 || (refused > 0 && opened > 0));
}

#[test]
fn every_bit_of_the_last_frame_is_a_cut_and_of_the_one_before_it_corruption() {
    // Each group has one frame: damage to the last group looks like a cut.
    let plain = Shape { submission_max: 1, frame_entries: 1, ..Shape::plain() };
    let shape = Shape { group_bytes: 1, value_bytes_max: 8, ..plain };
    let make = || {
        let mut world = World::new(1, shape.clone());
        let node = world.open_whole().unwrap();
        world.drive(&node, 6).unwrap();
        drop(node);
        world.crash(Crash::Process);
        world
    };
    let name = make().disk.file_names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let bytes = make().disk.read_file(&name).unwrap();
    // Frames start with the same four bytes, at multiples of 64.
    let starts: Vec<usize> =
        (0..bytes.len()).step_by(64).filter(|at| bytes[*at..*at + 4] == bytes[..4]).collect();
    let [.., before, last] = starts[..] else { panic!("a few frames") };
    for at in before..bytes.len().min(last + 200) {
        let world = make();
        if !world.disk.corrupt(&name, at as u64, 0x10) {
            break;
        }
        let refused = open_damaged(&world, if at < last { 6 } else { 5 });
        let refused = refused.unwrap_or_else(|wrong| panic!("byte {at}: {wrong}"));
        let padding = bytes[at..last.max(at)].iter().all(|byte| *byte == 0);
        assert!(refused == (at < last) || padding, "byte {at} of {before}, {last}");
    }
}
