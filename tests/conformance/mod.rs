//! Tests of the conformance suite: our own machines pass it, and it finds each deliberately broken
//! machine by the right check.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod canary;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::machines::KeyValueReads;
use canary::{Broken, Machine, State};
use sprag::disk::Disk;
use sprag::error::OpenError;
use sprag::testing::conformance::{
    Check, DurableSubject, Failures, OverOurLog, OwnedPayload, Subject, Suite, key_value_payload,
};
use sprag::testing::storage::MemoryStorage;
use sprag::testing::{Random, SimDisk};
use sprag::{
    Command, Durability, Journaled, MemoryConfig, MemoryStateMachine, Payload, PersistentConfig,
    PersistentStateMachine, StorageConfig, StorageMachine,
};

fn key_value_digest(machine: &impl KeyValueReads) -> Vec<u8> {
    let mut digest = Vec::new();
    let mut add = |bytes: &[u8]| {
        digest.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        digest.extend_from_slice(bytes);
    };
    for (key, value) in machine.scan().unwrap() {
        add(&key);
        add(&value);
    }
    add(&machine.note_of(b"n").unwrap().unwrap_or_default());
    add(format!("{:?}", machine.members().unwrap()).as_bytes());
    digest
}

struct Memory;

impl Subject for Memory {
    type Machine = MemoryStateMachine;

    fn machine(&self) -> Result<MemoryStateMachine, OpenError> {
        MemoryStateMachine::new(MemoryConfig::new().expected_keys(16))
    }

    fn payload(&self, random: &mut Random) -> OwnedPayload {
        key_value_payload(random)
    }

    fn digest(&self, machine: &MemoryStateMachine) -> Vec<u8> {
        key_value_digest(machine)
    }
}

struct Persistent;

impl Subject for Persistent {
    type Machine = PersistentStateMachine;

    fn machine(&self) -> Result<PersistentStateMachine, OpenError> {
        let config = PersistentConfig::new("simulated").segment_bytes(64 << 10);
        self.open(SimDisk::new(0).open(true)?, config)
    }

    fn payload(&self, random: &mut Random) -> OwnedPayload {
        key_value_payload(random)
    }

    fn digest(&self, machine: &PersistentStateMachine) -> Vec<u8> {
        key_value_digest(machine)
    }
}

impl DurableSubject for Persistent {
    fn open(
        &self,
        disk: Arc<dyn Disk>,
        config: PersistentConfig,
    ) -> Result<PersistentStateMachine, OpenError> {
        PersistentStateMachine::open_on_disk(disk, config.expected_keys(16))
    }
}

struct Stored;

impl Subject for Stored {
    type Machine = StorageMachine<MemoryStorage>;

    fn machine(&self) -> Result<Self::Machine, OpenError> {
        PersistentStateMachine::with_storage(MemoryStorage::new(), StorageConfig::new())
    }

    fn payload(&self, random: &mut Random) -> OwnedPayload {
        key_value_payload(random)
    }

    fn digest(&self, machine: &Self::Machine) -> Vec<u8> {
        key_value_digest(machine)
    }
}

#[test]
fn the_machine_over_a_storage_conforms() {
    for seed in 1..3 {
        Suite::new().seed(seed).check(&Stored).unwrap();
    }
}

#[test]
fn the_memory_machine_conforms_alone_and_over_the_log() {
    for seed in 1..3 {
        Suite::new().seed(seed).check_journaled(&Memory).unwrap();
    }
}

#[test]
fn the_persistent_machine_conforms() {
    for seed in 1..3 {
        Suite::new().seed(seed).check(&Persistent).unwrap();
        Suite::new().seed(seed).check_durable(&Persistent).unwrap();
    }
}

struct Canary {
    broken: Broken,
    outliving: Arc<Mutex<State>>,
}

impl Canary {
    fn new(broken: Broken) -> Self {
        Self { broken, outliving: Arc::default() }
    }
}

impl Subject for Canary {
    type Machine = Machine;

    fn machine(&self) -> Result<Machine, OpenError> {
        Ok(Machine {
            broken: self.broken,
            state: Arc::default(),
            applied: Mutex::default(),
            calls: AtomicU64::new(0),
        })
    }

