//! The types of a Raft library, as this crate sees them.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sprag::{LeaderTag, LogId, Payload, PayloadRef, StateMachine};

use crate::data::{DataError, Scratch};

/// The types of one Raft library with one application, and the conversions between them and the
/// log's.
pub trait Consensus: Send + Sync + 'static {
    /// The id of a node.
    type NodeId: NodeTag;
    /// The library's log id.
    type LogId;
    /// The library's entry. Readers of the last entries get clones.
    type Entry: Clone + Send + Sync + 'static;
    /// The state machine, with a log of sprag.
    type Machine: StateMachine;

    /// A log id of the library.
    fn log_id(log_id: &Self::LogId) -> RaftLogId<Self::NodeId>;

    /// The log id of an entry.
    fn log_id_of(entry: &Self::Entry) -> RaftLogId<Self::NodeId>;

    /// The payload of an entry. `scratch` holds parts that do not lie in `entry` itself.
    ///
    /// # Errors
    ///
    /// Returns [`DataError`] for data without a payload.
    fn payload<'a>(
        entry: &'a Self::Entry,
        scratch: &'a mut Scratch<'a>,
    ) -> Result<Payload<'a>, DataError>;

    /// The entry of a payload.
    ///
    /// # Errors
    ///
    /// Returns [`DataError`] for a payload that the application cannot have written.
    fn entry(
        log_id: RaftLogId<Self::NodeId>,
        payload: &PayloadRef<'_>,
    ) -> Result<Self::Entry, DataError>;
}

/// A node id that can be part of a log id.
pub trait NodeTag:
    Clone + Ord + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The id as at most 16 bytes.
    fn to_tag(&self) -> LeaderTag;
    /// The id of a tag; `None` for bytes that `to_tag` cannot return.
    fn from_tag(tag: LeaderTag) -> Option<Self>;
}

macro_rules! number_tags {
    ($($number:ty),+) => {$(
        impl NodeTag for $number {
            fn to_tag(&self) -> LeaderTag {
                // A number has at most 16 bytes.
                LeaderTag::new(&self.to_le_bytes()).unwrap_or_default()
            }

            fn from_tag(tag: LeaderTag) -> Option<Self> {
                Some(Self::from_le_bytes(tag.as_bytes().try_into().ok()?))
            }
        }
    )+};
}

number_tags!(u8, u16, u32, u64, u128);

/// A term, and the node that leads in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) struct Leader<N: NodeTag> {
    term: u64,
    node: N,
}

/// A log id in Raft's order: by term, by leader, by index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct RaftLogId<N: NodeTag> {
    leader: Leader<N>,
    index: u64,
}

impl<N: NodeTag> RaftLogId<N> {
    /// Makes a log id.
    pub const fn new(term: u64, node: N, index: u64) -> Self {
        Self { leader: Leader { term, node }, index }
    }

    /// The term.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.leader.term
    }

    /// The node that led when the entry was proposed.
    #[must_use]
    pub const fn node(&self) -> &N {
        &self.leader.node
    }

    /// The index.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The log id as the log has it: the leader tag holds the node.
    pub(crate) fn to_sprag(&self) -> LogId {
        LogId { index: self.index, term: self.leader.term, leader: self.leader.node.to_tag() }
    }

    /// A log id of the log.
    ///
    /// # Errors
    ///
    /// Returns [`DataError::Leader`] for a tag that is no node id of this kind.
    pub fn from_sprag(log_id: LogId) -> Result<Self, DataError> {
        let node = N::from_tag(log_id.leader).ok_or(DataError::Leader)?;
        Ok(Self::new(log_id.term, node, log_id.index))
    }
}

/// A vote: a term and its candidate or leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct RaftVote<N: NodeTag> {
    leader: Leader<N>,
    committed: bool,
}

impl<N: NodeTag> RaftVote<N> {
    /// Makes a vote. It is `committed` when a quorum has granted it.
    pub const fn new(term: u64, node: N, committed: bool) -> Self {
        Self { leader: Leader { term, node }, committed }
    }

    /// The term.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.leader.term
    }

    /// The candidate or leader.
    #[must_use]
    pub const fn node(&self) -> &N {
        &self.leader.node
    }

    /// Whether a quorum has granted it.
    #[must_use]
    pub const fn is_committed(&self) -> bool {
        self.committed
    }
}
