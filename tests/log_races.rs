//! Tests of reading entries while other threads give up the log's front and truncate its end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::{PATIENT, Scratch, StopOnDrop, apply_config, manage, open};
use sprag::error::{LogError, SubmitError};
use sprag::{Entry, PersistentStateMachine};

#[test]
fn a_read_of_what_a_compaction_gives_up_finds_it_or_hears_that_it_is_gone() {
    let scratch = Scratch::new();
    let config = scratch.config().segment_bytes(64 << 10).retain_entries(0);
    let manager = manage(PersistentStateMachine::open(config).unwrap(), apply_config(1));
    let stop = AtomicBool::new(false);
    let (mut found, mut gone) = (0_u64, 0_u64);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _stop = StopOnDrop(&stop);
            for round in 0..150 {
                for index in round * 60 + 1..=round * 60 + 60 {
                    let value = [7; 400];
                    let entry = Entry::put(index, 1, b"key", &value);
                    while let Err(error) = manager.apply_entries(&[entry]) {
                        assert!(matches!(error, SubmitError::Full { .. }), "{error}");
                        thread::yield_now();
                    }
                }
                manager.log().unwrap().sync(PATIENT).unwrap();
                manager.snapshots().compact().unwrap();
            }
        });
        while !stop.load(Ordering::Acquire) {
            let Some(first) = manager.log().unwrap().state().unwrap().first else { continue };
            match manager.log().unwrap().entries(first..=first, 1 << 20) {
                Ok(entries) => {
                    assert_eq!(entries.iter().map(|(id, _)| id.index).collect::<Vec<_>>(), [first]);
                    found += 1;
                }
                Err(LogError::NotInLog { .. }) => gone += 1,
                Err(error) => panic!("{error}"),
            }
        }
    });
    println!("{found} reads found it, {gone} did not");
    assert!(found > 0);
}

#[test]
fn a_read_of_what_is_truncated_finds_one_log_s_entries_or_hears_that_they_are_gone() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    let stop = AtomicBool::new(false);
    let mut found = 0_u64;
    thread::scope(|scope| {
        scope.spawn(|| {
            let _stop = StopOnDrop(&stop);
            for term in 1..=1500 {
                let entries: Vec<_> = (1..=40).map(|index| Entry::noop(index, term)).collect();
                while let Err(error) = manager.consensus().unwrap().append(&entries) {
                    assert!(matches!(error, SubmitError::Full { .. }), "{error}");
                    manager.log().unwrap().sync(PATIENT).unwrap();
                }
                if term % 2 == 0 {
                    // The entry is there for a while.
                    manager.log().unwrap().sync(PATIENT).unwrap();
                }
                while let Err(error) = manager.consensus().unwrap().truncate_after(None) {
                    assert!(matches!(error, LogError::Full), "{error}");
                    manager.log().unwrap().sync(PATIENT).unwrap();
                }
            }
        });
        while !stop.load(Ordering::Acquire) {
            match manager.log().unwrap().entries(1..=40, 1 << 20) {
                Ok(entries) => {
                    let read: Vec<_> = entries.iter().map(|(id, _)| id).collect();
                    let term = read[0].term;
                    assert!(read.iter().all(|id| id.term == term), "{read:?}");
                    assert!(read.iter().map(|id| id.index).eq(1..=40), "{read:?}");
                    found += 1;
                }
                Err(LogError::NotInLog { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    println!("{found} reads found it");
    assert!(found > 0, "it was never there");
}