    fn payload(&self, random: &mut Random) -> OwnedPayload {
        let from = if random.below(4) > 0 { 255 } else { random.below(8).to_le_bytes()[0] };
        let [to, amount] = [random.below(8).to_le_bytes()[0], random.below(12).to_le_bytes()[0]];
        Payload::Opaque(&[from, to, amount]).into()
    }

    fn digest(&self, machine: &Machine) -> Vec<u8> {
        let state = machine.state.lock().unwrap();
        state.balances.iter().chain(&state.more).flat_map(|number| number.to_le_bytes()).collect()
    }
}

fn found(outcome: Result<(), Failures>) -> Vec<Check> {
    let failures = outcome.err().map_or(Vec::new(), |found| found.failures);
    for failure in &failures {
        let at_start = failure.what.contains("after 0 entries");
        assert!(failure.index.is_some() || at_start, "it says where: {failure}");
    }
    failures.into_iter().map(|failure| failure.check).collect()
}

#[test]
fn the_machine_the_canaries_are_made_of_conforms() {
    for seed in 1..3 {
        Suite::new().seed(seed).check_journaled(&Canary::new(Broken::Not)).unwrap();
    }
}

#[test]
fn each_canary_is_found_by_the_check_that_is_there_for_it() {
    for (broken, check) in [
        (Broken::OrderInState, Check::Partitions),
        (Broken::OrderInReply, Check::Partitions),
        (Broken::NarrowFootprint, Check::Partitions),
        (Broken::FootprintByTime, Check::Footprint),
        (Broken::FootprintByAddress, Check::Footprint),
        (Broken::FootprintByState, Check::Footprint),
        (Broken::HiddenGlobal, Check::Determinism),
        (Broken::RandomReply, Check::Determinism),
        (Broken::RandomState, Check::Determinism),
        (Broken::Fails, Check::Determinism),
        (Broken::Panics, Check::Determinism),
        (Broken::ChangesWhenRejected, Check::Rejection),
        (Broken::AppliedAtTimes, Check::Applied),
        (Broken::AppliedLate, Check::Applied),
        (Broken::RangesInState, Check::Order),
        (Broken::RangesInBytes, Check::Order),
        (Broken::OrderInBytes, Check::Partitions),
        (Broken::RandomBytes, Check::Determinism),
        (Broken::TooManyBytes, Check::Determinism),
        (Broken::RoomByState, Check::Determinism),
        (Broken::SnapshotForgets, Check::Snapshot),
        (Broken::SnapshotForgetsCounts, Check::Snapshot),
        (Broken::SnapshotByChance, Check::Snapshot),
        (Broken::SnapshotChangesState, Check::Snapshot),
        (Broken::SnapshotPanics, Check::Snapshot),
        (Broken::RestoreMerges, Check::Snapshot),
        (Broken::RestoreAsItReads, Check::Snapshot),
        (Broken::RestoreTakesLess, Check::Snapshot),
        (Broken::RestoreTakesMore, Check::Snapshot),
        (Broken::RestoreTakesFailing, Check::Snapshot),
        (Broken::RestorePanics, Check::Snapshot),
        (Broken::RestoreMissing, Check::Snapshot),
    ] {
        let found = found(Suite::new().entries(120).check(&Canary::new(broken)));
        assert!(found.contains(&check), "{broken:?}: found by {found:?}");
    }
}

/// Errors of the machine over our log, for the checks of recovery.
struct Leaky(Canary);

impl Subject for Leaky {
    type Machine = Journaled<Machine>;

    fn machine(&self) -> Result<Journaled<Machine>, OpenError> {
        OverOurLog(&self.0).machine()
    }

    fn payload(&self, random: &mut Random) -> OwnedPayload {
        self.0.payload(random)
    }

    fn digest(&self, machine: &Journaled<Machine>) -> Vec<u8> {
        self.0.digest(machine)
    }
}

impl DurableSubject for Leaky {
    fn open(
        &self,
        disk: Arc<dyn Disk>,
        mut config: PersistentConfig,
    ) -> Result<Journaled<Machine>, OpenError> {
        let mut machine = self.0.machine()?;
        if self.0.broken == Broken::StateOutlives {
            machine.state = Arc::clone(&self.0.outliving);
        } else {
            // This promises less than it is asked for.
            config = config.durability(Durability::Os);
        }
        Journaled::open_on_disk(disk, config, machine)
    }
}

