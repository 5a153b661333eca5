//! Tests that a directory opens under the other line of openraft, both ways.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use futures_util::stream;
use openraft::entry::RaftEntry as _;
use openraft::testing::log_id;
use openraft::type_config::alias::{EntryOf, VoteOf};
use sprag::PersistentStateMachine;
use sprag::testing::SimDisk;
use sprag_openraft::{KeyValue, Request};

use crate::common::{Data, KvStore, apply_config, small};

openraft_09::declare_raft_types!(
    /// A key-value node under openraft 0.9.
    pub Old: D = Request, R = sprag_openraft::Response, SnapshotData = sprag_openraft::SnapshotFile
);

type OldStore = sprag_openraft_09::Store<Old, KeyValue<PersistentStateMachine>>;
type NewStore = KvStore<PersistentStateMachine>;

/// Knowledge of a node, in numbers. A log id is term, node and index; a membership is its index and
/// voters.
#[derive(PartialEq, Debug)]
struct Known {
    vote: (u64, u64, bool),
    purged: (u64, u64, u64),
    last: (u64, u64, u64),
    applied: (u64, u64, u64),
    membership: (u64, Vec<u64>),
    keys: Vec<Option<Vec<u8>>>,
}

fn machine(disk: &SimDisk) -> PersistentStateMachine {
    PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), small()).unwrap()
}

fn key(index: u64) -> String {
    format!("key-{index}")
}

fn keys(machine: &PersistentStateMachine, end: u64) -> Vec<Option<Vec<u8>>> {
    let get = |index| machine.get(key(index).as_bytes()).unwrap().map(|value| value.to_vec());
    (0..end).map(get).collect()
}

mod old {
    use openraft_09::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
    use openraft_09::{CommittedLeaderId, Entry, EntryPayload, LogId, Membership, Vote};

    use super::*;

    pub(super) fn id(index: u64) -> LogId<u64> {
        LogId::new(CommittedLeaderId::new(3, 2), index)
    }

    fn numbers(id: LogId<u64>) -> (u64, u64, u64) {
        (id.leader_id.term, id.leader_id.node_id, id.index)
    }

    pub(super) fn open(disk: &SimDisk) -> OldStore {
        OldStore::new(machine(disk), apply_config(2)).unwrap()
    }

    /// Appends and applies entries, the first one a membership, and saves a vote of `term`.
    pub(super) async fn write(store: &mut OldStore, indexes: std::ops::Range<u64>, term: u64) {
        let first = indexes.start;
        let entry = |index| Entry {
            log_id: id(index),
            payload: match index == first {
                true => EntryPayload::Membership(Membership::new(vec![[2, 5].into()], None)),
                false => EntryPayload::Normal(Request::put(key(index), "old")),
            },
        };
        let entries: Vec<_> = indexes.map(entry).collect();
        store.log.save_vote(&Vote::new_committed(term, 2)).await.unwrap();
        // The frame of the last entry records that those before are committed.
        let (last, before) = entries.split_last().unwrap();
        for entries in [before.to_vec(), vec![last.clone()]] {
            store.log.blocking_append(entries.clone()).await.unwrap();
            store.state_machine.apply(entries).await.unwrap();
        }
        store.log.purge(id(first + 3)).await.unwrap();
    }

    pub(super) async fn known(store: &mut OldStore, end: u64) -> Known {
        let state = store.log.get_log_state().await.unwrap();
        let vote = store.log.read_vote().await.unwrap().unwrap();
        let (applied, membership) = store.state_machine.applied_state().await.unwrap();
        Known {
            vote: (vote.leader_id.term, vote.leader_id.node_id, vote.committed),
            purged: numbers(state.last_purged_log_id.unwrap()),
            last: numbers(state.last_log_id.unwrap()),
            applied: numbers(applied.unwrap()),
            membership: (membership.log_id().unwrap().index, membership.voter_ids().collect()),
            keys: keys(store.handle.machine(), end),
        }
    }
}

mod new {
    use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
    use openraft::{LogId, Membership};

    use super::*;

