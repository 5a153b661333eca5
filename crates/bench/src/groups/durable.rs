//! Entries on stable storage: calls of so many entries, each waiting until they are durable; then
//! as many as the engine takes.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use sprag::IoBackend;

use super::{Settings, TIMEOUT, each, in_turn};
use crate::latency::Waits;
use crate::measure::{Case, Figure, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::{self, FlatOut, Peer, Raw, Sprag, Store, fresh, preload};
use crate::workload::{KEY_BYTES, Writes, zipfian};

/// Entries of a call.
const CALLS: [usize; 4] = [1, 16, 128, 1_024];
/// Lengths of values.
const VALUES: [usize; 3] = [100, 1 << 10, 16 << 10];
/// Entries of a call of a peer that has no way to submit without waiting.
const OF_GROUP: usize = 1_024;
/// Most calls of such a peer a round: some take seconds for more.
const PEER_CALLS: usize = 25;
const BACKENDS: [(&str, IoBackend); 3] =
    [("default", IoBackend::Auto), ("pwrite", IoBackend::Pwrite), ("io_uring", IoBackend::Uring)];

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for value_bytes in VALUES {
        rows.extend(of_values(settings, value_bytes)?);
    }
    Ok(rows)
}

fn of_values(settings: &Settings, value_bytes: usize) -> Result<Vec<Row>> {
    // The state is as long for each length of values.
    let keys = (settings.keys * 100 / value_bytes).max(1_000);
    let dir = &settings.dir;
    fresh(&dir.join("durable"))?;
    let dir = dir.join("durable");
    let first = Writes::new(0..keys, value_bytes, 1);
    // More than a segment of the log a round, so that flat out the log begins new ones.
    let count = settings.scaled(100_000_000 / value_bytes);
    let updates = Writes::of(&zipfian(keys, count, 2), value_bytes, 3);
    let raw = Raw::create(&dir.join("raw"))?;
    let mut ours = Vec::new();
    for (name, io) in BACKENDS {
        let sprag = Sprag::create(&dir.join(format!("sprag-{name}")), keys, io)?;
        preload(&sprag, &first)?;
        sprag.reach_recycled(&updates)?;
        ours.push((format!("sprag, {name}"), sprag));
    }
    let mut peers = subjects::storages(&dir, "peer")?;
    peers.iter().try_for_each(|peer| preload(&*peer.store, &first))?;
    peers.extend(subjects::logs(&dir, "peer")?);

    let mut rows = Vec::new();
    for of_call in CALLS {
        let call_bytes = of_call * (KEY_BYTES + value_bytes);
        if call_bytes > settings.scaled(160 << 20) {
            // Only a run of next to nothing has no room for such a call.
            continue;
        }
        // Few calls suffice where each is long: a round writes 4 MB, or three calls.
        let of_bytes = settings.scaled(4 << 20) / call_bytes;
        let calls = of_bytes.clamp(3, settings.scaled(150).max(3));
        rows.extend(calls_of(settings, &raw, &ours, &peers, &updates, (of_call, calls))?);
    }
    if value_bytes == VALUES[0] {
        rows.extend(in_turn::run(settings, &dir, &ours[0].1, &peers, &updates)?);
        rows.extend(first_fill(settings, &dir, &updates)?);
    }
    drop(ours);
    rows.extend(flat_out(settings, &raw, &peers, &first, &updates)?);
    drop(peers);
    fresh(&dir)?;
    Ok(rows)
}

/// Rounds of calls, each waiting until its entries are durable.
fn calls_of(
    settings: &Settings,
    raw: &Raw,
    ours: &[(String, Sprag)],
    peers: &[Peer],
    updates: &Writes,
    (of_call, calls): (usize, usize),
) -> Result<Vec<Row>> {
    let value_bytes = updates.value_bytes();
    let run = |store| move || round(store, updates, of_call, calls);
    let mut subjects = vec![Subject::new(
        "pwrite + fdatasync, written before",
        Role::Limit,
        run(raw as &dyn Store),
    )];
    subjects.extend(ours.iter().map(|(name, sprag)| Subject::new(name, Role::Sprag, run(sprag))));
    subjects.extend(
        peers
            .iter()
            .map(|peer| Subject::new(peer.name, Role::Peer, run(&*peer.store)).differs(peer.why)),
    );
    let chart = format!("calls that wait, {value_bytes} B");
    let mut figures = Figure::at(Unit::MicrosecondsEach, &chart, "entries a call", of_call as f64);
    for name in ["p50 of a call", "p99 of a call"] {
        figures.push(Figure { name: name.to_owned(), unit: Unit::Microseconds, point: None });
    }
    let name = format!("{of_call} a call, {value_bytes} B");
    Case { group: "durable", name, figures, subjects }.run(settings.rounds)
}

