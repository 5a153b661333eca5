//! The engine's threads: short loops over its steps.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::apply::desks::compaction::LOOK;
use crate::apply::engine::Engine;
use crate::apply::hosted;
use crate::contract::machine::StateMachine;
use crate::error::Poison;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::bell::Bell;
use crate::sync::spin::Spin;
use crate::sync::thread::JoinHandle;
use crate::sync::{looks, tell_under_locks};
use crate::threads::cores::{Core, PinOutcome, PinnedThread};
use crate::threads::host::Host;
use crate::threads::{Step, start};

/// Number of yields after the looks for work, before a thread sleeps.
const YIELDS: u32 = looks(20);

/// Number of yields while another thread has the place, or a barrier waits for another worker. That
/// is short mostly, and as long as a snapshot of an embedder's machine. A model has no times: there
/// the thread yields until the other one arrives.
const BLOCKED_YIELDS: u32 = if cfg!(any(loom, shuttle)) { u32::MAX } else { 2000 };

/// Time that a thread sleeps while another thread has its place, or holds the appender, or while a
/// barrier waits for another worker.
///
/// No signal ends the wait: each submission releases the appender, and would pay a fence to see a
/// thread that waits for it. The thread has yielded [`BLOCKED_YIELDS`] times before it sleeps. The
/// end of a long hold notifies the workers.
pub(super) const BLOCKED_SLEEP: Duration = Duration::from_micros(50);

/// The threads of one engine.
#[derive(Debug)]
pub(crate) struct Threads {
    handles: Vec<JoinHandle<()>>,
    running: Arc<Running>,
    /// The host that runs the engine, in place of threads. It lives until the engine has stopped.
    host: Option<Host>,
}

impl Threads {
    /// Makes an empty set.
    pub(crate) fn new() -> Self {
        Self { handles: Vec::new(), running: Arc::default(), host: None }
    }

    /// Drops the handles without asking the threads for anything: they belong to another process.
    pub(crate) fn forget(&mut self) {
        self.handles.drain(..).for_each(std::mem::forget);
        std::mem::forget(self.host.take());
    }

