//! Tests of closing a shared manager, and of the values that keep a directory locked after that.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use crate::common::machines::{Gate, Hooked, memory};
use crate::common::{LONG, Persistent, SHORT, Scratch, apply_config, block_on, manage, open};
use sprag::error::{
    ApplyError, CloseError, LogError, OpenError, SnapshotError, SubmitError, WaitError,
};
use sprag::{Entry, EntryRange, PersistentStateMachine};

fn put(index: u64) -> Entry<'static> {
    Entry::put(index, 1, b"key", b"value")
}

#[test]
fn a_manager_in_an_arc_closes_once_and_every_caller_gets_the_outcome() {
    let scratch = Scratch::new();
    let manager = Arc::new(scratch.open());
    manager.apply(&put(1), LONG).unwrap();
    let _ = manager.apply_entries(&[put(2), put(3)]).unwrap();
    let together = Arc::new(Barrier::new(4));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (manager, together) = (Arc::clone(&manager), Arc::clone(&together));
            thread::spawn(move || {
                together.wait();
                manager.shutdown(LONG)
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap().unwrap();
    }
    manager.shutdown(Duration::ZERO).unwrap();
    assert_eq!(manager.machine().get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    drop(manager);
    let manager = scratch.open();
    assert_eq!(manager.stats().applied, Some(3));
    assert!(manager.stats().recovery.unwrap().cut.is_none());
}

#[test]
fn after_the_end_every_call_that_changes_anything_says_closed_and_reads_go_on() {
    let scratch = Scratch::new();
    let manager = Arc::new(scratch.open());
    manager.apply(&put(1), LONG).unwrap();
    manager.snapshots().write().unwrap();
    let waiting = {
        let manager = Arc::clone(&manager);
        thread::spawn(move || (manager.wait_for_apply(9, LONG), block_on(manager.acknowledged(9))))
    };
    thread::sleep(SHORT);
    manager.shutdown(LONG).unwrap();
    let (thread, future) = waiting.join().unwrap();
    assert!(matches!(thread, Err(WaitError::Closed { index: 9 })), "{thread:?}");
    assert!(matches!(future, Err(WaitError::Closed { index: 9 })), "{future:?}");
    let submitted = manager.apply(&put(2), LONG);
    assert!(matches!(submitted, Err(ApplyError::Submit { source: SubmitError::Closed, .. })));
    assert!(matches!(manager.apply_entries(&[put(2)]), Err(SubmitError::Closed)));
    assert!(matches!(manager.log().unwrap().purge(1), Err(LogError::Closed)));
    assert!(matches!(manager.log().unwrap().save_hard_state(b"vote"), Err(LogError::Closed)));
    assert!(matches!(manager.snapshots().write(), Err(SnapshotError::Closed)));
    assert!(matches!(manager.snapshots().compact(), Err(SnapshotError::Closed)));
    assert!(matches!(manager.snapshots().receive().map(drop), Err(SnapshotError::Closed)));
    manager.wait_for_apply(1, LONG).unwrap();
    manager.flush_pending(LONG).unwrap();
    assert_eq!(manager.log().unwrap().entries(1..=1, 100).unwrap().len(), 1);
    assert_eq!(manager.snapshots().view().unwrap().len(), 1);
    assert!(manager.snapshots().newest().unwrap().is_some());
    assert_eq!(manager.machine().get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    drop(manager);
    assert_eq!(scratch.open().stats().applied, Some(1));
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    let log = manager.consensus().unwrap();
    assert_eq!(log.append(&[put(1)]).unwrap().new, 1);
    manager.shutdown(LONG).unwrap();
    assert!(matches!(log.append(&[put(2)]), Err(SubmitError::Closed)));
    assert!(matches!(log.commit(1), Err(SubmitError::Closed)));
    assert!(matches!(log.truncate_after(None), Err(LogError::Closed)));
}

#[test]
fn a_close_that_was_not_done_in_time_stays_so_for_every_caller() {
    let gate = Gate::shut();
    let held = Arc::clone(&gate);
    let machine = Hooked::new(memory(), move |_: &EntryRange<'_>, _| {
        held.pass();
        Ok(())
    });
    let manager = manage(machine, apply_config(1));
    let _opener = gate.opener();
    let _ = manager.apply_entries(&[Entry::noop(1, 1)]).unwrap();
    gate.wait_for_somebody();
    for _call in 0..2 {
        let outcome = manager.shutdown(SHORT);
        assert!(matches!(outcome, Err(CloseError::Wait(WaitError::Timeout { .. }))), "{outcome:?}");
    }
}

/// The holder in the error of another open.
fn holder(scratch: &Scratch) -> String {
    match PersistentStateMachine::open(scratch.config()) {
        Err(OpenError::Locked { holder, .. }) => holder,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_open_says_what_of_this_process_holds_the_directory() {
    let scratch = Scratch::new();
    let machine = PersistentStateMachine::open(scratch.config()).unwrap();
    assert!(holder(&scratch).contains("by a machine"), "{}", holder(&scratch));
    let manager: Arc<Persistent> = Arc::new(manage(machine, apply_config(1)));
    assert!(holder(&scratch).ends_with("by 1 manager that is not closed"), "{}", holder(&scratch));
    // The entries take several segments: a value of a full one keeps its file.
    for index in 1..=6 {
        manager.apply(&Entry::put(index, 1, &[index as u8], &[7; 30 << 10]), LONG).unwrap();
    }
    manager.snapshots().write().unwrap();
    let reader = manager.reader();
    let readers = [reader.clone(), reader];
    let view = manager.snapshots().view().unwrap();
    let snapshot = manager.snapshots().newest().unwrap().unwrap();
    let value = manager.machine().get(&[1]).unwrap().unwrap();
    manager.shutdown(LONG).unwrap();
    let said = holder(&scratch);
    for part in ["1 closed manager that was not dropped", "2 x reader", "1 view", "1 snapshot"] {
        assert!(said.contains(part), "{said}");
    }
    drop(manager);
    drop(view);
    let said = holder(&scratch);
    assert!(said.ends_with("by 2 x reader and 1 snapshot"), "{said}");
    drop((readers, snapshot));
    assert!(holder(&scratch).contains("a value"), "{}", holder(&scratch));
    drop(value);
    drop(open(scratch.config()));
}

/// A task's waker that closes the manager, as a server does that ends with its last answer.
struct Closing {
    manager: Persistent,
    outcome: Mutex<Option<Result<(), CloseError>>>,
}

impl Wake for Closing {
    fn wake(self: Arc<Self>) {
        let outcome = self.manager.shutdown(LONG);
        self.outcome.lock().unwrap().get_or_insert(outcome);
    }
}

#[test]
fn a_waker_that_closes_the_manager_is_given_the_outcome_of_the_close_that_woke_it() {
    let scratch = Scratch::new();
    let closing = Arc::new(Closing { manager: scratch.open(), outcome: Mutex::default() });
    let waker = Waker::from(Arc::clone(&closing));
    let mut never = pin!(closing.manager.acknowledged(9));
    assert!(never.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    closing.manager.shutdown(LONG).unwrap();
    let outcome = closing.outcome.lock().unwrap().take();
    assert!(matches!(outcome, Some(Ok(()))), "{outcome:?}");
}
