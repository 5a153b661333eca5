//! Test that a cluster under load is moved from one openraft line to the other, node by node.
//!
//! JSON names the fields of a request. A format without names, such as postcard, does not carry a
//! request for a vote over: openraft 0.10 has a field more in it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sprag_openraft::{Request, Response};
use tokio::sync::RwLock;

use crate::wire::cluster::{Cluster, Line, Node, until};

/// A client that increments a counter and puts keys until it is stopped. It counts what was
/// acknowledged.
#[derive(Default)]
struct Client {
    stop: AtomicBool,
    attempts: AtomicU64,
    acknowledged: AtomicU64,
}

impl Client {
    async fn run(&self, cluster: &RwLock<Cluster>) {
        while !self.stop.load(Ordering::SeqCst) {
            // A node may be taken away while the client waits for its answer.
            let nodes: Vec<_> = cluster.read().await.nodes.values().cloned().collect();
            for node in nodes.into_iter().filter(Node::leads) {
                let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
                let answer = node.propose(Request::increment("acknowledged", 1)).await;
                if let Some(Response::Counter(_)) = answer {
                    self.acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                let key = format!("key-{}", attempt % 30);
                node.propose(Request::put(key, vec![b'v'; 200])).await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Moves a node to another line: by its own log if it was away for a moment, else by a snapshot.
async fn moves(cluster: &RwLock<Cluster>, client: &Client, id: u64, line: Line, by_snapshot: bool) {
    let node = cluster.write().await.take(id);
    node.stop().await;
    let before = client.acknowledged.load(Ordering::SeqCst);
    until("write while a node is away", || {
        client.acknowledged.load(Ordering::SeqCst) >= before + 10
    })
    .await;
    let others: Vec<_> = cluster.read().await.nodes.values().cloned().collect();
    if by_snapshot {
        for node in &others {
            node.compact().await;
        }
    }
    let purged = others.iter().filter_map(|node| node.metrics().purged).min();
    cluster.write().await.start(id, line).await;
    let node = cluster.read().await.nodes[&id].clone();
    let last = others.iter().filter_map(|node| node.applied()).max();
    until("entry applied by the node that moved", || node.applied() >= last).await;
    if by_snapshot {
        assert!(node.metrics().snapshot >= purged, "what it missed was in no log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_under_load_is_moved_from_0_9_to_0_10_and_back_node_by_node() {
    let cluster = Cluster::new(&[Line::Old; 3]).await;
    // The members are known to all nodes when this is answered everywhere.
    cluster.write(Request::put("first", "1")).await;
    cluster.state().await;
    let cluster = Arc::new(RwLock::new(cluster));
    let client = Arc::new(Client::default());
    let running = {
        let (client, cluster) = (Arc::clone(&client), Arc::clone(&cluster));
        tokio::spawn(async move { client.run(&cluster).await })
    };
    for line in [Line::New, Line::Old] {
        for id in 1..=3 {
            // Node 2 gets a snapshot, from a leader of either line.
            moves(&cluster, &client, id, line, id == 2).await;
        }
    }
    client.stop.store(true, Ordering::SeqCst);
    running.await.unwrap();
    let cluster = cluster.read().await;
    cluster.write(Request::put("last", "1")).await;
    assert!(cluster.state().await.contains_key(&b"last"[..]));
    let counted = cluster.write(Request::increment("acknowledged", 0)).await;
    let Response::Counter(counted) = counted else { panic!("{counted:?}") };
    let acknowledged = i64::try_from(client.acknowledged.load(Ordering::SeqCst)).unwrap();
    let attempts = i64::try_from(client.attempts.load(Ordering::SeqCst)).unwrap();
    // An increment without an answer may be in the state.
    assert!((acknowledged..=attempts).contains(&counted), "{acknowledged} {counted} {attempts}");
    println!("{acknowledged} of {attempts} increments were acknowledged, and {counted} counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_from_a_leader_of_either_line_to_a_follower_of_the_other() {
    for (leading, following) in [(Line::Old, Line::New), (Line::New, Line::Old)] {
        let mut cluster = Cluster::new(&[leading, leading, following]).await;
        cluster.write(Request::put("first", "1")).await;
        cluster.stop(3).await;
        cluster.fill().await;
        cluster.compact().await;
        cluster.start(3, following).await;
        cluster.write(Request::put("last", "1")).await;
        assert_eq!(cluster.state().await.len(), 22);
        let purged = cluster.nodes[&1].metrics().purged;
        assert!(cluster.nodes[&3].metrics().snapshot >= purged, "{leading:?} leads");
    }
}
