//! Reads of random keys, every byte of a value touched: nanoseconds a read, alone and beside
//! updates.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use dashmap::DashMap;
use foldhash::fast::RandomState;
use sprag::{ApplyConfig, ApplyManager, IoBackend, MemoryStateMachine};

use super::{Settings, VALUE_BYTES, each};
use crate::latency::Waits;
use crate::measure::{Case, Figure, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::maps::{Dash, Papaya, Table};
use crate::subjects::{self, Peer, Sprag, maps, preload, submit_all, sum};
use crate::workload::{Key, Writes, key_of, uniform, zipfian};

/// Everything that is read.
struct All {
    raw: Table,
    /// Places of values in `values`, as a log has them.
    places: DashMap<Key, usize, RandomState>,
    values: Vec<u8>,
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
        places: (0..keys).map(|at| (key_of(at), at * VALUE_BYTES)).collect(),
        values: first.pairs().flat_map(|(_, value)| value).copied().collect(),
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

/// Reads through DashMap's raw interface: one hash, one lock, one probe.
#[inline]
fn raw_get<V, R>(
    map: &DashMap<Key, V, RandomState>,
    key: &Key,
    read: impl FnOnce(&V) -> R,
) -> Option<R> {
    let hash = map.hash_usize(key);
    let shard = map.shards()[map.determine_shard(hash)].read();
    shard.get(hash as u64, |(known, _)| known == key).map(|(_, value)| read(value.get()))
}

/// The figures of reads beside updates: the mean, then percentiles of single reads.
fn beside_figures() -> Vec<Figure> {
    let mut figures = Figure::only(Unit::NanosecondsEach);
    for name in ["p50 of a read", "p99 of a read", "p99.9 of a read"] {
        figures.push(Figure { name: name.to_owned(), unit: Unit::Nanoseconds, point: None });
    }
    figures
}

/// Adds percentiles of single reads, clock read included, to the mean.
fn reads_and_percentiles(
    keys: &[Key],
    mut get: impl FnMut(&Key) -> Result<Option<u64>>,
) -> Result<Measured> {
    let mut measured = reads(keys, keys.len(), &mut get)?;
    let mut waits = Waits::new()?;
    for key in keys.iter().step_by(8) {
        let started = Instant::now();
        std::hint::black_box(get(key)?);
        waits.record(started.elapsed())?;
    }
    let quantiles = waits.values(Unit::Nanoseconds);
    measured.values.extend([quantiles[0], quantiles[2], quantiles[3]]);
    Ok(measured)
}

fn beside_case(settings: &Settings, name: &str, subjects: Vec<Subject<'_>>) -> Result<Vec<Row>> {
    let figures = beside_figures();
    Case { group: "get", name: name.to_owned(), figures, subjects }.run(settings.rounds)
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
        Subject::new("dashmap, raw interface", Role::Limit, move || {
            reads(keys, found, |key| Ok(raw_get(dash, key, |value| sum(value))))
        }),
        Subject::new("hashbrown", Role::Limit, move || {
            reads(keys, found, |key| Ok(raw.get(key).map(|value| sum(value))))
        })
        .differs(Some("it takes no lock")),
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
        Subject::new("dashmap, raw interface, and a read of a log", Role::Limit, move || {
            let value = |at: &usize| sum(&all.values[*at..*at + VALUE_BYTES]);
            reads(keys, found, |key| Ok(raw_get(&all.places, key, value)))
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
    let get = move |key: &Key| Ok(machine.get_with(key, sum)?);
    let subjects = vec![
        Subject::new("sprag memory, alone", Role::Limit, move || reads_and_percentiles(keys, get)),
        Subject::new("sprag memory, get_with", Role::Sprag, move || {
            let update = || {
                let first = memory.applied().map_or(1, |last| last.index + 1);
                submit_all(memory, &updates.entries(first))
            };
            beside(update, || reads_and_percentiles(keys, get))
        }),
        Subject::new("dashmap", Role::Peer, move || {
            let update = || {
                let pairs = updates.pairs();
                pairs.for_each(|(key, value)| drop(dash.insert(*key, Box::from(value))));
                Ok(())
            };
            let get = |key: &Key| Ok(dash.get(key).map(|value| sum(&value)));
            beside(update, || reads_and_percentiles(keys, get))
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
            beside(update, || reads_and_percentiles(keys, get))
        }),
    ];
    beside_case(settings, "hit beside updates, in memory", subjects)
}

fn beside_disk(settings: &Settings, all: &All, keys: &[Key], updates: &Writes) -> Result<Vec<Row>> {
    const OF_GROUP: usize = 1_024;
    let sprag = &all.persistent;
    let machine = sprag.manager.machine();
    let get = move |key: &Key| Ok(machine.get_with(key, sum)?);
    let mut subjects = vec![
        Subject::new("sprag persistent, alone", Role::Limit, move || {
            reads_and_percentiles(keys, get)
        }),
        Subject::new("sprag persistent, get_with", Role::Sprag, move || {
            beside(|| sprag.flat_out(updates).map(drop), || reads_and_percentiles(keys, get))
        }),
    ];
    subjects.extend(all.storages.iter().map(|peer| {
        let read = move || {
            let update = || {
                // One group, so that a slow peer stops soon after the reads do.
                peer.store.write(&mut updates.pairs().take(OF_GROUP))
            };
            beside(update, || reads_and_percentiles(keys, |key| peer.store.get(key)))
        };
        Subject::new(peer.name, Role::Peer, read)
    }));
    beside_case(settings, "hit beside updates, durable state", subjects)
}
