//! The sticky first failure of an engine.

use crate::error::Poison;
use crate::sync::OnceLock;

/// The failure is set once and read on every path. `OnceLock` makes the check one load of a line
/// that no thread writes.
#[derive(Debug, Default)]
pub(crate) struct PoisonCell(OnceLock<Poison>);

impl PoisonCell {
    /// Records `poison` if it is the first failure.
    pub(crate) fn set(&self, poison: Poison) {
        if self.0.set(poison.clone()).is_ok() {
            tracing::error!(%poison, "the engine is poisoned");
        }
    }

    /// The first failure, if there was one.
    #[inline]
    pub(crate) fn get(&self) -> Option<&Poison> {
        self.0.get()
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
        self.0.get().map_or(Ok(()), |poison| Err(copied(poison)))
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
