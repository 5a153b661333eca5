//! Entries on stable storage: calls of so many entries, each waiting until they are durable; then
//! as many as the engine takes.

use std::time::Instant;

use anyhow::{Result, anyhow};
use sprag::IoBackend;

use super::memory::submit_all;
use super::{Settings, VALUE_BYTES};
use crate::measure::{Case, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::{Fjall, Lmdb, Raw, Redb, Sprag, Store, preload};
#[cfg(feature = "logs")]
use crate::subjects::{RaftEngine, RaftLog};
use crate::workload::{Writes, zipfian};

/// Entries of a call, and calls of a round.
const CALLS: [(usize, usize); 4] = [(1, 300), (16, 300), (128, 200), (1_024, 100)];
#[cfg(feature = "logs")]
const LOG_ONLY: &str = "a log alone: it keeps no state that answers a get";

/// Name, role, why it has no ratio, and the store.
type Named = (&'static str, Role, Option<&'static str>, Box<dyn Store>);

struct Stores {
    stores: Vec<Named>,
    flat_out: Vec<(&'static str, Sprag)>,
}

impl Stores {
    fn create(settings: &Settings, first: &Writes) -> Result<Self> {
        let dir = |name: &str| settings.dir.join(name);
        let keys = settings.keys;
        let mut stores: Vec<Named> = vec![
            (
                "pwrite + fdatasync, written before",
                Role::Limit,
                None,
                Box::new(Raw::create(&dir("raw"))?),
            ),
            (
                "sprag, pwrite",
                Role::Sprag,
                None,
                Box::new(Sprag::create(&dir("sprag-pwrite"), keys, IoBackend::Pwrite)?),
            ),
            (
                "sprag, io_uring",
                Role::Sprag,
                None,
                Box::new(Sprag::create(&dir("sprag-uring"), keys, IoBackend::Uring)?),
            ),
            ("fjall", Role::Peer, None, Box::new(Fjall::create(&dir("fjall"))?)),
            ("redb", Role::Peer, None, Box::new(Redb::create(&dir("redb"))?)),
            ("lmdb (heed)", Role::Peer, None, Box::new(Lmdb::create(&dir("lmdb"))?)),
        ];
        #[cfg(feature = "logs")]
        stores.extend::<[Named; 2]>([
            (
                "raft-engine",
                Role::Peer,
                Some(LOG_ONLY),
                Box::new(RaftEngine::create(&dir("raft-engine"))?),
            ),
            ("raft-log", Role::Peer, Some(LOG_ONLY), Box::new(RaftLog::create(&dir("raft-log"))?)),
        ]);
        for (_, role, why, store) in &mut stores {
            if *role != Role::Limit && why.is_none() {
                preload(&mut **store, first)?;
            }
        }
        let mut flat_out = Vec::new();
        for (name, io) in
            [("sprag, pwrite", IoBackend::Pwrite), ("sprag, io_uring", IoBackend::Uring)]
        {
            let mut sprag = Sprag::create(&dir(&format!("flat-{io:?}").to_lowercase()), keys, io)?;
            preload(&mut sprag, first)?;
            flat_out.push((name, sprag));
        }
        Ok(Self { stores, flat_out })
    }
}

#[allow(clippy::cast_precision_loss, reason = "nanoseconds of a round are far below 2^53")]
fn round(store: &mut dyn Store, writes: &Writes, of_call: usize, calls: usize) -> Result<Measured> {
    let syncs = store.own_syncs();
    let started = Instant::now();
    let mut pairs = writes.pairs().cycle();
    for _ in 0..calls {
        store.write(&mut pairs.by_ref().take(of_call))?;
    }
    let each_us = started.elapsed().as_nanos() as f64 / 1e3 / (of_call * calls) as f64;
    Ok(Measured { figures: vec![each_us], own_syncs: store.own_syncs() - syncs })
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let first = Writes::new(0..keys, VALUE_BYTES, 1);
    let mut stores = Stores::create(settings, &first)?;
    let updates = zipfian(keys, 100_000, 2);
    let updates = Writes::new(updates.iter().map(|number| *number as usize), VALUE_BYTES, 3);
    let mut rows = Vec::new();
    for (of_call, calls) in CALLS {
        let calls = if settings.quick { calls / 5 } else { calls };
        let updates = &updates;
        let subjects = stores.stores.iter_mut().map(|(name, role, why, store)| {
            let subject =
                Subject::new(*name, *role, move || round(&mut **store, updates, of_call, calls));
            match why {
                Some(why) => subject.differs(why),
                None => subject,
            }
        });
        let case = Case {
            group: "durable",
            name: format!("{of_call} a call, {VALUE_BYTES} B"),
            figures: vec![("", Unit::Microseconds)],
            subjects: subjects.collect(),
        };
        rows.extend(case.run(settings.rounds)?);
    }
    rows.extend(flat_out(settings, &mut stores)?);
    Ok(rows)
}

/// Measures entries submitted as fast as the engine takes them, until the last one is durable.
/// Peers have no such mode, so they get groups of 1,024.
#[allow(clippy::cast_precision_loss, reason = "nanoseconds of a round are far below 2^53")]
fn flat_out(settings: &Settings, stores: &mut Stores) -> Result<Vec<Row>> {
    const OF_GROUP: usize = 1_024;
    let count = if settings.quick { 100_000 } else { 500_000 };
    let updates = zipfian(settings.keys, count, 5);
    let updates = Writes::new(updates.iter().map(|number| *number as usize), VALUE_BYTES, 6);
    let updates = &updates;
    let ours = stores.flat_out.iter_mut().map(|(name, sprag)| {
        Subject::new(*name, Role::Sprag, move || {
            let first = sprag.take_indexes(updates.len() as u64);
            let entries = updates.entries(first);
            let syncs = sprag.own_syncs();
            let started = Instant::now();
            submit_all(&sprag.manager, &entries, 512)?;
            let each_us = started.elapsed().as_nanos() as f64 / 1e3 / count as f64;
            Ok(Measured { figures: vec![each_us], own_syncs: sprag.own_syncs() - syncs })
        })
    });
    let others = stores.stores.iter_mut().filter(|(_, role, ..)| *role != Role::Sprag);
    let others = others.map(|(name, role, why, store)| {
        let subject = Subject::new(*name, *role, move || {
            round(&mut **store, updates, OF_GROUP, updates.len().div_ceil(OF_GROUP))
        });
        match why {
            Some(why) => subject.differs(why),
            None => subject,
        }
    });
    let subjects: Vec<_> = ours.chain(others).collect();
    if subjects.is_empty() {
        return Err(anyhow!("no subjects"));
    }
    let case = Case {
        group: "durable",
        name: format!("flat out, {VALUE_BYTES} B (others in groups of {OF_GROUP})"),
        figures: vec![("", Unit::Microseconds)],
        subjects,
    };
    case.run(settings.rounds)
}
