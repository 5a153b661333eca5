//! Tests of log reads while the log writer lets entries gather: no read waits for it, and only the
//! test's thread runs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::error::LogError;
use crate::testing::{Random, SimDisk, Stepped};
use crate::{
    ApplyConfig, CommandRef, CommitMode, Contiguity, Entry, LogId, PayloadRef, PersistentConfig,
    PersistentStateMachine,
};

const LONG: Duration = Duration::from_secs(20);
const GATHER: Duration = Duration::from_secs(3);

type Node = Stepped<PersistentStateMachine>;

fn node(contiguity: Contiguity) -> Node {
    let config = PersistentConfig::new("simulated")
        .segment_bytes(64 << 10)
        .expected_keys(16)
        .commit_mode(CommitMode::ByCommit)
        .contiguity(contiguity)
        .batch_interval(GATHER);
    let disk = SimDisk::new(3).open(true).unwrap();
    let machine = PersistentStateMachine::open_on_disk(disk, config).unwrap();
    Stepped::new(machine, ApplyConfig::new().worker_count(NonZeroUsize::MIN)).unwrap()
}

/// An entry of the log, as the test keeps it.
type Kept = (LogId, Vec<u8>);

fn read(node: &Node, first: u64, last: u64, bytes_max: usize) -> Vec<Kept> {
    let read = node.log().unwrap().entries(first..=last, bytes_max).unwrap();
    let value = |payload| match payload {
        PayloadRef::Command(CommandRef::Put { value, .. }) => value.bytes.to_vec(),
        other => panic!("{other:?}"),
    };
    read.iter().map(|(log_id, payload)| (log_id, value(payload))).collect()
}

fn append(node: &Node, log: &mut Vec<Kept>, log_id: LogId, value: Vec<u8>) -> bool {
    let entry = Entry::put(log_id.index, log_id.term, b"key", &value);
    let taken = node.consensus().unwrap().append(&[entry]).is_ok_and(|taken| taken.new == 1);
    if taken {
        log.push((log_id, value));
    }
    taken
}

#[test]
fn what_was_just_appended_is_read_without_a_step_of_the_log_writer() {
    let (node, mut log) = (node(Contiguity::Strict), Vec::new());
    for index in 1..=200 {
        assert!(append(&node, &mut log, LogId::new(index, 1 + index / 70), vec![7; 30]));
        assert_eq!(read(&node, index, index, 100), log[log.len() - 1..]);
    }
    assert_eq!(read(&node, 1, 200, usize::MAX), log);
    assert_eq!(read(&node, 1, 200, 0), log[..1], "one of them at least");
    assert_eq!(node.stats().written, None, "the log writer was not asked");
    node.consensus().unwrap().truncate_after(Some(90)).unwrap();
    log.truncate(90);
    assert_eq!(read(&node, 80, 90, usize::MAX), log[79..]);
    assert!(matches!(
        node.log().unwrap().entries(80..=91, 100),
        Err(LogError::NotInLog { index: 91, .. })
    ));
}

