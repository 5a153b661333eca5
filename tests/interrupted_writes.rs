//! Tests with real interruptions of real writes, over each back-end. A file-size limit cuts a group
//! short, and signals hit every thread all the time. Acknowledged entries are there after another
//! opening.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unsafe_code,
    reason = "tests; system calls that no crate makes for us"
)]
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::{LONG, Persistent, Scratch, apply_config, child, child_directory, io};
use rustix::process::{Resource, Rlimit, setrlimit};
use sprag::error::{Poison, SubmitError};
use sprag::{Durability, Entry, IoBackend, PersistentConfig};

const BACKENDS: [IoBackend; 2] = [IoBackend::Pwrite, IoBackend::Uring];
const CASE: &str = "SPRAG_TEST_CASE";
const VALUE_BYTES: usize = 3000;

fn config(path: &Path) -> PersistentConfig {
    io::config(path).segment_bytes(4 << 20).expected_keys(64)
}

fn open(path: &Path, backend: IoBackend, durability: Durability) -> Persistent {
    io::open_over(backend, config(path).durability(durability), apply_config(1))
}

/// A value without zeros.
fn value(index: u64) -> Vec<u8> {
    vec![(index % 255) as u8 + 1; VALUE_BYTES]
}

fn submit(manager: &Persistent, indexes: std::ops::Range<u64>) -> Result<(), SubmitError> {
    let parts: Vec<_> = indexes.map(|index| (index, index.to_le_bytes(), value(index))).collect();
    let entries: Vec<_> =
        parts.iter().map(|(i, key, value)| Entry::put(*i, 1, key, value)).collect();
    manager.apply_entries(&entries).map(|_taken| ())
}

/// Checks that everything up to `acknowledged` is there, that what is there is whole, and that the
/// engine continues.
fn check(path: &Path, acknowledged: u64, what: &str) {
    let manager = open(path, io::asked(), Durability::Sync);
    let applied = manager.stats().applied.unwrap_or(0);
    assert!(applied >= acknowledged, "{what}: {applied} of {acknowledged} acknowledged");
    for index in 1..=applied {
        let found = manager.machine().get(&index.to_le_bytes()).unwrap();
        assert!(found.unwrap() == value(index)[..], "{what}: {index}");
    }
    submit(&manager, applied + 1..applied + 100).unwrap();
    manager.flush_pending(LONG).unwrap();
}

