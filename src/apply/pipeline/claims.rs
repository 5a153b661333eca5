//! Claims on replies: a reply in the in-flight ring is not overwritten before the claiming call has
//! copied it out.

use std::fmt;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, Rank};

/// The first indexes of the synchronous calls in progress.
#[derive(Debug)]
pub(crate) struct Claims {
    /// The lowest of them; `u64::MAX` if there is none.
    oldest: AtomicU64,
    claimed: Mutex<Vec<u64>>,
}

impl Claims {
    pub(crate) fn new() -> Self {
        Self {
            oldest: AtomicU64::new(u64::MAX),
            claimed: Mutex::new(Rank::Claims, Vec::with_capacity(64)),
        }
    }

    /// The lowest index whose reply is still wanted; `u64::MAX` if there is none.
    #[inline]
    pub(crate) fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::Acquire)
    }

    /// A claim that keeps nothing yet. Its drop locks the appender, so the caller does not hold
    /// the appender. `owner` is told when the claim ends.
    pub(crate) fn claim<'a>(&'a self, owner: &'a dyn Released) -> Claim<'a> {
        Rank::Appender.assert_free();
        Claim { claims: self, first: None, owner }
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(in crate::apply) fn are_free(&self) -> bool {
        self.claimed.try_lock().is_some()
    }

    fn release(&self, first: u64) {
        let mut claimed = self.claimed.lock();
        if let Some(at) = claimed.iter().position(|index| *index == first) {
            claimed.swap_remove(at);
        }
        // Without a claim, no reply is kept.
        let oldest = claimed.iter().copied().min().unwrap_or(u64::MAX);
        self.oldest.store(oldest, Ordering::Release);
    }
}

/// The owner of claims.
pub(crate) trait Released {
    /// Tells the owner that a claim on the replies from `first` on has ended. Entries may be
    /// waiting for room in the in-flight ring.
    fn released(&self, first: u64);
}

/// A claim, held by a synchronous call until it has its replies or gives up.
///
/// Its drop locks the appender. So a call makes it before it locks the appender, and lends it to
/// the code under that lock. The claim outlives the lock, however the call ends.
pub(crate) struct Claim<'a> {
    claims: &'a Claims,
    /// `None`: it keeps nothing.
    first: Option<u64>,
    owner: &'a dyn Released,
}

impl Claim<'_> {
    /// Keeps replies from `first` on. The caller holds the appender, and has shown the entries to
    /// no worker.
    pub(crate) fn begin(&mut self, first: u64) {
        debug_assert!(self.first.is_none(), "a claim begins once");
        let mut claimed = self.claims.claimed.lock();
        claimed.push(first);
        self.claims.oldest.fetch_min(first, Ordering::AcqRel);
        self.first = Some(first);
    }
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("first", &self.first).finish_non_exhaustive()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(first) = self.first {
            self.claims.release(first);
            self.owner.released(first);
        }
    }
}
