//! Choice of the cores that threads are pinned to: the user's list, or the least used cores of the
//! process.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use core_affinity::CoreId;

use crate::sync::{Mutex, Rank};

/// Result of pinning a thread of an engine.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinnedThread {
    /// The thread's name: `sprag-apply-0`, `sprag-log`.
    pub thread: String,
    /// The core for the thread, by the system's number; `None` if the system names no core to
    /// choose from.
    pub core: Option<usize>,
    /// The result.
    pub outcome: PinOutcome,
}

/// Results of pinning; see [`PinnedThread`].
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PinOutcome {
    /// The thread has not started.
    Starting,
    /// The thread runs on that core only. Other threads may use the core too.
    Pinned,
    /// The system places the thread, for this reason.
    Failed(String),
}

/// Number of threads of this process that are pinned to each core. A process has few engines, and
/// seldom starts or ends one.
static USED: LazyLock<Mutex<BTreeMap<usize, usize>>> =
    LazyLock::new(|| Mutex::new(Rank::UsedCores, BTreeMap::new()));

/// A core for one thread, counted as used until it is dropped.
#[derive(Debug)]
pub(crate) struct Core(usize);

impl Core {
    /// The core that the user named.
    pub(crate) fn named(core: usize) -> Self {
        *USED.lock().entry(core).or_default() += 1;
        Self(core)
    }

    /// The usable core to which the fewest threads are pinned; of several, the last one. The system
    /// tends to place callers and the log writer on the others.
    pub(crate) fn least_used() -> Option<Self> {
        let mut used = USED.lock();
        // No thread is pinned to a core that is not in the map.
        let count = |core: &usize| used.get(core).copied().unwrap_or(0);
        let core = allowed().into_iter().rev().min_by_key(count)?;
        *used.entry(core).or_default() += 1;
        // The drop of what is returned takes the lock.
        drop(used);
        Some(Self(core))
    }

    pub(crate) fn number(&self) -> usize {
        self.0
    }

    /// Pins the calling thread to the core.
    pub(crate) fn pin(&self) -> PinOutcome {
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
        let mut used = USED.lock();
        if let Some(count) = used.get_mut(&self.0) {
            // The use was counted when the thread was pinned.
            *count = count.saturating_sub(1);
        }
        used.retain(|_, count| *count > 0);
    }
}

/// The cores that the calling thread may use, in rising order.
fn allowed() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut cores: Vec<usize> = cores.into_iter().map(|core| core.id).collect();
    cores.sort_unstable();
    cores
}
