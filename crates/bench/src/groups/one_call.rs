//! One call in flight: how long a caller waits for its own entry. Percentiles of single calls,
//! clock read included.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use disruptor::{BusySpin, Producer, Sequence};
use sprag::ApplyConfig;

use super::memory::Feed;
use super::{Settings, TIMEOUT, VALUE_BYTES};
use crate::latency::{Waits, figures};
use crate::measure::{Case, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::maps::{Dash, Table, engine, filled, overwrite};
use crate::workload::{KEY_BYTES, Key, Writes, zipfian};

/// Times `call` for each of `count` numbers.
fn percentiles(count: usize, mut call: impl FnMut(usize) -> Result<()>) -> Result<Measured> {
    let mut waits = Waits::new()?;
    for at in 0..count {
        let started = Instant::now();
        call(at)?;
        waits.record(started.elapsed())?;
    }
    Ok(waits.measured(Unit::Nanoseconds))
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let count = settings.scaled(200_000);
    let writes = Writes::of(&zipfian(keys, count, 2), VALUE_BYTES, 3);
    let mut rows = inline(keys, &writes)?.run(settings.rounds)?;
    rows.extend(threaded(keys, &writes)?.run(settings.rounds)?);
    Ok(rows)
}

fn inline<'a>(keys: usize, writes: &'a Writes) -> Result<Case<'a>> {
    let (count, first) = (writes.len(), keys as u64 + 1);
    let mut raw: Table = filled(keys);
    let dash: Dash = filled(keys);
    let manager = engine(keys, ApplyConfig::new())?;
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
    let figures = figures(Unit::Nanoseconds, &name);
    Ok(Case { group: "one-call", name, figures, subjects })
}

fn threaded<'a>(keys: usize, writes: &'a Writes) -> Result<Case<'a>> {
    let (count, first) = (writes.len(), keys as u64 + 1);
    let mut raw: Table = filled(keys);
    let manager = engine(keys, ApplyConfig::new().inline_apply(false))?;
    let mut feed = Feed::new(writes, first);
    let mut channel_table: Table = filled(keys);
    let disruptor_table = Arc::new(Mutex::<Table>::new(filled(keys)));
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
        Subject::new("disruptor there, an atomic back, spinning", Role::Peer, move || {
            let done = Arc::new(AtomicU64::new(0));
            let (seen, table) = (Arc::clone(&done), Arc::clone(&disruptor_table));
            let consume = move |write: &(Key, [u8; VALUE_BYTES]), _: Sequence, _: bool| {
                // Never contended: only the consumer's thread takes it while the round runs.
                if let Ok(mut table) = table.lock() {
                    overwrite(&mut table, &write.0, &write.1);
                }
                seen.fetch_add(1, Ordering::Release);
            };
            let empty = || ([0; KEY_BYTES], [0; VALUE_BYTES]);
            let mut producer = disruptor::build_single_producer(64, empty, BusySpin)
                .handle_events_with(consume)
                .build();
            percentiles(count, |at| {
                let (key, value) = writes.pair(at);
                producer.publish(|slot| {
                    slot.0 = *key;
                    slot.1.copy_from_slice(value);
                });
                while done.load(Ordering::Acquire) <= at as u64 {
                    std::hint::spin_loop();
                }
                Ok(())
            })
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
    let figures = figures(Unit::Nanoseconds, &name);
    Ok(Case { group: "one-call", name, figures, subjects })
}
