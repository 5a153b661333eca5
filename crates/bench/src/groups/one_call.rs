//! One call in flight: how long a caller waits for its own entry. Percentiles of single calls,
//! clock read included.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use dashmap::DashMap;
use foldhash::fast::RandomState;
use hdrhistogram::Histogram;
use sprag::ApplyConfig;

use super::memory::{Feed, engine, overwrite, table};
use super::{Settings, TIMEOUT, VALUE_BYTES};
use crate::measure::{Case, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::workload::{Key, Writes, uniform};

/// Times `call` for each of `count` numbers.
#[allow(clippy::cast_precision_loss, reason = "nanoseconds of a call are far below 2^53")]
fn percentiles(count: usize, mut call: impl FnMut(usize) -> Result<()>) -> Result<Measured> {
    let mut histogram = Histogram::<u64>::new(3)?;
    for at in 0..count {
        let started = Instant::now();
        call(at)?;
        histogram.record(u64::try_from(started.elapsed().as_nanos())?)?;
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64;
    Ok(Measured { figures: vec![at(0.5), at(0.99), at(0.999)], own_syncs: 0 })
}

fn figures() -> Vec<(&'static str, Unit)> {
    ["p50", "p99", "p99.9"].map(|name| (name, Unit::Nanoseconds)).to_vec()
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let count = if settings.quick { 20_000 } else { 200_000 };
    let preload = Writes::new(0..keys, VALUE_BYTES, 1);
    let numbers = uniform(keys, count, 2);
    let writes = Writes::new(numbers.iter().map(|number| *number as usize), VALUE_BYTES, 3);
    let mut rows = inline(&preload, &writes)?.run(settings.rounds)?;
    rows.extend(threaded(&preload, &writes)?.run(settings.rounds)?);
    Ok(rows)
}

fn inline<'a>(preload: &Writes, writes: &'a Writes) -> Result<Case<'a>> {
    let (count, first) = (writes.len(), preload.len() as u64 + 1);
    let mut raw = table(preload);
    let dash: DashMap<Key, Box<[u8]>, RandomState> =
        DashMap::with_capacity_and_hasher(preload.len(), RandomState::default());
    preload.pairs().for_each(|(key, value)| drop(dash.insert(*key, Box::from(value))));
    let manager = engine(preload, ApplyConfig::new())?;
    let mut feed = Feed::new(writes, first);
    let subjects = vec![
        Subject::new("overwrite", Role::Limit, move || {
            percentiles(count, |at| {
                let (key, value) = writes.pair(at);
                overwrite(&mut raw, key, value);
                Ok(())
            })
        }),
        Subject::new("sprag, apply", Role::Sprag, move || {
            let entries = feed.renumber();
            percentiles(count, |at| Ok(manager.apply(&entries[at], TIMEOUT).map(drop)?))
        }),
        Subject::new("dashmap, insert", Role::Peer, move || {
            percentiles(count, |at| {
                let (key, value) = writes.pair(at);
                drop(dash.insert(*key, Box::from(value)));
                Ok(())
            })
        }),
    ];
    let name = "on the caller's thread".to_owned();
    Ok(Case { group: "one-call", name, figures: figures(), subjects })
}

fn threaded<'a>(preload: &Writes, writes: &'a Writes) -> Result<Case<'a>> {
    let (count, first) = (writes.len(), preload.len() as u64 + 1);
    let mut raw = table(preload);
    let manager = engine(preload, ApplyConfig::new().inline_apply(false))?;
    let mut feed = Feed::new(writes, first);
    let mut channel_table = table(preload);
    let subjects = vec![
        Subject::new("two atomics and an overwrite, spinning", Role::Limit, move || {
            let (there, back) = (AtomicU64::new(0), AtomicU64::new(0));
            let table = &mut raw;
            thread::scope(|scope| {
                scope.spawn(|| {
                    for at in 0..count {
                        while there.load(Ordering::Acquire) <= at as u64 {
                            std::hint::spin_loop();
                        }
                        let (key, value) = writes.pair(at);
                        overwrite(table, key, value);
                        back.store(at as u64 + 1, Ordering::Release);
                    }
                });
                percentiles(count, |at| {
                    there.store(at as u64 + 1, Ordering::Release);
                    while back.load(Ordering::Acquire) <= at as u64 {
                        std::hint::spin_loop();
                    }
                    Ok(())
                })
            })
        }),
        Subject::new("sprag, apply, not inline", Role::Sprag, move || {
            let entries = feed.renumber();
            percentiles(count, |at| Ok(manager.apply(&entries[at], TIMEOUT).map(drop)?))
        }),
        Subject::new("crossbeam-channel there and back", Role::Peer, move || {
            let (sender, inbox) = crossbeam_channel::bounded::<usize>(64);
            let (outbox, receiver) = crossbeam_channel::bounded::<()>(64);
            let table = &mut channel_table;
            thread::scope(|scope| {
                let consumer = scope.spawn(move || {
                    for at in inbox {
                        let (key, value) = writes.pair(at);
                        overwrite(table, key, value);
                        if outbox.send(()).is_err() {
                            return;
                        }
                    }
                });
                let measured = percentiles(count, |at| {
                    sender.send(at)?;
                    Ok(receiver.recv()?)
                });
                drop(sender);
                consumer.join().map_err(|_| anyhow!("the consumer panicked"))?;
                measured
            })
        }),
    ];
    let name = "through another thread".to_owned();
    Ok(Case { group: "one-call", name, figures: figures(), subjects })
}
