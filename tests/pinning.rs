//! Tests of the cores on which engines' threads run.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;

use crate::common::machines::memory;
use crate::common::{LONG, Scratch, apply_config, eventually, manage};
use sprag::{Entry, PersistentStateMachine, PinOutcome, PinnedThread};

/// The core of each thread with this name, if it may use only one.
fn single_cores(name: &str) -> Vec<usize> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let core = |task: fs::DirEntry| {
        let is_it = fs::read_to_string(task.path().join("comm")).ok()?.trim() == name;
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        allowed.trim().parse().ok().filter(|_| is_it)
    };
    tasks.filter_map(|task| core(task.ok()?)).collect()
}

#[test]
fn worker_cores_and_log_writer_core_are_where_these_threads_run() {
    let all: Vec<usize> =
        core_affinity::get_core_ids().unwrap().into_iter().map(|core| core.id).collect();
    let (first, last) = (all[0], all[all.len() - 1]);
    let scratch = Scratch::new();
    let machine = PersistentStateMachine::open(scratch.config()).unwrap();
    let config = apply_config(3).pin_workers(true).worker_cores(vec![last, first]);
    let manager = manage(machine, config.log_writer_core(Some(first)).inline_apply(false));
    manager.apply(&Entry::noop(1, 1), LONG).unwrap();
    // The caller may have written the log before the log writer's thread began.
    let has_begun = |thread: &PinnedThread| thread.outcome != PinOutcome::Starting;
    assert!(eventually(LONG, || manager.stats().pinned_threads.iter().all(has_begun)));
    let stats = manager.stats();
    let pinned = |thread: &PinnedThread| {
        assert_eq!(thread.outcome, PinOutcome::Pinned);
        (thread.thread.clone(), thread.core)
    };
    let expected = [
        ("sprag-apply-0", last),
        ("sprag-apply-1", first),
        ("sprag-apply-2", last),
        ("sprag-log", first),
    ];
    let expected = expected.map(|(thread, core)| (thread.to_owned(), Some(core)));
    assert_eq!(stats.pinned_threads.iter().map(pinned).collect::<Vec<_>>(), expected);
    assert_eq!(stats.workers_pinned, 3, "the log writer is none");
    assert!(single_cores("sprag-log").contains(&first));
    assert!(single_cores("sprag-apply-2").contains(&last));
}

#[test]
fn ten_engines_of_one_process_do_not_share_one_core() {
    let cores = core_affinity::get_core_ids().unwrap().len();
    let managers: Vec<_> =
        (0..10).map(|_| manage(memory(), apply_config(1).pin_workers(true))).collect();
    let used: BTreeSet<_> =
        managers.iter().map(|manager| manager.stats().pinned_threads[0].core).collect();
    assert_eq!(used.len(), cores.min(10));
}

#[test]
fn a_core_that_there_is_not_is_named_in_the_stats_and_stops_nothing() {
    let config = apply_config(1).pin_workers(true).worker_cores(vec![100_000]);
    let manager = manage(memory(), config.inline_apply(false));
    manager.apply(&Entry::noop(1, 1), LONG).unwrap();
    let stats = manager.stats();
    assert_eq!((stats.workers_pinned, stats.pinned_threads[0].core), (0, Some(100_000)));
    let outcome = &stats.pinned_threads[0].outcome;
    assert!(
        matches!(outcome, PinOutcome::Failed(why) if why.contains("core 100000")),
        "{outcome:?}"
    );
}
