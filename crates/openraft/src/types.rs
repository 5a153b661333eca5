//! Openraft's types, as the storage sees them.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use openraft::entry::{RaftEntry, RaftPayload};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::type_config::alias::{
    CommittedLeaderIdOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf,
};
use openraft::vote::{RaftCommittedLeaderId, RaftLeaderId, RaftVote as _};
use openraft::{AppData, Entry, EntryPayload, LogId, Membership, Node, NodeId, RaftTypeConfig};
use sprag::{Payload, PayloadRef, Snapshot};
use sprag_raft_store::{
    Application, Consensus, DataError, NodeTag, RaftLogId, RaftVote, Scratch, decode, encode,
};

/// Type configurations that this adapter supports. Every fitting configuration implements it.
///
/// Terms are `u64`. The leader id is openraft's default, which has the node in it
/// ([`leader_id_adv`](openraft::impls::leader_id_adv)). Entries and payloads are openraft's own, or
/// implement [`LogEntry`] and [`LogPayload`].
///
/// The data of commands are cloned for readers of the last entries. Data with long parts should
/// share these ([`Arc`](std::sync::Arc)).
pub trait Types:
    RaftTypeConfig<Term = u64, NodeId: NodeTag, D: Clone, Entry: Clone + Send + Sync>
{
    /// The term and the node of a leader.
    fn leader_parts(leader: &CommittedLeaderIdOf<Self>) -> (u64, &Self::NodeId);
    /// The leader of a term and a node.
    fn leader(term: u64, node: Self::NodeId) -> CommittedLeaderIdOf<Self>;
    /// The content of an entry.
    fn part(entry: &Self::Entry) -> Part<'_, Self::D, Self::NodeId, Self::Node>;
}

impl<C> Types for C
where
    C: RaftTypeConfig<Term = u64, NodeId: NodeTag, D: Clone>,
    C::LeaderId: RaftLeaderId<Committed = LeaderId<u64, C::NodeId>>,
    C::Payload: LogPayload,
    C::Entry: LogEntry,
{
    fn leader_parts(leader: &LeaderId<u64, C::NodeId>) -> (u64, &C::NodeId) {
        (leader.term, &leader.node_id)
    }

    fn leader(term: u64, node: C::NodeId) -> LeaderId<u64, C::NodeId> {
        LeaderId { term, node_id: node }
    }

    fn part(entry: &C::Entry) -> Part<'_, C::D, C::NodeId, C::Node> {
        entry.payload().part()
    }
}

/// An entry that shows its payload.
pub trait LogEntry: RaftEntry + Clone + Send + Sync + 'static {
    /// The payload.
    fn payload(&self) -> &Self::Payload;
}

impl<L, P> LogEntry for Entry<L, P>
where
    L: RaftCommittedLeaderId,
    P: RaftPayload + Clone + Send + Sync + 'static,
{
    fn payload(&self) -> &P {
        &self.payload
    }
}

/// A payload that shows its part.
pub trait LogPayload: RaftPayload {
    /// The part.
    fn part(&self) -> Part<'_, Self::D, Self::NodeId, Self::Node>;
}

/// The content of an entry.
#[derive(Debug)]
pub enum Part<'a, D, I: NodeId, N: Node> {
    /// Nothing: a leader begins its term.
    Blank,
    /// Data of the application.
    Data(&'a D),
    /// A membership.
    Membership(&'a Membership<I, N>),
}

impl<D: AppData, I: NodeId, N: Node> LogPayload for EntryPayload<D, I, N> {
    fn part(&self) -> Part<'_, D, I, N> {
        match self {
            Self::Blank => Part::Blank,
            Self::Normal(data) => Part::Data(data),
            Self::Membership(membership) => Part::Membership(membership),
        }
    }
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
    type LogId = LogIdOf<C>;
    type Entry = C::Entry;
    type Machine = A::Machine;

    fn log_id(log_id: &LogIdOf<C>) -> RaftLogId<C::NodeId> {
        to_raft::<C>(log_id)
    }

    fn log_id_of(entry: &C::Entry) -> RaftLogId<C::NodeId> {
        let (leader, index) = entry.log_id_parts();
        raft_log_id::<C>(leader, index)
    }

    fn payload<'a>(
        entry: &'a C::Entry,
        scratch: &'a mut Scratch<'a>,
    ) -> Result<Payload<'a>, DataError> {
        Ok(match C::part(entry) {
            Part::Blank => Payload::Noop,
            Part::Data(data) => A::payload(data, scratch)?,
            Part::Membership(membership) => {
                scratch.bytes = encode(membership)?;
                Payload::Membership(&scratch.bytes)
            }
        })
    }

    fn entry(
        log_id: RaftLogId<C::NodeId>,
        payload: &PayloadRef<'_>,
    ) -> Result<C::Entry, DataError> {
        let log_id = to_openraft::<C>(&log_id);
        Ok(match payload {
            PayloadRef::Noop => C::Entry::new_blank(log_id),
            PayloadRef::Membership(bytes) => C::Entry::new_membership(log_id, decode(bytes)?),
            payload => C::Entry::new_normal(log_id, A::data(payload)?),
        })
    }
}

fn raft_log_id<C: Types>(leader: &CommittedLeaderIdOf<C>, index: u64) -> RaftLogId<C::NodeId> {
    let (term, node) = C::leader_parts(leader);
    RaftLogId::new(term, node.clone(), index)
}

pub(crate) fn to_raft<C: Types>(log_id: &LogIdOf<C>) -> RaftLogId<C::NodeId> {
    raft_log_id::<C>(&log_id.leader_id, log_id.index)
}

pub(crate) fn to_openraft<C: Types>(log_id: &RaftLogId<C::NodeId>) -> LogIdOf<C> {
    LogId::new(C::leader(log_id.term(), log_id.node().clone()), log_id.index())
}

pub(crate) fn to_raft_vote<C: Types>(vote: &VoteOf<C>) -> RaftVote<C::NodeId> {
    let leader = vote.leader_id();
    RaftVote::new(leader.term(), leader.node_id().clone(), vote.is_committed())
}

pub(crate) fn to_openraft_vote<C: Types>(vote: &RaftVote<C::NodeId>) -> VoteOf<C> {
    let leader = C::LeaderId::new(vote.term(), vote.node().clone());
    VoteOf::<C>::from_leader_id(leader, vote.is_committed())
}

/// Converts an error of the storage into the one that openraft's traits return.
pub(crate) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// The metadata of a snapshot for openraft.
pub(crate) fn meta<C: Types>(snapshot: &Snapshot) -> Result<SnapshotMetaOf<C>, DataError> {
    let last_membership = match snapshot.membership() {
        Some((log_id, bytes)) => stored::<C>(log_id, bytes)?,
        None => StoredMembershipOf::<C>::default(),
    };
    let last = snapshot.log_id().map(RaftLogId::from_sprag).transpose()?;
    let last_log_id = last.as_ref().map(to_openraft::<C>);
    Ok(SnapshotMetaOf::<C> { last_log_id, last_membership })
}

/// A membership, and the log id of its entry.
pub(crate) fn stored<C: Types>(
    log_id: sprag::LogId,
    bytes: &[u8],
) -> Result<StoredMembershipOf<C>, DataError> {
    let log_id = to_openraft::<C>(&RaftLogId::from_sprag(log_id)?);
    let membership: Membership<C::NodeId, C::Node> = decode(bytes)?;
    Ok(StoredMembershipOf::<C>::new(Some(log_id), membership))
}
