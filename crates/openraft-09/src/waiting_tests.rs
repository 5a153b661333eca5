//! Tests of waits: slow machines and disks end no node, and no runtime thread waits for an
//! installation.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../tests/common/held.rs"]
mod held;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log_id;
use openraft::{
    Entry, EntryPayload, RaftLogReader, RaftSnapshotBuilder, Snapshot, Vote, declare_raft_types,
};
use sprag::testing::{Fault, FaultError, SimDisk};
use sprag::{ApplyConfig, Journaled};

use self::held::{Gate, Held};
use crate::{Opaque, Response, SnapshotFile, Store, config};

declare_raft_types!(
    /// A node whose machine keeps no state.
    Node: D = u64, R = Response, SnapshotData = SnapshotFile
);

type NodeStore = Store<Node, Opaque<Journaled<Held>>>;

fn open(disk: &SimDisk, gate: &Arc<Gate>) -> NodeStore {
    let options = config("simulated").segment_bytes(64 << 10);
    let machine = Held(Arc::clone(gate));
    let machine = Journaled::open_on_disk(disk.open(true).unwrap(), options, machine).unwrap();
    let apply = ApplyConfig::new().worker_count(NonZeroUsize::MIN).pin_workers(false);
    // Zero is the shortest patience possible.
    Store::with_patience(machine, apply, Duration::ZERO).unwrap()
}

fn entries(indexes: std::ops::Range<u64>) -> Vec<Entry<Node>> {
    let entry = |index| Entry { log_id: log_id(1, 1, index), payload: EntryPayload::Normal(index) };
    indexes.map(entry).collect()
}

/// A snapshot of entry 49 from another node.
async fn sent() -> Snapshot<Node> {
    let mut store = open(&SimDisk::new(1), &Arc::default());
    store.log.blocking_append(entries(0..50)).await.unwrap();
    store.state_machine.apply(entries(0..50)).await.unwrap();
    let built = store.state_machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    // The node ends here, and takes back its own file.
    let kept = SnapshotFile::reading(built.snapshot.snapshot().unwrap());
    Snapshot { meta: built.meta, snapshot: Box::new(kept) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_and_a_slow_machine_are_waited_for_as_long_as_it_takes() {
    let gate = Arc::<Gate>::default();
    let NodeStore { mut log, mut state_machine, .. } = open(&SimDisk::new(2), &gate);
    for vote in 1..20 {
        log.blocking_append(entries(vote * 5..vote * 5 + 5)).await.unwrap();
        log.save_vote(&Vote::new(vote, 1)).await.unwrap();
    }
    gate.close();
    let applying = tokio::spawn(async move { state_machine.apply(entries(5..100)).await });
    gate.visited().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    gate.open();
    assert_eq!(applying.await.unwrap().unwrap(), vec![Response::Custom(7); 95]);
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 95);
}

#[tokio::test]
async fn neither_a_purge_nor_an_append_holds_up_the_runtime_while_a_snapshot_is_installed() {
    let sent = sent().await;
    let gate = Arc::<Gate>::default();
    let NodeStore { mut log, mut state_machine, .. } = open(&SimDisk::new(3), &gate);
    log.blocking_append(entries(0..10)).await.unwrap();
    state_machine.apply(entries(0..10)).await.unwrap();
    gate.close();
    let installing =
        tokio::spawn(
            async move { state_machine.install_snapshot(&sent.meta, sent.snapshot).await },
        );
    gate.visited().await;
    log.purge(log_id(1, 1, 5)).await.unwrap();
    log.purge(log_id(1, 1, 49)).await.unwrap();
    let appending = tokio::spawn(async move {
        log.blocking_append(entries(50..51)).await.unwrap();
        log
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    gate.open();
    installing.await.unwrap().unwrap();
    let mut log = appending.await.unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries(50..51));
}

#[tokio::test]
async fn nothing_is_appended_over_the_gap_before_a_snapshot_that_never_comes() {
    for fails in [true, false] {
        let NodeStore { mut log, mut state_machine, .. } = open(&SimDisk::new(4), &Arc::default());
        log.blocking_append(entries(0..10)).await.unwrap();
        log.purge(log_id(1, 1, 49)).await.unwrap();
        let appending = tokio::spawn(async move {
            log.blocking_append(entries(50..51)).await.unwrap_err();
            log
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!appending.is_finished(), "it waits");
        if fails {
            let meta = sent().await.meta;
            let nothing = state_machine.begin_receiving_snapshot().await.unwrap();
            state_machine.install_snapshot(&meta, nothing).await.unwrap_err();
        }
        let _there_still = fails.then_some(state_machine);
        let mut log = appending.await.unwrap();
        assert_eq!(log.try_get_log_entries(..).await.unwrap(), []);
        log.get_log_state().await.unwrap();
    }
}

#[tokio::test]
async fn a_snapshot_for_which_there_is_no_room_costs_no_node() {
    let mut failed = 0;
    for at in 0.. {
        let disk = SimDisk::new(5);
        let NodeStore { mut log, mut state_machine, .. } = open(&disk, &Arc::default());
        let mut last = None;
        for indexes in [0..10, 10..20] {
            log.blocking_append(entries(indexes.clone())).await.unwrap();
            state_machine.apply(entries(indexes)).await.unwrap();
            let mut builder = state_machine.get_snapshot_builder().await;
            if last.is_some() {
                disk.reset_operations();
                disk.fail_at(at, Fault::Error(FaultError::Enospc));
            }
            last = builder.build_snapshot().await.unwrap().meta.last_log_id;
        }
        if disk.operations() <= at {
            break;
        }
        failed += u32::from(last == Some(log_id(1, 1, 9)));
        log.blocking_append(entries(20..30)).await.unwrap();
        state_machine.apply(entries(20..30)).await.unwrap();
        let mut builder = state_machine.get_snapshot_builder().await;
        let last = builder.build_snapshot().await.unwrap().meta.last_log_id;
        assert_eq!(last, Some(log_id(1, 1, 29)), "before operation {at}");
    }
    assert!(failed > 1);
}
