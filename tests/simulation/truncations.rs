//! Tests of truncations around the beginning of a segment, and of compactions that may begin the
//! log there.

use std::collections::BTreeMap;
use std::time::Duration;

use sprag::testing::{Fault, SimDisk};
use sprag::{CommitMode, Durability, Entry, PersistentStateMachine};

use crate::simulation::random::Random;
use crate::simulation::world::{Node, Shape};

/// Last entry at first: the entries fill the first segment and a part of the second, and the last
/// ones are replaced.
const LAST: u64 = 34;
/// Last index that is committed before the truncation.
const COMMITTED: u64 = 8;
/// Last entries in the end: still in the segment of the truncation, and some segments later.
const ENDS: [u64; 2] = [36, 70];

fn shape() -> Shape {
    Shape { frame_entries: 3, ..Shape::plain() }
}

fn open(disk: &SimDisk) -> Node {
    open_retaining(disk, 0)
}

fn open_retaining(disk: &SimDisk, entries: u64) -> Node {
    let config = shape().config().commit_mode(CommitMode::ByCommit).retain_entries(entries);
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config).unwrap();
    Node::new(disk, machine, &shape())
}

fn key(index: u64) -> Vec<u8> {
    vec![b'k', b'0' + (index % 9) as u8]
}

fn value(index: u64, term: u64) -> Vec<u8> {
    let mut value = vec![term as u8; 600];
    value[0] = index as u8;
    value
}

fn append(node: &Node, indexes: std::ops::RangeInclusive<u64>, term: u64) {
    for index in indexes {
        let _ = node
            .consensus()
            .unwrap()
            .append(&[Entry::put(index, term, &key(index), &value(index, term))])
            .unwrap();
        node.run_until_idle();
    }
}

/// The term of an index in the log that was truncated after `keep` and continued.
fn term(index: u64, keep: u64) -> u64 {
    1 + u64::from(index > keep)
}

/// Ways of truncating.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Once,
    /// The truncation happens again, after the first of the new entries.
    Again,
    /// Neither the truncation nor later entries are written when the compaction begins.
    Unwritten,
}

impl Way {
    fn retained(self) -> u64 {
        u64::from(self == Self::Unwritten)
    }
}

/// A log of one term, truncated after `keep` and continued in the next; committed, and not yet
/// compacted.
fn life(keep: u64, way: Way, end: u64) -> (SimDisk, Node) {
    let disk = SimDisk::new(keep);
    // With an entry to retain, a compaction does not end the segment first, which would write the
    // log.
    let node = open_retaining(&disk, way.retained());
    append(&node, 1..=LAST, 1);
    node.consensus().unwrap().commit(COMMITTED).unwrap();
    node.run_until_idle();
    node.consensus().unwrap().truncate_after(Some(keep)).unwrap();
    if way == Way::Again {
        append(&node, keep + 1..=keep + 30, 2);
        node.consensus().unwrap().truncate_after(Some(keep)).unwrap();
    }
    if way == Way::Unwritten {
        for index in keep + 1..=end {
            let (key, value) = (key(index), value(index, 2));
            let _ =
                node.consensus().unwrap().append(&[Entry::put(index, 2, &key, &value)]).unwrap();
        }
        node.consensus().unwrap().commit(end).unwrap();
        while (0..node.workers()).any(|id| node.step_worker(id)) {}
        assert_eq!(node.stats().applied, Some(end));
    } else {
        append(&node, keep + 1..=end, 2);
        node.consensus().unwrap().commit(end).unwrap();
        node.run_until_idle();
    }
    (disk, node)
}

/// Checks that everything is there, and returns how much of it was purged.
fn check(node: &Node, keep: u64, end: u64) -> Result<u64, String> {
    let state = node.log().unwrap().state().map_err(|error| error.to_string())?;
    let last = state.last.map(|last| (last.index, last.term));
    if last != Some((end, 2)) || state.committed != Some(end) {
        return Err(format!("{state:?}"));
    }
    let purged = state.purged.unwrap_or(0);
    if purged < end {
        let entries =
            node.log().unwrap().entries(purged + 1..=end, usize::MAX).map_err(|e| e.to_string())?;
        let found: Vec<(u64, u64)> =
            entries.iter().map(|(log_id, _)| (log_id.index, log_id.term)).collect();
        let expected: Vec<(u64, u64)> =
            (purged + 1..=end).map(|index| (index, term(index, keep))).collect();
        if found != expected {
            return Err(format!("the log is {found:?}"));
        }
    }
    let expected: BTreeMap<Vec<u8>, Vec<u8>> =
        (1..=end).map(|index| (key(index), value(index, term(index, keep)))).collect();
    let found = node.machine().scan_sorted().map_err(|error| error.to_string())?;
    let found: BTreeMap<Vec<u8>, Vec<u8>> =
        found.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    if found == expected { Ok(purged) } else { Err("not the state of all entries".to_owned()) }
}

