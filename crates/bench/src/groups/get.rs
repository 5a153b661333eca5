//! Reads of random keys, every byte of a value touched: nanoseconds a read, alone and beside
//! updates.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use sprag::{ApplyConfig, ApplyManager, IoBackend, MemoryStateMachine};

use super::{Settings, VALUE_BYTES, each};
use crate::measure::{Case, Figure, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::maps::{Dash, Papaya, Table};
use crate::subjects::{self, Peer, Sprag, maps, preload, submit_all, sum};
use crate::workload::{Key, Writes, key_of, uniform, zipfian};

/// Everything that is read.
struct All {
    raw: Table,
    dash: Dash,
    papaya: Papaya,
    memory: ApplyManager<MemoryStateMachine>,
    persistent: Sprag,
    storages: Vec<Peer>,
}

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
    let count = settings.scaled(1_000_000);
    let first = Writes::new(0..keys, VALUE_BYTES, 1);
    let random = |seed, offset| -> Vec<Key> {
        uniform(keys, count, seed).iter().map(|at| key_of(*at as usize + offset)).collect()
    };
    let (hit, miss) = (random(7, 0), random(8, keys));
    let all = All {
        raw: maps::filled(keys),
        dash: maps::filled(keys),
        papaya: maps::filled(keys),
        memory: maps::engine(keys, ApplyConfig::new())?,
        persistent: Sprag::create(&settings.dir.join("get-sprag"), keys, IoBackend::Auto)?,
        storages: subjects::storages(&settings.dir, "get")?,
    };
    preload(&all.persistent, &first)?;
    all.storages.iter().try_for_each(|peer| preload(&*peer.store, &first))?;

    let mut rows = Vec::new();
    for (name, keys, found) in [("hit", &hit[..], count), ("miss", &miss[..], 0)] {
        rows.extend(in_memory(settings, &all, name, keys, found)?);
        rows.extend(on_disk(settings, &all, name, keys, found)?);
    }
    let updates = Writes::of(&zipfian(keys, settings.scaled(100_000), 2), VALUE_BYTES, 3);
    rows.extend(beside_memory(settings, &all, &hit, &updates)?);
    rows.extend(beside_disk(settings, &all, &hit, &updates)?);
    Ok(rows)
}

fn case(settings: &Settings, name: String, subjects: Vec<Subject<'_>>) -> Result<Vec<Row>> {
    let figures = Figure::only(Unit::NanosecondsEach);
    Case { group: "get", name, figures, subjects }.run(settings.rounds)
}

fn in_memory(
    settings: &Settings,
    all: &All,
    name: &str,
    keys: &[Key],
    found: usize,
) -> Result<Vec<Row>> {
    let All { raw, dash, papaya, memory, .. } = all;
    let machine = memory.machine();
    let subjects = vec![
        Subject::new("hashbrown", Role::Limit, move || {
            reads(keys, found, |key| Ok(raw.get(key).map(|value| sum(value))))
        }),
        Subject::new("sprag memory, get_with", Role::Sprag, move || {
            reads(keys, found, |key| Ok(machine.get_with(key, sum)?))
        }),
        Subject::new("sprag memory, get", Role::Sprag, move || {
            reads(keys, found, |key| Ok(machine.get(key)?.map(|value| sum(&value))))
        }),
        Subject::new("dashmap", Role::Peer, move || {
            reads(keys, found, |key| Ok(dash.get(key).map(|value| sum(&value))))
        }),
        Subject::new("papaya", Role::Peer, move || {
            let map = papaya.pin();
            reads(keys, found, |key| Ok(map.get(key).map(|value| sum(value))))
        }),
    ];
    case(settings, format!("{name}, in memory"), subjects)
}

