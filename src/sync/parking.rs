//! Parking by a token of the thread, as in `std`, but without spurious wake-ups: those would hide
//! lost ones.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::mutex::whole;
use super::raw::{Condvar, Mutex};
use super::{canary, thread_local};

/// A thread's handle, as in `std`.
#[derive(Clone, Debug)]
pub(crate) struct Thread(Arc<Place>);

#[derive(Debug)]
struct Place {
    has_token: Mutex<bool>,
    given: Condvar,
}

thread_local! {
    static CURRENT: Thread =
        Thread(Arc::new(Place { has_token: Mutex::new(false), given: Condvar::new() }));
}

impl Thread {
    #[track_caller]
    pub(crate) fn unpark(&self) {
        if cfg!(shuttle) && canary::is_left_out(Location::caller()) {
            return;
        }
        *whole(self.0.has_token.lock()) = true;
        self.0.given.notify_one();
    }
}

pub(crate) fn current() -> Thread {
    CURRENT.with(Thread::clone)
}

pub(crate) fn park() {
    let Thread(place) = current();
    let mut has_token = whole(place.has_token.lock());
    while !*has_token {
        has_token = whole(place.given.wait(has_token));
    }
    *has_token = false;
}

/// Parks without a timeout, because time stands still.
pub(crate) fn park_timeout(_never_over: Duration) {
    park();
}
