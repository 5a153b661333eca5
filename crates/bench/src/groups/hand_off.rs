//! Entries handed to another thread, which overwrites a value for each: nanoseconds an entry, timed
//! until the last one is applied.
//!
//! The peers move key and value and nothing else: no log id, no replies, no waiters. A user would
//! build that by hand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use disruptor::{BusySpin, Producer, Sequence};
use sprag::ApplyConfig;

use super::halves;
use super::memory::Feed;
use super::{Settings, VALUE_BYTES, each};
use crate::measure::{Case, Figure, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::maps::{Table, engine, filled, overwrite};
use crate::subjects::{ASYNC_RANGE, submit_all};
use crate::workload::{KEY_BYTES, Key, Writes, uniform, zipfian};

/// A write by value, as a channel carries it.
#[derive(Clone, Copy)]
struct Write {
    key: Key,
    value: [u8; VALUE_BYTES],
}

impl Write {
    const EMPTY: Self = Self { key: [0; KEY_BYTES], value: [0; VALUE_BYTES] };

    fn of(pair: (&Key, &[u8])) -> Self {
        let mut write = Self { key: *pair.0, ..Self::EMPTY };
        write.value.copy_from_slice(pair.1);
        write
    }
}

/// Entries a channel holds, as the engine's pipeline does.
const DEPTH: usize = 65_536;
const BATCH: usize = 128;

/// Runs `produce` here and `consume` on another thread with `table`; done when both are.
fn pair(
    table: &mut Table,
    count: usize,
    consume: impl FnOnce(&mut Table) + Send,
    produce: impl FnOnce() -> Result<()>,
) -> Result<Measured> {
    thread::scope(|scope| {
        let started = Instant::now();
        let consumer = scope.spawn(move || consume(table));
        produce()?;
        consumer.join().map_err(|_| anyhow!("the consumer panicked"))?;
        Ok(each(started, count).into())
    })
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let count = settings.scaled(1_000_000);
    let writes = Writes::of(&zipfian(keys, count, 2), VALUE_BYTES, 3);
    let mut rows = peers(settings, &writes)?;
    rows.extend(halves::of_updates(settings, "zipfian", &writes)?);
    drop(writes);
    let writes = Writes::of(&uniform(keys, count, 2), VALUE_BYTES, 3);
    rows.extend(halves::of_updates(settings, "uniform", &writes)?);
    Ok(rows)
}

/// The engine beside channels and rings.
fn peers(settings: &Settings, writes: &Writes) -> Result<Vec<Row>> {
    let (keys, count) = (settings.keys, writes.len());
    let fresh = || -> Table { filled(keys) };

    let mut raw = fresh();
    let manager = engine(keys, ApplyConfig::new().inline_apply(false))?;
    let mut feed = Feed::new(writes, keys as u64 + 1);
    let (mut crossbeam, mut crossbeam_batch) = (fresh(), fresh());
    let (mut flume_table, mut std_table, mut rtrb_table) = (fresh(), fresh(), fresh());
    let disruptor_table = Arc::new(std::sync::Mutex::new(fresh()));

    let subjects = vec![
        Subject::new("overwrite alone, one thread", Role::Limit, move || {
            let started = Instant::now();
            writes.pairs().for_each(|(key, value)| overwrite(&mut raw, key, value));
            Ok(each(started, count).into())
        }),
        Subject::new(format!("sprag, {ASYNC_RANGE} a call"), Role::Sprag, move || {
            let entries = feed.renumber();
            let started = Instant::now();
            submit_all(&manager, entries)?;
            Ok(each(started, count).into())
        }),
        Subject::new("crossbeam-channel, an entry", Role::Peer, move || {
            let (sender, receiver) = crossbeam_channel::bounded::<Write>(DEPTH);
            let consume = move |table: &mut Table| {
                receiver.iter().for_each(|write| overwrite(table, &write.key, &write.value));
            };
            pair(&mut crossbeam, count, consume, move || {
                writes.pairs().try_for_each(|pair| Ok(sender.send(Write::of(pair))?))
            })
        }),
        Subject::new("crossbeam-channel, Vec of 128", Role::Peer, move || {
            let (sender, receiver) = crossbeam_channel::bounded::<Vec<Write>>(DEPTH / BATCH);
            let consume = move |table: &mut Table| {
                let all = receiver.iter().flatten();
                all.for_each(|write| overwrite(table, &write.key, &write.value));
            };
            pair(&mut crossbeam_batch, count, consume, move || {
                let mut batch = Vec::with_capacity(BATCH);
                for pair in writes.pairs() {
                    batch.push(Write::of(pair));
                    if batch.len() == BATCH {
                        sender.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)))?;
                    }
                }
                Ok(sender.send(batch)?)
            })
        }),
        Subject::new("flume, an entry", Role::Peer, move || {
            let (sender, receiver) = flume::bounded::<Write>(DEPTH);
            let consume = move |table: &mut Table| {
                receiver.iter().for_each(|write| overwrite(table, &write.key, &write.value));
            };
            pair(&mut flume_table, count, consume, move || {
                writes.pairs().try_for_each(|pair| Ok(sender.send(Write::of(pair))?))
            })
        }),
        Subject::new("std mpsc, an entry", Role::Peer, move || {
            let (sender, receiver) = mpsc::sync_channel::<Write>(DEPTH);
            let consume = move |table: &mut Table| {
                receiver.iter().for_each(|write| overwrite(table, &write.key, &write.value));
            };
            pair(&mut std_table, count, consume, move || {
                writes.pairs().try_for_each(|pair| Ok(sender.send(Write::of(pair))?))
            })
        }),
        Subject::new("rtrb, an entry, spinning", Role::Peer, move || {
            let (mut producer, mut consumer) = rtrb::RingBuffer::<Write>::new(DEPTH);
            let consume = move |table: &mut Table| {
                let mut done = 0;
                while done < count {
                    match consumer.pop() {
                        Ok(write) => {
                            overwrite(table, &write.key, &write.value);
                            done += 1;
                        }
                        Err(_) => std::hint::spin_loop(),
                    }
                }
            };
            pair(&mut rtrb_table, count, consume, move || {
                for pair in writes.pairs() {
                    while producer.push(Write::of(pair)).is_err() {
                        std::hint::spin_loop();
                    }
                }
                Ok(())
            })
        }),
        Subject::new("disruptor, an entry, spinning", Role::Peer, move || {
            let done = Arc::new(AtomicU64::new(0));
            let (seen, table) = (Arc::clone(&done), Arc::clone(&disruptor_table));
            let consume = move |write: &Write, _: Sequence, _: bool| {
                // Never contended: only the consumer's thread takes it while the round runs.
                if let Ok(mut table) = table.lock() {
                    overwrite(&mut table, &write.key, &write.value);
                }
                seen.fetch_add(1, Ordering::Release);
            };
            let mut producer = disruptor::build_single_producer(DEPTH, || Write::EMPTY, BusySpin)
                .handle_events_with(consume)
                .build();
            let started = Instant::now();
            for pair in writes.pairs() {
                producer.publish(|slot| *slot = Write::of(pair));
            }
            while done.load(Ordering::Acquire) < count as u64 {
                std::hint::spin_loop();
            }
            Ok(each(started, count).into())
        }),
    ];
    let case = Case {
        group: "hand-off",
        name: format!("to a thread that applies, zipfian, {keys} keys"),
        figures: Figure::only(Unit::NanosecondsEach),
        subjects,
    };
    case.run(settings.rounds)
}
