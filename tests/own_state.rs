//! Tests of a machine that keeps its own state durable under `Journaled`: the data kept beside it
//! comes back too, wherever it is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{LONG, Scratch, apply_config, dir_bytes, manage};
use sprag::error::OpenError;
use sprag::{
    Entry, EntryRange, Fatal, Journaled, LogId, MemoryConfig, MemoryStateMachine, Partition,
    Payload, PersistentStateMachine, Replies, Reply, SnapshotSink, SnapshotSource, StateMachine,
};

/// A machine that has everything up to an entry.
struct Keeps(LogId);

impl StateMachine for Keeps {
    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        _replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        let fresh =
            range.entries(partition).all(|entry| entry.unwrap().log_id.index > self.0.index);
        assert!(fresh, "an entry that it has");
        Ok(())
    }

    fn applied(&self) -> Option<LogId> {
        Some(self.0).filter(|has| has.index > 0)
    }

    fn snapshot(&self, _out: &mut dyn SnapshotSink) -> Result<(), sprag::error::SnapshotError> {
        Ok(())
    }

    fn restore(&self, _source: &mut dyn SnapshotSource) -> Result<(), sprag::error::SnapshotError> {
        Ok(())
    }
}

fn open(scratch: &Scratch, has: u64) -> Journaled<Keeps> {
    Journaled::open(scratch.config(), Keeps(LogId::new(has, 1))).unwrap()
}

/// Submits entries up to `to`, those of `memberships` as memberships, and compacts if asked. All
/// entries are in one call, because the length of their frames decides whether the compaction ends
/// the segment.
fn write(scratch: &Scratch, from: u64, to: u64, memberships: &[u64], compact: bool) {
    let manager = manage(open(scratch, from - 1), apply_config(2));
    let names: Vec<_> = (from..=to).map(u64::to_le_bytes).collect();
    let entry = |(index, name)| {
        let payload = match memberships.contains(&index) {
            true => Payload::Membership(name),
            false => Payload::Opaque(name),
        };
        Entry::new(LogId::new(index, 1), payload)
    };
    let entries: Vec<_> = (from..=to).zip(names.iter().map(|name| &name[..])).map(entry).collect();
    manager.apply_entries_sync(&entries, LONG, &mut Vec::new()).unwrap();
    if compact {
        assert_eq!(manager.snapshots().compact().unwrap().purged, Some(to));
    }
    manager.close(LONG).unwrap();
}

fn membership(scratch: &Scratch, has: u64) -> Option<u64> {
    let (log_id, bytes) = open(scratch, has).last_membership()?;
    assert_eq!(bytes, log_id.index.to_le_bytes());
    Some(log_id.index)
}

#[test]
fn a_machine_that_has_the_entry_of_a_membership_finds_it_in_the_log_or_in_the_snapshot() {
    let scratch = Scratch::new();
    write(&scratch, 1, 1000, &[50, 70], false);
    for (has, found) in [(49, 70), (60, 70), (1000, 70)] {
        assert_eq!(membership(&scratch, has), Some(found), "it has {has}");
    }
    write(&scratch, 1001, 2000, &[], true);
    assert_eq!(membership(&scratch, 2000), Some(70), "only the snapshot has it");
    write(&scratch, 2001, 2010, &[], false);
    assert_eq!(membership(&scratch, 2005), Some(70));
    write(&scratch, 2011, 2020, &[2015], false);
    assert_eq!(membership(&scratch, 2012), Some(2015));
    assert_eq!(membership(&scratch, 2020), Some(2015));

    // The snapshots that it writes have it too.
    let manager = manage(open(&scratch, 2020), apply_config(1));
    manager.snapshots().write().unwrap();
    let snapshot = manager.snapshots().newest().unwrap().unwrap();
    assert_eq!(snapshot.membership().unwrap().0, LogId::new(2015, 1));
}

/// A machine that counts entries, and leaves the applied index to the engine.
#[derive(Default)]
struct Uncounted(AtomicU64);

