//! Which cores threads are pinned to: those of the user's list, or the least used ones of the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use core_affinity::CoreId;

/// What pinning a thread of an engine has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinnedThread {
    /// The thread's name: `sprag-apply-0`, `sprag-log`.
    pub thread: String,
    /// The core it was to be pinned to, by the system's number; `None` if the system names no core to choose from.
    pub core: Option<usize>,
    /// What came of it.
    pub outcome: PinOutcome,
}

/// See [`PinnedThread`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PinOutcome {
    /// The thread has not begun.
    Starting,
    /// The thread runs on that core only. Others may use the core too.
    Pinned,
    /// The thread runs wherever the system lets it, for this reason.
    Failed(String),
}

/// How many threads of this process were pinned to a core, by its number. A process has few engines, and they come and go
/// seldom.
static USED: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// A core that a thread was given, counted as used until it is dropped.
#[derive(Debug)]
pub(super) struct Core(usize);

impl Core {
    /// The core that the user named.
    pub(super) fn named(core: usize) -> Self {
        *used().entry(core).or_default() += 1;
        Self(core)
    }

    /// Of the cores that the process may use the one that the fewest threads were given; of several the last one: callers
    /// and the log writer, which the system places, have the others.
    pub(super) fn least_used() -> Option<Self> {
        let mut used = used();
        let count = |core: &usize| used.get(core).copied().unwrap_or(0);
        let core = allowed().into_iter().rev().min_by_key(count)?;
        *used.entry(core).or_default() += 1;
        Some(Self(core))
    }

    pub(super) fn number(&self) -> usize {
        self.0
    }

    /// Pins the calling thread to it.
    pub(super) fn pin(&self) -> PinOutcome {
        let cores = allowed();
        if !cores.contains(&self.0) {
            let core = self.0;
            return PinOutcome::Failed(format!(
                "core {core} is none of {cores:?}, which it may use"
            ));
        }
        if !core_affinity::set_for_current(CoreId { id: self.0 }) {
            return PinOutcome::Failed("the system refused it".to_owned());
        }
        PinOutcome::Pinned
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let mut used = used();
        if let Some(count) = used.get_mut(&self.0) {
            *count = count.saturating_sub(1);
        }
        used.retain(|_, count| *count > 0);
    }
}

fn used() -> std::sync::MutexGuard<'static, BTreeMap<usize, usize>> {
    USED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cores that the calling thread may use, in rising order.
fn allowed() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut cores: Vec<usize> = cores.into_iter().map(|core| core.id).collect();
    cores.sort_unstable();
    cores
}
