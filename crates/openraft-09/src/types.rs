//! Openraft's types, as the storage sees them.

use std::fmt;
use std::marker::PhantomData;

use openraft::{
    AnyError, CommittedLeaderId, Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, Membership,
    NodeId, RaftTypeConfig, SnapshotMeta, StorageError, StorageIOError, StoredMembership, Vote,
};
use sprag::{Payload, PayloadRef, Snapshot};
use sprag_raft_store::{
    Action, Application, Consensus, DataError, Failure, NodeTag, RaftLogId, RaftVote, Scratch,
    SnapshotFile, Subject, decode, encode,
};

/// Type configurations that this adapter supports: openraft's own entries, snapshots that are files
/// of sprag, and node ids that fit a leader tag. Every fitting configuration implements it.
///
/// The data of commands are cloned for readers of the last entries. Data with long parts should
/// share these ([`Arc`](std::sync::Arc)).
pub trait Types:
    RaftTypeConfig<Entry = Entry<Self>, SnapshotData = SnapshotFile, NodeId: NodeTag, D: Clone>
{
}

impl<C> Types for C where
    C: RaftTypeConfig<Entry = Entry<C>, SnapshotData = SnapshotFile, NodeId: NodeTag, D: Clone>
{
}

/// Openraft's types, with the application `A`.
pub struct Openraft<C, A>(PhantomData<fn() -> (C, A)>);

impl<C, A> fmt::Debug for Openraft<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Openraft")
    }
}

impl<C: Types, A: Application<C::D, C::R>> Consensus for Openraft<C, A> {
    type NodeId = C::NodeId;
    type LogId = LogId<C::NodeId>;
    type Entry = Entry<C>;
    type Machine = A::Machine;

    fn log_id(log_id: &LogId<C::NodeId>) -> RaftLogId<C::NodeId> {
        to_raft(log_id)
    }

    fn log_id_of(entry: &Entry<C>) -> RaftLogId<C::NodeId> {
        to_raft(&entry.log_id)
    }

    fn payload<'a>(
        entry: &'a Entry<C>,
        scratch: &'a mut Scratch<'a>,
    ) -> Result<Payload<'a>, DataError> {
        Ok(match &entry.payload {
            EntryPayload::Blank => Payload::Noop,
            EntryPayload::Normal(data) => A::payload(data, scratch)?,
            EntryPayload::Membership(membership) => {
                scratch.bytes = encode(membership)?;
                Payload::Membership(&scratch.bytes)
            }
        })
    }

    fn entry(
        log_id: RaftLogId<C::NodeId>,
        payload: &PayloadRef<'_>,
    ) -> Result<Entry<C>, DataError> {
        let payload = match payload {
            PayloadRef::Noop => EntryPayload::Blank,
            PayloadRef::Membership(bytes) => EntryPayload::Membership(decode(bytes)?),
            payload => EntryPayload::Normal(A::data(payload)?),
        };
        Ok(Entry { log_id: to_openraft(&log_id), payload })
    }
}

pub(crate) fn to_raft<N: NodeTag + NodeId>(log_id: &LogId<N>) -> RaftLogId<N> {
    RaftLogId::new(log_id.leader_id.term, log_id.leader_id.node_id.clone(), log_id.index)
}

pub(crate) fn to_openraft<N: NodeTag + NodeId>(log_id: &RaftLogId<N>) -> LogId<N> {
    LogId::new(CommittedLeaderId::new(log_id.term(), log_id.node().clone()), log_id.index())
}

pub(crate) fn to_raft_vote<N: NodeTag + NodeId>(vote: &Vote<N>) -> RaftVote<N> {
    RaftVote::new(vote.leader_id.term, vote.leader_id.node_id.clone(), vote.committed)
}

pub(crate) fn to_openraft_vote<N: NodeTag + NodeId>(vote: &RaftVote<N>) -> Vote<N> {
    let node = vote.node().clone();
    if vote.is_committed() {
        Vote::new_committed(vote.term(), node)
    } else {
        Vote::new(vote.term(), node)
    }
}

/// Converts an error of the storage into openraft's.
pub(crate) fn failed<N: NodeId>(failure: Failure) -> StorageError<N> {
    let subject = match failure.subject {
        Subject::Log => ErrorSubject::Logs,
        Subject::Entry(index) => ErrorSubject::LogIndex(index),
        Subject::Vote => ErrorSubject::Vote,
        Subject::StateMachine => ErrorSubject::StateMachine,
        Subject::Snapshot => ErrorSubject::Snapshot(None),
    };
    let verb = match failure.action {
        Action::Read => ErrorVerb::Read,
        Action::Write => ErrorVerb::Write,
        Action::Delete => ErrorVerb::Delete,
    };
    StorageIOError::new(subject, verb, AnyError::new(&failure)).into()
}

/// The metadata of a snapshot for openraft. Equal snapshots have equal ids, whichever node wrote
/// them.
pub(crate) fn meta<C: Types>(
    snapshot: &Snapshot,
) -> Result<SnapshotMeta<C::NodeId, C::Node>, DataError> {
    let id = snapshot.id();
    let last_membership = match snapshot.membership() {
        Some((log_id, bytes)) => stored::<C>(log_id, bytes)?,
        None => StoredMembership::default(),
    };
    let last = snapshot.log_id().map(RaftLogId::from_sprag).transpose()?;
    Ok(SnapshotMeta {
        last_log_id: last.as_ref().map(to_openraft),
        last_membership,
        snapshot_id: format!("{:x}-{:08x}", id.file_bytes, id.footer_crc),
    })
}

/// A membership, and the log id of its entry.
pub(crate) fn stored<C: Types>(
    log_id: sprag::LogId,
    bytes: &[u8],
) -> Result<StoredMembership<C::NodeId, C::Node>, DataError> {
    let log_id = to_openraft(&RaftLogId::from_sprag(log_id)?);
    let membership: Membership<C::NodeId, C::Node> = decode(bytes)?;
    Ok(StoredMembership::new(Some(log_id), membership))
}
