//! Tests of installing another node's snapshot: a crash at any operation leaves the old state or
//! the new one.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use sprag::testing::{Fault, FaultError, SimDisk};
use sprag::{CommitMode, Entry, PersistentStateMachine, Snapshot};

use crate::simulation::random::Random;
use crate::simulation::world::{Node, Shape};

/// Last index that both nodes have.
const COMMON: u64 = 40;
/// Last index of an uncommitted tail by the old leader.
const TAIL: u64 = 50;
/// The entry of the snapshot.
const END: u64 = 90;
const LONG: Duration = Duration::from_secs(60);

const MODES: [CommitMode; 2] = [CommitMode::OnAppend, CommitMode::ByCommit];

fn open(disk: &SimDisk, mode: CommitMode) -> Result<Node, String> {
    let shape = Shape { frame_entries: 3, ..Shape::plain() };
    let disk_handle = disk.open(true).map_err(|error| error.to_string())?;
    let config = shape.config().commit_mode(mode).snapshot_chunk_bytes(1000);
    let machine = PersistentStateMachine::open_on_disk(disk_handle, config);
    Ok(Node::new(disk, machine.map_err(|error| error.to_string())?, &shape))
}

/// The term of an index: entries up to [`COMMON`] have term 1, on both nodes, and later ones have
/// term 2.
fn term(index: u64) -> u64 {
    1 + u64::from(index > COMMON)
}

fn key(index: u64) -> [u8; 2] {
    [b'k', b'0' + (index % 9) as u8]
}

fn value(index: u64, term: u64) -> Vec<u8> {
    let mut value = vec![term as u8; 500];
    value[0] = index as u8;
    value
}

fn append(node: &Node, mode: CommitMode, indexes: RangeInclusive<u64>, term: impl Fn(u64) -> u64) {
    for index in indexes {
        let (key, value) = (key(index), value(index, term(index)));
        let entry = [Entry::put(index, term(index), &key, &value)];
        let taken = match mode {
            CommitMode::ByCommit => node.consensus().unwrap().append(&entry),
            _ => node.apply_entries(&entry),
        };
        assert_eq!(taken.unwrap().new, 1);
        node.run_until_idle();
    }
}

fn commit(node: &Node, mode: CommitMode, index: u64) {
    if mode == CommitMode::ByCommit {
        node.consensus().unwrap().commit(index).unwrap();
    }
    node.run_until_idle();
}

/// The other node, and its snapshot.
fn leader(mode: CommitMode) -> (SimDisk, Snapshot) {
    let disk = SimDisk::new(1);
    let node = open(&disk, mode).unwrap();
    append(&node, mode, 1..=END, term);
    commit(&node, mode, END);
    node.snapshots().write().unwrap();
    let snapshot = node.snapshots().newest().unwrap().unwrap();
    node.close().unwrap();
    (disk, snapshot)
}

/// The node that is behind; under consensus it has a tail that was never committed.
fn follower(mode: CommitMode) -> (SimDisk, Node) {
    let disk = SimDisk::new(2);
    let node = open(&disk, mode).unwrap();
    append(&node, mode, 1..=COMMON, term);
    commit(&node, mode, COMMON);
    assert!(node.snapshots().compact().unwrap().segments > 0);
    drop(node);
    disk.crash_process();
    // Its store is partly filled from its own snapshot when the other one comes.
    let node = open(&disk, mode).unwrap();
    assert!(node.step_fill());
    assert!(node.stats().machine.unfilled_chunks > 0);
    if mode == CommitMode::ByCommit {
        append(&node, mode, COMMON + 1..=TAIL, |_| 1);
    }
    (disk, node)
}

fn check_state(node: &Node, end: u64) -> Result<(), String> {
    let expected: BTreeMap<Vec<u8>, Vec<u8>> =
        (1..=end).map(|index| (key(index).to_vec(), value(index, term(index)))).collect();
    let found = node.machine().scan_sorted().map_err(|error| error.to_string())?;
    let found: BTreeMap<Vec<u8>, Vec<u8>> =
        found.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    if found == expected { Ok(()) } else { Err(format!("not the state of {end} entries")) }
}

