//! Tests of the hold on a directory, whatever happens to its names and to the processes that have
//! it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unsafe_code,
    reason = "tests; a process that is forked without exec, which no crate makes"
)]
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::{
    LONG, Persistent, Scratch, child, child_directory, dir_bytes, eventually, refused,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use sprag::error::{CloseError, LockLost, LogError, OpenError, Poison};
use sprag::{Entry, PersistentStateMachine};

fn put(manager: &Persistent, index: u64) {
    manager.apply(&Entry::put(index, 1, &index.to_be_bytes(), b"value"), LONG).unwrap();
}

fn is_locked(error: &OpenError) -> bool {
    matches!(error, OpenError::Locked { .. })
}

fn keys(path: &Path) -> usize {
    let machine = PersistentStateMachine::open_read_only(path).unwrap();
    machine.len().unwrap()
}

fn lost(closed: Result<(), CloseError>) -> LockLost {
    match closed {
        Err(CloseError::Poisoned(Poison::LockLost(lost))) => lost,
        other => panic!("{other:?}"),
    }
}

/// Removes LOCK, and makes another one in its place if `replace`.
fn lose_lock_file(path: &Path, replace: bool) {
    fs::remove_file(path.join("LOCK")).unwrap();
    if replace {
        fs::write(path.join("LOCK"), "").unwrap();
    }
}

/// Proves DUR-33.
#[test]
fn a_lock_file_that_is_removed_or_replaced_lets_no_second_writer_in() {
    for replace in [false, true] {
        let scratch = Scratch::new();
        let manager = scratch.open();
        put(&manager, 1);
        lose_lock_file(&scratch.path(), replace);
        let error = refused(scratch.config());
        assert!(is_locked(&error), "{error}");
        let machine = PersistentStateMachine::open_read_only(scratch.path()).unwrap();
        assert!(machine.recovery().beside_a_writer, "a reader knows of the writer");
        put(&manager, 2);
        // META does not say that the log was closed: another release, which knows LOCK only, may
        // have opened the directory.
        let before = fs::read(scratch.path().join("META")).unwrap();
        assert_eq!(lost(manager.close(LONG)), LockLost::LockFile);
        assert_eq!(fs::read(scratch.path().join("META")).unwrap(), before);
        drop(machine);
        drop(scratch.open());
        assert_eq!(keys(&scratch.path()), 2, "all that was acknowledged");
    }
}

/// Proves DUR-33.
#[test]
fn an_engine_without_its_lock_file_saves_no_vote_and_gives_up_no_log() {
    for replace in [false, true] {
        let scratch = Scratch::new();
        let manager = scratch.open();
        manager.log().unwrap().save_hard_state(b"vote 1").unwrap();
        put(&manager, 1);
        lose_lock_file(&scratch.path(), replace);
        let before = fs::read(scratch.path().join("HARD")).unwrap();
        match manager.log().unwrap().save_hard_state(b"vote 2") {
            Err(LogError::Poisoned(Poison::LockLost(LockLost::LockFile))) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(scratch.path().join("HARD")).unwrap(), before);
        assert!(manager.poison().is_some());

        let scratch = Scratch::new();
        let manager = scratch.open();
        (1..=100).for_each(|index| put(&manager, index));
        let before = fs::read(scratch.path().join("META")).unwrap();
        lose_lock_file(&scratch.path(), replace);
        manager.snapshots().compact().unwrap_err();
        assert_eq!(fs::read(scratch.path().join("META")).unwrap(), before);
        drop(manager);
        drop(scratch.open());
        assert_eq!(keys(&scratch.path()), 100);
    }
}

/// Proves DUR-33.
#[test]
fn a_directory_that_is_moved_stays_locked_and_nothing_of_it_is_in_the_one_that_takes_its_place() {
    for replaced in [false, true] {
        let scratch = Scratch::new();
        let moved = scratch.path().with_file_name("moved");
        let manager = scratch.open();
        put(&manager, 1);
        fs::rename(scratch.path(), &moved).unwrap();
        let error = refused(crate::common::io::config(&moved));
        assert!(is_locked(&error), "{error}");
        if replaced {
            let other = scratch.open();
            assert_eq!(other.applied(), None);
            other.close(LONG).unwrap();
        }
        put(&manager, 2);
        assert_eq!(lost(manager.close(LONG)), LockLost::Directory);
        assert_eq!(keys(&moved), 2, "all that was acknowledged");
        drop(crate::common::open(scratch.config().create(true)));
        assert_eq!(keys(&scratch.path()), 0);
    }
}

#[test]
fn a_directory_that_is_opened_through_a_link_is_known_where_it_is() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let link = scratch.path().with_file_name("link");
    std::os::unix::fs::symlink("data", &link).unwrap();
    let manager = crate::common::open(crate::common::io::config(&link));
    put(&manager, 1);
    // The link leads elsewhere from now on, and the directory is where it was.
    fs::remove_file(&link).unwrap();
    manager.close(LONG).unwrap();
}