    fn numbers(
        id: LogId<openraft::type_config::alias::CommittedLeaderIdOf<Data>>,
    ) -> (u64, u64, u64) {
        (id.leader_id.term, id.leader_id.node_id, id.index)
    }

    pub(super) fn open(disk: &SimDisk) -> NewStore {
        NewStore::new(machine(disk), apply_config(2)).unwrap()
    }

    /// Appends and applies entries, the first one a membership, and saves a vote of `term`.
    pub(super) async fn write(store: &mut NewStore, indexes: std::ops::Range<u64>, term: u64) {
        let first = indexes.start;
        let entry = |index| {
            let id = log_id::<Data>(3, 2, index);
            if index == first {
                let voters = vec![[2, 5].into()];
                return EntryOf::<Data>::new_membership(
                    id,
                    Membership::new_with_defaults(voters, []),
                );
            }
            EntryOf::<Data>::new_normal(id, Request::put(key(index), "new"))
        };
        let entries: Vec<_> = indexes.map(entry).collect();
        store.log.save_vote(&VoteOf::<Data>::new_committed(term, 2)).await.unwrap();
        // The frame of the last entry records that those before are committed.
        let (last, before) = entries.split_last().unwrap();
        for entries in [before.to_vec(), vec![last.clone()]] {
            store.log.blocking_append(entries.clone()).await.unwrap();
            apply(store, entries).await;
        }
        store.log.purge(log_id::<Data>(3, 2, first + 3)).await.unwrap();
    }

    pub(super) async fn apply(store: &mut NewStore, entries: Vec<EntryOf<Data>>) {
        let committed = stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
        store.state_machine.apply(committed).await.unwrap();
    }

    pub(super) async fn known(store: &mut NewStore, end: u64) -> Known {
        let state = store.log.get_log_state().await.unwrap();
        let vote = store.log.get_log_reader().await.read_vote().await.unwrap().unwrap();
        let (applied, membership) = store.state_machine.applied_state().await.unwrap();
        Known {
            vote: (vote.leader_id.term, vote.leader_id.node_id, vote.committed),
            purged: numbers(state.last_purged_log_id.unwrap()),
            last: numbers(state.last_log_id.unwrap()),
            applied: numbers(applied.unwrap()),
            membership: (membership.log_id().unwrap().index, membership.voter_ids().collect()),
            keys: keys(store.handle.machine(), end),
        }
    }
}

/// Ends a node: it is closed, or its power fails and only what was synced is left.
macro_rules! end {
    ($store:expr, $disk:expr, $killed:expr) => {{
        if $killed {
            $disk.power_cut_keeping(0);
        }
        let closed = $store.handle.closed();
        drop($store);
        closed.await;
    }};
}

#[tokio::test]
async fn a_directory_closed_or_killed_opens_under_the_other_line_both_ways() {
    for killed in [false, true] {
        let disk = SimDisk::new(1);
        let mut store = old::open(&disk);
        old::write(&mut store, 0..20, 7).await;
        let before = old::known(&mut store, 20).await;
        assert_eq!(
            (before.vote, before.purged, before.last),
            ((7, 2, true), (3, 2, 3), (3, 2, 19))
        );
        end!(store, disk, killed);

        let mut store = new::open(&disk);
        if killed {
            // No frame recorded that the last entry was committed; openraft applies it again.
            new::apply(&mut store, vec![EntryOf::<Data>::new_blank(log_id::<Data>(3, 2, 19))])
                .await;
        }
        assert_eq!(new::known(&mut store, 20).await, before, "killed: {killed}");
        new::write(&mut store, 20..40, 8).await;
        let before = new::known(&mut store, 40).await;
        assert_eq!(
            (before.vote, before.purged, before.last),
            ((8, 2, true), (3, 2, 23), (3, 2, 39))
        );
        end!(store, disk, killed);

        let mut store = old::open(&disk);
        if killed {
            use openraft_09::storage::RaftStateMachine;
            let payload = openraft_09::EntryPayload::Blank;
            let last = openraft_09::Entry { log_id: old::id(39), payload };
            store.state_machine.apply([last]).await.unwrap();
        }
        assert_eq!(old::known(&mut store, 40).await, before, "killed: {killed}");
    }
}
