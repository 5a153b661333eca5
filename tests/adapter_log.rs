//! Tests of a log whose indexes only rise, and a state with a separate position, for the adapters
//! of consensus engines.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use crate::common::machines::compare;
use crate::common::model::Model;
use crate::common::ops::{Logged, Op, log_of, with_entries};
use crate::common::{LONG, Persistent, Scratch, apply_config, manage, open, refused};
use sprag::error::{ApplyError, LogError, OpenError, SubmitError};
use sprag::testing::SimDisk;
use sprag::{
    ApplyManager, CommitMode, Contiguity, Entry, LogId, PersistentConfig, PersistentStateMachine,
    Reply, Stage, StateMachine,
};

fn monotone(scratch: &Scratch) -> PersistentConfig {
    scratch.by_commit().contiguity(Contiguity::Monotone)
}

fn puts(first: u64, term: u64, count: u64) -> Vec<Logged> {
    let put = |index: u64| match index % 5 {
        0 => Op::Membership(index.to_le_bytes().to_vec()),
        1 => Op::increment("n", 1),
        _ => Op::put((index % 7).to_be_bytes(), vec![u8::try_from(term).unwrap(); 200]),
    };
    log_of(first, term, (first..first + count).map(put))
}

fn append(manager: &Persistent, log: &[Logged]) {
    for part in log.chunks(50) {
        let full = |result: &Result<_, _>| matches!(result, Err(SubmitError::Full { .. }));
        while full(&with_entries(part, |entries| manager.consensus().unwrap().append(entries))) {
            manager.log().unwrap().sync(LONG).unwrap();
        }
        assert_eq!(
            manager.log().unwrap().state().unwrap().last,
            part.last().map(|(log_id, _)| *log_id)
        );
    }
}

fn apply_only(manager: &Persistent, log: &[Logged]) -> Result<Vec<Reply>, ApplyError> {
    let mut replies = Vec::new();
    with_entries(log, |entries| {
        manager.consensus().unwrap().apply_only(entries, LONG, &mut replies)
    })?;
    Ok(replies)
}

fn apply_committed(manager: &Persistent, first: u64, last: u64) -> Result<Vec<Reply>, ApplyError> {
    let mut replies = Vec::new();
    manager.consensus().unwrap().apply_committed(first..=last, LONG, &mut replies)?;
    Ok(replies)
}

fn held(manager: &Persistent) -> Vec<u64> {
    let state = manager.log().unwrap().state().unwrap();
    let (Some(first), Some(last)) = (state.first, state.last) else { return Vec::new() };
    let entries = manager.log().unwrap().entries(first..=last.index, usize::MAX).unwrap();
    entries.iter().map(|(log_id, _)| log_id.index).collect()
}

#[test]
fn without_the_option_a_gap_a_late_start_and_an_entry_out_of_the_log_are_refused() {
    let scratch = Scratch::new();
    let manager = open(scratch.by_commit());
    let late = manager.consensus().unwrap().append(&[Entry::noop(2, 1)]);
    assert!(matches!(late, Err(SubmitError::Gap { expected: 1, got: 2 })), "{late:?}");
    let _ = manager.consensus().unwrap().append(&[Entry::noop(1, 1)]).unwrap();
    let gap = manager.consensus().unwrap().append(&[Entry::noop(3, 1)]);
    assert!(matches!(gap, Err(SubmitError::Gap { expected: 2, got: 3 })), "{gap:?}");
    let inner = manager.consensus().unwrap().append(&[Entry::noop(2, 1), Entry::noop(4, 1)]);
    assert!(matches!(inner, Err(SubmitError::Gap { expected: 3, got: 4 })), "{inner:?}");
    let out = apply_only(&manager, &puts(1, 2, 1));
    let refused = SubmitError::Contiguity { call: "apply_only" }.to_string();
    assert!(out.unwrap_err().to_string().contains(&refused));
    assert_eq!(manager.stats().applied, None);
}

