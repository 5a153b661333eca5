//! Time, passed in from outside: the system's, or moved by hand by the simulator.

#[cfg(any(test, feature = "testing"))]
use std::sync::Arc;
#[cfg(any(test, feature = "testing"))]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A clock that only goes forward.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    /// The system's monotonic clock, counted from the engine's start.
    Real(Instant),
    /// Nanoseconds, which the owner of the other handle moves.
    #[cfg(any(test, feature = "testing"))]
    Manual(Arc<AtomicU64>),
}

impl Clock {
    pub(crate) fn real() -> Self {
        Self::Real(Instant::now())
    }

    /// The time since the clock was made.
    pub(crate) fn now(&self) -> Duration {
        match self {
            Self::Real(start) => start.elapsed(),
            #[cfg(any(test, feature = "testing"))]
            Self::Manual(nanos) => Duration::from_nanos(nanos.load(Ordering::Acquire)),
        }
    }
}
