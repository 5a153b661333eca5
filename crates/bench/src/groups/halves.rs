//! The two halves of the hand-off, each run alone on one thread: submitting entries, and putting
//! what was submitted into the store.
//!
//! The engine is stepped by hand, so that no other thread takes part. Its clock stands, so neither
//! half reads one.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sprag::testing::Stepped;
use sprag::{ApplyConfig, MemoryStateMachine};

use super::memory::Feed;
use super::{Settings, each};
use crate::measure::{Case, Figure, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::maps::{Table, engine, filled, machine_of, overwrite};
use crate::subjects::{ASYNC_RANGE, submit_all};
use crate::workload::{Writes, pieces};

/// Entries that are submitted before they are applied: 2 MB of a frame's bytes.
const OF_TURN: usize = 16 * ASYNC_RANGE;

/// An engine without threads, every key in it.
struct Halves<'a> {
    engine: Stepped<MemoryStateMachine>,
    feed: Feed<'a>,
}

impl<'a> Halves<'a> {
    fn new(keys: usize, writes: &'a Writes) -> Result<Self> {
        let config = ApplyConfig::new().worker_count(NonZeroUsize::MIN);
        let engine = Stepped::new(machine_of(keys)?, config)?;
        let mut next = 1;
        for piece in pieces(keys, super::VALUE_BYTES) {
            ensure!(engine.apply_entries(&piece.entries(next))?.new == piece.len() as u64);
            engine.run_until_idle();
            next += piece.len() as u64;
        }
        Ok(Self { engine, feed: Feed::new(writes, next) })
    }

    /// Nanoseconds an entry of submitting, and of applying.
    #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a round are far below 2^53")]
    fn round(&mut self) -> Result<(f64, f64)> {
        let (mut submitting, mut applying) = (Duration::ZERO, Duration::ZERO);
        let entries = self.feed.renumber();
        for turn in entries.chunks(OF_TURN) {
            let started = Instant::now();
            for part in turn.chunks(ASYNC_RANGE) {
                ensure!(self.engine.apply_entries(part)?.new == part.len() as u64);
            }
            submitting += started.elapsed();
            let started = Instant::now();
            while self.engine.step_worker(0) {}
            applying += started.elapsed();
            self.engine.run_until_idle();
        }
        let of_entry = |time: Duration| time.as_nanos() as f64 / entries.len() as f64;
        Ok((of_entry(submitting), of_entry(applying)))
    }
}

fn case(
    settings: &Settings,
    question: &str,
    updates: &str,
    subjects: Vec<Subject<'_>>,
) -> Result<Vec<Row>> {
    let name = format!("{question}, {updates}");
    let figures = Figure::only(Unit::NanosecondsEach);
    Case { group: "hand-off", name, figures, subjects }.run(settings.rounds)
}

/// The halves and the whole, with updates of these keys.
pub(super) fn of_updates(settings: &Settings, name: &str, writes: &Writes) -> Result<Vec<Row>> {
    let (keys, count) = (settings.keys, writes.len());
    let name = format!("{name}, {keys} keys");
    let mut table: Table = filled(keys);
    let mut halves = Halves::new(keys, writes)?;
    let mut rows = case(
        settings,
        "the store half",
        &name,
        vec![
            Subject::new("overwrite alone, one thread", Role::Limit, || {
                let started = Instant::now();
                writes.pairs().for_each(|(key, value)| overwrite(&mut table, key, value));
                Ok(each(started, count).into())
            }),
            Subject::new("sprag, the store half alone", Role::Sprag, || {
                Ok(halves.round()?.1.into())
            }),
        ],
    )?;
    drop(table);
    rows.extend(case(
        settings,
        "the submit half",
        &name,
        vec![Subject::new("sprag, the submit half alone", Role::Sprag, || {
            Ok(halves.round()?.0.into())
        })],
    )?);
    let manager = engine(keys, ApplyConfig::new().inline_apply(false))?;
    let mut feed = Feed::new(writes, keys as u64 + 1);
    rows.extend(case(
        settings,
        "both halves on two threads",
        &name,
        vec![
            Subject::new("sprag, the slower half alone", Role::Limit, || {
                let (submitting, applying) = halves.round()?;
                Ok(submitting.max(applying).into())
            }),
            Subject::new(format!("sprag, {ASYNC_RANGE} a call"), Role::Sprag, || {
                let entries = feed.renumber();
                let started = Instant::now();
                submit_all(&manager, entries)?;
                Ok(each(started, count).into())
            }),
        ],
    )?);
    Ok(rows)
}