#[test]
fn it_is_for_a_log_that_commits_by_commit_and_the_directory_remembers_it() {
    let scratch = Scratch::new();
    let error = refused(scratch.config().contiguity(Contiguity::Monotone));
    assert!(matches!(error, OpenError::Config { option: "contiguity", .. }), "{error}");
    drop(open(monotone(&scratch)));
    assert!(matches!(refused(scratch.by_commit()), OpenError::Contiguity { .. }));
    let strict = Scratch::new();
    drop(open(strict.by_commit()));
    assert!(matches!(refused(monotone(&strict)), OpenError::Contiguity { .. }));
}

#[test]
fn a_log_starts_anywhere_has_gaps_and_is_read_back_with_them() {
    let scratch = Scratch::new();
    let manager = open(monotone(&scratch));
    append(&manager, &puts(7, 1, 2));
    append(&manager, &puts(12, 1, 3));
    append(&manager, &puts(900, 2, 600));
    let expected: Vec<u64> = [7, 8].into_iter().chain(12..15).chain(900..1500).collect();
    let check = |manager: &Persistent| {
        assert_eq!(held(manager), expected);
        for (index, term) in [(6, None), (7, Some(1)), (9, None), (14, Some(1)), (15, None)] {
            assert_eq!(
                manager.log().unwrap().log_id(index).unwrap().map(|id| id.term),
                term,
                "{index}"
            );
        }
        let between = manager.log().unwrap().entries(9..=899, 1 << 20).unwrap();
        assert_eq!(between.iter().map(|(id, _)| id.index).collect::<Vec<_>>(), [12, 13, 14]);
    };
    check(&manager);
    let behind = manager.consensus().unwrap().append(&[Entry::noop(10, 2)]);
    assert!(matches!(behind, Err(SubmitError::Gap { .. })), "{behind:?}");
    manager.log().unwrap().sync(LONG).unwrap();
    drop(manager);
    check(&open(monotone(&scratch)));
}

#[test]
fn nothing_is_committed_over_a_gap_and_the_log_is_cut_back_to_what_it_holds() {
    let scratch = Scratch::new();
    let manager = open(monotone(&scratch));
    append(&manager, &puts(5, 1, 3));
    append(&manager, &puts(10, 1, 2));
    let over = apply_committed(&manager, 5, 10).unwrap_err();
    let gap = matches!(over, ApplyError::Submit { source: SubmitError::Gap { .. }, .. });
    assert!(gap, "{over}");
    assert_eq!(apply_committed(&manager, 5, 7).unwrap().len(), 3);
    assert_eq!(manager.stats().applied, Some(7));
    manager.consensus().unwrap().truncate_after(Some(8)).unwrap();
    assert_eq!(manager.log().unwrap().state().unwrap().last, Some(LogId::new(7, 1)));
    append(&manager, &puts(8, 3, 2));
    manager.log().unwrap().sync(LONG).unwrap();
    drop(manager);
    let manager = open(monotone(&scratch));
    assert_eq!(held(&manager), [5, 6, 7, 8, 9]);
    assert_eq!(apply_committed(&manager, 6, 9).unwrap().first(), Some(&Reply::AlreadyApplied));
    compare(manager.machine(), &Model::after(&[puts(5, 1, 3), puts(8, 3, 2)].concat())).unwrap();
}

#[test]
fn what_is_committed_and_held_back_in_the_middle_of_a_run_is_no_gap() {
    let scratch = Scratch::new();
    let machine = PersistentStateMachine::open(monotone(&scratch)).unwrap();
    let manager = manage(machine, apply_config(1).batch_timeout(LONG));
    // Ranges have 128 entries, and a shorter rest is not handed over at once.
    append(&manager, &puts(1, 1, 300));
    append(&manager, &puts(310, 1, 3));
    manager.consensus().unwrap().commit(64).unwrap();
    manager.consensus().unwrap().commit(200).unwrap();
    let over = manager.consensus().unwrap().commit(310).unwrap_err();
    assert!(matches!(over, SubmitError::Gap { expected: 301, got: 310 }), "{over}");
    manager.consensus().unwrap().commit(300).unwrap();
    manager.flush_pending(LONG).unwrap();
    compare(manager.machine(), &Model::after(&puts(1, 1, 300))).unwrap();
}

