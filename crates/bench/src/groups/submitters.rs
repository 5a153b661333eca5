//! Many submitters: 1 to 8 threads that propose at once, and the rate of all of them together.

use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use sprag::{ApplyConfig, ApplyManager, Command, IoBackend, StateMachine};

use super::{Settings, TIMEOUT, VALUE_BYTES, each};
use crate::measure::{Case, Figure, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::{self, Raw, Sprag, Store, fresh, locked, maps, preload};
use crate::workload::{Key, Writes, zipfian};

/// Numbers of threads.
const THREADS: [usize; 4] = [1, 2, 4, 8];
/// Proposals of a thread that waits for the last of them only.
const AHEAD: usize = 64;

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let mut rows = in_memory(settings)?;
    rows.extend(durable(settings)?);
    Ok(rows)
}

/// Calls `write` for each of `writes`, which so many threads share. Returns nanoseconds a write.
fn shared(
    threads: usize,
    writes: &Writes,
    write: impl Fn(usize, &Key, &[u8]) -> Result<()> + Sync,
) -> Result<f64> {
    let (count, write) = (writes.len(), &write);
    let run = |from: usize| {
        let mut turns = (from..count).step_by(threads).enumerate();
        turns.try_for_each(|(turn, at)| {
            let (key, value) = writes.pair(at);
            // The last turn of a thread is the end of a group.
            let turn = if at + threads >= count { AHEAD - 1 } else { turn };
            write(turn, key, value)
        })
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|from| scope.spawn(move || run(from))).collect();
        let own = run(0);
        let all = others.into_iter().map(|other| other.join().map_err(|_| anyhow!("a panic"))?);
        all.fold(own, Result::and)
    })?;
    Ok(each(started, count))
}

/// Each thread waits for its proposal; with `ahead` for one of [`AHEAD`] only.
fn propose<M: StateMachine>(
    manager: &ApplyManager<M>,
    threads: usize,
    writes: &Writes,
    ahead: bool,
) -> Result<f64> {
    shared(threads, writes, |turn, key, value| {
        let command = Command::put(key, value);
        if !ahead {
            return Ok(manager.propose(command, TIMEOUT).map(drop)?);
        }
        let proposal = manager.propose_async(command, TIMEOUT);
        let log_id = proposal.log_id().ok_or_else(|| anyhow!("a proposal was refused"))?;
        if turn % AHEAD == AHEAD - 1 {
            manager.wait_for_apply(log_id.index, TIMEOUT)?;
        }
        Ok(())
    })
}

fn case<'a>(kind: &str, ahead: bool, threads: usize, subjects: Vec<Subject<'a>>) -> Case<'a> {
    let waits = if ahead { format!("one wait for {AHEAD}") } else { "each waits".to_owned() };
    let chart = format!("threads that propose, {kind}, {waits}");
    let figures = Figure::at(Unit::NanosecondsEach, &chart, "threads", threads as f64);
    let name = format!("{kind}, {waits}, {threads} threads");
    Case { group: "submitters", name, figures, subjects }
}

fn in_memory(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let writes = &Writes::of(&zipfian(keys, settings.scaled(200_000), 2), VALUE_BYTES, 3);
    let table: &Mutex<maps::Table> = &Mutex::new(maps::filled(keys));
    let dash: &maps::Dash = &maps::filled(keys);
    let manager = &maps::engine(keys, ApplyConfig::new())?;
    let mut rows = Vec::new();
    for (ahead, threads) in [false, true].into_iter().flat_map(|ahead| THREADS.map(|t| (ahead, t)))
    {
        let subjects = vec![
            Subject::new("hashbrown under a mutex, in place", Role::Limit, move || {
                let put = |_, key: &Key, value: &[u8]| {
                    maps::overwrite(&mut *locked(table)?, key, value);
                    Ok(())
                };
                Ok(shared(threads, writes, put)?.into())
            }),
            Subject::new("sprag, propose", Role::Sprag, move || {
                Ok(propose(manager, threads, writes, ahead)?.into())
            }),
            Subject::new("dashmap, in place", Role::Peer, move || {
                let put = |_, key: &Key, value: &[u8]| {
                    maps::overwrite_dash(dash, key, value);
                    Ok(())
                };
                Ok(shared(threads, writes, put)?.into())
            }),
        ];
        rows.extend(case("memory", ahead, threads, subjects).run(settings.rounds)?);
    }
    Ok(rows)
}

fn durable(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys.min(100_000);
    let dir = settings.dir.join("submitters");
    fresh(&dir)?;
    let first = Writes::new(0..keys, VALUE_BYTES, 1);
    let raw = &Raw::create(&dir.join("raw"))?;
    let sprag = &Sprag::create(&dir.join("sprag"), keys, IoBackend::default())?;
    preload(sprag, &first)?;
    let peers = subjects::storages(&dir, "peer")?;
    let mut rows = Vec::new();
    for (ahead, count) in [(false, 2_000), (true, 50_000)] {
        let writes = &Writes::of(&zipfian(keys, settings.scaled(count), 2), VALUE_BYTES, 3);
        for threads in THREADS {
            let one = |store: &'_ dyn Store, writes: &Writes| -> Result<Measured> {
                let syncs = store.own_syncs();
                let write =
                    |_, key: &Key, value: &[u8]| store.write(&mut std::iter::once((key, value)));
                let ns_each = shared(threads, writes, write)?;
                Ok(Measured { values: vec![ns_each], own_syncs: store.own_syncs() - syncs })
            };
            let few = &Writes::of(&zipfian(keys, settings.scaled(1_000), 2), VALUE_BYTES, 3);
            let name = "pwrite + fdatasync, one at a time";
            let mut subjects = vec![Subject::new(name, Role::Limit, move || one(raw, few))];
            subjects.push(Subject::new("sprag, propose", Role::Sprag, move || {
                let syncs = sprag.own_syncs();
                let ns_each = propose(&sprag.manager, threads, writes, ahead)?;
                Ok(Measured { values: vec![ns_each], own_syncs: sprag.own_syncs() - syncs })
            }));
            let run =
                |name: &'static str, store| Subject::new(name, Role::Peer, move || one(store, few));
            // The other storages have one writer at a time.
            let fjall = peers.iter().filter(|peer| peer.name == "fjall");
            subjects.extend(fjall.map(|peer| run(peer.name, &*peer.store)));
            rows.extend(case("durable", ahead, threads, subjects).run(settings.rounds)?);
        }
    }
    drop(peers);
    fresh(&dir)?;
    Ok(rows)
}
