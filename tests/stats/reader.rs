//! Tests of the handle by which a monitor reads the figures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sprag::error::{OpenError, Poison};
use sprag::testing::{Fault, FaultError, SimDisk};
use sprag::{
    Entry, EntryRange, Fatal, Journaled, Partition, PersistentStateMachine, Replies, StateMachine,
    StateMachineStats,
};

use super::{one_worker, stepped};
use crate::common::{LONG, Scratch, StopOnDrop, apply_config, manage};

#[test]
fn a_stats_reader_reads_until_the_manager_is_dropped() {
    let scratch = Scratch::new();
    let manager = manage(PersistentStateMachine::open(scratch.config()).unwrap(), apply_config(1));
    let reader = manager.stats_reader();
    manager.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
    let read = reader.clone().stats().unwrap();
    assert_eq!((read.applied, read.total_applied, read.machine.keys), (Some(1), 1, 1));
    manager.shutdown(LONG).unwrap();
    assert!(reader.is_open() && reader.stats().is_some(), "closed, and not dropped");
    drop(manager);
    assert!(!reader.is_open() && reader.stats().is_none());
}

#[test]
fn a_stats_reader_in_use_does_not_keep_the_directory_locked() {
    let scratch = Scratch::new();
    for _ in 0..20 {
        // An open that meets a lock fails here.
        let machine = PersistentStateMachine::open(scratch.config()).unwrap();
        let manager = manage(machine, apply_config(1));
        let (reader, stop) = (manager.stats_reader(), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) && reader.stats().is_some() {
                        std::hint::spin_loop();
                    }
                });
            }
            let _stop = StopOnDrop(&stop);
            manager.close(LONG).unwrap();
            PersistentStateMachine::open(scratch.config()).unwrap();
        });
    }
}

/// A machine that, once armed, returns its figures when the test allows it.
struct Stuck {
    is_armed: Arc<AtomicBool>,
    asked: Sender<()>,
    let_go: Mutex<Receiver<()>>,
}

impl StateMachine for Stuck {
    fn apply(&self, _: &EntryRange<'_>, _: Partition, _: &mut Replies<'_>) -> Result<(), Fatal> {
        Ok(())
    }

    fn stats(&self) -> StateMachineStats {
        if self.is_armed.load(Ordering::Relaxed) {
            let _ = self.asked.send(());
            let _ = self.let_go.lock().unwrap().recv();
        }
        StateMachineStats::default()
    }
}

#[test]
fn a_machine_whose_figures_never_come_holds_up_a_drop_only_for_so_long() {
    let scratch = Scratch::new();
    let ((asked, was_asked), (let_go, wait)) = (channel(), channel());
    let is_armed = Arc::new(AtomicBool::new(false));
    let stuck = Stuck { is_armed: Arc::clone(&is_armed), asked, let_go: Mutex::new(wait) };
    let machine = Journaled::open(scratch.config(), stuck).unwrap();
    let manager = manage(machine, apply_config(1).close_timeout(Duration::from_millis(10)));
    is_armed.store(true, Ordering::Relaxed);
    let reader = manager.stats_reader();
    let reading = thread::spawn(move || reader.stats().is_some());
    was_asked.recv().unwrap();
    drop(manager);
    let error = Journaled::open(scratch.config(), super::Own::default()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("1 reader"), "{error}");
    let_go.send(()).unwrap();
    assert!(reading.join().unwrap());
    Journaled::open(scratch.config(), super::Own::default()).unwrap();
}

#[test]
fn the_first_failure_is_among_the_figures_with_a_word_for_its_kind() {
    for (error, reason) in [(FaultError::Enospc, "disk_full"), (FaultError::Eio, "io")] {
        let disk = SimDisk::new(1);
        let engine = stepped(&disk, one_worker());
        assert!(engine.stats().poison.is_none());
        let _ = engine.apply_entries(&[Entry::put(1, 1, b"k", b"v")]).unwrap();
        disk.fail_at(disk.operations(), Fault::Error(error));
        engine.run_until_idle();
        let poison: Poison = engine.stats().poison.unwrap();
        assert_eq!(poison.reason(), reason, "{poison}");
        assert!(Poison::REASONS.contains(&reason));
    }
}