/// Other calls find their bytes in memory, or make the log writer continue at once.
#[test]
fn no_other_call_waits_for_entries_to_gather() {
    let (node, mut log) = (node(Contiguity::Strict), Vec::new());
    let mut next = 1;
    let mut add = |count: u64| {
        for index in next..next + count {
            assert!(append(&node, &mut log, LogId::new(index, 1), vec![7; 30]));
        }
        next += count;
        next - 1
    };
    let last = add(3);
    assert_eq!(node.log().unwrap().log_id(last).unwrap(), Some(LogId::new(last, 1)));
    assert_eq!(node.log().unwrap().state().unwrap().last, Some(LogId::new(last, 1)));
    node.consensus().unwrap().truncate_after(Some(last)).unwrap();
    node.consensus().unwrap().commit(last).unwrap();
    while node.step_worker(0) {}
    assert_eq!(node.snapshots().view().unwrap().len(), 1);
    assert_eq!(node.stats().written, None, "until here nothing was written");
    node.log().unwrap().sync(LONG).unwrap();
    let last = add(1);
    node.log().unwrap().save_hard_state(b"vote").unwrap();
    assert_eq!(node.stats().durable, Some(last));
    let last = add(1);
    node.consensus().unwrap().commit(last).unwrap();
    while node.step_worker(0) {}
    node.flush_pending(LONG).unwrap();
    assert_eq!(node.stats().durable, Some(last));
    let last = add(1);
    node.consensus().unwrap().commit(last).unwrap();
    while node.step_worker(0) {}
    node.snapshots().write().unwrap();
    assert_eq!((node.stats().durable, node.stats().snapshot), (Some(last), Some(last)));
    let last = add(1);
    node.log().unwrap().purge(1).unwrap();
    assert_eq!(node.stats().durable, Some(last));
    let last = add(1);
    node.consensus().unwrap().commit(last).unwrap();
    while node.step_worker(0) {}
    node.snapshots().compact().unwrap();
    assert_eq!(node.stats().durable, Some(last));
    add(1);
    node.into_manager().close(LONG).unwrap();
}

#[test]
fn a_log_reads_back_as_it_was_appended_wherever_the_log_writer_is() {
    for (seed, contiguity) in
        (0..40).flat_map(|seed| [(seed, Contiguity::Strict), (seed, Contiguity::Monotone)])
    {
        let (node, mut log) = (node(contiguity), Vec::new());
        let mut random = Random::new(seed);
        let mut below = |bound: u64| random.below(usize::try_from(bound).unwrap()) as u64;
        let (mut index, mut term) = (1, 1);
        for _step in 0..300 {
            match below(10) {
                0..=4 => {
                    term += u64::from(below(20) == 0);
                    let value = vec![u8::try_from(below(256)).unwrap(); 2000];
                    let bytes = usize::try_from(below(2000)).unwrap();
                    let log_id = LogId::new(index, term);
                    if append(&node, &mut log, log_id, value[..bytes].to_vec()) {
                        let gap = contiguity == Contiguity::Monotone && below(4) == 0;
                        index += if gap { 1 + below(5) } else { 1 };
                    } else {
                        node.log().unwrap().sync(LONG).unwrap();
                        while node.step_background() {}
                    }
                }
                5 => {
                    node.advance(GATHER);
                    node.step_log_writer();
                    while node.step_background() {}
                }
                6 if below(4) == 0 && !log.is_empty() => {
                    let at = usize::try_from(below(log.len() as u64)).unwrap();
                    log.truncate(at);
                    node.consensus()
                        .unwrap()
                        .truncate_after(log.last().map(|(log_id, _)| log_id.index))
                        .unwrap();
                    index = log.last().map_or(1, |(log_id, _)| log_id.index + 1);
                    term += 1;
                }
                _ if !log.is_empty() => {
                    let (first, last) = (log[0].0.index, log[log.len() - 1].0.index);
                    let from = first + below(last + 1 - first);
                    let to = from + below(last + 1 - from);
                    let bytes_max = usize::try_from(below(10_000)).unwrap();
                    let read = read(&node, from, to, bytes_max);
                    let within = |kept: &&Kept| (from..=to).contains(&kept.0.index);
                    let expected: Vec<Kept> = log.iter().filter(within).cloned().collect();
                    assert_eq!(read, expected[..read.len()], "{contiguity:?} {seed}");
                    let bytes =
                        |kept: &[Kept]| -> usize { kept.iter().map(|kept| kept.1.len()).sum() };
                    assert!(
                        read.len() == expected.len()
                            // Bytes that an entry takes at most beside its value.
                            || bytes(&expected[..=read.len()]) + 40 * (read.len() + 1) > bytes_max,
                        "{contiguity:?} {seed}: {} of {}",
                        read.len(),
                        expected.len()
                    );
                    assert!(!read.is_empty() || expected.is_empty());
                }
                _ => {}
            }
        }
    }
}