#[test]
fn a_compaction_after_a_truncation_leaves_a_log_that_opens() {
    let mut gone = BTreeMap::new();
    let ways = [
        (Way::Once, ENDS[0]),
        (Way::Again, ENDS[0]),
        (Way::Once, ENDS[1]),
        (Way::Unwritten, ENDS[0]),
    ];
    for (way, end) in ways {
        for keep in COMMITTED..=LAST {
            let checked = (|| {
                let (disk, node) = life(keep, way, end);
                if way != Way::Unwritten {
                    check(&node, keep, end)?;
                }
                let before = node.snapshots().compact().map_err(|error| error.to_string())?.purged;
                check(&node, keep, end)?;
                drop(node);
                disk.power_cut_keeping(0);
                for _ in 0..2 {
                    let node = open_retaining(&disk, way.retained());
                    let purged = check(&node, keep, end)?;
                    if Some(purged).filter(|purged| *purged > 0) != before {
                        return Err(format!("{purged} gone after {before:?}"));
                    }
                    *gone.entry(purged).or_insert(0) += 1;
                    // The compaction uses what opening found in the log, not what was written to
                    // it.
                    node.snapshots().compact().map_err(|error| error.to_string())?;
                    let again = check(&node, keep, end)?;
                    if again < purged {
                        return Err(format!("{again} gone after {purged}"));
                    }
                    drop(node);
                    let node = open_retaining(&disk, way.retained());
                    if check(&node, keep, end)? != again {
                        return Err("the beginning of the log moved".to_owned());
                    }
                    drop(node);
                    if again != purged {
                        return Err(format!("{again} could be gone, and {purged} were"));
                    }
                }
                Ok(())
            })();
            checked.unwrap_or_else(|wrong| {
                panic!("truncated after {keep} of {end}, {way:?}: {wrong}")
            });
        }
    }
    assert!(gone.len() > 1, "the log begins in different places: {gone:?}");
}

#[test]
fn a_power_cut_at_every_operation_of_a_compaction_after_a_truncation() {
    let mut cuts = 0;
    for keep in (COMMITTED..=LAST).step_by(2) {
        let way = if keep % 4 == 0 { Way::Again } else { Way::Once };
        let end = ENDS[(keep / 2 % 2) as usize];
        for n in 0.. {
            let (disk, node) = life(keep, way, end);
            let mut random = Random::new(keep * 1000 + n);
            disk.reset_operations();
            disk.fail_at(n, Fault::PowerCut);
            let compacted = node.snapshots().compact().is_ok();
            let struck = disk.is_power_off();
            assert!(struck || compacted);
            drop(node);
            disk.power_cut_keeping(if n % 2 == 0 { 0 } else { random.next() });
            disk.reset_operations();
            let node = open(&disk);
            // The last commit may be in no frame yet, so the consensus engine repeats it.
            node.consensus().unwrap().commit(end).unwrap();
            node.run_until_idle();
            let checked = check(&node, keep, end).and_then(|_| {
                node.snapshots().compact().map_err(|error| error.to_string())?;
                drop(node);
                disk.power_cut_keeping(random.next());
                check(&open(&disk), keep, end)
            });
            checked
                .unwrap_or_else(|wrong| panic!("after {keep}, {way:?}, cut before {n}: {wrong}"));
            if !struck {
                break;
            }
            cuts += 1;
        }
    }
    assert!(cuts > 100);
}

#[test]
fn a_sync_of_the_interval_moves_no_mark_past_a_truncation_that_is_in_flight() {
    let interval = Duration::from_millis(1);
    for seed in 0..40 {
        let shape = Shape {
            durability: Durability::Periodic(interval),
            queue_depth: 2,
            frame_entries: 1,
            group_bytes: 1,
            ..Shape::plain()
        };
        let disk = SimDisk::new(seed);
        disk.set_queue_depth(shape.queue_depth);
        let config = shape.config().commit_mode(CommitMode::ByCommit);
        let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config);
        let node = Node::new(&disk, machine.unwrap(), &shape);
        let mut random = Random::new(seed);
        for index in 1..=9 {
            let _ = node
                .consensus()
                .unwrap()
                .append(&[Entry::put(index, 1, &key(index), b"old")])
                .unwrap();
        }
        for _ in 0..random.below(8) {
            node.step_log_writer();
        }
        node.consensus().unwrap().truncate_after(Some(4)).unwrap();
        for steps in 0..60 {
            if random.one_in(3) {
                node.advance(interval);
            }
            node.step_log_writer();
            let stats = node.stats();
            let in_order = stats.durable <= stats.written && stats.written <= stats.submitted;
            assert!(in_order, "seed {seed}, step {steps}: {stats:?}");
        }
        assert_eq!(node.stats().submitted, Some(4));
    }
}
