//! Calls of a state machine, and of its storage, by the engine: what a failure or a panic becomes.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::machine::StateMachine;
use super::staging::Staging;
use crate::entry::LogId;
use crate::error::{Corrupt, Fatal, OpenError, Poison};
use crate::ranges::partition::Partition;
use crate::ranges::range::{EntryRange, RangeParts, Replies};
use crate::sync::set_aside;

/// A range that could not be applied.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The poison for the engine. It names the entry.
    pub(crate) poison: Poison,
    /// The damaged place of a file, if that is the cause.
    pub(crate) damage: Option<Box<Corrupt>>,
}

impl From<Poison> for Failed {
    fn from(poison: Poison) -> Self {
        Self { poison, damage: None }
    }
}

impl From<Failed> for Poison {
    fn from(failed: Failed) -> Self {
        failed.poison
    }
}

/// Runs the machine over a range that a worker, a record or replay has taken. Returns the number of
/// rejections. A panic, a [`Fatal`] and a reply that is too long become poison that names the
/// entry.
pub(crate) fn run_machine<M: StateMachine>(
    machine: &M,
    parts: RangeParts<'_>,
    partition: Partition,
) -> Result<u64, Failed> {
    let progress = Cell::new(parts.first.index);
    let range = &EntryRange::new(parts, &progress);
    let mut replies = Replies::new(range.in_flight);
    let aside = set_aside();
    let applied = catch_unwind(AssertUnwindSafe(|| machine.apply(range, partition, &mut replies)));
    drop(aside);
    let index = progress.get();
    match applied {
        Err(_panic) => return Err(Poison::Panic { index }.into()),
        Ok(Err(fatal)) => {
            let poison = Poison::Fatal { index, message: fatal.to_string() };
            return Err(Failed { poison, damage: fatal.into_damage().map(Box::new) });
        }
        Ok(Ok(())) => {}
    }
    match replies.too_long {
        None => Ok(replies.rejected),
        Some((index, bytes)) => {
            let max = range.in_flight.reply_bytes_max();
            let message = format!(
                "it replied with {bytes} bytes, and its reply_bytes_max() says {max} at most: \
                 raise that and open again"
            );
            Err(Poison::Fatal { index, message }.into())
        }
    }
}

/// Runs a call to the storage; a failure and a panic become poison that names `index`.
pub(crate) fn call_storage<T>(
    index: u64,
    what: impl FnOnce() -> String,
    call: impl FnOnce() -> Result<T, Fatal>,
) -> Result<T, Poison> {
    let _aside = set_aside();
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(fatal)) => Err(Poison::Fatal { index, message: format!("{}: {fatal}", what()) }),
        Err(_panic) => Err(Poison::Panic { index }),
    }
}

/// Makes a storage's content at opening durable, up to `applied`.
pub(crate) fn sync_applied(staging: &dyn Staging, applied: Option<LogId>) -> Result<(), OpenError> {
    let Some(last) = applied.filter(|_| staging.durable() != applied) else { return Ok(()) };
    let what = || "its storage did not sync what it had".to_owned();
    call_storage(last.index, what, || staging.sync()).map_err(OpenError::Replay)
}
