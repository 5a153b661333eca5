//! Updates of a state in memory: zipfian overwrites of preloaded keys, nanoseconds an entry.

use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, anyhow};
use sprag::{ApplyConfig, Entry};

use super::{Settings, TIMEOUT, VALUE_BYTES, each};
use crate::measure::{Case, Figure, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::{ASYNC_RANGE, maps, submit_all};
use crate::workload::{Writes, uniform, zipfian};

/// Entries of one synchronous call.
const RANGE: usize = 128;

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

    /// Gives the entries the next indexes. The time is not measured: a consensus engine has
    /// numbered them already.
    pub(super) fn renumber(&mut self) -> &[Entry<'a>] {
        for (at, entry) in (self.next..).zip(&mut self.entries) {
            entry.log_id.index = at;
        }
        self.next += self.entries.len() as u64;
        &self.entries
    }
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let count = settings.scaled(1_000_000);
    let mut rows = of_updates(settings, "zipfian", &zipfian(settings.keys, count, 2))?;
    rows.extend(of_updates(settings, "uniform", &uniform(settings.keys, count, 2))?);
    Ok(rows)
}

/// Updates of the keys of these numbers.
fn of_updates(settings: &Settings, name: &str, numbers: &[u32]) -> Result<Vec<Row>> {
    let (keys, count) = (settings.keys, numbers.len());
    let writes = Writes::of(numbers, VALUE_BYTES, 3);
    let writes = &writes;

    let mut raw: maps::Table = maps::filled(keys);
    let (dash, dash_in_place): (maps::Dash, maps::Dash) = (maps::filled(keys), maps::filled(keys));
    let papaya: maps::Papaya = maps::filled(keys);
    let scc: maps::Scc = maps::filled(keys);
    let tree: Mutex<maps::Tree> = Mutex::new(maps::filled(keys));
    let synchronous = maps::engine(keys, ApplyConfig::new())?;
    let mut synchronous_feed = Feed::new(writes, keys as u64 + 1);
    let asynchronous = maps::engine(keys, ApplyConfig::new())?;
    let mut asynchronous_feed = Feed::new(writes, keys as u64 + 1);

    let subjects = vec![
        Subject::new("hashbrown, presized, in place", Role::Limit, move || {
            let started = Instant::now();
            writes.pairs().for_each(|(key, value)| maps::overwrite(&mut raw, key, value));
            Ok(each(started, count).into())
        }),
        Subject::new(format!("sprag, synchronous, {RANGE} a call"), Role::Sprag, move || {
            let mut replies = Vec::with_capacity(RANGE);
            let entries = synchronous_feed.renumber();
            let started = Instant::now();
            for part in entries.chunks(RANGE) {
                replies.clear();
                synchronous.apply_entries_sync(part, TIMEOUT, &mut replies)?;
            }
            Ok(each(started, count).into())
        }),
        Subject::new(
            format!("sprag, asynchronous, {ASYNC_RANGE} a call"),
            Role::Sprag,
            move || {
                let entries = asynchronous_feed.renumber();
                let started = Instant::now();
                submit_all(&asynchronous, entries)?;
                Ok(each(started, count).into())
            },
        ),
        Subject::new("dashmap, insert", Role::Peer, move || {
            let started = Instant::now();
            writes.pairs().for_each(|(key, value)| drop(dash.insert(*key, Box::from(value))));
            Ok(each(started, count).into())
        }),
        Subject::new("dashmap, in place", Role::Peer, move || {
            let started = Instant::now();
            let pairs = writes.pairs();
            pairs.for_each(|(key, value)| maps::overwrite_dash(&dash_in_place, key, value));
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
        name: format!("update, {name}, {keys} keys"),
        figures: Figure::only(Unit::NanosecondsEach),
        subjects,
    };
    case.run(settings.rounds)
}
