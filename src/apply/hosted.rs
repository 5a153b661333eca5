//! The roles of an engine whose threads are those of a host.
//!
//! A turn takes the same steps as the loops of an engine's own threads ([`super::threads`]). Before
//! a role rests it looks for work by the same conditions.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::apply::engine::Engine;
use crate::apply::signals::Signals;
use crate::apply::threads::{
    BLOCKED_SLEEP, Running, preparer_wakes, tender_wakes, worker_sleeps, worker_wakes, writer_wakes,
};
use crate::contract::machine::StateMachine;
use crate::error::Poison;
use crate::numbers::AtomicMark;
use crate::sync::signal::{Signal, Sleeper};
use crate::sync::thread;
use crate::threads::Step;
use crate::threads::crew::{Crew, Member, Role, Turned};
use crate::threads::host::Host;

/// Number of steps of a worker after which its role gives way to roles that wait.
const TURN_STEPS: u32 = 16;

/// Number of yields while another thread has the post, before the role rests for a time.
const BLOCKED_YIELDS: u32 = 3;

/// Most doublings of the time that a role rests whose post stays taken: 1.6 ms.
const BLOCKED_DOUBLINGS: u32 = 5;

/// The thread in whose place a role is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// Worker 0, the only one.
    Worker,
    /// The log writer.
    Writer,
    /// Makes segments ready.
    Preparer,
    /// Fills the store, and compacts.
    Tender,
}

/// One role of an engine.
struct Hosted<M> {
    /// The manager and its readers own the engine. A turn holds it, and nothing else does: an
    /// engine that has stopped must release its directory.
    engine: Weak<Engine<M>>,
    /// The place where the role rests is one of these, and knows the role.
    signals: Weak<Signals>,
    part: Part,
    running: Arc<Running>,
    /// Number of turns in a row that ended because the post was taken.
    blocked: AtomicU32,
    /// The applied mark at the last look of the tender.
    seen: AtomicMark,
}

impl<M> fmt::Debug for Hosted<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosted").field("part", &self.part).finish_non_exhaustive()
    }
}

/// Queues the roles of `engine` for their first turns. `running` counts them until they end.
pub(super) fn join<M: StateMachine>(engine: &Arc<Engine<M>>, host: &Host, running: &Arc<Running>) {
    let mut parts = vec![(Part::Worker, host.workers())];
    if engine.pipeline().log_desk().log().is_some() {
        parts.extend([(Part::Writer, host.writers()), (Part::Preparer, host.writers())]);
    }
    if engine.needs_tending() {
        parts.push((Part::Tender, host.tenders()));
    }
    for (part, crew) in parts {
        start(engine, part, crew, running);
    }
}

fn start<M: StateMachine>(
    engine: &Arc<Engine<M>>,
    part: Part,
    crew: &Arc<Crew>,
    running: &Arc<Running>,
) {
    let signals = engine.pipeline().shared_signals();
    let Some(signal) = signal(signals, part) else { return };
    running.begin();
    let role = Hosted {
        engine: Arc::downgrade(engine),
        signals: Arc::downgrade(signals),
        part,
        running: Arc::clone(running),
        blocked: AtomicU32::new(0),
        seen: AtomicMark::default(),
    };
    let member = Member::new(crew, Box::new(role));
    signal.attach_role(Arc::clone(&member) as Arc<dyn Sleeper>);
    member.wake();
}

/// The place where the role of `part` rests.
fn signal(signals: &Signals, part: Part) -> Option<&Signal> {
    match part {
        Part::Worker => signals.worker(0),
        Part::Writer => Some(signals.writer()),
        Part::Preparer => Some(signals.background()),
        Part::Tender => Some(signals.compaction()),
    }
}

impl<M: StateMachine> Role for Hosted<M> {
    fn take_turn(&self, others_wait: &dyn Fn() -> bool) -> Turned {
        let turned = match self.engine.upgrade() {
            Some(engine) => self.guarded_turn(&engine, others_wait),
            None => Turned::Ended,
        };
        // The engine is released before its end is told: a close returns after that.
        if turned == Turned::Ended {
            self.running.end();
        }
        turned
    }

    fn rouse(&self) -> bool {
        let Some(signals) = self.signals.upgrade() else { return false };
        signal(&signals, self.part).is_some_and(Signal::rouse)
    }
}

