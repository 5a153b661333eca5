//! Tests of durable calls whose entries the workers apply while the caller syncs them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::acting_disk::ActingDisk;
use crate::common::io::config;
use crate::common::machines::Hooked;
use crate::common::{LONG, apply_config};
use sprag::testing::SimDisk;
use sprag::{ApplyManager, Entry, Fatal, PersistentStateMachine};

/// Time of the machine for an entry: far longer than the wake of a worker.
const SLOW: Duration = Duration::from_micros(200);
const CALLS: u64 = 6;

/// Two sides that meet at each call from the second one on.
#[derive(Default)]
struct Meeting {
    /// Number of calls that each side has come to: apply, and sync.
    came: Mutex<[u64; 2]>,
    changed: Condvar,
}

impl Meeting {
    /// Comes to the next call. Returns whether the other side came to it in time.
    fn come(&self, side: usize) -> bool {
        let mut came = self.came.lock().unwrap();
        came[side] += 1;
        let call = came[side];
        self.changed.notify_all();
        // Nothing is known yet of the time that an entry takes, so the first call does one thing
        // after the other.
        let is_alone = |came: &mut [u64; 2]| call > 1 && came[1 - side] < call;
        let (_came, waited) = self.changed.wait_timeout_while(came, LONG, is_alone).unwrap();
        !waited.timed_out()
    }
}

/// Proves ORD-3.
#[test]
fn a_slow_range_is_applied_while_its_call_syncs_and_acknowledged_after_both() {
    let meeting = Arc::new(Meeting::default());
    let (applying, syncing) = (Arc::clone(&meeting), Arc::clone(&meeting));
    let disk = ActingDisk::new(SimDisk::new(1).open(true).unwrap())
        .at_sync(move || assert!(syncing.come(1), "no entry is applied while it is synced"));
    let machine =
        PersistentStateMachine::open_on_disk(Arc::new(disk), config("simulated")).unwrap();
    let machine = Hooked::new(machine, move |_range, _partition| {
        thread::sleep(SLOW);
        let met = applying.come(0);
        thread::sleep(SLOW);
        met.then_some(()).ok_or_else(|| Fatal::new("no sync began while the entry was applied"))
    });
    let manager = ApplyManager::new(machine, apply_config(1)).unwrap();
    for index in 1..=CALLS {
        let key = index.to_le_bytes();
        manager.apply(&Entry::put(index, 1, &key, b"value"), LONG).unwrap();
        assert!(manager.machine().get(&key).unwrap().is_some(), "entry {index} is not applied");
        assert_eq!(manager.stats().durable, Some(index));
    }
    assert_eq!(*meeting.came.lock().unwrap(), [CALLS; 2]);
}
