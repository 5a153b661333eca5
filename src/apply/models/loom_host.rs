//! Models of a host: roles that any thread of a crew takes.

use std::sync::{Arc, Weak};

use loom::thread;

use super::loom_parts::check;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::canary;
use crate::sync::signal::{Signal, Sleeper};
use crate::threads::crew::{Crew, Member, Role, Turned};

/// A role that counts what it is given, and stops its crew after the last of it.
#[derive(Debug)]
struct Counting {
    signal: Weak<Signal>,
    crew: Weak<Crew>,
    /// The work so far: only its giver adds to it.
    given: Arc<AtomicU64>,
    last: u64,
    /// The work that is done. Accesses are relaxed on purpose: a thread that does not see the turn
    /// before reads an old value.
    done: AtomicU64,
    /// Number of turns that have done some work, as no thread could miss one.
    turns: std::sync::Mutex<u64>,
    is_taken: AtomicBool,
}

impl Role for Counting {
    fn take_turn(&self, _: &dyn Fn() -> bool) -> Turned {
        loop {
            assert!(!self.is_taken.swap(true, Ordering::Relaxed), "two threads have the role");
            let (given, done) =
                (self.given.load(Ordering::Acquire), self.done.load(Ordering::Relaxed));
            let mut turns = self.turns.lock().unwrap();
            assert_eq!(done, *turns, "a turn does not see the one before");
            (*turns, _) = (given, self.done.store(given, Ordering::Relaxed));
            drop(turns);
            self.is_taken.store(false, Ordering::Relaxed);
            if given == self.last {
                self.crew.upgrade().unwrap().stop();
                return Turned::Ended;
            }
            let signal = self.signal.upgrade().unwrap();
            if !signal.rest(false, || self.given.load(Ordering::Acquire) != given) {
                return Turned::Rests(None);
            }
        }
    }

    fn rouse(&self) -> bool {
        self.signal.upgrade().is_some_and(|signal| signal.rouse())
    }
}

/// Gives a role work `times` times, while two threads take its turns.
fn two_threads_take_a_role(times: u64) {
    let (crew, signal) = (Arc::new(Crew::new()), Arc::new(Signal::default()));
    let given = Arc::new(AtomicU64::new(0));
    let role = Counting {
        signal: Arc::downgrade(&signal),
        crew: Arc::downgrade(&crew),
        given: Arc::clone(&given),
        last: times,
        done: AtomicU64::new(0),
        turns: std::sync::Mutex::new(0),
        is_taken: AtomicBool::new(false),
    };
    let member = Member::new(&crew, Box::new(role));
    signal.attach_role(Arc::clone(&member) as Arc<dyn Sleeper>);
    member.wake();
    let other = Arc::clone(&crew);
    let other = thread::spawn(move || other.work());
    let giver = {
        let signal = Arc::clone(&signal);
        thread::spawn(move || {
            for more in 1..=times {
                given.store(more, Ordering::Release);
                signal.notify();
            }
        })
    };
    crew.work();
    other.join().unwrap();
    giver.join().unwrap();
}

/// Proves ORD-14.
#[test]
fn a_role_that_goes_to_rest_while_work_comes_is_taken_again_by_one_thread() {
    check(3, || two_threads_take_a_role(2));
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_without_the_fences_of_a_signal_a_role_rests_for_good() {
    let _canary = canary::leave_out("sync/signal.rs");
    check(2, || two_threads_take_a_role(1));
}
