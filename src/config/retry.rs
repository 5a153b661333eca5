//! Options of a retried submission.

use std::time::Duration;

/// Options of [`ApplyManager::apply_with_retry`](crate::ApplyManager::apply_with_retry).
///
/// ```
/// use std::time::Duration;
/// use sprag::RetryPolicy;
///
/// let policy = RetryPolicy::new().retries_max(3).timeout(Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct RetryPolicy {
    pub(crate) retries_max: u32,
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries_max: 9,
            backoff: Duration::from_micros(100),
            backoff_max: Duration::from_millis(100),
            timeout: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// Makes the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many submissions may follow the first one. With 0, a submission that is refused as
    /// full is not repeated. Default: 9.
    pub fn retries_max(mut self, retries: u32) -> Self {
        self.retries_max = retries;
        self
    }

    /// Sets the pause before the second submission. Each further pause is doubled, with a random
    /// quarter more or less. Default: 100 us.
    pub fn backoff(mut self, pause: Duration) -> Self {
        self.backoff = pause;
        self
    }

    /// Sets the longest pause. Default: 100 ms.
    pub fn backoff_max(mut self, pause: Duration) -> Self {
        self.backoff_max = pause;
        self
    }

    /// Sets how long to wait for the acknowledgement after the submission was taken. Default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