/// The number after a word in a child's output.
fn said(text: &str, word: &str) -> u64 {
    let rest = text.split(word).nth(1).unwrap_or_else(|| panic!("{word}: {text}"));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

fn run_child(test: &str, path: &Path, case: &str) -> String {
    let output = child(module_path!(), test, path).env(CASE, case).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Runs `<back-end> <limit> <entries a group>`: submits groups, several in flight, until one does
/// not fit under the limit.
fn write_up_to_a_limit(path: &Path, case: &str) {
    let mut parts = case.split(' ').map(|part| part.parse::<u64>().unwrap());
    let mut next = || parts.next().unwrap();
    let (backend, limit, group) = (BACKENDS[next() as usize], next(), next());
    let manager = open(path, backend, Durability::Sync);
    // SAFETY: the disposition is no handler; the write then returns an error, instead of the
    // signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    setrlimit(Resource::Fsize, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
    let mut submitted = 0;
    while submitted < 2000 && submit(&manager, submitted + 1..submitted + 1 + group).is_ok() {
        submitted += group;
        if submitted % (4 * group) == 0 && manager.wait_for_apply(submitted, LONG).is_err() {
            break;
        }
    }
    let acknowledged = (1..=submitted).take_while(|i| manager.wait_for_apply(*i, LONG).is_ok());
    let acknowledged = acknowledged.last().unwrap_or(0);
    assert!(submitted > acknowledged, "the limit was not met");
    let Some(Poison::Io { source, .. }) = manager.poison() else {
        panic!("{:?}", manager.poison())
    };
    // A direct write that is cut inside of its first block makes no progress, and the kernel does
    // not say why.
    let (inside, kind) = (limit % 4096 != 0, source.kind());
    let no_further = kind == std::io::ErrorKind::WriteZero && inside;
    assert!(no_further || source.raw_os_error() == Some(libc::EFBIG), "{source}");
    println!("acknowledged {acknowledged} ");
}

#[test]
fn a_group_that_is_cut_short_is_never_acknowledged_and_what_was_is_there() {
    let name = "a_group_that_is_cut_short_is_never_acknowledged_and_what_was_is_there";
    if let Some(path) = child_directory() {
        return write_up_to_a_limit(&path, &std::env::var(CASE).unwrap());
    }
    for (backend, io) in BACKENDS.into_iter().enumerate() {
        // Cut at a block, at a sector, and inside of one, with groups of a few blocks and of
        // hundreds.
        for (limit, group) in [(245_760, 1), (999_424, 40), (999_936, 40), (1_000_001, 90)] {
            let scratch = Scratch::new();
            let path = scratch.path();
            // The segment's space is reserved without the limit.
            open(&path, io, Durability::Sync).close(LONG).unwrap();
            let case = format!("{backend} {limit} {group}");
            let acknowledged = said(&run_child(name, &path, &case), "acknowledged ");
            // All but the last few groups before the limit fit.
            let fit = limit / (VALUE_BYTES as u64 + 200);
            assert!(acknowledged + 8 * group >= fit, "{case}: {acknowledged} of {fit}");
            let bytes = fs::read(path.join("0000000000000001.seg")).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
            // A part of the failed group is there; otherwise nothing was cut short.
            assert!(end <= limit && end + 8192 > limit, "{case}: written to {end}");
            check(&path, acknowledged, &case);
        }
    }
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn handle(_signal: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Installs a handler after which the kernel restarts no system call.
fn interrupt_on(signal: libc::c_int) {
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the action lives until the call returns; the handler only adds to an atomic number.
    let set = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0);
}

/// Sends the signal to every thread of this process but the sender's, repeatedly.
fn storm(signal: libc::c_int, over: &AtomicBool) {
    let process = std::process::id();
    // SAFETY: the call has no arguments, and cannot fail.
    let me = unsafe { libc::gettid() };
    while !over.load(Ordering::Relaxed) {
        for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
            let thread: libc::pid_t = task.file_name().to_str().unwrap().parse().unwrap();
            if thread != me {
                // SAFETY: the call takes numbers only; a thread that has ended meanwhile is only an
                // error.
                unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
            }
        }
    }
}

/// Runs `<back-end> <durability>`: one entry at a time, then flat out, during a storm of signals.
fn write_in_a_storm(path: &Path, case: &str) {
    let (backend, durability) = case.split_once(' ').unwrap();
    let backend = BACKENDS[backend.parse::<usize>().unwrap()];
    let durability = match durability {
        "sync" => Durability::Sync,
        _ => Durability::Periodic(Duration::from_millis(1)),
    };
    interrupt_on(libc::SIGUSR1);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| storm(libc::SIGUSR1, &over));
        let written = std::panic::catch_unwind(|| {
            let manager = open(path, backend, durability);
            for index in 1..=200 {
                submit(&manager, index..index + 1).unwrap();
                manager.wait_for_apply(index, LONG).unwrap();
                // Wait for this part of a storm, however busy the machine is.
                while HANDLED.load(Ordering::Relaxed) < 5 * index {
                    thread::yield_now();
                }
            }
            let mut next = 201;
            while next <= 2000 {
                match submit(&manager, next..next + 20) {
                    Ok(()) => next += 20,
                    Err(SubmitError::Full { .. }) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
            manager.flush_pending(LONG).unwrap();
            assert_eq!(manager.stats().durable, Some(next - 1));
            println!("acknowledged {} ", next - 1);
            manager.log().unwrap().save_hard_state(b"vote").unwrap();
            manager.close(LONG).unwrap();
        });
        over.store(true, Ordering::Relaxed);
        written.unwrap();
    });
    println!("handled {} ", HANDLED.load(Ordering::Relaxed));
}

#[test]
fn signals_to_every_thread_at_any_moment_fail_nothing() {
    let name = "signals_to_every_thread_at_any_moment_fail_nothing";
    if let Some(path) = child_directory() {
        return write_in_a_storm(&path, &std::env::var(CASE).unwrap());
    }
    for backend in 0..BACKENDS.len() {
        for durability in ["sync", "periodic"] {
            let scratch = Scratch::new();
            let case = format!("{backend} {durability}");
            let text = run_child(name, &scratch.path(), &case);
            let (acknowledged, handled) = (said(&text, "acknowledged "), said(&text, "handled "));
            assert_eq!(acknowledged, 2000, "{case}");
            println!("{case}: {handled} signals");
            assert!(handled >= 1000, "{case}: {handled} are no storm");
            check(&scratch.path(), acknowledged, &case);
        }
    }
}
