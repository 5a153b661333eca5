//! Latency of entries that arrive at a fixed rate, from due to acknowledged.

use std::time::{Duration, Instant};

use anyhow::Result;
use sprag::{ApplyConfig, IoBackend};

use super::{Settings, VALUE_BYTES, each};
use crate::latency::figures;
use crate::measure::{Case, Figure, Measured, Subject};
use crate::open_loop::{self, Load};
use crate::report::{Role, Row, Unit};
use crate::subjects::maps::{Table, engine, filled, overwrite};
use crate::subjects::{self, Raw, Sprag, Store, fresh, preload, submit_all};
use crate::workload::{Writes, zipfian};

/// Rate that every subject keeps up with, in entries a second.
const SAME_RATE: f64 = 20_000.0;
/// Entries of a call as a storage's top rate is measured.
const OF_GROUP: usize = 1_024;

fn duration(settings: &Settings) -> Duration {
    Duration::from_millis(settings.scaled(1_000) as u64)
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let dir = settings.dir.join("arrivals");
    fresh(&dir)?;
    let first = Writes::new(0..keys, VALUE_BYTES, 1);
    let updates = Writes::of(&zipfian(keys, settings.scaled(500_000), 2), VALUE_BYTES, 3);
    let raw = Raw::create(&dir.join("raw"))?;
    let sprag = Sprag::create(&dir.join("sprag"), keys, IoBackend::Auto)?;
    preload(&sprag, &first)?;
    let mut peers = subjects::storages(&dir, "peer")?;
    peers.iter().try_for_each(|peer| preload(&*peer.store, &first))?;
    peers.extend(subjects::logs(&dir, "peer")?);
    drop(first);

    let load = Load::new(SAME_RATE, duration(settings));
    let mut subjects = vec![
        Subject::new("pwrite + fdatasync, written before", Role::Limit, || {
            blocking(&raw, &updates, load)
        }),
        Subject::new("sprag", Role::Sprag, || ours(&sprag, &updates, load)),
    ];
    subjects.extend(peers.iter().map(|peer| {
        let run = || blocking(&*peer.store, &updates, load);
        Subject::new(peer.name, Role::Peer, run).differs(peer.why)
    }));
    let name = format!("durable, {SAME_RATE} entries a second");
    let figures = figures(Unit::Microseconds, &name);
    let mut rows = Case { group: "arrivals", name, figures, subjects }.run(settings.rounds)?;

    let at_half = |top: &mut Option<f64>, measure: &dyn Fn() -> Result<f64>| {
        let ns_each = top.map_or_else(measure, Ok)?;
        *top = Some(ns_each);
        anyhow::Ok(Load::new(0.5e9 / ns_each, duration(settings)))
    };
    let (sprag, updates) = (&sprag, &updates);
    let mut top = None;
    let mut subjects = vec![Subject::new("sprag", Role::Sprag, move || {
        let load = at_half(&mut top, &|| Ok(sprag.flat_out(updates)?.ns_each))?;
        with_interval(ours(sprag, updates, load)?, load)
    })];
    subjects.extend(peers.iter().map(|peer| {
        let mut top = None;
        let store = &*peer.store;
        let run = move || {
            let load = at_half(&mut top, &|| top_of(store, updates))?;
            with_interval(blocking(store, updates, load)?, load)
        };
        Subject::new(peer.name, Role::Peer, run).differs(peer.why)
    }));
    rows.extend(half_rate(settings, "durable, each at half of its own top rate", subjects)?);
    rows.extend(memory(settings, updates)?);
    fresh(&dir)?;
    Ok(rows)
}

/// A case whose subjects have rates of their own: the last figure is the time between two entries.
fn half_rate(settings: &Settings, name: &str, subjects: Vec<Subject<'_>>) -> Result<Vec<Row>> {
    let mut figures = figures(Unit::Microseconds, name);
    let interval = "time between two entries".to_owned();
    figures.push(Figure { name: interval, unit: Unit::NanosecondsEach, point: None });
    Case { group: "arrivals", name: name.to_owned(), figures, subjects }.run(settings.rounds)
}

fn with_interval(mut measured: Measured, load: Load) -> Result<Measured> {
    measured.values.push(1e9 / load.rate);
    Ok(measured)
}

fn ours(sprag: &Sprag, updates: &Writes, load: Load) -> Result<Measured> {
    let syncs = sprag.own_syncs();
    let first = sprag.take_indexes(load.count)?;
    let waits = open_loop::sprag(&sprag.manager, updates, first, load)?;
    let own_syncs = sprag.own_syncs() - syncs;
    Ok(Measured { own_syncs, ..waits.measured(Unit::Microseconds) })
}

/// Waits of entries of a store whose calls return when the entries are durable.
pub(super) fn blocking(store: &dyn Store, updates: &Writes, load: Load) -> Result<Measured> {
    let waits = open_loop::blocking(load, |entries| {
        store.write(&mut entries.map(|at| updates.pair(at % updates.len())))
    })?;
    Ok(waits.measured(Unit::Microseconds))
}

/// Nanoseconds an entry of a store at its top rate.
fn top_of(store: &dyn Store, updates: &Writes) -> Result<f64> {
    let count = updates.len().min(50 * OF_GROUP);
    let started = Instant::now();
    let mut pairs = updates.pairs().take(count).peekable();
    while pairs.peek().is_some() {
        store.write(&mut pairs.by_ref().take(OF_GROUP))?;
    }
    Ok(each(started, count))
}

/// The memory machine beside a channel of ranges, whose consumer does the overwrites.
fn memory(settings: &Settings, updates: &Writes) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let manager = engine(keys, ApplyConfig::new().inline_apply(false))?;
    let mut next = keys as u64 + 1;
    let mut table: Table = filled(keys);
    let mut top: Option<f64> = None;
    let mut channel_top: Option<f64> = None;
    let subjects = vec![
        Subject::new("sprag", Role::Sprag, move || {
            let ns_each = match top {
                Some(ns_each) => ns_each,
                None => {
                    let entries = updates.entries(next);
                    next += entries.len() as u64;
                    let started = Instant::now();
                    submit_all(&manager, &entries)?;
                    *top.insert(each(started, entries.len()))
                }
            };
            let load = Load::new(0.5e9 / ns_each, duration(settings));
            let first = next;
            next += load.count as u64;
            let waits = open_loop::sprag(&manager, updates, first, load)?;
            with_interval(waits.measured(Unit::Microseconds), load)
        }),
        Subject::new("crossbeam-channel of ranges", Role::Peer, move || {
            let mut apply = |at: usize| {
                let (key, value) = updates.pair(at % updates.len());
                overwrite(&mut table, key, value);
            };
            let ns_each = *channel_top.get_or_insert_with(|| {
                let started = Instant::now();
                (0..updates.len()).for_each(&mut apply);
                each(started, updates.len())
            });
            let load = Load::new(0.5e9 / ns_each, duration(settings));
            let (sender, groups) = crossbeam_channel::bounded(65_536);
            let waits = open_loop::observed(load, sender, move |waits| {
                groups.into_iter().try_for_each(|(group, started): open_loop::Group| {
                    group.clone().for_each(&mut apply);
                    load.record(waits, group, started.elapsed())
                })
            });
            with_interval(waits?.measured(Unit::Microseconds), load)
        }),
    ];
    half_rate(settings, "in memory, each at half of its own top rate", subjects)
}
