//! Submission flat out, and the clock around it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sprag::error::SubmitError;
use sprag::{ApplyManager, Entry, LogId, LogWriterStats, StateMachine, TimeStats};

use super::ack_file::SubmittedMark;
use super::workload::Workload;
use crate::alloc::allocations;
use crate::error::{Failure, Outcome, about};
use crate::progress::{Bar, Progress};

/// Time without progress after which a run gives up.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// Number of keys whose preload is in memory at once, if their values are short.
const PRELOAD_AT_ONCE: u32 = 1 << 16;
/// Number of bytes of preload in memory at once, if their values are long.
const PRELOAD_BYTES: usize = 64 << 20;

/// The timed part of a run.
#[derive(Clone, Debug)]
pub(super) struct Submitted {
    /// Index of the first timed entry.
    pub(super) first: u64,
    /// Time from the first submission to the last acknowledgement.
    pub(super) took: Duration,
    /// Number of submissions that were refused as full.
    pub(super) fulls: u64,
    /// Number of allocations of all threads in the timed part.
    pub(super) allocations: u64,
    /// The log writer's figures before the timed part.
    pub(super) log_before: LogWriterStats,
    /// The histograms of times before the timed part.
    pub(super) times_before: TimeStats,
}

/// Submits slices of entries, and publishes how far it is.
pub(super) struct Submitter<'a, M: StateMachine> {
    pub(super) manager: &'a ApplyManager<M>,
    pub(super) batch: usize,
    pub(super) mark: &'a SubmittedMark,
    pub(super) progress: Progress,
}

impl<M: StateMachine> Submitter<'_, M> {
    /// Puts every key once, from index `next.index` on. Returns the next log id.
    pub(super) fn preload(&self, workload: &Workload, next: LogId) -> Outcome<LogId> {
        let keys = workload.keys();
        let mut bar = self.progress.entries("preload", u64::from(keys));
        let mut next = next;
        let at_once = PRELOAD_BYTES / workload.record_bytes();
        // The limit below is lower than what does not fit.
        let at_once = u32::try_from(at_once).unwrap_or(u32::MAX).clamp(1, PRELOAD_AT_ONCE);
        for start in (0..keys).step_by(at_once as usize) {
            // The last part ends with the keys.
            let end = start.saturating_add(at_once).min(keys);
            let writes = workload.preload(start..end);
            let entries = writes.entries(next.index, next.term);
            self.submit(&entries, u64::from(start), &mut bar)?;
            next = next.at(next.index + entries.len() as u64);
        }
        self.manager.wait_for_apply(next.index - 1, TIMEOUT)?;
        Ok(next)
    }

    /// Submits `entries`, at least one, waits for the last, and times that.
    pub(super) fn timed(&self, entries: &[Entry<'_>]) -> Outcome<Submitted> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Err("there are no entries to run".into());
        };
        let (first, last) = (first.log_id.index, last.log_id.index);
        let mut bar = self.progress.entries("run", entries.len() as u64);
        let before = self.manager.stats();
        let (log_before, times_before) = (before.log_writer, before.times);
        self.manager.reset_latency();
        let allocations_before = allocations();
        let started = Instant::now();
        let fulls = self.submit(entries, 0, &mut bar)?;
        self.manager.wait_for_apply(last, TIMEOUT)?;
        let took = started.elapsed();
        let allocations = allocations() - allocations_before;
        Ok(Submitted { first, took, fulls, allocations, log_before, times_before })
    }

    /// Submits the entries, and returns how often the engine was full. The bar stands at `done`
    /// before.
    fn submit(&self, entries: &[Entry<'_>], done: u64, bar: &mut Bar) -> Outcome<u64> {
        let mut fulls = 0;
        let mut done = done;
        for slice in entries.chunks(self.batch) {
            let Some(first) = slice.first().map(|entry| entry.log_id.index) else { break };
            loop {
                match self.manager.apply_entries(slice) {
                    Ok(_) => break,
                    Err(SubmitError::Full { pending }) => {
                        fulls += 1;
                        bar.at(done);
                        // Wait for half of the pipeline to become free; the other half keeps the
                        // engine busy meanwhile.
                        let half_back = first.saturating_sub(1 + pending / 2);
                        self.manager.wait_for_apply(half_back, TIMEOUT)?;
                    }
                    Err(error @ SubmitError::TooLarge { what, .. }) if what.fits_in_parts() => {
                        let message = format!(
                            "--batch and --value-bytes are too much for one submission: {error}"
                        );
                        return Err(Failure::usage(message));
                    }
                    Err(other) => return Err(about("submitting")(other)),
                }
            }
            done += slice.len() as u64;
            self.mark.store(first + slice.len() as u64, Ordering::Release);
        }
        Ok(fulls)
    }
}