#[test]
fn a_state_that_outlives_its_process_is_found_by_every_check_of_coming_back() {
    let found = found(Suite::new().check_durable(&Leaky(Canary::new(Broken::StateOutlives))));
    assert_eq!(found, [Check::Reopen, Check::PowerCut, Check::Truncation]);
}

#[test]
fn a_log_that_acknowledges_before_it_syncs_is_found_by_cutting_the_power() {
    let found = found(Suite::new().check_durable(&Leaky(Canary::new(Broken::Not))));
    assert_eq!(found, [Check::Reopen, Check::PowerCut]);
}

#[test]
fn a_snapshot_that_forgets_what_only_later_replies_tell_is_found_by_opening_from_it() {
    for broken in [Broken::SnapshotForgetsCounts, Broken::SnapshotForgets, Broken::RestoreMerges] {
        let found = found(Suite::new().check_durable(&OverOurLog(&Canary::new(broken))));
        let expected: &[Check] = match broken {
            // Its restored machine is new, so there is nothing to merge with.
            Broken::RestoreMerges => &[],
            _ => &[Check::Compaction],
        };
        assert_eq!(found, expected, "{broken:?}");
    }
}

#[test]
fn bytes_that_are_others_after_replay_are_found_by_opening_again() {
    let found = found(Suite::new().check_durable(&OverOurLog(&Canary::new(Broken::RangesInBytes))));
    assert!(found.contains(&Check::Reopen), "{found:?}");
}

#[test]
fn a_machine_that_replies_with_more_bytes_than_it_declares_is_told_both_numbers() {
    let said = Suite::new().check(&Canary::new(Broken::TooManyBytes)).unwrap_err().to_string();
    assert!(said.contains("replied with 16 bytes, and its reply_bytes_max() says 15"), "{said}");
}

/// Checks at each opening whether the log's first segment exists.
struct Watching(AtomicU64);

impl Subject for Watching {
    type Machine = MemoryMachine;

    fn machine(&self) -> Result<MemoryMachine, OpenError> {
        OverOurLog(&Memory).machine()
    }

    fn payload(&self, random: &mut Random) -> OwnedPayload {
        key_value_payload(random)
    }

    fn digest(&self, machine: &MemoryMachine) -> Vec<u8> {
        key_value_digest(machine.machine())
    }
}

type MemoryMachine = Journaled<MemoryStateMachine>;

impl DurableSubject for Watching {
    fn open(
        &self,
        disk: Arc<dyn Disk>,
        config: PersistentConfig,
    ) -> Result<MemoryMachine, OpenError> {
        let names = disk.list().unwrap();
        let given_up = names.iter().any(|name| name.ends_with(".seg"))
            && !names.iter().any(|name| name == "0000000000000001.seg");
        self.0.fetch_add(u64::from(given_up), Ordering::Relaxed);
        OverOurLog(&Memory).open(disk, config)
    }
}

#[test]
fn the_suite_opens_directories_whose_log_no_longer_reaches_back() {
    let watching = Watching(AtomicU64::new(0));
    Suite::new().check_durable(&watching).unwrap();
    assert!(watching.0.into_inner() > 2);
}

#[test]
fn a_payload_that_is_no_entry_is_said_by_its_index_and_so_is_a_machine_that_is_not_to_be_had() {
    struct Odd(bool);
    impl Subject for Odd {
        type Machine = MemoryStateMachine;

        fn machine(&self) -> Result<MemoryStateMachine, OpenError> {
            let batch_size = usize::from(self.0);
            MemoryStateMachine::new(MemoryConfig::new().batch_size(batch_size))
        }

        fn payload(&self, _random: &mut Random) -> OwnedPayload {
            Payload::Command(Command::Delete { key: b"" }).into()
        }

        fn digest(&self, _machine: &MemoryStateMachine) -> Vec<u8> {
            Vec::new()
        }
    }
    let said = Suite::new().check(&Odd(true)).unwrap_err().to_string();
    assert!(said.contains("at index 1: not an entry: the key is empty"), "{said}");
    let said = Suite::new().check(&Odd(false)).unwrap_err().to_string();
    assert!(said.contains("opening: batch_size: 0 is not within"), "{said}");
}
