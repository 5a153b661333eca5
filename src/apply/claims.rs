//! Claims on replies: a slot is not reused before a claimed reply is copied out.

use std::fmt;
use std::sync::PoisonError;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The first indexes of the synchronous calls in progress.
#[derive(Debug)]
pub(crate) struct Claims {
    /// The lowest of them; `u64::MAX` if there is none.
    oldest: AtomicU64,
    claimed: Mutex<Vec<u64>>,
}

impl Claims {
    pub(crate) fn new() -> Self {
        Self { oldest: AtomicU64::new(u64::MAX), claimed: Mutex::new(Vec::with_capacity(64)) }
    }

    /// The lowest index whose reply is still wanted; `u64::MAX` if there is none.
    #[inline]
    pub(crate) fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::Acquire)
    }

    /// Claims the replies from `first` on. The caller holds the appender's lock, and the entries
    /// are not visible yet. `owner` is told when the claim ends.
    pub(crate) fn claim<'a>(&'a self, first: u64, owner: &'a dyn Released) -> Claim<'a> {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.push(first);
        self.oldest.fetch_min(first, Ordering::AcqRel);
        Claim { claims: self, first, owner }
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn are_free(&self) -> bool {
        self.claimed.try_lock().is_ok()
    }

    fn release(&self, first: u64) {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = claimed.iter().position(|index| *index == first) {
            claimed.swap_remove(at);
        }
        let oldest = claimed.iter().copied().min().unwrap_or(u64::MAX);
        self.oldest.store(oldest, Ordering::Release);
    }
}

/// The owner of claims.
pub(crate) trait Released {
    /// Tells the owner that a claim on the replies from `first` on has ended. Entries may be
    /// waiting for their slots.
    fn released(&self, first: u64);
}

/// A claim, held by a synchronous call until it has its replies or gives up. The caller must not
/// hold the appender when it drops the claim, except after a failure.
pub(crate) struct Claim<'a> {
    claims: &'a Claims,
    first: u64,
    owner: &'a dyn Released,
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("first", &self.first).finish_non_exhaustive()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.release(self.first);
        self.owner.released(self.first);
    }
}