    /// Starts the workers and, for an engine with a log, the log writer and the background. In a
    /// host they are roles, and no threads.
    pub(crate) fn start<M: StateMachine>(engine: &Arc<Engine<M>>) -> io::Result<Self> {
        let mut threads = Self::new();
        let config = engine.pipeline().config();
        if let Some(host) = &config.host {
            hosted::join(engine, host, &threads.running);
            threads.host = Some(host.clone());
            return Ok(threads);
        }
        for id in 0..engine.pipeline().workers().count() {
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
        if engine.pipeline().log_desk().log().is_some() {
            let name = "sprag-log".to_owned();
            let core = config.log_writer_core.map(Core::named);
            let pin = core.map(|core| Pin::new(engine, &name, Some(core)));
            threads.spawn(engine, name, move |engine| {
                let _core = pin.as_ref().inspect(|pin| pin.pin(engine));
                log_writer(engine);
            })?;
            threads.spawn(engine, "sprag-prepare".to_owned(), background)?;
        }
        if engine.needs_tending() {
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
        let runs = Runs::begin(&self.running);
        let body = move || {
            let _runs = runs;
            if cfg!(any(loom, shuttle)) {
                // A checker's own panics must pass.
                return run(&shared);
            }
            if catch_unwind(AssertUnwindSafe(|| run(&shared))).is_err() {
                shared
                    .pipeline()
                    .signals()
                    .fail(Poison::Internal("a thread of the engine panicked"));
            }
        };
        match start(name, body) {
            Ok(handle) => {
                self.handles.push(handle);
                Ok(())
            }
            Err(error) => {
                self.stop(engine, engine.pipeline().config().close_timeout);
                Err(error)
            }
        }
    }

    /// Ends all threads, and waits for them for `timeout` at most. A thread that is stuck in a
    /// state machine is abandoned then. Returns whether all have ended.
    pub(crate) fn stop<M: StateMachine>(&mut self, engine: &Engine<M>, timeout: Duration) -> bool {
        engine.pipeline().lifecycle().begin_stopping();
        // A thread that looked for work just before the flag was set does not sleep for long: it
        // has a token.
        self.handles.iter().for_each(|handle| handle.thread().unpark());
        engine.pipeline().signals().notify_threads();
        // A caller that waits for a worker takes the worker's steps from now on.
        engine.pipeline().signals().ring_bells();
        // A call that timed out before has abandoned the threads that are left.
        let host = self.host.take();
        let all_ended =
            (self.handles.is_empty() && host.is_none()) || self.running.wait_for_none(timeout);
        for handle in self.handles.drain(..).filter(|handle| all_ended || has_ended(handle)) {
            if handle.join().is_err() {
                tell_under_locks(|| {
                    tracing::error!("a thread of the engine panicked outside of a state machine")
                });
            }
        }
        all_ended
    }
}

/// The threads of an engine, or its roles in a host, that have not come to their end.
#[derive(Debug, Default)]
pub(super) struct Running {
    count: AtomicU64,
    /// A thread has come to its end.
    ended: Bell,
}

impl Running {
    pub(super) fn begin(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.count.fetch_sub(1, Ordering::Release);
        self.ended.ring();
    }

    /// Waits at most so long; whether all threads have come to their end.
    fn wait_for_none(&self, timeout: Duration) -> bool {
        if cfg!(any(loom, shuttle)) {
            // A model's threads all end, and time stands still: they are joined as they come.
            return true;
        }
        let began = Instant::now();
        let listener = self.ended.listen();
        while self.count.load(Ordering::Acquire) > 0 {
            let left = timeout.saturating_sub(began.elapsed());
            if left.is_zero() {
                return false;
            }
            listener.sleep(Some(left));
        }
        true
    }
}

/// One of these threads, until it is dropped.
struct Runs(Arc<Running>);

impl Runs {
    fn begin(running: &Arc<Running>) -> Self {
        running.begin();
        Self(Arc::clone(running))
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A thread that is to be pinned; the core is reserved for it until it ends.
struct Pin {
    core: Option<Core>,
    /// Position of the result in [`Engine::pinned`].
    at: usize,
}

impl Pin {
    fn new<M: StateMachine>(engine: &Engine<M>, name: &str, core: Option<Core>) -> Self {
        let mut pinned = engine.pinned().lock();
        pinned.push(PinnedThread {
            thread: name.to_owned(),
            core: core.as_ref().map(Core::number),
            outcome: PinOutcome::Starting,
        });
        Self { core, at: pinned.len() - 1 }
    }

    /// Pins the calling thread.
    fn pin<M: StateMachine>(&self, engine: &Engine<M>) {
        let outcome = match &self.core {
            Some(core) => core.pin(),
            None => PinOutcome::Failed("the system names no cores".to_owned()),
        };
        if let Some(thread) = engine.pinned().lock().get_mut(self.at) {
            thread.outcome = outcome;
        }
    }
}

/// Whether joining the thread does not block.
#[cfg(not(any(loom, shuttle)))]
fn has_ended(thread: &JoinHandle<()>) -> bool {
    thread.is_finished()
}

/// Always true: a model's threads all end, and time stands still, so they are joined in order.
#[cfg(any(loom, shuttle))]
fn has_ended(_: &JoinHandle<()>) -> bool {
    true
}

/// Passes a moment, and returns false if it is time to sleep. That is after a few looks at an idle
/// place, and more at a blocked one.
fn has_patience(spin: &mut Spin, step: Step) -> bool {
    spin.pass(if step == Step::Blocked { BLOCKED_YIELDS } else { YIELDS })
}

pub(super) fn worker<M: StateMachine>(engine: &Engine<M>, id: usize) {
    let Some(signal) = engine.pipeline().signals().worker(id) else { return };
    signal.attach();
    let mut spin = Spin::long();
    while !engine.pipeline().lifecycle().is_stopping() {
        let step = engine.pipeline().step_worker(id);
        engine.pipeline().progress().wake_tasks();
        if step == Step::Worked {
            spin.reset();
            continue;
        }
        // The worker's post is free, and its ring may have run dry.
        engine.pipeline().signals().workers_bell().ring();
        if !has_patience(&mut spin, step) {
            if step == Step::Blocked {
                signal.sleep(Some(BLOCKED_SLEEP), || false);
                continue;
            }
            let longest = worker_sleeps(engine);
            signal.sleep(longest, || worker_wakes(engine, id, longest));
        }
    }
    // Its place is free for good.
    engine.pipeline().signals().workers_bell().ring();
}

/// Time that a worker may sleep without a call: entries are fed when their linger is over. After a
/// failure nothing is due.
pub(super) fn worker_sleeps<M: StateMachine>(engine: &Engine<M>) -> Option<Duration> {
    let linger = engine.pipeline().linger();
    (!linger.is_zero() && engine.pipeline().has_unfed() && !engine.pipeline().has_failed())
        .then_some(linger)
}

/// Whether a worker that is about to sleep for `longest` must not sleep.
pub(super) fn worker_wakes<M: StateMachine>(
    engine: &Engine<M>,
    id: usize,
    longest: Option<Duration>,
) -> bool {
    // Entries may have come, and been held back, since the time was computed.
    let lingers = || longest.is_none() && worker_sleeps(engine).is_some();
    (!engine.pipeline().has_failed()
        && (!engine.pipeline().workers().rings().is_empty(id) || lingers()))
        || engine.pipeline().progress().has_due_tasks()
        || engine.pipeline().lifecycle().is_stopping()
}

fn log_writer<M: StateMachine>(engine: &Engine<M>) {
    engine.pipeline().signals().writer().attach();
    let mut spin = Spin::brief();
    while !engine.pipeline().lifecycle().is_stopping() {
        let step = engine.pipeline().log_desk().step_writer();
        engine.pipeline().progress().wake_tasks();
        if step == Step::Worked {
            spin.reset();
        } else if step == Step::Blocked {
            // A caller writes in the writer's post, and notifies this thread if it leaves work. Or
            // the appender is held for a moment.
            engine.pipeline().signals().writer().sleep(Some(BLOCKED_SLEEP), || false);
        } else if !has_patience(&mut spin, step) {
            let longest = engine.pipeline().log_desk().writer_sleeps();
            let lingers = engine.pipeline().log_desk().log().is_some_and(|log| log.is_lingering());
            let wakes = || writer_wakes(engine, longest, lingers);
            engine.pipeline().signals().writer().sleep(longest, wakes);
        }
    }
}

/// Whether the log writer that is about to sleep for `longest` must not sleep. `lingers`: less than
/// a group waited for more entries at its last look.
pub(super) fn writer_wakes<M: StateMachine>(
    engine: &Engine<M>,
    longest: Option<Duration>,
    lingers: bool,
) -> bool {
    let desk = engine.pipeline().log_desk();
    // A caller may have written in the writer's post since the time was computed.
    let timed = desk.log().is_some_and(|log| log.waits_for_time());
    (desk.writer_has_work() && !lingers)
        || (longest.is_none() && timed && !engine.pipeline().has_failed())
        || engine.pipeline().lifecycle().is_stopping()
}

fn background<M: StateMachine>(engine: &Engine<M>) {
    engine.pipeline().signals().background().attach();
    while !engine.pipeline().lifecycle().is_stopping() {
        let step = engine.pipeline().log_desk().step_background();
        engine.pipeline().progress().wake_tasks();
        if step == Step::Idle {
            let signal = engine.pipeline().signals().background();
            signal.sleep(Some(Duration::from_secs(1)), || preparer_wakes(engine));
        }
    }
}

/// Whether the thread that makes segments ready must not sleep.
pub(super) fn preparer_wakes<M: StateMachine>(engine: &Engine<M>) -> bool {
    engine.pipeline().log_desk().background_has_work()
        || engine.pipeline().progress().has_due_tasks()
        || engine.pipeline().lifecycle().is_stopping()
}

fn compaction<M: StateMachine>(engine: &Engine<M>) {
    engine.pipeline().signals().compaction().attach();
    while !engine.pipeline().lifecycle().is_stopping() {
        let idle = engine.step_fill() == Step::Idle && engine.step_compaction() == Step::Idle;
        engine.pipeline().progress().wake_tasks();
        if idle {
            // Wake regularly, for a policy that goes by the clock.
            let signal = engine.pipeline().signals().compaction();
            signal.sleep(Some(LOOK), || tender_wakes(engine));
        }
    }
}

/// Whether the thread that compacts must not sleep.
pub(super) fn tender_wakes<M: StateMachine>(engine: &Engine<M>) -> bool {
    engine.compaction_is_due() || engine.pipeline().lifecycle().is_stopping()
}

impl<M: StateMachine> Engine<M> {
    /// Whether there is a store to fill, or a policy of compaction.
    pub(super) fn needs_tending(&self) -> bool {
        let log = self.pipeline().log_desk().log();
        log.is_some_and(|log| log.compaction_policy().is_some())
            || self.pipeline().machine().stats().unfilled_chunks > 0
    }
}