#[test]
fn what_the_log_does_not_hold_is_applied_beside_it_and_comes_back_in_its_place() {
    let scratch = Scratch::new();
    let manager = open(monotone(&scratch));
    // Apply from the log, then beside it over uncommitted entries, then from the log, and once more
    // beside it.
    let log = [puts(0, 1, 4), puts(4, 1, 6)].concat();
    append(&manager, &log);
    assert_eq!(apply_committed(&manager, 0, 2).unwrap().len(), 3);
    let beside = puts(3, 2, 2);
    assert_eq!(apply_only(&manager, &beside).unwrap().len(), 2);
    assert_eq!(manager.stats().applied, Some(4));
    assert_eq!(
        apply_only(&manager, &beside).unwrap(),
        [Reply::AlreadyApplied, Reply::AlreadyApplied]
    );
    assert_eq!(apply_committed(&manager, 5, 7).unwrap().len(), 3);
    let far = puts(20, 3, 3);
    apply_only(&manager, &far).unwrap();
    assert_eq!(held(&manager), (0..10).collect::<Vec<_>>(), "the log is what it was");
    let behind = apply_only(&manager, &[puts(30, 3, 1), puts(25, 3, 1)].concat()).unwrap_err();
    let falls = matches!(behind, ApplyError::Submit { source: SubmitError::Gap { .. }, .. });
    assert!(falls, "{behind}");
    let model = Model::after(&[&log[..3], &beside[..], &log[5..8], &far[..]].concat());
    compare(manager.machine(), &model).unwrap();
    // The log continues at its own position, behind the state, and then beyond it.
    append(&manager, &puts(10, 1, 2));
    drop(manager);
    let manager = open(monotone(&scratch));
    compare(manager.machine(), &model).unwrap();
    assert_eq!(manager.machine().applied(), Some(far[2].0));
    assert_eq!(held(&manager), (0..12).collect::<Vec<_>>());
    append(&manager, &puts(23, 3, 2));
    assert_eq!(apply_committed(&manager, 23, 24).unwrap().len(), 2);
    let model =
        Model::after(&[&log[..3], &beside[..], &log[5..8], &far[..], &puts(23, 3, 2)].concat());
    compare(manager.machine(), &model).unwrap();
}

#[test]
fn what_the_log_takes_behind_the_state_is_read_at_once_and_durable_when_it_is_waited_for() {
    for reads in [false, true] {
        let disk = SimDisk::new(3);
        let config = || {
            let config = PersistentConfig::new("simulated").segment_bytes(64 << 10);
            config.commit_mode(CommitMode::ByCommit).contiguity(Contiguity::Monotone)
        };
        let open = || PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config());
        let manager = manage(open().unwrap(), apply_config(1));
        append(&manager, &puts(0, 1, 11));
        apply_committed(&manager, 0, 10).unwrap();
        apply_only(&manager, &puts(20, 2, 1)).unwrap();
        for index in 11..19 {
            append(&manager, &puts(index, 2, 1));
            if reads {
                let found = manager.log().unwrap().entries(index..=index, 1 << 20).unwrap();
                assert_eq!(found.last(), Some(LogId::new(index, 2)));
            }
            // A read needs no written entry; only a wait guarantees one.
            manager.wait_until(index, Stage::Durable, LONG).unwrap();
        }
        disk.power_cut_keeping(0);
        drop(manager);
        let manager = manage(open().unwrap(), apply_config(1));
        assert_eq!(manager.log().unwrap().state().unwrap().last, Some(LogId::new(18, 2)));
    }
}

