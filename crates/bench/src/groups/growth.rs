//! Updates and reads of states of more and more keys: nanoseconds each.
//!
//! A state of so many keys leaves no room for a second one. So the subjects take turns by size:
//! each is made, runs all its rounds, and goes.

use std::time::Instant;

use anyhow::Result;
use sprag::{ApplyConfig, IoBackend};

use super::{Settings, VALUE_BYTES, each};
use crate::measure::{Case, Figure, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::maps::{Dash, Map, Table, engine, filled};
use crate::subjects::{Sprag, fresh, preload, submit_all, sum};
use crate::workload::{Key, Writes, key_of, pieces, uniform};

/// Sizes of a full run; those above the limit of `--keys-max` are left out.
const SIZES: [usize; 6] = [1_000_000, 3_000_000, 10_000_000, 20_000_000, 35_000_000, 50_000_000];

/// One size: the updates and reads that each subject makes.
struct Size<'a> {
    settings: &'a Settings,
    /// Name of a case: the keys of a full run, and what they are divided by.
    name: String,
    keys: usize,
    updates: Writes,
    reads: Vec<Key>,
}

impl Size<'_> {
    fn run(
        &self,
        name: &str,
        role: Role,
        round: impl FnMut() -> Result<Measured>,
    ) -> Result<Vec<Row>> {
        let mut figures = Figure::at(Unit::NanosecondsEach, "updates", "keys", self.keys as f64);
        figures[0].name = "updates".to_owned();
        let mut reads = Figure::at(Unit::NanosecondsEach, "reads", "keys", self.keys as f64);
        reads[0].name = "reads".to_owned();
        figures.append(&mut reads);
        let subjects = vec![Subject::new(name, role, round)];
        let name = self.name.clone();
        Case { group: "growth", name, figures, subjects }.run(self.settings.rounds)
    }

    /// Times a read of each key.
    fn read(&self, mut get: impl FnMut(&Key) -> Result<Option<u64>>) -> Result<f64> {
        let started = Instant::now();
        let mut sums = 0_u64;
        for key in &self.reads {
            sums = sums.wrapping_add(get(key)?.unwrap_or_default());
        }
        std::hint::black_box(sums);
        Ok(each(started, self.reads.len()))
    }

    fn map<M: Map>(&self, name: &str, role: Role) -> Result<Vec<Row>> {
        let mut map: M = filled(self.keys);
        self.run(name, role, || {
            let started = Instant::now();
            self.updates.pairs().for_each(|(key, value)| map.put(key, value));
            let update = each(started, self.updates.len());
            Ok(vec![update, self.read(|key| Ok(map.sum(key)))?].into())
        })
    }

    fn memory(&self) -> Result<Vec<Row>> {
        let manager = engine(self.keys, ApplyConfig::new())?;
        let mut next = self.keys as u64 + 1;
        self.run("sprag memory", Role::Sprag, || {
            let entries = self.updates.entries(next);
            next += entries.len() as u64;
            let started = Instant::now();
            submit_all(&manager, &entries)?;
            let update = each(started, entries.len());
            let get = |key: &Key| Ok(manager.machine().get_with(key, sum)?);
            Ok(vec![update, self.read(get)?].into())
        })
    }

    fn persistent(&self) -> Result<Vec<Row>> {
        let dir = self.settings.dir.join("growth");
        let sprag = Sprag::create(&dir, self.keys, IoBackend::Auto)?;
        pieces(self.keys, VALUE_BYTES).try_for_each(|piece| preload(&sprag, &piece))?;
        let rows = self.run("sprag persistent, durable", Role::Sprag, || {
            let outcome = sprag.flat_out(&self.updates)?;
            let get = |key: &Key| Ok(sprag.manager.machine().get_with(key, sum)?);
            let values = vec![outcome.ns_each, self.read(get)?];
            Ok(Measured { values, own_syncs: outcome.syncs })
        })?;
        drop(sprag);
        fresh(&dir)?;
        Ok(rows)
    }
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for size in SIZES {
        let keys = settings.scaled(size);
        if keys > settings.scaled(settings.keys_max) {
            continue;
        }
        let count = settings.scaled(1_000_000);
        let size = Size {
            settings,
            name: match settings.divisor {
                1 => format!("{}M keys", size / 1_000_000),
                divisor => format!("{}M/{divisor} keys", size / 1_000_000),
            },
            keys,
            updates: Writes::of(&uniform(keys, count, 2), VALUE_BYTES, 3),
            reads: uniform(keys, count, 4).iter().map(|at| key_of(*at as usize)).collect(),
        };
        let mut of_size = size.map::<Table>("hashbrown, presized, in place", Role::Limit)?;
        of_size.extend(size.memory()?);
        of_size.extend(size.persistent()?);
        of_size.extend(size.map::<Dash>("dashmap", Role::Peer)?);
        rows.extend(Row::compare_anew(of_size));
    }
    Ok(rows)
}