/// Whether the snapshot was installed; otherwise everything must be as before.
fn is_new(node: &Node, mode: CommitMode) -> Result<bool, String> {
    let state = node.log().unwrap().state().map_err(|error| error.to_string())?;
    let last = state.last.map(|last| (last.index, last.term));
    let old = if mode == CommitMode::ByCommit { TAIL } else { COMMON };
    let new = match last {
        Some((END, 2)) => true,
        Some((index, 1)) if index == old => false,
        _ => return Err(format!("neither the old log nor the new: {state:?}")),
    };
    check_state(node, if new { END } else { COMMON })?;
    if !new {
        let gone = state.purged.unwrap_or(0);
        let entries = node.log().unwrap().entries(gone + 1..=old, usize::MAX);
        if entries.map_err(|error| error.to_string())?.len() as u64 != old - gone {
            return Err("the old log does not read".to_owned());
        }
    }
    Ok(new)
}

/// Continues after a crash: installs the snapshot, if it was not, and applies entries.
fn go_on(disk: &SimDisk, mode: CommitMode, snapshot: &Snapshot) -> Result<bool, String> {
    let node = open(disk, mode)?;
    let left = disk.file_names();
    if left.iter().any(|name| name.ends_with(".tmp")) {
        return Err(format!("left over: {left:?}"));
    }
    let new = is_new(&node, mode)?;
    if !new {
        node.snapshots().restore(snapshot, LONG).map_err(|error| error.to_string())?;
    }
    append(&node, mode, END + 1..=END + 20, term);
    commit(&node, mode, END + 20);
    drop(node);
    disk.power_cut_keeping(0);
    let node = open(disk, mode)?;
    commit(&node, mode, END + 20);
    check_state(&node, END + 20)?;
    node.snapshots().compact().map_err(|error| error.to_string())?;
    drop(node);
    disk.power_cut_keeping(0);
    check_state(&open(disk, mode)?, END + 20)?;
    Ok(new)
}

/// Proves DUR-26.
#[test]
fn a_power_cut_at_every_operation_of_an_installation_leaves_the_old_state_or_the_new() {
    for mode in MODES {
        let (_leader, snapshot) = leader(mode);
        let mut outcomes = [0; 2];
        for n in 0.. {
            for choice in 0..3 {
                let (disk, node) = follower(mode);
                disk.reset_operations();
                disk.fail_at(n, Fault::PowerCut);
                let installed = node.snapshots().restore(&snapshot, LONG);
                let struck = disk.is_power_off();
                assert!(struck || installed.is_ok(), "{installed:?}");
                drop(node);
                disk.power_cut_keeping([0, u64::MAX, Random::new(n).next()][choice]);
                disk.reset_operations();
                let new = go_on(&disk, mode, &snapshot);
                let new = new.unwrap_or_else(|wrong| panic!("{mode:?}, {n}, {choice}: {wrong}"));
                assert!(new || installed.is_err(), "what was installed is gone");
                outcomes[usize::from(new)] += 1;
                if !struck {
                    break;
                }
            }
            let (disk, node) = follower(mode);
            disk.reset_operations();
            node.snapshots().restore(&snapshot, LONG).unwrap();
            if disk.operations() < n {
                break;
            }
        }
        assert!(outcomes.iter().all(|count| *count > 3), "{outcomes:?}");
    }
}

/// The first process's writes may be only in the kernel's cache when the next one reads and
/// completes them.
///
/// Proves DUR-15.
#[test]
fn a_power_cut_at_every_operation_of_the_opening_after_an_installation_that_failed() {
    for mode in MODES {
        let (_leader, snapshot) = leader(mode);
        for fault in [Fault::Error(FaultError::Eio), Fault::SyncErrorThenClean] {
            for n in 0.. {
                let mut tried = false;
                for m in 0.. {
                    let (disk, node) = follower(mode);
                    disk.reset_operations();
                    disk.fail_at(n, fault);
                    let installed = node.snapshots().restore(&snapshot, LONG);
                    tried = disk.operations() > n;
                    let sync =
                        disk.trace().get(n as usize).is_some_and(|op| op.starts_with("sync "));
                    if tried && fault == Fault::SyncErrorThenClean && !sync {
                        // Without a sync, the two faults are the same.
                        break;
                    }
                    drop(node);
                    disk.crash_process();
                    disk.reset_operations();
                    disk.fail_at(m, Fault::PowerCut);
                    drop(open(&disk, mode));
                    let struck = disk.is_power_off();
                    disk.power_cut_keeping(if m % 2 == 0 { 0 } else { Random::new(n).next() });
                    disk.reset_operations();
                    let new = go_on(&disk, mode, &snapshot);
                    let new = new.unwrap_or_else(|wrong| {
                        panic!("{mode:?}, {fault:?} at {n}, cut at {m} of opening: {wrong}")
                    });
                    assert!(new || installed.is_err(), "what was installed is gone");
                    if !struck || !tried {
                        break;
                    }
                }
                if !tried {
                    break;
                }
            }
        }
    }
}