#[test]
fn what_one_submission_has_beyond_the_state_is_applied_wherever_in_it_the_state_ends() {
    for state in [20, 137, 138, 139, 300] {
        let scratch = Scratch::new();
        let manager = open(monotone(&scratch));
        let (log, beside) = (puts(1, 1, 400), puts(state, 1, 1));
        append(&manager, &log[..10]);
        apply_committed(&manager, 1, 10).unwrap();
        apply_only(&manager, &beside).unwrap();
        let _ = with_entries(&log[10..], |entries| manager.consensus().unwrap().append(entries))
            .unwrap();
        apply_committed(&manager, state + 1, 400).unwrap();
        let beyond = usize::try_from(state).unwrap();
        let model = Model::after(&[&log[..10], &beside[..], &log[beyond..]].concat());
        compare(manager.machine(), &model).unwrap();
        manager.log().unwrap().sync(LONG).unwrap();
        drop(manager);
        compare(open(monotone(&scratch)).machine(), &model).unwrap();
    }
}

#[test]
fn what_is_applied_beside_a_log_that_is_full_waits_for_room() {
    let scratch = Scratch::new();
    let manager = open(monotone(&scratch).segment_bytes(64 << 10).segment_images(2));
    for round in 0..10 {
        let mut next = round * 1_000_000 + 1;
        while with_entries(&puts(next, 1, 40), |entries| {
            manager.consensus().unwrap().append(entries)
        })
        .is_ok()
        {
            next += 40;
        }
        // The entry has no room in the rest of the segment.
        let beside = log_of(next + 40, 1, [Op::put("key", vec![1; 30_000])]);
        assert_eq!(apply_only(&manager, &beside).unwrap().len(), 1);
    }
}

#[test]
fn a_snapshot_of_such_a_state_is_its_own_and_the_log_it_covers_goes() {
    let scratch = Scratch::new();
    let manager = open(monotone(&scratch));
    assert!(matches!(manager.log().unwrap().purge(0), Err(LogError::NotCovered { index: 0 })));
    let log = puts(0, 1, 900);
    append(&manager, &log);
    apply_committed(&manager, 0, 899).unwrap();
    let beside = puts(1000, 2, 3);
    apply_only(&manager, &beside).unwrap();
    manager.snapshots().write().unwrap();
    assert!(matches!(
        manager.log().unwrap().purge(1003),
        Err(LogError::NotCovered { index: 1003 })
    ));
    append(&manager, &puts(1003, 2, 5));
    manager.log().unwrap().sync(LONG).unwrap();
    let model = Model::after(&[&log[..], &beside[..]].concat());
    let reopened = |purged: bool| {
        let manager = open(monotone(&scratch));
        compare(manager.machine(), &model).unwrap();
        assert_eq!(manager.log().unwrap().state().unwrap().last, Some(LogId::new(1007, 2)));
        assert_eq!(manager.log().unwrap().state().unwrap().purged.is_some(), purged);
        manager
    };
    drop(manager);
    let manager = reopened(false);
    manager.log().unwrap().purge(500).unwrap();
    let purged = manager.log().unwrap().state().unwrap().purged.unwrap();
    assert!((1..=500).contains(&purged), "{purged}");
    manager.log().unwrap().purge(1002).unwrap();
    assert!(manager.log().unwrap().state().unwrap().purged.unwrap() > purged);
    drop(manager);
    let manager = reopened(true);
    apply_committed(&manager, 1003, 1007).unwrap();
    compare(manager.machine(), &Model::after(&[log, beside, puts(1003, 2, 5)].concat())).unwrap();
}

