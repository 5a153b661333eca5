//! The latest truncations, for waits that have begun and are not registered yet.

use crate::bytes::to_usize;
use crate::numbers::Mark;

/// Number of truncations that are remembered.
const CUTS: usize = 32;

/// The remembered truncations; see the module. A truncation is a pair of marks: where it cut, and
/// where the log ended before.
#[derive(Debug)]
pub(super) struct Cuts {
    count: u64,
    latest: [(Mark, Mark); CUTS],
}

impl Default for Cuts {
    fn default() -> Self {
        Self { count: 0, latest: [(Mark::NONE, Mark::NONE); CUTS] }
    }
}

impl Cuts {
    pub(super) fn add(&mut self, cut: Mark, submitted: Mark) {
        self.latest.rotate_left(1);
        self.latest[CUTS - 1] = (cut, submitted);
        self.count += 1;
    }

    /// Number of truncations since the engine began.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Whether a truncation after the first `since` covers `index`. If more than [`CUTS`] come
    /// between a wait's begin and its registration, the oldest are forgotten.
    pub(super) fn covers(&self, index: u64, since: u64) -> bool {
        // The count only rises, and `since` was read from it.
        let count = to_usize(self.count.saturating_sub(since));
        let mut cuts = self.latest.iter().rev().take(count);
        cuts.any(|(cut, submitted)| !cut.covers(index) && submitted.covers(index))
    }
}
