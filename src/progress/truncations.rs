//! The latest truncations, for waits that have begun and are not registered yet.

use crate::bytes::to_usize;
use crate::numbers::Mark;

/// Number of truncations that are remembered.
const KEPT: usize = 32;

/// The remembered truncations; see the module. A truncation is a pair of marks: where the
/// log ended after it, and before.
#[derive(Debug)]
pub(super) struct RecentTruncations {
    count: u64,
    latest: [(Mark, Mark); KEPT],
}

impl Default for RecentTruncations {
    fn default() -> Self {
        Self { count: 0, latest: [(Mark::NONE, Mark::NONE); KEPT] }
    }
}

impl RecentTruncations {
    pub(super) fn add(&mut self, left: Mark, submitted: Mark) {
        self.latest.rotate_left(1);
        self.latest[KEPT - 1] = (left, submitted);
        self.count += 1;
    }

    /// Number of truncations since the engine began.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Whether a truncation after the first `since` covers `index`. If more than [`KEPT`] come
    /// between a wait's begin and its registration, the oldest are forgotten.
    pub(super) fn covers(&self, index: u64, since: u64) -> bool {
        // The count only rises, and `since` was read from it.
        let count = to_usize(self.count.saturating_sub(since));
        let mut latest = self.latest.iter().rev().take(count);
        latest.any(|(left, submitted)| !left.covers(index) && submitted.covers(index))
    }
}
