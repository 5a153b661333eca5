//! Opening a state, with a tail of a log behind its snapshot.

use std::time::Instant;

use anyhow::{Result, ensure};
use sprag::IoBackend;

use super::{Settings, TIMEOUT, VALUE_BYTES, milliseconds};
use crate::measure::{Case, Figure, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::maps::Map;
use crate::subjects::{self, STORAGES, Sprag, maps, preload};
use crate::workload::{Writes, key_of, zipfian};

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let tail = keys / 10;
    let first = Writes::new(0..keys, VALUE_BYTES, 1);
    let updates = Writes::of(&zipfian(keys, tail, 2), VALUE_BYTES, 3);
    let place = |name: &str| subjects::place(&settings.dir, "open", name);
    let sprag = Sprag::without_compaction(&place("sprag"), keys, IoBackend::Auto)?;
    preload(&sprag, &first)?;
    sprag.manager.snapshots().compact()?;
    sprag.flat_out(&updates)?;
    sprag.manager.close(TIMEOUT)?;
    for peer in subjects::storages(&settings.dir, "open")? {
        preload(&*peer.store, &first)?;
        preload(&*peer.store, &updates)?;
    }

    let reopen =
        || Sprag::with(Sprag::config(&place("sprag"), keys, IoBackend::Auto).compaction(None));
    let middle = key_of(keys / 2);
    let mut subjects = vec![Subject::new("sprag", Role::Sprag, || {
        let started = Instant::now();
        let sprag = reopen()?;
        ensure!(sprag.manager.machine().contains(&middle)?, "a key is missing");
        let read = milliseconds(started);
        sprag.manager.close(TIMEOUT)?;
        Ok(read.into())
    })];
    subjects.extend(STORAGES.iter().map(|(name, open)| {
        let place = place(name);
        Subject::new(*name, Role::Peer, move || {
            let started = Instant::now();
            let store = open(&place)?;
            ensure!(store.get(&middle)?.is_some(), "a key is missing");
            Ok(milliseconds(started).into())
        })
    }));
    let figures = Figure::only(Unit::Milliseconds);
    let name = format!("to the first read, {keys} keys and {tail} updates behind");
    let mut rows = Case { group: "open", name, figures, subjects }.run(settings.rounds)?;

    let subjects = vec![
        Subject::new("building a presized hashbrown table", Role::Limit, || {
            let started = Instant::now();
            let mut table = maps::Table::with_capacity(keys);
            first.pairs().for_each(|(key, value)| table.put(key, value));
            updates.pairs().for_each(|(key, value)| table.put(key, value));
            let complete = milliseconds(started);
            ensure!(table.len() == keys, "the table has {} keys", table.len());
            Ok(complete.into())
        }),
        Subject::new("sprag", Role::Sprag, || {
            let started = Instant::now();
            let sprag = reopen()?;
            // Puts everything that is left of the snapshot into the store first.
            ensure!(sprag.manager.machine().len()? == keys, "keys are missing");
            let complete = milliseconds(started);
            sprag.manager.close(TIMEOUT)?;
            Ok(complete.into())
        }),
    ];
    let figures = Figure::only(Unit::Milliseconds);
    let name = format!("complete, {keys} keys and {tail} updates behind");
    rows.extend(Case { group: "open", name, figures, subjects }.run(settings.rounds)?);
    Ok(rows)
}
