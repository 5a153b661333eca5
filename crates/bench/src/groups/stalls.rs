//! Longest waits of durable entries at a fixed rate, while the engine does something else as well.

use std::pin::Pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use sprag::{IoBackend, PersistentConfig};

use super::arrivals::blocking;
use super::{Settings, VALUE_BYTES, stops};
use crate::latency::figures;
use crate::measure::{Case, Measured, Subject};
use crate::open_loop::{self, Load};
use crate::report::{Role, Row, Unit};
use crate::subjects::{self, Sprag, Store, fresh, preload};
use crate::workload::{Writes, zipfian};

/// Entries a second; every subject keeps up with it.
const RATE: f64 = 50_000.0;
/// Futures that wait at the same time.
const WAITERS: usize = 10_000;
/// Length of a segment where segments roll often: some 30,000 entries.
const SHORT_SEGMENT_BYTES: usize = 4 << 20;

/// Work that the engine does beside the entries.
#[derive(Clone, Copy)]
enum Beside {
    Nothing,
    Snapshot,
    Compaction,
    /// New keys, in a table that was made for none.
    Growth,
    /// Futures that wait for entries of the round.
    Waiters,
    /// Segments so short that the log begins many of them.
    ShortSegments,
}

const OURS: [(&str, Role, Beside); 6] = [
    ("sprag, nothing else", Role::Limit, Beside::Nothing),
    ("sprag, a snapshot", Role::Sprag, Beside::Snapshot),
    ("sprag, a compaction", Role::Sprag, Beside::Compaction),
    ("sprag, a table that grows", Role::Sprag, Beside::Growth),
    ("sprag, 10,000 waiters", Role::Sprag, Beside::Waiters),
    ("sprag, segments of 4 MiB", Role::Sprag, Beside::ShortSegments),
];

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let dir = settings.dir.join("stalls");
    fresh(&dir)?;
    let duration = Duration::from_millis(settings.scaled(1_200) as u64);
    let load = Load::new(RATE, duration);
    let first = Writes::new(0..keys, VALUE_BYTES, 1);
    let updates = Writes::of(&zipfian(keys, load.count, 2), VALUE_BYTES, 3);
    let updates = &updates;

    let fjall = subjects::storages(&dir, "peer")?.into_iter().take(1);
    let peers: Vec<_> = fjall.chain(subjects::logs(&dir, "peer")?).collect();
    let mut subjects = Vec::new();
    for (at, (name, role, beside)) in OURS.into_iter().enumerate() {
        let place = dir.join(format!("sprag-{at}"));
        let config = match beside {
            Beside::Growth => PersistentConfig::new(place),
            Beside::ShortSegments => Sprag::config(&place, keys, IoBackend::Auto)
                .segment_bytes(SHORT_SEGMENT_BYTES)
                .segment_images(4),
            _ => Sprag::config(&place, keys, IoBackend::Auto),
        };
        let sprag = Sprag::with(config)?;
        preload(&sprag, &first)?;
        let mut keys_before = keys;
        subjects.push(Subject::new(name, role, move || {
            if !matches!(beside, Beside::Growth) {
                return round(&sprag, updates, load, beside, duration / 4);
            }
            let new = Writes::new(keys_before..keys_before + load.count, VALUE_BYTES, 4);
            keys_before += load.count;
            round(&sprag, &new, load, beside, duration / 4)
        }));
    }
    for peer in &peers {
        preload(&*peer.store, &first)?;
        let run = || blocking(&*peer.store, updates, load);
        let subject = Subject::new(format!("{}, nothing else", peer.name), Role::Peer, run);
        subjects.push(subject.differs(peer.why));
    }
    let name = format!("durable, {RATE} entries a second");
    let figures = figures(Unit::Microseconds, &name);
    let mut rows = Case { group: "stalls", name, figures, subjects }.run(settings.rounds)?;
    drop(peers);
    fresh(&dir)?;
    rows.extend(stops::run(settings)?);
    Ok(rows)
}

/// Has futures wait for the last entries of a round, and looks at each once.
fn wait_for(sprag: &Sprag, first: u64, count: usize) {
    let waiters = WAITERS.min(count);
    let last = first + count as u64;
    let indexes = last - waiters as u64..last;
    let mut futures: Vec<_> = indexes.map(|index| sprag.manager.acknowledged(index)).collect();
    let mut context = Context::from_waker(Waker::noop());
    for future in &mut futures {
        // An entry that is done already needs no waiter.
        let _ = Pin::new(future).poll(&mut context);
    }
    while futures.last_mut().is_some_and(|last| Pin::new(last).poll(&mut context).is_pending()) {
        thread::sleep(Duration::from_millis(1));
    }
}

fn round(
    sprag: &Sprag,
    writes: &Writes,
    load: Load,
    beside: Beside,
    after: Duration,
) -> Result<Measured> {
    let syncs = sprag.own_syncs();
    let first = sprag.take_indexes(load.count)?;
    let waits = thread::scope(|scope| {
        let other = scope.spawn(move || {
            thread::sleep(after);
            match beside {
                Beside::Snapshot => sprag.manager.snapshots().write().map(drop),
                Beside::Compaction => sprag.manager.snapshots().compact().map(drop),
                Beside::Waiters => {
                    wait_for(sprag, first, load.count);
                    Ok(())
                }
                Beside::Nothing | Beside::Growth | Beside::ShortSegments => Ok(()),
            }
        });
        let waits = open_loop::sprag(&sprag.manager, writes, first, load);
        other.join().map_err(|_| anyhow!("the thread beside panicked"))??;
        waits
    })?;
    let own_syncs = sprag.own_syncs() - syncs;
    Ok(Measured { own_syncs, ..waits.measured(Unit::Microseconds) })
}
