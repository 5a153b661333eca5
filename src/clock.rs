//! Time, from outside: real, or moved by hand by the simulator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A clock that only goes forward.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    /// The system's monotonic clock, since the engine was made.
    Real(Instant),
    /// Nanoseconds, moved by whoever holds the other end.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    pub(crate) fn real() -> Self {
        Self::Real(Instant::now())
    }

    /// Since the clock was made.
    pub(crate) fn now(&self) -> Duration {
        match self {
            Self::Real(start) => start.elapsed(),
            Self::Manual(nanos) => Duration::from_nanos(nanos.load(Ordering::Acquire)),
        }
    }
}
