//! The sticky first failure of an engine.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Poison;
use crate::sync::{OnceLock, tell, tell_under_locks};

/// A model has none, and each look at the failure would be one more step of it.
const HAS_SUBSCRIBERS: bool = !cfg!(any(loom, shuttle));

/// The failure is set once and read on every path. `OnceLock` makes the check one load of a line
/// that no thread writes.
#[derive(Debug, Default)]
pub(crate) struct PoisonCell {
    first: OnceLock<Poison>,
    /// Whether a thread tells the failure to `tracing`, or has told it. Nothing else rests on it.
    is_told: AtomicBool,
}

impl PoisonCell {
    /// Records `poison` if it is the first failure. The thread may hold locks, so the event comes
    /// later, from [`PoisonCell::tell`].
    pub(crate) fn set(&self, poison: Poison) {
        // An error: there was a failure before, and that one counts.
        drop(self.first.set(poison));
    }

    /// Whether there is a failure that no thread has told.
    pub(crate) fn is_untold(&self) -> bool {
        HAS_SUBSCRIBERS && self.first.get().is_some() && !self.is_told.load(Ordering::Relaxed)
    }

    /// Tells the failure to `tracing`, if there is one and no thread has told it. The caller holds
    /// no lock.
    pub(crate) fn tell(&self) {
        if let Some(poison) = self.take_untold() {
            tell(|| tracing::error!(%poison, "the engine is poisoned"));
        }
    }

    /// The failure, once.
    fn take_untold(&self) -> Option<&Poison> {
        let first = if HAS_SUBSCRIBERS { self.first.get() } else { None };
        first.filter(|_| !self.is_told.swap(true, Ordering::Relaxed))
    }

    /// The first failure, if there was one.
    #[inline]
    pub(crate) fn get(&self) -> Option<&Poison> {
        self.first.get()
    }

    /// The first failure as an error.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Poison> {
        // Every read of a key comes here, so the copy is kept out of its code.
        #[cold]
        #[inline(never)]
        fn copied(poison: &Poison) -> Poison {
            poison.clone()
        }
        self.first.get().map_or(Ok(()), |poison| Err(copied(poison)))
    }
}

impl Drop for PoisonCell {
    /// Tells a failure that no thread has told: the engine ended before, or there was none yet.
    fn drop(&mut self) {
        if let Some(poison) = self.take_untold() {
            tell_under_locks(|| tracing::error!(%poison, "the engine is poisoned"));
        }
    }
}

/// Checks an order of the engine's numbers, also in release builds. If it does not hold, the macro
/// poisons through `$poisoned.violated`, and returns the poison from the function around it.
///
/// It stands where a watermark moves: once for a submission, a range or a group, never for each
/// entry.
macro_rules! invariant {
    ($poisoned:expr, $holds:expr, $invariant:literal, $($found:tt)+) => {
        if !$holds {
            return Err($poisoned.violated($invariant, format!($($found)+)));
        }
    };
}

pub(crate) use invariant;

impl PoisonCell {
    /// Records that an invariant would not hold. Returns the first failure.
    #[cold]
    pub(crate) fn violated(&self, invariant: &'static str, found: String) -> Poison {
        let poison = Poison::Invariant { invariant, found };
        self.set(poison.clone());
        self.get().cloned().unwrap_or(poison)
    }
}

/// Stands for the poison cell in [`invariant!`] where the caller poisons with the returned error.
pub(crate) struct CallerPoisons;

impl CallerPoisons {
    #[cold]
    pub(crate) fn violated(&self, invariant: &'static str, found: String) -> Poison {
        Poison::Invariant { invariant, found }
    }
}
