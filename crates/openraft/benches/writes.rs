//! Writes of three nodes in one process, on real directories, under openraft 0.10.
//!
//! ```sh
//! cargo bench -p sprag-openraft --bench writes
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement")]

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::{BasicNode, Config, Raft};
use sprag::{ApplyConfig, PersistentStateMachine};
use sprag_openraft::{Handle, Store};

#[path = "../../openraft-09/benches/load/mod.rs"]
mod load;
#[path = "../examples/three_nodes/network.rs"]
mod network;
use network::{App, Network, Types};

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let network = Network::default();
    let config = Arc::new(Config::default().validate().unwrap());
    let mut nodes: Vec<(network::Node, Handle<Types, App>)> = Vec::new();
    for id in 1..=3_u64 {
        let options = sprag_openraft::config(directory.path().join(format!("node-{id}")));
        let machine = PersistentStateMachine::open(options).unwrap();
        let store = Store::<Types, App>::new(machine, ApplyConfig::new()).unwrap();
        let (log, state_machine, network_of) = (store.log, store.state_machine, network.clone());
        let raft = Raft::new(id, Arc::clone(&config), network_of, log, state_machine).await;
        let raft = raft.unwrap();
        network.connect(id, raft.clone(), store.handle.clone());
        nodes.push((raft, store.handle));
    }
    let members: BTreeMap<u64, BasicNode> = (1..=3).map(|id| (id, BasicNode::default())).collect();
    let leader = nodes.first().unwrap().0.clone();
    leader.initialize(members).await.unwrap();
    leader.wait(None).current_leader(1, "the first node leads").await.unwrap();
    for clients in [1, 16, 64, 256] {
        let leader = leader.clone();
        let write = move |request| {
            let leader = leader.clone();
            async move { leader.client_write(request).await.is_ok() }
        };
        load::run(clients, write, || nodes.iter().map(|(_, handle)| handle.stats()).collect())
            .await;
    }
    for (raft, _) in &nodes {
        raft.shutdown().await.unwrap();
    }
}
