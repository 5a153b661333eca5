//! A handle on the figures of an engine, for a monitor that outlives it.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::ApplyStats;
use crate::apply::engine::Engine;
use crate::disk::holders::Holder;
use crate::machine::StateMachine;
use crate::sync::{Condvar, Mutex, Rank};

/// Reads the figures of an [`ApplyManager`](crate::ApplyManager) from any thread; cheap to clone, and without the type of
/// the state machine.
///
/// It keeps nothing alive: once the manager is dropped (by [`close`](crate::ApplyManager::close) too), it reads `None`,
/// and the directory can be opened again.
#[derive(Clone)]
pub struct StatsReader(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// A reading has ended.
    left: Condvar,
}

struct State {
    /// `None` once the manager is dropped.
    engine: Option<Weak<dyn Figures>>,
    /// How many readings have the engine at the moment.
    reading: usize,
}

/// What has figures to be read.
trait Figures: Send + Sync {
    fn figures(&self) -> ApplyStats;
}

impl<M: StateMachine> Figures for Engine<M> {
    fn figures(&self) -> ApplyStats {
        // For the error of an open that meets a machine whose `stats` does not return.
        let _holding = self.holding(Holder::Reader);
        self.stats()
    }
}

/// The engine, while its figures are read.
struct Reading<'s> {
    shared: &'s Shared,
    /// `Some` until the drop.
    engine: Option<Arc<dyn Figures>>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        // Before the count: a dropped manager that waits for it means the directory to be free afterwards.
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

    /// Every figure of the engine, as [`ApplyManager::stats`](crate::ApplyManager::stats); `None` once the manager is
    /// dropped. A manager that is closed and not dropped still has its figures.
    #[must_use]
    pub fn stats(&self) -> Option<ApplyStats> {
        let reading = self.0.begin()?;
        reading.engine.as_ref().map(|engine| engine.figures())
    }

    /// Whether the manager is not dropped.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.state.lock().engine.is_some()
    }

    /// No reading begins from now on, and those that go on are waited for: at most so long, as a state machine of the
    /// user's own may not return.
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
