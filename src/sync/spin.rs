//! Spinning before sleep: every thread may take a few looks, and only threads with a free core take
//! many.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sync::{looks, spin_loop, thread};

/// Number of looks of an engine's thread, and of a caller that waits. Each is a `spin_loop` hint,
/// some 40 ns.
///
/// With one entry in flight, a worker and its caller need less time than that, so neither sleeps in
/// between.
const LOOKS: u32 = looks(100);
/// Number of looks of a thread with a free core.
const LONG_LOOKS: u32 = looks(2000);

/// Number of threads of this process that take [`LONG_LOOKS`] at the moment.
static SPINNING: AtomicUsize = AtomicUsize::new(0);

/// Maximum of such threads: one for each core, less one for the thread that they wait for.
fn spinning_max() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    let cores = *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from));
    // The count of cores is at least 1.
    cores.saturating_sub(1)
}

/// Permit of a thread to take [`LONG_LOOKS`], until it is dropped.
#[derive(Debug)]
struct Core;

impl Core {
    fn take() -> Option<Self> {
        let max = spinning_max();
        let more = |spinning: usize| (spinning < max).then_some(spinning + 1);
        let taken = SPINNING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Self)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        SPINNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The progress of a thread that looks before it sleeps.
#[derive(Debug)]
pub(crate) struct Spin {
    looks_max: u32,
    looks: u32,
    yields: u32,
    core: Option<Core>,
}

impl Spin {
    /// For a thread that takes many looks where a core is free.
    pub(crate) fn long() -> Self {
        Self { looks_max: LONG_LOOKS, looks: 0, yields: 0, core: None }
    }

    /// For a thread that takes few looks.
    pub(crate) fn brief() -> Self {
        Self { looks_max: LOOKS, ..Self::long() }
    }

    /// Starts the looks again, because the thread found work.
    #[inline]
    pub(crate) fn reset(&mut self) {
        if self.looks > 0 {
            *self = Self { looks_max: self.looks_max, ..Self::long() };
        }
    }

    /// Passes a moment; returns false if the thread has looked often enough, after `yields_max`
    /// yields at most.
    pub(crate) fn pass(&mut self, yields_max: u32) -> bool {
        // A count at its end is above every limit.
        self.looks = self.looks.saturating_add(1);
        if self.looks <= LOOKS || (self.looks <= self.looks_max && self.has_core()) {
            spin_loop();
            return true;
        }
        self.core = None;
        // A count at its end is above every limit.
        self.yields = self.yields.saturating_add(1);
        if self.yields > yields_max {
            return false;
        }
        thread::yield_now();
        true
    }

    fn has_core(&mut self) -> bool {
        if self.core.is_none() {
            self.core = Core::take();
        }
        self.core.is_some()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn fewer_threads_spin_for_long_than_there_are_cores() {
        let most = spinning_max();
        // Threads of other tests may have some permits.
        let taken: Vec<Core> = std::iter::from_fn(Core::take).take(most + 1).collect();
        assert!(taken.len() <= most);
        let mut spin = Spin { looks: LOOKS, ..Spin::long() };
        while taken.len() == most && spin.core.is_some() {
            assert!(!spin.has_core());
        }
        drop(taken);
        let mut looks = 0;
        while spin.pass(3) {
            looks += 1;
        }
        assert!(looks >= 3 && spin.core.is_none(), "{looks}");
        spin.reset();
        assert!(spin.pass(0));
    }
}
