//! Tests of clusters whose nodes are under either openraft line.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use sprag_openraft::Request;

use crate::wire::cluster::{Cluster, Line};

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
