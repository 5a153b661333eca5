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

use std::collections::{BTreeMap, VecDeque};
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

/// A time that never comes, in nanoseconds.
const UNTIMED: u64 = u64::MAX;

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
    /// Tells the members of a crew apart.
    number: u64,
    /// Time of the role's timer, or [`UNTIMED`]. It is used under the crew's lock.
    due_ns: AtomicU64,
}

impl Member {
    /// Makes a member of `crew`, which rests nowhere: its maker queues it by
    /// [`Sleeper::wake`].
    pub(crate) fn new(crew: &Arc<Crew>, role: Box<dyn Role>) -> Arc<Self> {
        let number = crew.ready.lock().add_member();
        let (crew, due_ns) = (Arc::clone(crew), AtomicU64::new(UNTIMED));
        Arc::new(Self { crew, role, number, due_ns })
    }
}

impl Sleeper for Member {
    /// Queues the role. The caller has it: no other thread does meanwhile.
    fn wake(self: Arc<Self>) {
        let crew = Arc::clone(&self.crew);
        crew.queue(self);
    }
}

/// The roles of a crew that wait for a thread, or for a time.
#[derive(Default)]
struct Ready {
    /// The roles with work, the oldest first. There is room for all members, so that a call that
    /// gives work allocates nothing.
    queue: VecDeque<Arc<Member>>,
    /// The roles that are to be roused at a time, by that time and their number. A role has one
    /// timer at most.
    timers: BTreeMap<(u64, u64), Arc<Member>>,
    /// Number of members that have not ended.
    members: usize,
    /// Number of members that there were.
    numbers: u64,
    /// Number of threads that sleep.
    asleep: usize,
    is_stopping: bool,
}

impl Ready {
    /// Counts a member, and makes room for it. Returns its number.
    fn add_member(&mut self) -> u64 {
        self.members += 1;
        self.numbers += 1;
        // A queued role is a member, so there are no fewer of these.
        let missing = self.members.saturating_sub(self.queue.len());
        self.queue.reserve(missing);
        self.numbers
    }

    /// Removes the timer of a member, if it has one.
    fn remove_timer(&mut self, member: &Member) {
        let due_ns = member.due_ns.swap(UNTIMED, Ordering::Relaxed);
        if due_ns != UNTIMED {
            // The caller has the member, so this is not its last reference.
            self.timers.remove(&(due_ns, member.number));
        }
    }
}

/// Finds of a thread that looks for a role.
enum Found {
    Queued(Arc<Member>),
    /// The time of this one has come. It is not roused yet.
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
    /// Time of the first timer, or [`UNTIMED`]: a copy for looks without the lock.
    first_due_ns: AtomicU64,
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
            first_due_ns: AtomicU64::new(UNTIMED),
            began: Instant::now(),
        }
    }

    /// Takes turns until the crew is stopped and nothing is queued: the body of its threads.
    pub(crate) fn work(&self) {
        while let Some(member) = self.next() {
            match member.role.take_turn(&|| self.has_queued() || self.has_due()) {
                Turned::Again => self.queue(member),
                Turned::Rests(None) => {}
                Turned::Rests(Some(longest)) => self.rouse_in(member, longest),
                Turned::Ended => {
                    let mut ready = self.ready.lock();
                    ready.remove_timer(&member);
                    self.note_first(&ready);
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

    /// Whether the time of a role that rests has come.
    fn has_due(&self) -> bool {
        let due_ns = self.first_due_ns.load(Ordering::Relaxed);
        due_ns != UNTIMED && due_ns <= self.now_ns()
    }

    /// Notes the time of the first timer, after a change of the timers.
    fn note_first(&self, ready: &Ready) {
        let first = ready.timers.keys().next().map_or(UNTIMED, |(due_ns, _)| *due_ns);
        self.first_due_ns.store(first, Ordering::Relaxed);
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
        ready.remove_timer(&member);
        member.due_ns.store(due_ns, Ordering::Relaxed);
        let is_first = ready.timers.keys().next().is_none_or(|(first, _)| due_ns < *first);
        ready.timers.insert((due_ns, member.number), member);
        self.note_first(&ready);
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
                    // Behind the roles that wait, which timers must not hold up.
                    if member.role.rouse() {
                        self.queue(member);
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

    /// The next role to take. Timers come first: a role whose time has come goes to the end of the
    /// queue, however much others have to do.
    fn find(&self, ready: &mut Ready) -> Found {
        let mut longest = None;
        if let Some(first) = ready.timers.first_entry() {
            let (due_ns, _) = *first.key();
            // No time is left of one that has passed.
            let left_ns = due_ns.saturating_sub(self.now_ns());
            if left_ns == 0 {
                let member = first.remove();
                member.due_ns.store(UNTIMED, Ordering::Relaxed);
                self.note_first(ready);
                return Found::Due(member);
            }
            longest = Some(Duration::from_nanos(left_ns));
        }
        match ready.queue.pop_front() {
            Some(member) => {
                self.queued.store(ready.queue.len() as u64, Ordering::Relaxed);
                Found::Queued(member)
            }
            None => Found::Nothing(longest),
        }
    }
}

/// Nanoseconds of a duration.
fn nanos(time: Duration) -> u64 {
    // A time that is too long for them never comes.
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    /// A role that has work until the other one is done.
    #[derive(Debug)]
    struct Endless(Arc<AtomicBool>);

    impl Role for Endless {
        fn take_turn(&self, others_wait: &dyn Fn() -> bool) -> Turned {
            while !self.0.load(Ordering::Relaxed) {
                if others_wait() {
                    return Turned::Again;
                }
                thread::yield_now();
            }
            Turned::Ended
        }

        fn rouse(&self) -> bool {
            false
        }
    }

    /// A role that rests for a time, three times.
    #[derive(Debug)]
    struct Timed {
        rests: AtomicBool,
        turns: AtomicU64,
        done: Arc<AtomicBool>,
    }

    impl Role for Timed {
        fn take_turn(&self, _: &dyn Fn() -> bool) -> Turned {
            if self.turns.fetch_add(1, Ordering::Relaxed) == 3 {
                self.done.store(true, Ordering::Relaxed);
                return Turned::Ended;
            }
            self.rests.store(true, Ordering::Release);
            Turned::Rests(Some(Duration::from_millis(1)))
        }

        fn rouse(&self) -> bool {
            let changed =
                self.rests.compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed);
            changed.is_ok()
        }
    }

    #[test]
    fn a_role_whose_time_has_come_takes_its_turn_beside_others_with_endless_work() {
        for endless in [1, 3] {
            let (crew, done) = (Arc::new(Crew::new()), Arc::new(AtomicBool::new(false)));
            let (rests, turns) = (AtomicBool::new(false), AtomicU64::new(0));
            let timed = Timed { rests, turns, done: Arc::clone(&done) };
            Member::new(&crew, Box::new(timed)).wake();
            for _ in 0..endless {
                Member::new(&crew, Box::new(Endless(Arc::clone(&done)))).wake();
            }
            let working = Arc::clone(&crew);
            let worker = thread::spawn(move || working.work());
            let began = Instant::now();
            while !done.load(Ordering::Relaxed) && began.elapsed() < Duration::from_secs(20) {
                thread::sleep(Duration::from_millis(1));
            }
            let was_done = done.swap(true, Ordering::Relaxed);
            crew.stop();
            worker.join().unwrap();
            assert!(was_done, "beside {endless}");
        }
    }
}
