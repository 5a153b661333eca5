//! A handle on the figures of an engine, for a monitor that outlives the engine.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::ApplyStats;
use crate::apply::engine::Engine;
use crate::contract::machine::StateMachine;
use crate::disk::holders::Holder;
use crate::sync::{Condvar, Mutex, Rank};

/// A reader of an [`ApplyManager`](crate::ApplyManager)'s figures, for any thread. It is cheap to
/// clone, and does not have the state machine's type.
///
/// It keeps nothing alive. Once the manager is dropped (also by
/// [`close`](crate::ApplyManager::close)), it returns `None`, and the directory can be opened
/// again.
#[derive(Clone)]
pub struct StatsReader(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Signals that a reading has ended.
    left: Condvar,
}

struct State {
    /// The engine; `None` once the manager is dropped.
    engine: Option<Weak<dyn Figures>>,
    /// Number of readings that have the engine at the moment.
    reading: usize,
}

/// A source of figures.
trait Figures: Send + Sync {
    fn figures(&self) -> ApplyStats;
}

impl<M: StateMachine> Figures for Engine<M> {
    fn figures(&self) -> ApplyStats {
        // Count this for the error of an open that meets a machine whose `stats` does not return.
        let _holding = self.pipeline().holding(Holder::Reader);
        self.stats()
    }
}

/// The engine, while its figures are read.
struct Reading<'s> {
    shared: &'s Shared,
    /// The engine; `Some` until the drop.
    engine: Option<Arc<dyn Figures>>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        // Drop the engine before the count: a dropped manager that waits for the count expects the
        // directory to be free.
        self.engine = None;
        self.shared.state.lock().reading -= 1;
        self.shared.left.notify_all();
    }
}

impl Shared {
    fn begin(&self) -> Option<Reading<'_>> {
        let mut state = self.state.lock();
        let engine = state.engine.as_ref()?.upgrade()?;
        state.reading += 1;
        // The end of a reading takes the lock.
        drop(state);
        Some(Reading { shared: self, engine: Some(engine) })
    }
}

impl StatsReader {
    pub(crate) fn new<M: StateMachine>(engine: &Arc<Engine<M>>) -> Self {
        let engine: Weak<Engine<M>> = Arc::downgrade(engine);
        let state = Mutex::new(Rank::StatsReadings, State { engine: Some(engine), reading: 0 });
        Self(Arc::new(Shared { state, left: Condvar::new() }))
    }

    /// Every figure of the engine, as [`ApplyManager::stats`](crate::ApplyManager::stats) returns
    /// it; `None` once the manager is dropped. A manager that is closed and not dropped still has
    /// its figures.
    #[must_use]
    pub fn stats(&self) -> Option<ApplyStats> {
        let reading = self.0.begin()?;
        reading.engine.as_ref().map(|engine| engine.figures())
    }

    /// Whether the manager is not dropped yet.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.state.lock().engine.is_some()
    }

    /// Lets no further reading begin, and waits for running ones, at most `timeout`: an embedder's
    /// state machine may not return.
    pub(crate) fn end(&self, timeout: Duration) {
        let mut state = self.0.state.lock();
        state.engine = None;
        let began = Instant::now();
        while state.reading > 0 {
            let left = timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                return;
            }
            state = self.0.left.wait_timeout(state, left);
        }
    }
}

impl fmt::Debug for StatsReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatsReader").field("is_open", &self.is_open()).finish()
    }
}
