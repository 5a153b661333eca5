//! A crew: threads that take the roles of many engines in turn.
//!
//! A role is what a thread of one engine does: a worker, a log writer. It rests while it has
//! nothing to do. A call that gives it work queues it, and the first free thread of the crew takes
//! its turn.
//!
//! The flag of the role's [`Signal`](crate::sync::signal::Signal) says where the role is. While the
//! flag is set, the role rests, and is neither queued nor taken. The thread that clears the flag
//! has the role: it queues it, once. So a role is queued once at most, and one thread at a time has
//! it. A role that goes to rest looks for work once more after it has set the flag. A thread that
//! goes to sleep does the same (`ORD-14`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::signal::Sleeper;
use crate::sync::spin::Spin;
use crate::sync::{Condvar, Mutex, Rank, looks};

/// Number of yields of a thread that found no role, before it sleeps.
const YIELDS: u32 = looks(20);

/// Longest sleep of a thread without a timer.
const FOREVER: Duration = Duration::from_secs(3600);

/// The steps of a thread of an engine, as turns that any thread may take, one at a time.
pub(crate) trait Role: fmt::Debug + Send + Sync {
    /// Takes steps until there is nothing to do. A turn ends early while `others_wait`.
    fn take_turn(&self, others_wait: &dyn Fn() -> bool) -> Turned;

    /// Has the role no longer rest. Returns true if it did, and then the caller queues it.
    fn rouse(&self) -> bool;
}

/// The end of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turned {
    /// There may be more to do: the role goes to the end of the queue.
    Again,
    /// The role rests until a call gives it work, or for this time at most.
    Rests(Option<Duration>),
    /// The role has come to its end.
    Ended,
}

/// A role of one engine in a crew.
#[derive(Debug)]
pub(crate) struct Member {
    crew: Arc<Crew>,
    role: Box<dyn Role>,
    /// Time of the role's next timer, or [`Member::UNTIMED`]. It is used under the crew's lock.
    due_ns: AtomicU64,
}

impl Member {
    const UNTIMED: u64 = u64::MAX;

    /// Makes a member of `crew`, which rests nowhere: its maker queues it by
    /// [`Sleeper::wake`].
    pub(crate) fn new(crew: &Arc<Crew>, role: Box<dyn Role>) -> Arc<Self> {
        crew.ready.lock().members(1);
        let (crew, due_ns) = (Arc::clone(crew), AtomicU64::new(Self::UNTIMED));
        Arc::new(Self { crew, role, due_ns })
    }
}

impl Sleeper for Member {
    /// Queues the role. The caller has it: no other thread does meanwhile.
    fn wake(self: Arc<Self>) {
        let crew = Arc::clone(&self.crew);
        crew.queue(self);
    }
}

/// A role that is to be roused at a time.
struct Timer {
    due_ns: u64,
    member: Arc<Member>,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.due_ns == other.due_ns
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due_ns.cmp(&other.due_ns)
    }
}

/// The roles of a crew that wait for a thread, or for a time.
#[derive(Default)]
struct Ready {
    /// The roles with work, the oldest first. There is room for all members, so that a call that
    /// gives work allocates nothing.
    queue: VecDeque<Arc<Member>>,
    timers: BinaryHeap<Reverse<Timer>>,
    /// Number of members that have not ended.
    members: usize,
    /// Number of threads that sleep.
    asleep: usize,
    is_stopping: bool,
}

impl Ready {
    /// Counts `more` members, and makes room for them.
    fn members(&mut self, more: usize) {
        self.members += more;
        // A queued role is a member, so there are no fewer of these.
        let missing = self.members.saturating_sub(self.queue.len());
        self.queue.reserve(missing);
    }
}

/// Finds of a thread that looks for a role.
enum Found {
    Queued(Arc<Member>),
    /// The time of this one has come.
    Due(Arc<Member>),
    /// Nothing. The first timer is due after this time.
    Nothing(Option<Duration>),
}

/// The roles of many engines, and the threads that take them.
pub(crate) struct Crew {
    ready: Mutex<Ready>,
    /// Signals that a role was queued, or that a timer is the first, or the end.
    come: Condvar,
    /// Number of queued roles: a copy for looks without the lock.
    queued: AtomicU64,
    began: Instant,
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").field("queued", &self.queued).finish_non_exhaustive()
    }
}

