//! Tests of snapshots between nodes of a cluster: damaged on the way, or on the way when the sender
//! stops.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use sprag::PersistentStateMachine;
use sprag::testing::SimDisk;
use sprag_openraft::Request;

use crate::common::small;
use crate::wire::cluster::{Cluster, Line};

/// A cluster in which a follower was stopped and needs a snapshot to come back.
async fn behind(lines: &[Line]) -> (Cluster, u64) {
    let mut cluster = Cluster::new(lines).await;
    cluster.write(Request::put("first", "1")).await;
    let behind = cluster.follower().await;
    cluster.stop(behind).await;
    cluster.fill().await;
    cluster.compact().await;
    (cluster, behind)
}

/// Whether the directory can be opened, so no part of the process holds its lock.
fn opens(disk: &SimDisk) -> bool {
    PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), small()).is_ok()
}

async fn stops_in_the_middle(line: Line) {
    let (mut cluster, behind) = behind(&[line; 3]).await;
    cluster.wire.hold_snapshots();
    cluster.start(behind, line).await;
    cluster.wire.held().await;
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    assert!(opens(&cluster.disks[&leader]), "the task that sends still has the snapshot's file");
    // The receiver has a part of the snapshot, and is stopped too.
    cluster.stop(behind).await;
    assert!(opens(&cluster.disks[&behind]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_free_when_a_leader_stops_in_the_middle_of_sending_a_snapshot() {
    stops_in_the_middle(Line::New).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_the_line_0_9_is_free_when_a_leader_stops_while_it_sends_a_snapshot() {
    stops_in_the_middle(Line::Old).await;
}

async fn a_damaged_one_is_sent_again(line: Line) {
    let (mut cluster, behind) = behind(&[line; 3]).await;
    cluster.wire.damage_snapshots(3);
    cluster.start(behind, line).await;
    cluster.write(Request::put("last", "1")).await;
    let state = cluster.state().await;
    assert_eq!(state.len(), 22);
    assert_eq!(cluster.wire.damaged(), 3);
    let running: BTreeMap<_, _> =
        cluster.nodes.iter().map(|(id, node)| (*id, node.metrics().is_running)).collect();
    assert!(running.values().all(|running| *running), "{running:?}");
    cluster.write(Request::put("after", "1")).await;
    assert_eq!(cluster.state().await.len(), 23);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_damaged_on_its_way_is_sent_again_and_costs_no_node() {
    a_damaged_one_is_sent_again(Line::New).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_damaged_on_its_way_costs_no_node_of_the_line_0_9() {
    a_damaged_one_is_sent_again(Line::Old).await;
}
