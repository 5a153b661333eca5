//! Conversions of openraft's types to those of sprag: log ids, memberships, and the application's
//! data.

use std::marker::PhantomData;

use openraft::{CommittedLeaderId, Entry, Membership, NodeId, RaftTypeConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sprag::{Command, CommandRef, LeaderTag, Payload, PayloadRef, Reply, StateMachine};
use thiserror::Error;

use crate::snapshot::SnapshotFile;

/// Type configurations that this adapter supports: openraft's own entries, snapshots that are files
/// of sprag, and node ids that fit a leader tag. Every fitting configuration implements it.
pub trait Types:
    RaftTypeConfig<Entry = Entry<Self>, SnapshotData = SnapshotFile, NodeId: NodeTag>
{
}

impl<C> Types for C where
    C: RaftTypeConfig<Entry = Entry<C>, SnapshotData = SnapshotFile, NodeId: NodeTag>
{
}

/// Reason why data could not become an entry, or an entry could not become data.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// The application's data could not be encoded or decoded.
    #[error("the application's data: {0}")]
    Serde(#[from] postcard::Error),
    /// The log holds an entry that this application cannot have written.
    #[error("the log holds an entry of another application")]
    Foreign,
    /// The log holds a leader tag that is no node id of this cluster.
    #[error("the log holds a leader tag that is no node id of this cluster")]
    Leader,
}

/// A node id that can be part of a log id.
pub trait NodeTag: NodeId {
    /// The id as at most 16 bytes.
    fn to_tag(&self) -> LeaderTag;
    /// The id of a tag; `None` for bytes that `to_tag` cannot return.
    fn from_tag(tag: LeaderTag) -> Option<Self>;
}

macro_rules! number_tags {
    ($($number:ty),+) => {$(
        impl NodeTag for $number {
            fn to_tag(&self) -> LeaderTag {
                LeaderTag::new(&self.to_le_bytes()).unwrap_or_default()
            }

            fn from_tag(tag: LeaderTag) -> Option<Self> {
                Some(Self::from_le_bytes(tag.as_bytes().try_into().ok()?))
            }
        }
    )+};
}

number_tags!(u8, u16, u32, u64, u128);

/// An application: its state machine, and the conversions between its data and entries of the log.
///
/// [`KeyValue`] and [`Opaque`] suit most applications.
pub trait Application<C: RaftTypeConfig>: Send + Sync + 'static {
    /// The state machine, with a log of sprag.
    type Machine: StateMachine;

    /// The payload of an entry with this data. `scratch` holds parts that do not lie in `data`
    /// itself.
    ///
    /// # Errors
    ///
    /// Returns [`DataError`] for data without a payload: the entry is refused, and the node stops.
    /// (A payload that can be no entry, as it is too long or its key is empty, is rejected, and the
    /// node continues.)
    fn payload<'a>(data: &'a C::D, scratch: &'a mut Scratch<'a>) -> Result<Payload<'a>, DataError>;

    /// The data of a payload, for entries that are read from the log and sent to followers.
    ///
    /// # Errors
    ///
    /// Returns [`DataError`].
    fn data(payload: &PayloadRef<'_>) -> Result<C::D, DataError>;

    /// The client's response. It is also called for entries without data, whose reply is
    /// [`Reply::Applied`].
    fn response(reply: Reply) -> C::R;
}

/// Buffers for data that an entry borrows.
#[derive(Debug, Default)]
pub struct Scratch<'a> {
    /// Encoded data.
    pub bytes: Vec<u8>,
    /// The commands of a batch.
    pub commands: Vec<Command<'a>>,
}

/// Data that is a command of the key-value machines.
pub trait KeyValueData: Sized {
    /// The command. The commands of a batch go into `batch`, from which the result borrows them.
    fn command<'a>(&'a self, batch: &'a mut Vec<Command<'a>>) -> Command<'a>;

    /// The data of a command in the log.
    fn from_command(command: &CommandRef<'_>) -> Option<Self>;
}

/// An application whose data are commands of the key-value machine `M`: a
/// [`PersistentStateMachine`](sprag::PersistentStateMachine), or a
/// [`Journaled`](sprag::Journaled)`<`[`MemoryStateMachine`](sprag::MemoryStateMachine)`>`.
#[derive(Debug)]
pub struct KeyValue<M>(PhantomData<fn() -> M>);

impl<C, M> Application<C> for KeyValue<M>
where
    C: RaftTypeConfig<D: KeyValueData, R: From<Reply>>,
    M: StateMachine,
{
    type Machine = M;

    fn payload<'a>(data: &'a C::D, scratch: &'a mut Scratch<'a>) -> Result<Payload<'a>, DataError> {
        Ok(Payload::Command(data.command(&mut scratch.commands)))
    }

    fn data(payload: &PayloadRef<'_>) -> Result<C::D, DataError> {
        let PayloadRef::Command(command) = payload else { return Err(DataError::Foreign) };
        C::D::from_command(command).ok_or(DataError::Foreign)
    }

    fn response(reply: Reply) -> C::R {
        reply.into()
    }
}

/// An application with a state machine of its own, a [`Journaled`](sprag::Journaled)`<M>`, which
/// gets the data as
/// [`Payload::Opaque`]: encoded by [`encode`], to be read by [`decode`].
#[derive(Debug)]
pub struct Opaque<M>(PhantomData<fn() -> M>);

impl<C, M> Application<C> for Opaque<M>
where
    C: RaftTypeConfig<D: Serialize + DeserializeOwned, R: From<Reply>>,
    M: StateMachine,
{
    type Machine = M;

    fn payload<'a>(data: &'a C::D, scratch: &'a mut Scratch<'a>) -> Result<Payload<'a>, DataError> {
        scratch.bytes = encode(data)?;
        Ok(Payload::Opaque(&scratch.bytes))
    }

    fn data(payload: &PayloadRef<'_>) -> Result<C::D, DataError> {
        let PayloadRef::Opaque(bytes) = payload else { return Err(DataError::Foreign) };
        decode(bytes)
    }

    fn response(reply: Reply) -> C::R {
        reply.into()
    }
}

/// Encodes data as [`Opaque`] puts it into the log. Equal data have equal bytes.
///
/// # Errors
///
/// Returns [`DataError::Serde`].
pub fn encode<T: Serialize>(data: &T) -> Result<Vec<u8>, DataError> {
    Ok(postcard::to_stdvec(data)?)
}

/// Decodes data that [`encode`] made.
///
/// # Errors
///
/// Returns [`DataError::Serde`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DataError> {
    Ok(postcard::from_bytes(bytes)?)
}

/// Converts a log id of openraft; the leader tag holds the node.
pub(crate) fn to_sprag<N: NodeTag>(log_id: &openraft::LogId<N>) -> sprag::LogId {
    let leader = log_id.leader_id.node_id.to_tag();
    sprag::LogId { index: log_id.index, term: log_id.leader_id.term, leader }
}

/// Converts a log id of sprag into openraft's.
pub(crate) fn from_sprag<N: NodeTag>(
    log_id: sprag::LogId,
) -> Result<openraft::LogId<N>, DataError> {
    let node = N::from_tag(log_id.leader).ok_or(DataError::Leader)?;
    Ok(openraft::LogId::new(CommittedLeaderId::new(log_id.term, node), log_id.index))
}

/// Decodes a membership that [`encode`] made.
pub(crate) fn membership<C: Types>(
    bytes: &[u8],
) -> Result<Membership<C::NodeId, C::Node>, DataError> {
    decode(bytes)
}
