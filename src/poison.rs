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
        self.0.get().map_or(Ok(()), |poison| Err(poison.clone()))
    }
}
