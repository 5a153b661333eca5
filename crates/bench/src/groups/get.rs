//! Reads of random keys, every byte of a value touched: nanoseconds a read.

use std::time::Instant;

use anyhow::{Result, ensure};
use dashmap::DashMap;
use foldhash::fast::RandomState;
use sprag::{ApplyConfig, IoBackend};

use super::memory::{each, engine, table};
use super::{Settings, VALUE_BYTES};
use crate::measure::{Case, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::{Fjall, Lmdb, Redb, Sprag, Store, preload, sum};
use crate::workload::{Key, Writes, key_of, uniform};

/// Times a read of each of `keys`, and checks how many were found.
fn reads(
    keys: &[Key],
    found: usize,
    mut get: impl FnMut(&Key) -> Result<Option<u64>>,
) -> Result<Measured> {
    let (mut sums, mut hits) = (0_u64, 0);
    let started = Instant::now();
    for key in keys {
        if let Some(sum) = get(key)? {
            sums = sums.wrapping_add(sum);
            hits += 1;
        }
    }
    let measured = each(started, keys.len()).into();
    std::hint::black_box(sums);
    ensure!(hits == found, "{hits} keys were found, not {found}");
    Ok(measured)
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let count = if settings.quick { 200_000 } else { 1_000_000 };
    let first = Writes::new(0..keys, VALUE_BYTES, 1);
    let hit: Vec<Key> =
        uniform(keys, count, 7).iter().map(|number| key_of(*number as usize)).collect();
    let miss: Vec<Key> =
        uniform(keys, count, 8).iter().map(|number| key_of(*number as usize + keys)).collect();

    let raw = table(&first);
    let dash: DashMap<Key, Box<[u8]>, RandomState> =
        DashMap::with_capacity_and_hasher(keys, RandomState::default());
    first.pairs().for_each(|(key, value)| drop(dash.insert(*key, Box::from(value))));
    let papaya: papaya::HashMap<Key, Box<[u8]>, RandomState> =
        papaya::HashMap::with_capacity_and_hasher(keys, RandomState::default());
    {
        let map = papaya.pin();
        first.pairs().for_each(|(key, value)| {
            map.insert(*key, Box::from(value));
        });
    }
    let memory = engine(&first, ApplyConfig::new())?;
    let dir = |name: &str| settings.dir.join(name);
    let mut persistent = Sprag::create(&dir("get-sprag"), keys, IoBackend::Auto)?;
    let mut fjall = Fjall::create(&dir("get-fjall"))?;
    let mut redb = Redb::create(&dir("get-redb"))?;
    let mut lmdb = Lmdb::create(&dir("get-lmdb"))?;
    let stores: [&mut dyn Store; 4] = [&mut persistent, &mut fjall, &mut redb, &mut lmdb];
    for store in stores {
        preload(store, &first)?;
    }

    let mut rows = Vec::new();
    for (name, keys, found) in [("hit", &hit[..], count), ("miss", &miss[..], 0)] {
        let memory_machine = memory.machine();
        let persistent_machine = persistent.manager.machine();
        let (raw, dash, papaya) = (&raw, &dash, &papaya);
        let (fjall, redb, lmdb) = (&fjall, &redb, &lmdb);
        let subjects = vec![
            Subject::new("hashbrown", Role::Limit, move || {
                reads(keys, found, |key| Ok(raw.get(key).map(|value| sum(value))))
            }),
            Subject::new("sprag memory, get_with", Role::Sprag, move || {
                reads(keys, found, |key| Ok(memory_machine.get_with(key, sum)?))
            }),
            Subject::new("sprag memory, get", Role::Sprag, move || {
                reads(keys, found, |key| Ok(memory_machine.get(key)?.map(|value| sum(&value))))
            }),
            Subject::new("dashmap", Role::Peer, move || {
                reads(keys, found, |key| Ok(dash.get(key).map(|value| sum(&value))))
            }),
            Subject::new("papaya", Role::Peer, move || {
                let map = papaya.pin();
                reads(keys, found, |key| Ok(map.get(key).map(|value| sum(value))))
            }),
        ];
        let case = Case {
            group: "get",
            name: format!("{name}, in memory"),
            figures: vec![("", Unit::Nanoseconds)],
            subjects,
        };
        rows.extend(case.run(settings.rounds)?);
        let subjects = vec![
            Subject::new("sprag persistent, get_with", Role::Sprag, move || {
                reads(keys, found, |key| Ok(persistent_machine.get_with(key, sum)?))
            }),
            Subject::new("sprag persistent, get", Role::Sprag, move || {
                reads(keys, found, |key| Ok(persistent_machine.get(key)?.map(|value| sum(&value))))
            }),
            Subject::new("fjall", Role::Peer, move || reads(keys, found, |key| fjall.get(key))),
            Subject::new("redb", Role::Peer, move || reads(keys, found, |key| redb.get(key))),
            Subject::new("lmdb (heed)", Role::Peer, move || {
                reads(keys, found, |key| lmdb.get(key))
            }),
        ];
        let case = Case {
            group: "get",
            name: format!("{name}, on disk"),
            figures: vec![("", Unit::Nanoseconds)],
            subjects,
        };
        rows.extend(case.run(settings.rounds)?);
    }
    Ok(rows)
}
