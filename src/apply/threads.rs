//! The engine's threads: thin loops over its steps.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cores::{Core, PinOutcome, PinnedThread};
use super::engine::Engine;
use super::worker::Step;
use crate::error::Poison;
use crate::machine::StateMachine;
use crate::sync::looks;
use crate::sync::spin::Spin;
use crate::sync::thread::{self, JoinHandle};

/// Yields of a thread that has looked for work often enough, before it sleeps.
const YIELDS: u32 = looks(20);

/// The same where somebody else has its place, or is awaited at a barrier: for a moment mostly, and for as long as a snapshot
/// of a machine of one's own takes. A model has no times: there it yields, and somebody else comes.
const BLOCKED_YIELDS: u32 = if cfg!(any(loom, shuttle)) { u32::MAX } else { 2000 };

/// How long a thread sleeps while somebody else is in its place.
const BLOCKED_SLEEP: Duration = Duration::from_micros(50);

/// How often whoever ends the threads looks whether they have.
const END_LOOK: Duration = Duration::from_micros(50);

/// The threads of one engine.
#[derive(Debug)]
pub(crate) struct Threads {
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { handles: Vec::new() }
    }

    /// Lets go of the handles without asking anything of the threads, which are another process's.
    pub(crate) fn forget(&mut self) {
        self.handles.drain(..).for_each(std::mem::forget);
    }

    /// Starts the workers and, for an engine with a log, the log writer and the background.
    pub(crate) fn start<M: StateMachine>(engine: &Arc<Engine<M>>) -> io::Result<Self> {
        let mut threads = Self::new();
        let config = &engine.config;
        for id in 0..engine.workers.count() {
            let name = format!("sprag-apply-{id}");
            let pin = config.pin_workers.then(|| {
                let listed = id.checked_rem(config.worker_cores.len());
                let named = listed.and_then(|at| config.worker_cores.get(at));
                Pin::new(
                    engine,
                    &name,
                    named.map_or_else(Core::least_used, |at| Some(Core::named(*at))),
                )
            });
            threads.spawn(engine, name, move |engine| {
                let _core = pin.as_ref().inspect(|pin| pin.pin(engine));
                worker(engine, id);
            })?;
        }
        if engine.log.is_some() {
            let name = "sprag-log".to_owned();
            let core = config.log_writer_core.map(Core::named);
            let pin = core.map(|core| Pin::new(engine, &name, Some(core)));
            threads.spawn(engine, name, move |engine| {
                let _core = pin.as_ref().inspect(|pin| pin.pin(engine));
                log_writer(engine);
            })?;
            threads.spawn(engine, "sprag-prepare".to_owned(), background)?;
        }
        let compacts = engine.log.as_ref().is_some_and(|log| log.compaction_policy().is_some());
        if compacts || engine.machine.stats().unfilled_chunks > 0 {
            threads.spawn(engine, "sprag-compact".to_owned(), compaction)?;
        }
        Ok(threads)
    }

    fn spawn<M: StateMachine>(
        &mut self,
        engine: &Arc<Engine<M>>,
        name: String,
        run: impl FnOnce(&Engine<M>) + Send + 'static,
    ) -> io::Result<()> {
        let shared = Arc::clone(engine);
        let body = move || {
            if cfg!(any(loom, shuttle)) {
                // A checker's own panics are not ours to catch.
                return run(&shared);
            }
            if catch_unwind(AssertUnwindSafe(|| run(&shared))).is_err() {
                shared.fail(Poison::Internal("a thread of the engine panicked"));
            }
        };
        match thread::Builder::new().name(name).spawn(body) {
            Ok(handle) => {
                self.handles.push(handle);
                Ok(())
            }
            Err(error) => {
                self.stop(engine, engine.config.close_timeout);
                Err(error)
            }
        }
    }

    /// Ends all threads, and waits for them at most so long: one may be stuck in a state machine, and is left to itself then.
    /// Whether all have ended.
    pub(crate) fn stop<M: StateMachine>(&mut self, engine: &Engine<M>, timeout: Duration) -> bool {
        engine.lifecycle().begin_stopping();
        let began = Instant::now();
        loop {
            // A thread that has looked for work just before the flag was set sleeps once more.
            self.handles.iter().for_each(|handle| handle.thread().unpark());
            engine.notify_threads();
            let (ended, running) = self.handles.drain(..).partition(has_ended);
            self.handles = running;
            for handle in ended {
                if handle.join().is_err() {
                    tracing::error!("a thread of the engine panicked outside of a state machine");
                }
            }
            if self.handles.is_empty() {
                return true;
            }
            if began.elapsed() >= timeout {
                self.handles.clear();
                return false;
            }
            // Not a sleep, which goes back to sleep after each signal, and under enough of them never ends.
            thread::park_timeout(END_LOOK);
        }
    }
}

/// A thread that is to be pinned; the core is its own until it ends.
struct Pin {
    core: Option<Core>,
    /// Its place in [`Engine::pinned`].
    at: usize,
}

impl Pin {
    fn new<M: StateMachine>(engine: &Engine<M>, name: &str, core: Option<Core>) -> Self {
        let mut pinned = engine.lock_pinned();
        pinned.push(PinnedThread {
            thread: name.to_owned(),
            core: core.as_ref().map(Core::number),
            outcome: PinOutcome::Starting,
        });
        Self { core, at: pinned.len() - 1 }
    }

