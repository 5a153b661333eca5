//! The end of a manager's life: one atomic phase, and the transitions between phases.
//!
//! | phase | submissions | threads | waiters |
//! |---|---|---|---|
//! | [`Running`](Phase::Running) | are taken | run | wait |
//! | [`Closing`](Phase::Closing) | are refused | finish what was taken | wait |
//! | [`Stopping`](Phase::Stopping) | are refused | end | wait |
//! | [`Ended`](Phase::Ended) | are refused | have ended, or are given up | learn that nothing more comes |
//!
//! A phase only rises. A failure is no phase: the poison cell latches it with its reason, and a
//! failed engine is closed as every other is.

use std::fmt;

use crate::bytes::to_usize;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Phases of a manager's end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    /// The engine takes submissions.
    Running,
    /// The engine takes nothing more, and finishes what it took.
    Closing,
    /// The threads end as soon as they look.
    Stopping,
    /// No watermark moves any more.
    Ended,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Running, Self::Closing, Self::Stopping, Self::Ended];
}

/// The phase of one engine, and the process that the engine belongs to.
pub(crate) struct Lifecycle {
    /// A [`Phase`] by its position in [`Phase::ALL`]. Only the transitions store to it.
    phase: AtomicU64,
    /// The process that owns the engine's threads.
    process: u32,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self { phase: AtomicU64::new(0), process: std::process::id() }
    }

    /// The phase at this moment. Acquire: what led to the phase is visible.
    fn phase(&self) -> Phase {
        let at = self.phase.load(Ordering::Acquire);
        // Only phases are stored; any other number would be one after the last.
        Phase::ALL.into_iter().nth(to_usize(at)).unwrap_or(Phase::Ended)
    }

    /// Whether submissions are refused.
    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        self.phase.load(Ordering::Acquire) >= Phase::Closing as u64
    }

    /// Whether the threads end. Relaxed: a thread that sees the phase too late looks again, because
    /// the stopping thread has unparked it.
    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= Phase::Stopping as u64
    }

    /// Whether waiters have nothing more to wait for.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.phase.load(Ordering::Acquire) >= Phase::Ended as u64
    }

    /// Moves from running to closing. True for the one call that closes. The caller holds the
    /// appender, so no submission is half taken, and each later one sees the phase.
    pub(crate) fn begin_closing(&self) -> bool {
        self.rise(Phase::Closing) == Phase::Running as u64
    }

    /// Moves from any phase to stopping, or stays if the threads have been stopped.
    pub(crate) fn begin_stopping(&self) {
        self.rise(Phase::Stopping);
    }

    /// Moves from any phase to ended. The caller wakes all waiters afterwards: those that register
    /// later see the phase.
    pub(crate) fn end(&self) {
        self.rise(Phase::Ended);
    }

    /// Raises the phase, and returns the number of the phase before. SeqCst: a thread that is about
    /// to sleep looks at the phase after its fence.
    fn rise(&self, to: Phase) -> u64 {
        self.phase.fetch_max(to as u64, Ordering::SeqCst)
    }

    /// Whether the caller is in a child that `fork` made. Its copy of the engine has no threads,
    /// and only the parent may write the files.
    pub(crate) fn is_of_a_parent(&self) -> bool {
        self.process != std::process::id()
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lifecycle").field(&self.phase()).finish()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_phase_has_its_own_place_and_answers_what_its_row_says() {
        for (at, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, at);
            let lifecycle = Lifecycle::new();
            lifecycle.rise(phase);
            assert_eq!(lifecycle.phase(), phase);
            assert_eq!(lifecycle.is_closing(), phase != Phase::Running);
            assert_eq!(lifecycle.is_stopping(), phase >= Phase::Stopping);
            assert_eq!(lifecycle.has_ended(), phase == Phase::Ended);
        }
    }

    /// Each transition raises the phase or keeps it, and only a running manager begins to close.
    #[test]
    fn every_transition_from_every_phase_only_rises() {
        for before in Phase::ALL {
            let lifecycle = || {
                let lifecycle = Lifecycle::new();
                lifecycle.rise(before);
                lifecycle
            };
            let closing = lifecycle();
            assert_eq!(closing.begin_closing(), before == Phase::Running);
            assert_eq!(closing.phase(), before.max(Phase::Closing));
            let stopping = lifecycle();
            stopping.begin_stopping();
            assert_eq!(stopping.phase(), before.max(Phase::Stopping));
            let ended = lifecycle();
            ended.end();
            assert_eq!(ended.phase(), Phase::Ended);
        }
    }

    #[test]
    fn of_many_calls_one_begins_to_close() {
        let (lifecycle, began) = (Lifecycle::new(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    if lifecycle.begin_closing() {
                        began.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!((began.into_inner(), lifecycle.phase()), (1, Phase::Closing));
    }
}
