//! Options of the engine: each row sets one of them, beside the default engine of the same case.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sprag::{ApplyConfig, CompactionPolicy, IoBackend, PersistentConfig};

use super::{Settings, VALUE_BYTES, each};
use crate::latency::Waits;
use crate::measure::{Case, Figure, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::{Sprag, Store, fresh};
use crate::workload::{Writes, zipfian};

/// A change of the default options.
type Change = fn(PersistentConfig, ApplyConfig) -> (PersistentConfig, ApplyConfig);

/// Work of the entries of a case.
#[derive(Debug, Clone, Copy)]
enum Load {
    /// Entries as fast as the engine takes them.
    FlatOut,
    /// One entry, or so many, in each call that waits.
    Calls(usize),
    /// New keys, which no table was made for.
    NewKeys,
}

const DEFAULT: Change = |machine, apply| (machine, apply);

/// Name of the option, load, and values.
type Measure = (&'static str, Load, &'static [(&'static str, Change)]);

/// The default engine is the first subject of each.
const OPTIONS: &[Measure] = &[
    (
        "`batch_size` of the machine and the manager, flat out",
        Load::FlatOut,
        &[
            ("32", |machine, apply| (machine.batch_size(32), apply.batch_size(32))),
            ("512", |machine, apply| (machine.batch_size(512), apply.batch_size(512))),
        ],
    ),
    (
        "`pipeline_depth`, flat out",
        Load::FlatOut,
        &[
            ("1,024", |machine, apply| (machine, apply.pipeline_depth(1_024))),
            ("262,144", |machine, apply| (machine, apply.pipeline_depth(262_144))),
        ],
    ),
    (
        "`worker_count`, flat out",
        Load::FlatOut,
        &[("2", |machine, apply| {
            (machine, apply.worker_count(NonZeroUsize::MIN.saturating_add(1)))
        })],
    ),
    (
        "`io`, flat out",
        Load::FlatOut,
        &[
            ("Pwrite", |machine, apply| (machine.io(IoBackend::Pwrite), apply)),
            ("Uring", |machine, apply| (machine.io(IoBackend::Uring), apply)),
        ],
    ),
    (
        "`segment_bytes`, flat out",
        Load::FlatOut,
        &[
            ("8 MiB", |machine, apply| (machine.segment_bytes(8 << 20), apply)),
            ("256 MiB", |machine, apply| (machine.segment_bytes(256 << 20), apply)),
        ],
    ),
    (
        "`compaction`, flat out",
        Load::FlatOut,
        &[
            ("None", |machine, apply| (machine.compaction(None), apply)),
            ("`garbage_ratio` 4", |machine, apply| {
                (machine.compaction(CompactionPolicy::new().garbage_ratio(4.0)), apply)
            }),
        ],
    ),
    (
        "`expected_keys`, all keys put once",
        Load::NewKeys,
        &[("1,024", |machine, apply| (machine.expected_keys(1_024), apply))],
    ),
    (
        "`inline_apply`, calls of one entry",
        Load::Calls(1),
        &[("no", |machine, apply| (machine, apply.inline_apply(false)))],
    ),
    (
        "`io`, calls of one entry",
        Load::Calls(1),
        &[("Uring", |machine, apply| (machine.io(IoBackend::Uring), apply))],
    ),
    (
        "`batch_interval`, calls of one entry",
        Load::Calls(1),
        &[("1 ms", |machine, apply| (machine.batch_interval(Duration::from_millis(1)), apply))],
    ),
    (
        "`inline_apply`, calls of 128 entries",
        Load::Calls(128),
        &[("no", |machine, apply| (machine, apply.inline_apply(false)))],
    ),
];

/// Calls of a round.
const CALLS: usize = 300;

/// A round of a load on an engine that was made for it.
fn round(engine: &Sprag, load: Load, updates: &Writes, calls: usize) -> Result<Measured> {
    let Load::Calls(of_call) = load else {
        let outcome = engine.flat_out(updates)?;
        return Ok(Measured { values: vec![outcome.ns_each / 1e3], own_syncs: outcome.syncs });
    };
    let syncs = engine.own_syncs();
    let mut waits = Waits::new()?;
    let mut pairs = updates.pairs().cycle();
    let started = Instant::now();
    for _ in 0..calls {
        let called = Instant::now();
        engine.write(&mut pairs.by_ref().take(of_call))?;
        waits.record(called.elapsed())?;
    }
    let us_each = each(started, of_call * calls) / 1e3;
    Ok(Measured { values: vec![us_each], own_syncs: engine.own_syncs() - syncs })
}

/// One option with its values, beside the default.
fn of_option(settings: &Settings, dir: &Path, (name, load, values): Measure) -> Result<Vec<Row>> {
    let keys = settings.keys / 4;
    let first = Writes::new(0..keys, VALUE_BYTES, 1);
    let updates = Writes::of(&zipfian(keys, settings.scaled(500_000), 2), VALUE_BYTES, 3);
    let all = [("default", Role::Limit, DEFAULT)];
    let all = all.into_iter().chain(values.iter().map(|(v, change)| (*v, Role::Sprag, *change)));
    let mut subjects = Vec::new();
    for (at, (value, role, change)) in all.enumerate() {
        let place = dir.join(at.to_string());
        let open = move || {
            fresh(&place)?;
            let machine = PersistentConfig::new(&place).expected_keys(keys);
            let (machine, apply) = change(machine, ApplyConfig::new());
            Sprag::with_both(machine, apply)
        };
        let (first, updates) = (&first, &updates);
        if matches!(load, Load::NewKeys) {
            let run = move || round(&open()?, load, first, CALLS);
            subjects.push(Subject::new(value, role, run));
            continue;
        }
        let engine = open().with_context(|| format!("{name}, {value}"))?;
        // Submissions that fit into the shortest pipeline.
        engine.flat_out(first)?;
        let calls = settings.scaled(CALLS);
        let run = move || round(&engine, load, updates, calls);
        subjects.push(Subject::new(value, role, run));
    }
    let figures = Figure::only(Unit::MicrosecondsEach);
    Case { group: "options", name: name.to_owned(), figures, subjects }.run(settings.rounds)
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let dir = settings.dir.join("options");
    let mut rows = Vec::new();
    for option in OPTIONS {
        fresh(&dir)?;
        rows.extend(of_option(settings, &dir, *option)?);
    }
    fresh(&dir)?;
    Ok(rows)
}
