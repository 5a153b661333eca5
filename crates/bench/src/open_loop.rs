//! Entries that arrive at a fixed rate, whether or not the engine keeps up.
//!
//! An entry's wait begins when it is due, not when it is taken. So a stall counts for each entry
//! that came due meanwhile, which corrects for coordinated omission.

use std::collections::VecDeque;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use crossbeam_channel::Sender;
use sprag::error::{SubmitError, WaitError};
use sprag::{ApplyManager, Entry, Stage, StateMachine};

use crate::groups::TIMEOUT;
use crate::latency::Waits;
use crate::workload::Writes;

/// Most entries that are taken at once.
const GROUP_MAX: usize = 1_024;
/// Time that the source sleeps while no entry is due.
const TICK: Duration = Duration::from_micros(50);

/// Arrivals of a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Entries a second.
    pub(crate) rate: f64,
    pub(crate) count: usize,
}

impl Load {
    /// Arrivals at this rate for a while.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of entries is positive and fits"
    )]
    pub(crate) fn new(rate: f64, duration: Duration) -> Self {
        Self { rate, count: ((rate * duration.as_secs_f64()) as usize).max(100) }
    }

    /// Moment at which an entry is due, after the start.
    #[allow(clippy::cast_precision_loss, reason = "a number of entries is far below 2^53")]
    fn due(self, at: usize) -> Duration {
        Duration::from_secs_f64(at as f64 / self.rate)
    }

    /// Number of entries that are due this long after the start.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of entries is positive and fits"
    )]
    fn due_count(self, elapsed: Duration) -> usize {
        let due = (elapsed.as_secs_f64() * self.rate) as usize + 1;
        due.min(self.count)
    }

    /// Records the waits of entries that were done at the same moment.
    pub(crate) fn record(
        self,
        waits: &mut Waits,
        entries: Range<usize>,
        done: Duration,
    ) -> Result<()> {
        let mut entries = entries;
        entries.try_for_each(|at| waits.record(done.saturating_sub(self.due(at))))
    }

    /// Hands out entries as they come due, in groups.
    fn arrivals(self, mut take: impl FnMut(Range<usize>, Instant) -> Result<()>) -> Result<()> {
        let started = Instant::now();
        let mut taken = 0;
        while taken < self.count {
            let due = self.due_count(started.elapsed()).min(taken + GROUP_MAX);
            if due == taken {
                thread::sleep(TICK);
                continue;
            }
            take(taken..due, started)?;
            taken = due;
        }
        Ok(())
    }
}

/// Waits of entries that `make` puts where they have to be before it returns.
pub(crate) fn blocking(
    load: Load,
    mut make: impl FnMut(Range<usize>) -> Result<()>,
) -> Result<Waits> {
    let mut waits = Waits::new()?;
    load.arrivals(|entries, started| {
        make(entries.clone())?;
        load.record(&mut waits, entries, started.elapsed())
    })?;
    Ok(waits)
}

/// Waits of entries from due to acknowledged. One thread submits what is due, and looks meanwhile
/// at what was acknowledged: a thread more would take a core from the engine.
///
/// `writes` are submitted over and over; the first entry has index `first`.
pub(crate) fn sprag<M: StateMachine>(
    manager: &ApplyManager<M>,
    writes: &Writes,
    first: u64,
    load: Load,
) -> Result<Waits> {
    let mut waits = Waits::new()?;
    let mut entries = Vec::with_capacity(GROUP_MAX);
    let mut unacknowledged: VecDeque<Range<usize>> = VecDeque::new();
    let mut taken = 0;
    let started = Instant::now();
    while taken < load.count || !unacknowledged.is_empty() {
        let due = load.due_count(started.elapsed()).min(taken + GROUP_MAX);
        if due > taken {
            entries.clear();
            entries.extend((taken..due).map(|at| {
                let (key, value) = writes.pair(at % writes.len());
                Entry::put(first + at as u64, 1, key, value)
            }));
            submit(manager, &entries)?;
            unacknowledged.push_back(taken..due);
            taken = due;
        } else if unacknowledged.is_empty() {
            thread::sleep(TICK);
        }
        while let Some(group) = unacknowledged.front() {
            let patience = match taken == load.count {
                true => TIMEOUT,
                false => load.due(taken).saturating_sub(started.elapsed()),
            };
            let last = first + group.end as u64 - 1;
            match manager.wait_until(last, Stage::Acknowledged, patience) {
                Ok(()) => load.record(&mut waits, group.clone(), started.elapsed())?,
                Err(WaitError::Timeout { .. }) if taken < load.count => break,
                Err(error) => return Err(error.into()),
            }
            unacknowledged.pop_front();
        }
    }
    Ok(waits)
}

/// Entries that were taken, and the start of the arrivals.
pub(crate) type Group = (Range<usize>, Instant);

/// Waits of entries that `observe` sees done on another thread, which gets each group through
/// `taken`.
pub(crate) fn observed(
    load: Load,
    taken: Sender<Group>,
    observe: impl FnOnce(&mut Waits) -> Result<()> + Send,
) -> Result<Waits> {
    let mut waits = Waits::new()?;
    thread::scope(|scope| {
        let observer = scope.spawn(|| observe(&mut waits));
        let outcome = load.arrivals(|group, started| Ok(taken.send((group, started))?));
        drop(taken);
        let observed = observer.join().map_err(|_| anyhow!("the observer panicked"))?;
        // If both failed, the observer's error is the cause.
        observed.and(outcome)
    })?;
    Ok(waits)
}

/// Submits entries, again while the pipeline is full.
pub(crate) fn submit<M: StateMachine>(
    manager: &ApplyManager<M>,
    entries: &[Entry<'_>],
) -> Result<()> {
    loop {
        match manager.apply_entries(entries) {
            Ok(_) => return Ok(()),
            Err(SubmitError::Full { .. }) => thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_stall_counts_for_each_entry_that_came_due_meanwhile() {
        let load = Load { rate: 10_000.0, count: 500 };
        let mut groups = Vec::new();
        let waits = blocking(load, |group| {
            if groups.is_empty() {
                thread::sleep(Duration::from_millis(20));
            }
            groups.push(group);
            Ok(())
        });
        // The first entry waited 20 ms, and 200 came due meanwhile: two in five had to wait.
        let values = waits.unwrap().values(crate::report::Unit::Milliseconds);
        assert!(values[5] >= 20.0, "longest: {values:?}");
        assert!(values[2] >= 18.0, "p99: {values:?}");
        assert!(values[1] >= 14.0, "p90: {values:?}");
        let taken: usize = groups.iter().map(Range::len).sum();
        assert_eq!(taken, 500);
    }
}
