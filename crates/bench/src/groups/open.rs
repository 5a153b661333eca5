//! Opening a state of so many keys in this process, and the bytes it takes on disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use sprag::{ApplyConfig, ApplyManager, IoBackend, PersistentStateMachine};

use super::memory::table;
use super::{Settings, TIMEOUT, VALUE_BYTES};
use crate::measure::{Case, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::{Fjall, Lmdb, Redb, Sprag, Store, preload};
use crate::workload::{Writes, key_of};

fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}

/// Bytes that the files of a directory take on disk.
fn allocated_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            allocated_bytes(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let first = Writes::new(0..keys, VALUE_BYTES, 1);
    let first = &first;
    let dir = |name: &str| settings.dir.join(format!("open-{name}"));
    let mut sprag = Sprag::create(&dir("sprag"), keys, IoBackend::Auto)?;
    preload(&mut sprag, first)?;
    sprag.manager.snapshots().compact()?;
    sprag.manager.close(TIMEOUT)?;
    preload(&mut Fjall::create(&dir("fjall"))?, first)?;
    preload(&mut Redb::create(&dir("redb"))?, first)?;
    preload(&mut Lmdb::create(&dir("lmdb"))?, first)?;

    let middle = key_of(keys / 2);
    let (sprag_dir, fjall_dir, redb_dir, lmdb_dir) =
        (dir("sprag"), dir("fjall"), dir("redb"), dir("lmdb"));
    let subjects = vec![
        Subject::new("building a presized hashbrown table", Role::Limit, move || {
            let started = Instant::now();
            let table = table(first);
            let complete = milliseconds(started);
            ensure!(table.len() == keys, "the table has {} keys", table.len());
            Ok(complete.into())
        })
        .differs("there is nothing to read first"),
        Subject::new("sprag", Role::Sprag, {
            let dir = sprag_dir.clone();
            move || {
                let started = Instant::now();
                let machine =
                    PersistentStateMachine::open(Sprag::config(&dir, keys, IoBackend::Auto))?;
                ensure!(machine.contains(&middle)?, "a key is missing");
                let read = milliseconds(started);
                ApplyManager::new(machine, ApplyConfig::new())?.close(TIMEOUT)?;
                Ok(read.into())
            }
        }),
        Subject::new("fjall", Role::Peer, {
            let dir = fjall_dir.clone();
            move || {
                let started = Instant::now();
                let store = Fjall::open(&dir)?;
                ensure!(store.get(&middle)?.is_some(), "a key is missing");
                Ok(milliseconds(started).into())
            }
        }),
        Subject::new("redb", Role::Peer, {
            let dir = redb_dir.clone();
            move || {
                let started = Instant::now();
                let store = Redb::open(&dir)?;
                ensure!(store.get(&middle)?.is_some(), "a key is missing");
                Ok(milliseconds(started).into())
            }
        }),
        Subject::new("lmdb (heed)", Role::Peer, {
            let dir = lmdb_dir.clone();
            move || {
                let started = Instant::now();
                let store = Lmdb::open(&dir)?;
                ensure!(store.get(&middle)?.is_some(), "a key is missing");
                Ok(milliseconds(started).into())
            }
        }),
    ];
    let figures = vec![("", Unit::Milliseconds)];
    let name = format!("to the first read, {keys} keys");
    let mut rows = Case { group: "open", name, figures, subjects }.run(settings.rounds)?;

    let subjects = vec![
        Subject::new("building a presized hashbrown table", Role::Limit, move || {
            let started = Instant::now();
            let table = table(first);
            let complete = milliseconds(started);
            ensure!(table.len() == keys, "the table has {} keys", table.len());
            Ok(complete.into())
        }),
        Subject::new("sprag", Role::Sprag, {
            let dir = sprag_dir.clone();
            move || {
                let started = Instant::now();
                let machine =
                    PersistentStateMachine::open(Sprag::config(&dir, keys, IoBackend::Auto))?;
                // Puts everything that is left of the snapshot into the store first.
                ensure!(machine.len()? == keys, "keys are missing");
                let complete = milliseconds(started);
                ApplyManager::new(machine, ApplyConfig::new())?.close(TIMEOUT)?;
                Ok(complete.into())
            }
        }),
    ];
    let figures = vec![("", Unit::Milliseconds)];
    let name = format!("complete, {keys} keys");
    rows.extend(Case { group: "open", name, figures, subjects }.run(settings.rounds)?);

    #[allow(clippy::cast_precision_loss, reason = "bytes of a benchmark are far below 2^53")]
    let size =
        |dir: std::path::PathBuf| move || Ok((allocated_bytes(&dir)? as f64 / keys as f64).into());
    let payload = (first.pair(0).0.len() + VALUE_BYTES) as f64;
    let subjects = vec![
        Subject::new("key and value", Role::Limit, move || Ok(payload.into())),
        Subject::new("sprag, compacted", Role::Sprag, size(sprag_dir)),
        Subject::new("fjall", Role::Peer, size(fjall_dir)),
        Subject::new("redb", Role::Peer, size(redb_dir)),
        Subject::new("lmdb (heed)", Role::Peer, size(lmdb_dir)),
    ];
    let figures = vec![("", Unit::Bytes)];
    let name = format!("disk an entry, {keys} keys put once");
    rows.extend(Case { group: "open", name, figures, subjects }.run(1)?);
    Ok(rows)
}
