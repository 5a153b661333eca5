//! A snapshot of the whole state: its duration, and what updates beside it lose.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use sprag::IoBackend;

use super::{Settings, VALUE_BYTES, milliseconds};
use crate::measure::{Case, Figure, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::maps::{Table, filled};
use crate::subjects::{Lmdb, Sprag, fresh, preload};
use crate::workload::{Writes, zipfian};

const CHUNK_BYTES: usize = 4 << 20;

/// Sorts the keys, gathers keys and values, and writes and syncs them.
fn sorted_copy(table: &Table, path: &Path) -> Result<()> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    let mut file = File::create(path)?;
    let mut chunk = Vec::with_capacity(CHUNK_BYTES + 1024);
    for (key, value) in entries {
        chunk.extend_from_slice(key);
        chunk.extend_from_slice(value);
        if chunk.len() >= CHUNK_BYTES {
            file.write_all(&chunk)?;
            chunk.clear();
        }
    }
    file.write_all(&chunk)?;
    Ok(file.sync_data()?)
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let first = Writes::new(0..keys, VALUE_BYTES, 1);
    let dir = settings.dir.join("snapshot");
    fresh(&dir)?;
    let table: Table = filled(keys);
    let sprag = Sprag::without_compaction(&dir.join("sprag"), keys, IoBackend::Auto)?;
    preload(&sprag, &first)?;
    let lmdb_dir = dir.join("lmdb");
    fresh(&lmdb_dir)?;
    let lmdb = Lmdb::open(&lmdb_dir)?;
    preload(&lmdb, &first)?;

    let one = Writes::new(0..1, VALUE_BYTES, 2);
    let subjects = vec![
        Subject::new("sort, gather, write, sync", Role::Limit, || {
            let started = Instant::now();
            sorted_copy(&table, &dir.join("raw"))?;
            Ok(milliseconds(started).into())
        }),
        Subject::new("sprag", Role::Sprag, || {
            // A snapshot at the index of the last one would be that one.
            sprag.flat_out(&one)?;
            let started = Instant::now();
            sprag.manager.snapshots().write()?;
            Ok(milliseconds(started).into())
        }),
        Subject::new("lmdb (heed), compacting copy", Role::Peer, || {
            let started = Instant::now();
            lmdb.copy_to(&dir.join("copy"))?;
            Ok(milliseconds(started).into())
        }),
    ];
    let figures = Figure::only(Unit::Milliseconds);
    let name = format!("idle, {keys} keys");
    let mut rows = Case { group: "snapshot", name, figures, subjects }.run(settings.rounds)?;

    let updates = Writes::of(&zipfian(keys, settings.scaled(1_000_000), 3), VALUE_BYTES, 4);
    let flat_out = || {
        // The log does not grow for ever.
        sprag.manager.snapshots().compact()?;
        let outcome = sprag.flat_out(&updates)?;
        Ok(Measured { values: vec![outcome.ns_each], own_syncs: outcome.syncs })
    };
    let subjects = vec![
        Subject::new("sprag, without a snapshot", Role::Limit, flat_out),
        Subject::new("sprag, one snapshot after the other", Role::Sprag, || {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let snapshots = scope.spawn(|| {
                    // Relaxed: nothing else is handed over by it.
                    while !stop.load(Ordering::Relaxed) {
                        sprag.manager.snapshots().write()?;
                    }
                    anyhow::Ok(())
                });
                let measured = flat_out();
                stop.store(true, Ordering::Relaxed);
                snapshots.join().map_err(|_| anyhow!("the snapshots panicked"))??;
                measured
            })
        }),
    ];
    let figures = Figure::only(Unit::NanosecondsEach);
    let name = format!("durable updates flat out beside it, {keys} keys");
    rows.extend(Case { group: "snapshot", name, figures, subjects }.run(settings.rounds)?);
    Ok(rows)
}
