//! A short run of each kind of node: what is acknowledged is in the leader's state, and in the
//! files of a majority.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::time::Duration;

use super::cluster::{Cluster, Load, put};
use super::peers::{Fjall, Redb};
use super::types::Put;
use super::wal::HEADER_BYTES;
use super::{InMemory, PlainLog, round};
use crate::groups::Settings;

const LOAD: Load =
    Load { clients: 8, warm_up: Duration::from_millis(20), time: Duration::from_millis(200) };

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap().block_on(future)
}

#[test]
fn a_round_in_memory_writes_and_syncs_nothing() {
    let outcome = round(&InMemory, tempfile::tempdir().unwrap().path(), &LOAD).unwrap();
    assert!(outcome.writes_per_s > 0.0 && outcome.p50_us <= outcome.p99_us, "{outcome:?}");
    assert_eq!((outcome.leader_syncs, outcome.follower_syncs), (0.0, 0.0));
}

#[test]
fn what_a_plain_log_acknowledged_is_in_the_files_of_a_majority_and_in_the_state() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let cluster = Cluster::start(&PlainLog { file_bytes: 4 << 20 }, dir.path()).await.unwrap();
        for n in 1..=20 {
            cluster.leader.client_write(put(n)).await.unwrap();
            let with = |node: u64| has(&dir.path().join(node.to_string()), n);
            assert!((1..=3).filter(|node| with(*node)).count() >= 2, "put {n}");
        }
        let puts = cluster.leader.with_state_machine(|state| {
            let puts = state.puts().unwrap();
            Box::pin(async move { puts })
        });
        let puts = puts.await.unwrap();
        assert!((1..=20).all(|n| puts.contains(&put(n))), "the leader's state has them");
        let outcome = cluster.run(&LOAD).await.unwrap();
        assert!(outcome.leader_syncs > 0.0 && outcome.follower_syncs > 0.0, "{outcome:?}");
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_run_of_one_store_and_one_number_of_clients_has_the_rows_of_these_alone() {
    let dir = tempfile::tempdir().unwrap();
    let stores = |name: &str| vec![name.to_owned()];
    let settings =
        Settings { stores: stores("mem"), clients: vec![3], ..Settings::of_test(dir.path()) };
    let rows = super::run(&settings).unwrap();
    assert!(rows.iter().all(|row| row.subject == "mem" && row.case.starts_with("3 clients")));
    let settings = Settings { stores: stores("paper"), ..settings };
    let error = super::run(&settings).unwrap_err().to_string();
    assert!(error.contains("\"paper\"") && error.contains("fjall1"), "{error}");
}

/// A write is acknowledged when a majority has synced it. A slower third node, which may be the
/// leader, syncs several writes at once. The leader's synced state adds a sync of its own.
#[test]
fn nodes_over_a_storage_sync_each_write_at_least_once_in_one_round() {
    let load = Load { clients: 1, ..LOAD };
    let dir = tempfile::tempdir().unwrap();
    for (syncs, outcome) in [
        (2.0, round(&Fjall { syncs_state: false }, dir.path(), &load)),
        (3.0, round(&Fjall { syncs_state: true }, dir.path(), &load)),
        (2.0, round(&Redb, dir.path(), &load)),
    ] {
        let outcome = outcome.unwrap();
        // A write may begin before the measured time or end after it.
        let all = outcome.leader_syncs + 2.0 * outcome.follower_syncs;
        assert!(all > 0.9 * syncs, "{all} syncs: {outcome:?}");
        assert!(outcome.written_bytes > 116.0, "{outcome:?}");
    }
}

/// Whether the `n`-th put is in the log of a node.
fn has(dir: &Path, n: u64) -> bool {
    puts_of(&dir.join("wal")).contains(&put(n))
}

/// The puts of the appends that read back from the start of a file.
fn puts_of(path: &Path) -> Vec<Put> {
    let bytes = std::fs::read(path).unwrap();
    let number =
        |at: usize| bytes.get(at..at + 4).map(|n| u32::from_le_bytes(n.try_into().unwrap()));
    let (mut at, mut puts) = (0, Vec::new());
    while let (Some(length), Some(checksum)) = (number(at), number(at + 4)) {
        let start = at + HEADER_BYTES;
        let Some(body) = bytes.get(start..start + length as usize) else { break };
        if crc32c::crc32c(body) != checksum {
            break;
        }
        at = start + body.len();
        let mut rest = &body[1..];
        while body[0] == 0 && !rest.is_empty() {
            let length = u32::from_le_bytes(rest[25..29].try_into().unwrap()) as usize;
            if rest[24] == 1 {
                puts.push(rest[29..29 + length].to_vec().into());
            }
            rest = &rest[29 + length..];
        }
    }
    puts
}
