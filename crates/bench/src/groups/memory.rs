//! Updates of a state in memory: zipfian overwrites of preloaded keys, nanoseconds an entry.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, anyhow};
use dashmap::DashMap;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sprag::error::SubmitError;
use sprag::{ApplyConfig, ApplyManager, Entry, MemoryConfig, MemoryStateMachine};

use super::{Settings, TIMEOUT, VALUE_BYTES};
use crate::measure::{Case, Subject};
use crate::report::{Role, Row, Unit};
use crate::workload::{Key, Writes, zipfian};

/// Entries of one synchronous call.
const RANGE: usize = 128;
/// Entries of one asynchronous call.
const ASYNC_RANGE: usize = 512;

pub(super) type Table = HashMap<Key, Box<[u8]>, RandomState>;

/// A presized table with every key in it.
pub(super) fn table(writes: &Writes) -> Table {
    let mut table = Table::with_capacity_and_hasher(writes.len(), RandomState::default());
    table.extend(writes.pairs().map(|(key, value)| (*key, Box::from(value))));
    table
}

/// Overwrites a value in its place, as long as it is.
#[inline]
pub(super) fn overwrite(table: &mut Table, key: &Key, value: &[u8]) {
    match table.get_mut(key) {
        Some(place) if place.len() == value.len() => place.copy_from_slice(value),
        _ => drop(table.insert(*key, Box::from(value))),
    }
}

/// An engine in memory with every key in it.
pub(super) fn engine(
    preload: &Writes,
    config: ApplyConfig,
) -> Result<ApplyManager<MemoryStateMachine>> {
    let machine = MemoryStateMachine::new(MemoryConfig::default().expected_keys(preload.len()))?;
    let manager = ApplyManager::new(machine, config)?;
    manager.apply_batch(preload.entries(1), TIMEOUT, |_, _| {})?;
    Ok(manager)
}

/// Entries whose index is set as they are submitted: made once, submitted in each round.
#[derive(Debug)]
pub(super) struct Feed<'a> {
    entries: Vec<Entry<'a>>,
    next: u64,
}

impl<'a> Feed<'a> {
    pub(super) fn new(writes: &'a Writes, first: u64) -> Self {
        Self { entries: writes.entries(first), next: first }
    }

    /// Gives the entries the next indexes. Not timed: a consensus engine has them numbered.
    pub(super) fn renumber(&mut self) -> &[Entry<'a>] {
        for (at, entry) in (self.next..).zip(&mut self.entries) {
            entry.log_id.index = at;
        }
        self.next += self.entries.len() as u64;
        &self.entries
    }
}

pub(super) fn submit_all<M: sprag::StateMachine>(
    manager: &ApplyManager<M>,
    entries: &[Entry<'_>],
    range: usize,
) -> Result<()> {
    for part in entries.chunks(range) {
        loop {
            match manager.apply_entries(part) {
                Ok(_) => break,
                Err(SubmitError::Full { .. }) => std::thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
    }
    let last = entries.last().ok_or_else(|| anyhow!("no entries"))?;
    Ok(manager.wait_for_apply(last.log_id.index, TIMEOUT)?)
}

#[allow(clippy::cast_precision_loss, reason = "a count of entries is far below 2^53")]
pub(super) fn each(started: Instant, count: usize) -> f64 {
    started.elapsed().as_nanos() as f64 / count as f64
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let count = if settings.quick { 200_000 } else { 1_000_000 };
    let preload = Writes::new(0..keys, VALUE_BYTES, 1);
    let numbers = zipfian(keys, count, 2);
    let writes = Writes::new(numbers.iter().map(|number| *number as usize), VALUE_BYTES, 3);
    let writes = &writes;

    let mut raw = table(&preload);
    let dash: DashMap<Key, Box<[u8]>, RandomState> =
        DashMap::with_capacity_and_hasher(keys, RandomState::default());
    preload.pairs().for_each(|(key, value)| drop(dash.insert(*key, Box::from(value))));
    let papaya: papaya::HashMap<Key, Box<[u8]>, RandomState> =
        papaya::HashMap::with_capacity_and_hasher(keys, RandomState::default());
    {
        let map = papaya.pin();
        preload.pairs().for_each(|(key, value)| {
            map.insert(*key, Box::from(value));
        });
    }
    let scc: scc::HashMap<Key, Box<[u8]>, RandomState> =
        scc::HashMap::with_capacity_and_hasher(keys, RandomState::default());
    preload.pairs().for_each(|(key, value)| drop(scc.upsert_sync(*key, Box::from(value))));
    let tree: Mutex<BTreeMap<Key, Box<[u8]>>> =
        Mutex::new(preload.pairs().map(|(key, value)| (*key, Box::from(value))).collect());
    let synchronous = engine(&preload, ApplyConfig::new())?;
    let mut synchronous_feed = Feed::new(writes, keys as u64 + 1);
    let asynchronous = engine(&preload, ApplyConfig::new())?;
    let mut asynchronous_feed = Feed::new(writes, keys as u64 + 1);

    let subjects = vec![
        Subject::new("hashbrown, presized, in place", Role::Limit, move || {
            let started = Instant::now();
            writes.pairs().for_each(|(key, value)| overwrite(&mut raw, key, value));
            Ok(each(started, count).into())
        }),
        Subject::new("sprag, synchronous, 128 a call", Role::Sprag, move || {
            let mut replies = Vec::with_capacity(RANGE);
            let entries = synchronous_feed.renumber();
            let started = Instant::now();
            for part in entries.chunks(RANGE) {
                replies.clear();
                synchronous.apply_entries_sync(part, TIMEOUT, &mut replies)?;
            }
            Ok(each(started, count).into())
        }),
        Subject::new("sprag, asynchronous, 512 a call", Role::Sprag, move || {
            let entries = asynchronous_feed.renumber();
            let started = Instant::now();
            submit_all(&asynchronous, entries, ASYNC_RANGE)?;
            Ok(each(started, count).into())
        }),
        Subject::new("dashmap, insert", Role::Peer, move || {
            let started = Instant::now();
            writes.pairs().for_each(|(key, value)| drop(dash.insert(*key, Box::from(value))));
            Ok(each(started, count).into())
        }),
        Subject::new("papaya, insert", Role::Peer, move || {
            let started = Instant::now();
            let map = papaya.pin();
            writes.pairs().for_each(|(key, value)| {
                map.insert(*key, Box::from(value));
            });
            Ok(each(started, count).into())
        }),
        Subject::new("scc, upsert", Role::Peer, move || {
            let started = Instant::now();
            writes.pairs().for_each(|(key, value)| drop(scc.upsert_sync(*key, Box::from(value))));
            Ok(each(started, count).into())
        }),
        Subject::new("Mutex<BTreeMap>, insert", Role::Peer, move || {
            let started = Instant::now();
            for (key, value) in writes.pairs() {
                let mut tree = tree.lock().map_err(|_| anyhow!("a panic under the lock"))?;
                tree.insert(*key, Box::from(value));
            }
            Ok(each(started, count).into())
        }),
    ];
    let case = Case {
        group: "memory",
        name: format!("update, {keys} keys"),
        figures: vec![("", Unit::Nanoseconds)],
        subjects,
    };
    case.run(settings.rounds)
}
