//! Apply by the thread that commits: it takes the workers' steps, and wakes no worker.
//!
//! A commit of a Raft library comes from a thread that is awake. A worker that has to be woken for
//! a few entries costs more than these entries.

use std::ops::RangeInclusive;

use super::Pipeline;
use super::cells::ReplyCell;
use crate::contract::machine::StateMachine;
use crate::error::SubmitError;
use crate::hook::Hook;
use crate::threads::Step;

impl<M: StateMachine> Pipeline<M> {
    /// Commits as [`commit_with_cells`](Pipeline::commit_with_cells) does, and applies the entries
    /// if applying is brief and every worker is idle. Otherwise it wakes the workers.
    pub(in crate::apply) fn commit_here(
        &self,
        indexes: RangeInclusive<u64>,
        wants: impl Fn(u64) -> bool,
    ) -> Result<Vec<Option<ReplyCell>>, SubmitError> {
        let last = *indexes.end();
        // A worker that is at earlier entries is awake, and takes these too.
        let idle = self.progress.applied_mark() == self.progress.committed_mark();
        let here = idle && self.applies_here();
        let cells = self.add_cells_and_commit(indexes, wants)?;
        if !here || !self.apply_here(last) {
            self.signals.notify_workers();
        }
        Ok(cells)
    }

    /// Whether a commit may apply in the calling thread.
    pub(in crate::apply) fn applies_here(&self) -> bool {
        self.config.inline_apply && self.machine.is_brief(Hook::ENGINE)
    }

    /// Takes steps of the workers until everything up to `last` is applied. Returns false if there
    /// is more for the workers to do: another thread has a worker's post, or has committed entries.
    fn apply_here(&self, last: u64) -> bool {
        let is_applied = || self.progress.applied_mark().covers(last);
        let mut others = false;
        loop {
            let mut worked = false;
            for id in 0..self.workers.count() {
                // The last step finds the ring empty, and releases the segment's memory. Or it has
                // applied entries of another thread, and leaves the others of these to the workers.
                let mut is_last = is_applied();
                while self.step_worker(id) == Step::Worked {
                    worked = true;
                    if is_last {
                        others = true;
                        break;
                    }
                    is_last = is_applied();
                }
            }
            if is_applied() || !worked {
                break;
            }
        }
        // The posts are free, as a worker's is that has run dry.
        self.signals.workers_bell().ring();
        is_applied() && !others
    }
}