impl StateMachine for Uncounted {
    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            replies.set(&entry?, Reply::Custom(count));
        }
        Ok(())
    }

    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), sprag::error::SnapshotError> {
        out.write(&self.0.load(Ordering::Relaxed).to_le_bytes()).unwrap();
        Ok(())
    }

    fn restore(&self, source: &mut dyn SnapshotSource) -> Result<(), sprag::error::SnapshotError> {
        let mut bytes = [0; 8];
        assert_eq!(source.read(&mut bytes).unwrap(), 8);
        self.0.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn the_engine_counts_for_a_machine_in_memory_also_over_snapshots() {
    for workers in [1, 3] {
        let manager = manage(Uncounted::default(), apply_config(workers));
        assert_eq!(manager.applied(), None);
        for (index, term) in [(1, 1), (2, 1), (3, 4), (4, 4)] {
            manager.apply(&Entry::noop(index, term), LONG).unwrap();
            assert_eq!(manager.applied(), Some(LogId::new(index, term)));
        }
        let mut bytes = Vec::new();
        let report = manager.snapshots().write_to(&mut bytes).unwrap();
        assert_eq!(report.log_id, Some(LogId::new(4, 4)));
        let scratch = Scratch::new();
        std::fs::create_dir_all(scratch.path()).unwrap();
        let file = scratch.path().join("a.snap");
        std::fs::write(&file, bytes).unwrap();

        let other = manage(Uncounted::default(), apply_config(workers));
        other.apply(&Entry::noop(1, 1), LONG).unwrap();
        let snapshot = sprag::Snapshot::open(&file).unwrap();
        other.snapshots().restore(&snapshot, LONG).unwrap();
        assert_eq!(other.applied(), Some(LogId::new(4, 4)));
        assert_eq!(other.apply(&Entry::noop(4, 4), LONG).unwrap(), Reply::AlreadyApplied);
        assert_eq!(other.apply(&Entry::noop(5, 4), LONG).unwrap(), Reply::Custom(5));
        assert_eq!(other.snapshots().write_to(&mut Vec::new()).unwrap().log_id, other.applied());
    }
}

#[test]
fn a_machine_whose_last_entry_is_another_than_the_snapshots_is_refused_though_the_log_has_it_no_more()
 {
    let scratch = Scratch::new();
    write(&scratch, 1, 1000, &[], true);
    let (ours, theirs) = (LogId::new(1000, 1), LogId::new(1000, 2));
    match Journaled::open(scratch.config(), Keeps(theirs)) {
        Err(OpenError::OtherLog { applied, found }) => {
            assert_eq!((applied, found), (theirs, Some(ours)));
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it must be refused"),
    }
    open(&scratch, 1000);
}

#[test]
fn a_directory_opens_with_the_kind_of_machine_that_it_was_made_with_only() {
    let scratch = Scratch::new();
    write(&scratch, 1, 3, &[], false);
    let before = dir_bytes(&scratch.path());
    let memory = || MemoryStateMachine::new(MemoryConfig::new()).unwrap();
    let refused = [
        PersistentStateMachine::open(scratch.config()).map(drop),
        PersistentStateMachine::open_read_only(scratch.path()).map(drop),
        Journaled::open(scratch.config(), memory()).map(drop),
    ];
    for result in refused {
        match result {
            Err(OpenError::OtherState { found: "a blob", asked: "key-value entries" }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(dir_bytes(&scratch.path()) == before);
    assert_eq!(open(&scratch, 3).recovery().last, Some(LogId::new(3, 1)));

    // Keys and values are the same with either machine that has them, and differ with one that has
    // not.
    let scratch = Scratch::new();
    let manager = manage(PersistentStateMachine::open(scratch.config()).unwrap(), apply_config(1));
    manager.apply(&Entry::put(1, 1, b"key", b"value"), LONG).unwrap();
    manager.close(LONG).unwrap();
    let machine = Journaled::open(scratch.config(), memory()).unwrap();
    assert_eq!(machine.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    drop(machine);
    match Journaled::open(scratch.config(), Keeps(LogId::default())).map(drop) {
        Err(OpenError::OtherState { found: "key-value entries", asked: "a blob" }) => {}
        other => panic!("{other:?}"),
    }
}