fn on_disk(
    settings: &Settings,
    all: &All,
    name: &str,
    keys: &[Key],
    found: usize,
) -> Result<Vec<Row>> {
    let machine = all.persistent.manager.machine();
    let mut subjects = vec![
        Subject::new("hashbrown", Role::Limit, move || {
            reads(keys, found, |key| Ok(all.raw.get(key).map(|value| sum(value))))
        }),
        Subject::new("sprag persistent, get_with", Role::Sprag, move || {
            reads(keys, found, |key| Ok(machine.get_with(key, sum)?))
        }),
        Subject::new("sprag persistent, get", Role::Sprag, move || {
            reads(keys, found, |key| Ok(machine.get(key)?.map(|value| sum(&value))))
        }),
    ];
    subjects.extend(all.storages.iter().map(|peer| {
        let read = move || reads(keys, found, |key| peer.store.get(key));
        Subject::new(peer.name, Role::Peer, read)
    }));
    case(settings, format!("{name}, durable state"), subjects)
}

/// Runs `read` here while another thread calls `update` over and over.
fn beside(
    update: impl Fn() -> Result<()> + Send,
    read: impl FnOnce() -> Result<Measured>,
) -> Result<Measured> {
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        let updater = scope.spawn(move || {
            // Relaxed: nothing else is handed over by it.
            while !stop.load(Ordering::Relaxed) {
                update()?;
            }
            anyhow::Ok(())
        });
        let measured = read();
        stop.store(true, Ordering::Relaxed);
        updater.join().map_err(|_| anyhow!("the updater panicked"))??;
        measured
    })
}

fn beside_memory(
    settings: &Settings,
    all: &All,
    keys: &[Key],
    updates: &Writes,
) -> Result<Vec<Row>> {
    let All { dash, papaya, memory, .. } = all;
    let machine = memory.machine();
    let count = keys.len();
    let get = move |key: &Key| Ok(machine.get_with(key, sum)?);
    let subjects = vec![
        Subject::new("sprag memory, alone", Role::Limit, move || reads(keys, count, get)),
        Subject::new("sprag memory, get_with", Role::Sprag, move || {
            let update = || {
                let first = memory.applied().map_or(1, |last| last.index + 1);
                submit_all(memory, &updates.entries(first))
            };
            beside(update, || reads(keys, count, get))
        }),
        Subject::new("dashmap", Role::Peer, move || {
            let update = || {
                let pairs = updates.pairs();
                pairs.for_each(|(key, value)| drop(dash.insert(*key, Box::from(value))));
                Ok(())
            };
            let get = |key: &Key| Ok(dash.get(key).map(|value| sum(&value)));
            beside(update, || reads(keys, count, get))
        }),
        Subject::new("papaya", Role::Peer, move || {
            let update = || {
                let map = papaya.pin();
                updates.pairs().for_each(|(key, value)| {
                    map.insert(*key, Box::from(value));
                });
                Ok(())
            };
            // A guard for each read: one that lives for long keeps what is replaced meanwhile.
            let get = |key: &Key| Ok(papaya.pin().get(key).map(|value| sum(value)));
            beside(update, || reads(keys, count, get))
        }),
    ];
    case(settings, "hit beside updates, in memory".to_owned(), subjects)
}

fn beside_disk(settings: &Settings, all: &All, keys: &[Key], updates: &Writes) -> Result<Vec<Row>> {
    const OF_GROUP: usize = 1_024;
    let sprag = &all.persistent;
    let machine = sprag.manager.machine();
    let count = keys.len();
    let get = move |key: &Key| Ok(machine.get_with(key, sum)?);
    let mut subjects = vec![
        Subject::new("sprag persistent, alone", Role::Limit, move || reads(keys, count, get)),
        Subject::new("sprag persistent, get_with", Role::Sprag, move || {
            beside(|| sprag.flat_out(updates).map(drop), || reads(keys, count, get))
        }),
    ];
    subjects.extend(all.storages.iter().map(|peer| {
        let read = move || {
            let update = || {
                // One group, so that a slow peer stops soon after the reads do.
                peer.store.write(&mut updates.pairs().take(OF_GROUP))
            };
            beside(update, || reads(keys, count, |key| peer.store.get(key)))
        };
        Subject::new(peer.name, Role::Peer, read)
    }));
    case(settings, "hit beside updates, durable state".to_owned(), subjects)
}