fn round(store: &dyn Store, writes: &Writes, of_call: usize, calls: usize) -> Result<Measured> {
    let syncs = store.own_syncs();
    let mut waits = Waits::new()?;
    let mut pairs = writes.pairs().cycle();
    let started = Instant::now();
    for _ in 0..calls {
        let called = Instant::now();
        store.write(&mut pairs.by_ref().take(of_call))?;
        waits.record(called.elapsed())?;
    }
    let us_each = each(started, of_call * calls) / 1e3;
    let quantiles = waits.values(Unit::Microseconds);
    Ok(Measured {
        values: vec![us_each, quantiles[0], quantiles[2]],
        own_syncs: store.own_syncs() - syncs,
    })
}

/// Measures entries submitted as fast as the engine takes them, until the last one is durable.
///
/// The limit writes groups as long as the engine's of the round before. Peers can not submit
/// without waiting, so they get groups of 1,024.
fn flat_out(
    settings: &Settings,
    raw: &Raw,
    peers: &[Peer],
    first: &Writes,
    updates: &Writes,
) -> Result<Vec<Row>> {
    let value_bytes = updates.value_bytes();
    let (keys, count) = (first.len(), updates.len());
    let record_bytes = KEY_BYTES + value_bytes + 64;
    let of_group_max = (Raw::FILE_BYTES / 4 / record_bytes).max(1);
    let of_group = Cell::new(OF_GROUP.min(of_group_max));
    let of_group = &of_group;
    let counts = Counts::default();
    let counts = &counts;
    let mut subjects =
        vec![Subject::new("pwrite + fdatasync, groups as sprag's", Role::Limit, || {
            let group = of_group.get();
            let started = Instant::now();
            let mut pairs = updates.pairs().peekable();
            while pairs.peek().is_some() {
                raw.write(&mut pairs.by_ref().take(group))?;
            }
            Ok((each(started, count) / 1e3).into())
        })];
    for (name, io) in BACKENDS {
        let place = |kind: &str| settings.dir.join(format!("durable/flat-{kind}-{name}"));
        let compacting = Sprag::create(&place("compacting"), keys, io)?;
        preload(&compacting, first)?;
        compacting.reach_recycled(updates)?;
        let subject = format!("sprag, {name}");
        subjects.push(Subject::new(subject.clone(), Role::Sprag, move || {
            let outcome = compacting.flat_out(updates)?;
            counts.add(&subject, &outcome);
            of_group.set(outcome.of_group.clamp(1, of_group_max));
            Ok(Measured { values: vec![outcome.ns_each / 1e3], own_syncs: outcome.syncs })
        }));
        if io != IoBackend::Auto {
            continue;
        }
        let between = Sprag::without_compaction(&place("between"), keys, io)?;
        preload(&between, first)?;
        between.reach_recycled(updates)?;
        let subject = format!("sprag, {name}, compacted between rounds");
        subjects.push(Subject::new(subject.clone(), Role::Sprag, move || {
            // The files of the segments that go are those of the segments to come.
            between.manager.snapshots().compact()?;
            between.manager.flush_pending(TIMEOUT)?;
            let outcome = between.flat_out(updates)?;
            counts.add(&subject, &outcome);
            Ok(Measured { values: vec![outcome.ns_each / 1e3], own_syncs: outcome.syncs })
        }));
    }
    let peer_count = count.min(PEER_CALLS * OF_GROUP);
    subjects.extend(peers.iter().map(|peer| {
        let run = move || {
            let syncs = peer.store.own_syncs();
            let started = Instant::now();
            let mut pairs = updates.pairs().take(peer_count).peekable();
            while pairs.peek().is_some() {
                peer.store.write(&mut pairs.by_ref().take(OF_GROUP))?;
            }
            let us_each = each(started, peer_count) / 1e3;
            Ok(Measured { values: vec![us_each], own_syncs: peer.store.own_syncs() - syncs })
        };
        Subject::new(format!("{}, groups of {OF_GROUP}", peer.name), Role::Peer, run)
            .differs(peer.why)
    }));
    let case = Case {
        group: "durable",
        name: format!("flat out, {value_bytes} B"),
        figures: Figure::only(Unit::MicrosecondsEach),
        subjects,
    };
    let mut rows = case.run(settings.rounds)?;
    rows.extend(counts.rows(value_bytes));
    Ok(rows)
}