/// Runs `run` in a child that `fork` makes, and fails if it panics there. Returns whether the child
/// ended within `limit`; otherwise it is killed.
fn ends_in_a_fork(limit: Duration, run: impl FnOnce()) -> bool {
    // SAFETY: the child runs `run` and exits; the C library makes its allocator usable there.
    let forked = unsafe { libc::fork() };
    assert!(forked >= 0);
    if forked == 0 {
        let status = i32::from(catch_unwind(AssertUnwindSafe(run)).is_err());
        // SAFETY: this ends the child at once, and runs no handler that the parent has registered.
        unsafe { libc::_exit(status) };
    }
    let pid = Pid::from_raw(forked).unwrap();
    let mut status = None;
    let ended = eventually(limit, || {
        status = waitpid(Some(pid), WaitOptions::NOHANG).unwrap();
        status.is_some()
    });
    if let Some((_, status)) = status {
        assert_eq!(status.exit_status(), Some(0), "the child panicked");
        return ended;
    }
    kill_process(pid, Signal::KILL).unwrap();
    waitpid(Some(pid), WaitOptions::empty()).unwrap();
    false
}

fn in_a_fork(run: impl FnOnce()) {
    assert!(ends_in_a_fork(LONG, run), "the child does not end");
}

#[test]
fn a_child_of_fork_that_drops_its_copy_of_a_manager_releases_and_writes_nothing() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    let reader = manager.reader();
    put(&manager, 1);
    let before = dir_bytes(&scratch.path());
    let mut copies = Some((manager, reader));
    in_a_fork(|| drop(copies.take()));
    let (manager, reader) = copies.unwrap();
    assert_eq!(dir_bytes(&scratch.path()), before);
    assert!(is_locked(&refused(scratch.config())), "the parent's lock is the parent's");
    put(&manager, 2);
    drop(reader);
    manager.close(LONG).unwrap();
    drop(scratch.open());
    assert_eq!(keys(&scratch.path()), 2);
}

#[test]
fn a_child_of_fork_that_drops_its_copy_of_a_machine_releases_and_writes_nothing() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let machine = PersistentStateMachine::open(scratch.config()).unwrap();
    let before = dir_bytes(&scratch.path());
    let mut copy = Some(machine);
    in_a_fork(|| drop(copy.take()));
    assert_eq!(dir_bytes(&scratch.path()), before);
    assert!(is_locked(&refused(scratch.config())));
    let manager = crate::common::manage(copy.unwrap(), crate::common::apply_config(1));
    put(&manager, 1);
    manager.close(LONG).unwrap();
}

#[test]
fn a_child_of_fork_that_drops_a_snapshot_that_is_being_received_leaves_it_to_the_parent() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    put(&manager, 1);
    let mut receiver = Some(manager.snapshots().receive().unwrap());
    let before = dir_bytes(&scratch.path());
    in_a_fork(|| drop(receiver.take()));
    assert_eq!(dir_bytes(&scratch.path()), before);
    drop(receiver);
    manager.close(LONG).unwrap();
}

#[test]
fn a_child_of_fork_that_closes_its_copy_is_told_so_at_once() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    put(&manager, 1);
    let before = dir_bytes(&scratch.path());
    let mut copy = Some(manager);
    in_a_fork(|| assert_eq!(lost(copy.take().unwrap().close(LONG)), LockLost::Forked));
    assert_eq!(dir_bytes(&scratch.path()), before);
    copy.unwrap().close(LONG).unwrap();
}

/// Proves DUR-33.
#[test]
fn a_child_of_fork_that_uses_its_copy_writes_nothing() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    put(&manager, 1);
    let before = dir_bytes(&scratch.path());
    let calls: [&dyn Fn(&Persistent); 2] = [
        &|manager| {
            let entry = Entry::put(2, 1, b"k", b"of the child");
            manager.apply(&entry, Duration::from_millis(50)).unwrap_err();
        },
        &|manager| drop(manager.log().unwrap().save_hard_state(b"of the child").unwrap_err()),
    ];
    for call in calls {
        // The call may wait forever: a thread that only the parent has may have held a lock of the
        // engine.
        let ended = ends_in_a_fork(Duration::from_secs(1), || call(&manager));
        println!("the call came back: {ended}");
        assert_eq!(dir_bytes(&scratch.path()), before);
    }
    put(&manager, 2);
    manager.close(LONG).unwrap();
    assert_eq!(keys(&scratch.path()), 2);
}

#[test]
fn a_program_that_a_killed_process_had_started_keeps_no_lock() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let mut holder = child(module_path!(), "child_holds_and_starts_a_program", &scratch.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(holder.stdout.take().unwrap()).lines();
    let program = said.find_map(|line| Some(line.unwrap().split_once("started: ")?.1.to_owned()));
    let program: i32 = program.unwrap().parse().unwrap();
    assert!(is_locked(&refused(scratch.config())));
    holder.kill().unwrap();
    holder.wait().unwrap();
    let opened = PersistentStateMachine::open(scratch.config()).map(drop);
    let program = Pid::from_raw(program).unwrap();
    rustix::process::test_kill_process(program).expect("the program still runs");
    kill_process(program, Signal::KILL).unwrap();
    opened.unwrap();
}

/// The child: holds the directory, and starts a program that outlives it.
#[test]
fn child_holds_and_starts_a_program() {
    let Some(directory) = child_directory() else { return };
    let manager = crate::common::open(crate::common::io::config(directory));
    let program =
        Command::new("sleep").arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    println!("started: {}", program.unwrap().id());
    thread::sleep(Duration::from_secs(1000));
    drop(manager);
}