#[test]
fn from_outside_the_log_is_seen_with_its_gaps_and_the_state_with_its_records() {
    let scratch = Scratch::new();
    let manager = open(monotone(&scratch));
    append(&manager, &puts(7, 1, 3));
    append(&manager, &puts(12, 1, 2));
    apply_committed(&manager, 7, 8).unwrap();
    let beside = puts(20, 2, 3);
    apply_only(&manager, &beside).unwrap();
    manager.close(LONG).unwrap();
    let machine = PersistentStateMachine::open_read_only(scratch.path()).unwrap();
    compare(&machine, &Model::after(&[&puts(7, 1, 2)[..], &beside[..]].concat())).unwrap();
    let mut seen = Vec::new();
    let summary = sprag::inspect::dump(scratch.path(), .., &mut |entry| {
        seen.push(entry.log_id.index);
        Ok(())
    });
    let summary = summary.unwrap();
    assert_eq!((seen, summary.unreadable, summary.cut), (vec![7, 8, 9, 12, 13], None, None));
    let verified = sprag::inspect::verify(scratch.path()).unwrap();
    assert!(verified.is_clean() && verified.findings.is_empty(), "{verified:?}");
}

#[test]
fn the_power_may_fail_at_any_operation_and_a_record_that_was_returned_is_there() {
    let config = || {
        PersistentConfig::new("simulated")
            .segment_bytes(64 << 10)
            .commit_mode(CommitMode::ByCommit)
            .contiguity(Contiguity::Monotone)
    };
    let open = |disk: &SimDisk| PersistentStateMachine::open_on_disk(disk.open(true)?, config());
    let log = puts(0, 1, 6);
    let beside = puts(6, 2, 3);
    for operation in 1.. {
        let disk = SimDisk::new(operation);
        drop(open(&disk).unwrap());
        disk.reset_operations();
        disk.fail_at(operation, sprag::testing::Fault::PowerCut);
        let Ok(machine) = open(&disk) else { continue };
        let manager: ApplyManager<_> = manage(machine, apply_config(2));
        let mut replies = Vec::new();
        let appended =
            with_entries(&log, |entries| manager.consensus().unwrap().append(entries)).is_ok();
        let held = appended
            && manager.consensus().unwrap().apply_committed(0..=2, LONG, &mut replies).is_ok();
        let synced = held && manager.log().unwrap().sync(LONG).is_ok();
        let returned = synced
            && with_entries(&beside, |entries| {
                manager.consensus().unwrap().apply_only(entries, LONG, &mut replies).is_ok()
            });
        let struck = disk.is_power_off();
        drop(manager);
        disk.power_cut_keeping(operation);
        let machine = open(&disk).unwrap();
        let all = Model::after(&[&log[..3], &beside[..]].concat());
        if returned {
            compare(&machine, &all).unwrap();
        } else {
            let few = (0..=3).map(|count| Model::after(&log[..count])).collect::<Vec<_>>();
            let more = (1..=3).map(|count| Model::after(&[&log[..3], &beside[..count]].concat()));
            let fits = few.into_iter().chain(more).any(|model| compare(&machine, &model).is_ok());
            assert!(fits, "power cut at {operation}");
        }
        // The engine knows the applied index of the state, and applies nothing twice.
        let applied = machine.applied().map(|last| last.index);
        let manager: ApplyManager<_> = manage(machine, apply_config(2));
        assert_eq!(manager.stats().applied, applied, "power cut at {operation}");
        assert_eq!(apply_only(&manager, &beside).unwrap().len(), beside.len());
        let known = usize::try_from(applied.map_or(0, |index| index + 1)).unwrap();
        let model = Model::after(&[&log[..known.min(3)], &beside[..]].concat());
        compare(manager.machine(), &model).unwrap();
        let again = apply_only(&manager, &beside).unwrap();
        assert_eq!(again, vec![Reply::AlreadyApplied; beside.len()]);
        // The log's entries below the state are not applied either.
        manager.consensus().unwrap().commit(5).unwrap();
        disk.power_cut_keeping(operation);
        drop(manager);
        let machine = open(&disk).unwrap();
        assert_eq!(machine.applied(), Some(beside[2].0), "power cut at {operation}");
        compare(&machine, &model).unwrap();
        if !struck {
            assert!(operation > 5, "the run was long enough to be cut");
            return;
        }
    }
}
