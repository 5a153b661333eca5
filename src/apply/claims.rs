//! Replies that somebody still wants: their slots are not reused before they are copied out.

use std::fmt;
use std::sync::PoisonError;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The first indexes of the synchronous calls under way.
#[derive(Debug)]
pub(crate) struct Claims {
    /// The least of them; `u64::MAX` if there is none.
    oldest: AtomicU64,
    claimed: Mutex<Vec<u64>>,
}

impl Claims {
    pub(crate) fn new() -> Self {
        Self { oldest: AtomicU64::new(u64::MAX), claimed: Mutex::new(Vec::with_capacity(64)) }
    }

    /// The first index whose reply is still wanted; `u64::MAX` if none is.
    #[inline]
    pub(crate) fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::Acquire)
    }

    /// Keeps replies from `first` on; taken under the appender's lock, before the entries are visible. `owner` is told when
    /// they are not kept any more.
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

/// Whose claims they are.
pub(crate) trait Released {
    /// Replies from `first` on are not kept any more by one claim: their slots may be what entries wait for.
    fn released(&self, first: u64);
}

/// Held by a synchronous call until it has its replies, or gives up. Not dropped while the caller holds the appender, but
/// after a failure.
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
