//! A disk that stops for one second: waits of entries that arrive at a fixed rate. Entries that are
//! committed and not yet durable take memory meanwhile, which is measured too.
//!
//! The disk is the simulated one, in memory, so that only the stop is seen.

#[path = "../../../../tests/common/acting_disk.rs"]
mod acting_disk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use sprag::testing::SimDisk;
use sprag::{ApplyConfig, ApplyManager, PersistentConfig, PersistentStateMachine};

use self::acting_disk::ActingDisk;
use super::space::anonymous_bytes;
use super::{Settings, VALUE_BYTES};
use crate::measure::{Case, Figure, Measured, Subject};
use crate::open_loop::{self, Load};
use crate::report::{Role, Row, Unit};
use crate::workload::{Writes, zipfian};

/// Entries a second.
const RATE: f64 = 20_000.0;
const STOP: Duration = Duration::from_secs(1);
const MIB: f64 = 1_048_576.0;

/// A round on a new engine, whose disk stops in the middle of it or does not.
#[allow(clippy::cast_precision_loss, reason = "bytes of a benchmark are far below 2^53")]
fn round(load: Load, stop: Option<Duration>, updates: &Writes) -> Result<Measured> {
    let due = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&due);
    let disk = ActingDisk::new(SimDisk::new(1).open(true)?).at_sync(move || {
        // Relaxed: nothing else is handed over by it.
        if let Some(stop) = stop
            && seen.swap(false, Ordering::Relaxed)
        {
            thread::sleep(stop);
        }
    });
    let machine =
        PersistentStateMachine::open_on_disk(Arc::new(disk), PersistentConfig::new("sim"))?;
    let manager = ApplyManager::new(machine, ApplyConfig::new())?;
    let limit = manager.stats().memory_bytes as f64 / MIB;
    let is_over = &AtomicBool::new(false);
    thread::scope(|scope| {
        let before = anonymous_bytes()?;
        let sampler = scope.spawn(move || {
            let mut most = 0;
            let mut samples = 0_u32;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(anonymous_bytes()?.saturating_sub(before));
                samples += 1;
                if samples == 60 {
                    due.store(true, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(5));
            }
            anyhow::Ok(most as f64 / MIB)
        });
        let waits = open_loop::sprag(&manager, updates, 1, load);
        is_over.store(true, Ordering::Relaxed);
        let most = sampler.join().map_err(|_| anyhow!("the sampler panicked"))??;
        let quantiles = waits?.values(Unit::Milliseconds);
        Ok(vec![quantiles[3], quantiles[5], most, limit].into())
    })
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let load = Load::new(RATE, Duration::from_millis(settings.scaled(2_000) as u64));
    let updates = Writes::of(&zipfian(settings.keys, 100_000, 2), VALUE_BYTES, 3);
    let stop = STOP.min(Duration::from_millis(settings.scaled(1_000) as u64));
    let updates = &updates;
    let figures = [
        ("p99.9", Unit::Milliseconds),
        ("longest", Unit::Milliseconds),
        ("most memory above the start", Unit::Mebibytes),
        ("memory that the engine may take", Unit::Mebibytes),
    ];
    let case = Case {
        group: "stalls",
        name: format!("a simulated disk, {RATE} entries a second"),
        figures: figures
            .map(|(name, unit)| Figure { name: name.to_owned(), unit, point: None })
            .to_vec(),
        subjects: vec![
            Subject::new("sprag, the disk does not stop", Role::Limit, || {
                round(load, None, updates)
            }),
            Subject::new(format!("sprag, the disk stops for {stop:?}"), Role::Sprag, || {
                round(load, Some(stop), updates)
            }),
        ],
    };
    case.run(settings.rounds.min(3))
}
