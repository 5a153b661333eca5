//! Tests of the zeros that the log writer writes ahead of small groups, in files whose space is
//! reserved and not written.

use sprag::testing::{Fault, FaultError, SimDisk, Stepped};
use sprag::{ApplyConfig, Entry, PersistentConfig, PersistentStateMachine};

const CALLS: u64 = 14;
/// Entries of a few blocks: the log's first file grows twice.
static VALUE: [u8; 30_000] = [7; 30_000];

/// Options whose segments are long enough for zeros.
fn config(segment_bytes: usize) -> PersistentConfig {
    PersistentConfig::new("simulated").segment_bytes(segment_bytes)
}

/// Puts entries, each synced before the next one, until one fails. Returns the last index that was
/// acknowledged.
fn put(disk: &SimDisk, segment_bytes: usize, calls: u64) -> Option<u64> {
    let machine =
        PersistentStateMachine::open_on_disk(disk.open(true).ok()?, config(segment_bytes)).ok()?;
    let engine = Stepped::new(machine, ApplyConfig::new()).ok()?;
    let first = engine.applied().map_or(1, |last| last.index + 1);
    for index in first..first + calls {
        let key = index.to_le_bytes();
        let entry = Entry::put(index, 1, &key, &VALUE);
        if engine.apply_entries(&[entry]).is_err() {
            break;
        }
        engine.run_until_idle();
    }
    engine.stats().acknowledged
}

/// The writes of zeros: they are longer than any group of these tests.
fn zeros(disk: &SimDisk) -> usize {
    let bytes = |line: &String| line.split_once(" bytes=")?.1.parse::<u64>().ok();
    let is_zeros = |line: &&String| {
        line.starts_with("write ") && line.contains(".seg") && bytes(line) > Some(32_000)
    };
    disk.trace().iter().filter(is_zeros).count()
}

#[test]
fn a_power_cut_or_an_error_at_every_operation_beside_zeros_loses_nothing_acknowledged() {
    const SEGMENT_BYTES: usize = 4 << 20;
    let whole = SimDisk::new(1);
    assert_eq!(put(&whole, SEGMENT_BYTES, CALLS), Some(CALLS));
    assert!(zeros(&whole) >= 2, "{:#?}", whole.trace());
    let short = SimDisk::new(1);
    assert_eq!(put(&short, SEGMENT_BYTES / 2, CALLS), Some(CALLS));
    assert_eq!(zeros(&short), 0, "short segments need none");
    let faults = [Fault::PowerCut, Fault::Error(FaultError::Eio)];
    for (at, fault) in (0..whole.operations()).flat_map(|at| faults.map(|fault| (at, fault))) {
        for seed in 1..4 {
            let disk = SimDisk::new(seed);
            disk.fail_at(at, fault);
            let acknowledged = put(&disk, SEGMENT_BYTES, CALLS).unwrap_or(0);
            disk.power_cut_random();
            // What is there goes on, and is there again.
            let last = put(&disk, SEGMENT_BYTES, 2).unwrap();
            assert!(last >= acknowledged + 2, "{fault:?} at {at}: {last} of {acknowledged}");
            disk.power_cut_random();
            let machine = PersistentStateMachine::open_on_disk(
                disk.open(true).unwrap(),
                config(SEGMENT_BYTES),
            );
            let machine = machine.unwrap();
            assert_eq!(machine.recovery().last.unwrap().index, last, "{fault:?} at {at}");
            for index in 1..=last {
                let value = machine.get(&index.to_le_bytes()).unwrap();
                assert_eq!(value.as_deref(), Some(&VALUE[..]), "{fault:?} at {at}: {index}");
            }
        }
    }
}