impl<M: StateMachine> Hosted<M> {
    /// Takes a turn. A panic ends the role, and poisons its engine only.
    fn guarded_turn(&self, engine: &Engine<M>, others_wait: &dyn Fn() -> bool) -> Turned {
        if cfg!(any(loom, shuttle)) {
            // A checker's own panics must pass.
            return self.turn(engine, others_wait);
        }
        let turned = catch_unwind(AssertUnwindSafe(|| self.turn(engine, others_wait)));
        turned.unwrap_or_else(|_panic| {
            engine.pipeline().signals().fail(Poison::Internal("a thread of the host panicked"));
            Turned::Ended
        })
    }

    fn turn(&self, engine: &Engine<M>, others_wait: &dyn Fn() -> bool) -> Turned {
        let Some(signal) = signal(engine.pipeline().signals(), self.part) else {
            return Turned::Ended;
        };
        let (mut steps, mut yields) = (0, 0);
        while !engine.pipeline().lifecycle().is_stopping() {
            let step = self.step(engine);
            engine.pipeline().progress().wake_tasks();
            if step != Step::Worked && self.part == Part::Worker {
                // The worker's post is free, and its ring may have run dry.
                engine.pipeline().signals().workers_bell().ring();
            }
            if step == Step::Blocked {
                yields += 1;
                if yields > BLOCKED_YIELDS {
                    return self.rest_blocked(signal);
                }
                thread::yield_now();
                continue;
            }
            self.blocked.store(0, Ordering::Relaxed);
            if step == Step::Idle
                && let Some(longest) = self.rest(engine, signal)
            {
                return Turned::Rests(longest);
            }
            steps += 1;
            if steps >= self.steps_max() && others_wait() {
                return Turned::Again;
            }
        }
        // The post is free for good.
        engine.pipeline().signals().ring_bells();
        Turned::Ended
    }

    /// Number of steps after which the role gives way. A step of another part than the worker's
    /// waits for the disk.
    fn steps_max(&self) -> u32 {
        if self.part == Part::Worker { TURN_STEPS } else { 1 }
    }

    fn step(&self, engine: &Engine<M>) -> Step {
        match self.part {
            Part::Worker => engine.pipeline().step_worker(0),
            Part::Writer => engine.pipeline().log_desk().step_writer(),
            Part::Preparer => engine.pipeline().log_desk().step_background(),
            Part::Tender => match engine.step_fill() {
                Step::Idle => engine.step_compaction(),
                step => step,
            },
        }
    }

    /// Lets the idle role rest, and returns for how long at most. Returns `None` if there is work
    /// again, and the caller still has the role.
    fn rest(&self, engine: &Engine<M>, signal: &Signal) -> Option<Option<Duration>> {
        let desk = engine.pipeline().log_desk();
        let (longest, keeps) = match self.part {
            Part::Worker => {
                let longest = worker_sleeps(engine);
                (longest, signal.rest(longest.is_some(), || worker_wakes(engine, 0, longest)))
            }
            Part::Writer => {
                let longest = desk.writer_sleeps();
                let lingers = desk.log().is_some_and(|log| log.is_lingering());
                let wakes = || writer_wakes(engine, longest, lingers);
                (longest, signal.rest(longest.is_some(), wakes))
            }
            Part::Preparer => (None, signal.rest(false, || preparer_wakes(engine))),
            Part::Tender => {
                let longest = engine.next_look(self.seen.load(Ordering::Relaxed));
                self.seen.store(engine.pipeline().progress().applied_mark(), Ordering::Relaxed);
                (longest, signal.rest(longest.is_some(), || tender_wakes(engine)))
            }
        };
        (!keeps).then_some(longest)
    }

    /// Lets the role rest for a short time, because another thread has its post. The time doubles
    /// while that stays so: the end of a long hold wakes the role.
    fn rest_blocked(&self, signal: &Signal) -> Turned {
        let doublings = self.blocked.fetch_add(1, Ordering::Relaxed).min(BLOCKED_DOUBLINGS);
        // It always rests: there may be work, but not for this thread.
        let _rests = signal.rest(true, || false);
        Turned::Rests(Some(BLOCKED_SLEEP * (1 << doublings)))
    }
}