impl Crew {
    pub(crate) fn new() -> Self {
        Self {
            ready: Mutex::new(Rank::CrewRoles, Ready::default()),
            come: Condvar::new(),
            queued: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// Takes turns until the crew is stopped and nothing is queued: the body of its threads.
    pub(crate) fn work(&self) {
        while let Some(member) = self.next() {
            match member.role.take_turn(&|| self.has_queued()) {
                Turned::Again => self.queue(member),
                Turned::Rests(None) => {}
                Turned::Rests(Some(longest)) => self.rouse_in(member, longest),
                Turned::Ended => {
                    let mut ready = self.ready.lock();
                    // `Member::new` has counted it.
                    ready.members = ready.members.saturating_sub(1);
                }
            }
        }
    }

    /// Ends the threads, each as soon as it finds nothing queued.
    pub(crate) fn stop(&self) {
        self.ready.lock().is_stopping = true;
        self.come.notify_all();
    }

    fn has_queued(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > 0
    }

    /// Queues a role. The caller has it.
    fn queue(&self, member: Arc<Member>) {
        let mut ready = self.ready.lock();
        ready.queue.push_back(member);
        self.queued.store(ready.queue.len() as u64, Ordering::Relaxed);
        let wakes = ready.asleep > 0;
        drop(ready);
        if wakes {
            self.come.notify_one();
        }
    }

    /// Rouses a resting role after `longest`, unless an earlier timer does.
    ///
    /// The role rests already, and may have been queued since: then the timer is one look for
    /// nothing. A timer clears `due_ns` under the lock before it rouses its role. So either this
    /// call finds it cleared, or that timer finds the role resting.
    fn rouse_in(&self, member: Arc<Member>, longest: Duration) {
        // A time beyond all times never comes.
        let due_ns = self.now_ns().saturating_add(nanos(longest));
        let mut ready = self.ready.lock();
        if member.due_ns.load(Ordering::Relaxed) <= due_ns {
            return;
        }
        member.due_ns.store(due_ns, Ordering::Relaxed);
        let is_first = ready.timers.peek().is_none_or(|Reverse(first)| due_ns < first.due_ns);
        ready.timers.push(Reverse(Timer { due_ns, member }));
        let wakes = is_first && ready.asleep > 0;
        drop(ready);
        if wakes {
            // A thread sleeps for a timer that is later.
            self.come.notify_one();
        }
    }

    fn now_ns(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    /// The next role to take, as soon as there is one; `None` once the crew is stopped.
    fn next(&self) -> Option<Arc<Member>> {
        let mut spin = Spin::brief();
        let mut has_looked = false;
        loop {
            let mut ready = self.ready.lock();
            match self.find(&mut ready) {
                Found::Queued(member) => return Some(member),
                Found::Due(member) => {
                    drop(ready);
                    if member.role.rouse() {
                        return Some(member);
                    }
                }
                Found::Nothing(_) if ready.is_stopping => return None,
                Found::Nothing(_) if !has_looked => {
                    drop(ready);
                    while !self.has_queued() && spin.pass(YIELDS) {}
                    has_looked = true;
                }
                Found::Nothing(left) => {
                    ready.asleep += 1;
                    ready = self.come.wait_timeout(ready, left.unwrap_or(FOREVER));
                    // This thread added one above.
                    ready.asleep = ready.asleep.saturating_sub(1);
                }
            }
        }
    }

    fn find(&self, ready: &mut Ready) -> Found {
        if let Some(member) = ready.queue.pop_front() {
            self.queued.store(ready.queue.len() as u64, Ordering::Relaxed);
            return Found::Queued(member);
        }
        let Some(Reverse(first)) = ready.timers.peek() else { return Found::Nothing(None) };
        // No time is left of one that has passed.
        let left = first.due_ns.saturating_sub(self.now_ns());
        if left > 0 {
            return Found::Nothing(Some(Duration::from_nanos(left)));
        }
        let Some(Reverse(Timer { due_ns, member })) = ready.timers.pop() else {
            return Found::Nothing(None);
        };
        // A later timer of the member stays until its time, and then rouses it for one look.
        if member.due_ns.load(Ordering::Relaxed) == due_ns {
            member.due_ns.store(Member::UNTIMED, Ordering::Relaxed);
        }
        Found::Due(member)
    }
}

/// Nanoseconds of a duration.
fn nanos(time: Duration) -> u64 {
    // A time that is too long for them never comes.
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