    /// Called by the thread.
    fn pin<M: StateMachine>(&self, engine: &Engine<M>) {
        let outcome = match &self.core {
            Some(core) => core.pin(),
            None => PinOutcome::Failed("the system names no cores".to_owned()),
        };
        if let Some(thread) = engine.lock_pinned().get_mut(self.at) {
            thread.outcome = outcome;
        }
    }
}

/// Runs `run`, and `work` on a thread of its own meanwhile; returns when both have ended.
pub(crate) fn beside<R>(
    name: &str,
    work: impl FnOnce() + Send,
    run: impl FnOnce() -> R,
) -> io::Result<R> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn_scoped(scope, work)?;
        Ok(run())
    })
}

/// Whether joining does not wait.
#[cfg(not(any(loom, shuttle)))]
fn has_ended(thread: &JoinHandle<()>) -> bool {
    thread.is_finished()
}

/// A model's threads all end, and time stands still: they are joined as they come.
#[cfg(any(loom, shuttle))]
fn has_ended(_: &JoinHandle<()>) -> bool {
    true
}

/// Passes a moment; false if it is time to sleep, at an idle place after a few looks and at a blocked one after more.
fn has_patience(spin: &mut Spin, step: Step) -> bool {
    spin.pass(if step == Step::Blocked { BLOCKED_YIELDS } else { YIELDS })
}

pub(super) fn worker<M: StateMachine>(engine: &Engine<M>, id: usize) {
    let Some(worker) = engine.workers.get(id) else { return };
    worker.signal.attach();
    let mut spin = Spin::long();
    while !engine.lifecycle().is_stopping() {
        let step = engine.step_worker(id);
        engine.progress.wake_tasks();
        if step == Step::Worked {
            spin.reset();
        } else if !has_patience(&mut spin, step) {
            if step == Step::Blocked {
                worker.signal.sleep(Some(BLOCKED_SLEEP), || false);
                continue;
            }
            let longest = worker_sleeps(engine);
            worker.signal.sleep(longest, || worker_wakes(engine, id, longest));
        }
    }
}

/// How long a worker may sleep if nobody calls: entries are fed when their linger is over. After a failure nothing is.
pub(super) fn worker_sleeps<M: StateMachine>(engine: &Engine<M>) -> Option<Duration> {
    let linger = engine.linger();
    (!linger.is_zero() && engine.has_unfed() && !engine.has_failed()).then_some(linger)
}

/// Whether a worker that is about to sleep for `longest` must not.
pub(super) fn worker_wakes<M: StateMachine>(
    engine: &Engine<M>,
    id: usize,
    longest: Option<Duration>,
) -> bool {
    // Entries may have come, and been held back, since it was asked how long.
    let lingers = || longest.is_none() && worker_sleeps(engine).is_some();
    (!engine.has_failed() && (!engine.rings.is_empty(id) || lingers()))
        || engine.progress.has_due_tasks()
        || engine.lifecycle().is_stopping()
}

fn log_writer<M: StateMachine>(engine: &Engine<M>) {
    engine.writer_signal.attach();
    let mut spin = Spin::brief();
    while !engine.lifecycle().is_stopping() {
        let step = engine.step_writer();
        engine.progress.wake_tasks();
        if step == Step::Worked {
            spin.reset();
        } else if step == Step::Blocked {
            // A caller writes in our place, and calls us if it leaves anything; or the appender is held for a moment.
            engine.writer_signal.sleep(Some(BLOCKED_SLEEP), || false);
        } else if !has_patience(&mut spin, step) {
            // After a failure nothing is due any more.
            let longest = engine.log.as_ref().filter(|_| !engine.has_failed());
            let longest = longest.and_then(|log| log.next_due());
            let lingers = engine.log.as_ref().is_some_and(|log| log.is_lingering());
            engine.writer_signal.sleep(longest, || {
                // A caller may have written in our place since we asked how long.
                let timed = engine.log.as_ref().is_some_and(|log| log.waits_for_time());
                (engine.writer_has_work() && !lingers)
                    || (longest.is_none() && timed && !engine.has_failed())
                    || engine.lifecycle().is_stopping()
            });
        }
    }
}

fn background<M: StateMachine>(engine: &Engine<M>) {
    engine.background_signal.attach();
    while !engine.lifecycle().is_stopping() {
        let step = engine.step_background();
        engine.progress.wake_tasks();
        if step == Step::Idle {
            engine.background_signal.sleep(Some(Duration::from_secs(1)), || {
                engine.background_has_work()
                    || engine.progress.has_due_tasks()
                    || engine.lifecycle().is_stopping()
            });
        }
    }
}

fn compaction<M: StateMachine>(engine: &Engine<M>) {
    engine.compaction_signal.attach();
    while !engine.lifecycle().is_stopping() {
        let idle = engine.step_fill() == Step::Idle && engine.step_compaction() == Step::Idle;
        engine.progress.wake_tasks();
        if idle {
            // Also to look at the clock, for a policy that goes by it.
            engine.compaction_signal.sleep(Some(Duration::from_secs(1)), || {
                engine.compaction_is_due() || engine.lifecycle().is_stopping()
            });
        }
    }
}