/// Counts of the rounds of each subject, beside its times.
#[derive(Debug, Default)]
struct Counts(RefCell<Vec<(String, FlatOut)>>);

impl Counts {
    fn add(&self, subject: &str, outcome: &FlatOut) {
        self.0.borrow_mut().push((subject.to_owned(), *outcome));
    }

    /// Rows of what was counted: recycled segments, and bytes of the log.
    #[allow(clippy::cast_precision_loss, reason = "a number of segments is small")]
    fn rows(&self, value_bytes: usize) -> Vec<Row> {
        let rounds = self.0.borrow();
        let mut subjects: Vec<&str> = rounds.iter().map(|(subject, _)| &**subject).collect();
        subjects.sort_unstable();
        subjects.dedup();
        let mut rows = Vec::new();
        let of = |name: &str, unit, value: &dyn Fn(&FlatOut) -> f64| -> Vec<Row> {
            let case = format!("flat out, {value_bytes} B, {name}");
            let row = |subject: &&str| {
                let values = rounds.iter().filter(|(of, _)| of == subject).map(|(_, it)| value(it));
                // The first round does not count.
                let mut values: Vec<f64> = values.skip(1).collect();
                Row::new(("durable", &case, subject), Role::Sprag, unit, &mut values)
            };
            subjects.iter().map(row).collect()
        };
        let mut recycled = of("segments that took a recycled file", Unit::Count, &|outcome| {
            outcome.recycled as f64
        });
        recycled.iter_mut().for_each(|row| row.why = Some("a count, not a cost".to_owned()));
        rows.append(&mut recycled);
        let case = "bytes of the log";
        let mut bytes = of(case, Unit::BytesEach, &|outcome| outcome.bytes_each);
        let payload = (KEY_BYTES + value_bytes) as f64;
        bytes.push(Row::new(
            ("durable", &format!("flat out, {value_bytes} B, {case}"), "key and value"),
            Role::Limit,
            Unit::BytesEach,
            &mut [payload],
        ));
        Row::compare(&mut bytes);
        rows.append(&mut bytes);
        rows
    }
}

/// The log's first fill, in files that no segment had before, beside a reserved file.
fn first_fill(settings: &Settings, dir: &Path, updates: &Writes) -> Result<Vec<Row>> {
    let count = updates.len();
    let bytes = (count * (KEY_BYTES + updates.value_bytes() + 64)).max(1 << 20);
    let place = dir.join("first");
    let group = Cell::new(OF_GROUP);
    let group = &group;
    let mut subjects = vec![Subject::new("pwrite + fdatasync, reserved", Role::Limit, || {
        let raw = Raw::reserved(&dir.join("first-raw"), bytes)?;
        let started = Instant::now();
        let mut pairs = updates.pairs().peekable();
        while pairs.peek().is_some() {
            raw.write(&mut pairs.by_ref().take(group.get()))?;
        }
        Ok((each(started, count) / 1e3).into())
    })];
    for compacts in [true, false] {
        let name = if compacts { "sprag" } else { "sprag, without compaction" };
        let place = &place;
        subjects.push(Subject::new(name, Role::Sprag, move || {
            let sprag = match compacts {
                true => Sprag::create(place, settings.keys, IoBackend::Auto),
                false => Sprag::without_compaction(place, settings.keys, IoBackend::Auto),
            }?;
            let outcome = sprag.flat_out(updates)?;
            group.set(outcome.of_group.clamp(1, OF_GROUP));
            sprag.manager.close(TIMEOUT)?;
            Ok(Measured { values: vec![outcome.ns_each / 1e3], own_syncs: outcome.syncs })
        }));
    }
    let name = format!("first fill, flat out, {} B", updates.value_bytes());
    let figures = Figure::only(Unit::MicrosecondsEach);
    Case { group: "durable", name, figures, subjects }.run(settings.rounds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn each_call_of_a_durable_case_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let rows = of_values(&Settings::of_test(dir.path()), 1 << 10).unwrap();
        let calls: Vec<_> = rows.iter().filter(|row| row.case == "1 a call, 1024 B").collect();
        assert!(calls.len() >= 6, "{calls:?}");
        // Other tests of this process may sync meanwhile, so there may be more.
        for row in calls {
            assert!(row.syncs >= 3.0, "{row:?}");
        }
    }
}
