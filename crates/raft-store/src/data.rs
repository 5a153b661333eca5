//! The application: its state machine, and the conversions between its data and the log's payloads.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sprag::{Command, CommandRef, Payload, PayloadRef, Reply, StateMachine};
use thiserror::Error;

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

/// An application: its state machine, and the conversions between its data and entries of the log.
///
/// `D` is the data of a command, and `R` the response to it. [`KeyValue`] and [`Opaque`] suit most
/// applications.
pub trait Application<D, R>: Send + Sync + 'static {
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
    fn payload<'a>(data: &'a D, scratch: &'a mut Scratch<'a>) -> Result<Payload<'a>, DataError>;

    /// The data of a payload, for entries that are read from the log and sent to followers.
    ///
    /// # Errors
    ///
    /// Returns [`DataError`].
    fn data(payload: &PayloadRef<'_>) -> Result<D, DataError>;

    /// The client's response. It is also called for entries without data, whose reply is
    /// [`Reply::Applied`].
    fn response(reply: Reply) -> R;
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

impl<D, R, M> Application<D, R> for KeyValue<M>
where
    D: KeyValueData,
    R: From<Reply>,
    M: StateMachine,
{
    type Machine = M;

    fn payload<'a>(data: &'a D, scratch: &'a mut Scratch<'a>) -> Result<Payload<'a>, DataError> {
        Ok(Payload::Command(data.command(&mut scratch.commands)))
    }

    fn data(payload: &PayloadRef<'_>) -> Result<D, DataError> {
        let PayloadRef::Command(command) = payload else { return Err(DataError::Foreign) };
        D::from_command(command).ok_or(DataError::Foreign)
    }

    fn response(reply: Reply) -> R {
        reply.into()
    }
}

/// An application with a state machine of its own, a [`Journaled`](sprag::Journaled)`<M>`, which
/// gets the data as
/// [`Payload::Opaque`]: encoded by [`encode`], to be read by [`decode`].
#[derive(Debug)]
pub struct Opaque<M>(PhantomData<fn() -> M>);

impl<D, R, M> Application<D, R> for Opaque<M>
where
    D: Serialize + DeserializeOwned,
    R: From<Reply>,
    M: StateMachine,
{
    type Machine = M;

    fn payload<'a>(data: &'a D, scratch: &'a mut Scratch<'a>) -> Result<Payload<'a>, DataError> {
        scratch.bytes = encode(data)?;
        Ok(Payload::Opaque(&scratch.bytes))
    }

    fn data(payload: &PayloadRef<'_>) -> Result<D, DataError> {
        let PayloadRef::Opaque(bytes) = payload else { return Err(DataError::Foreign) };
        decode(bytes)
    }

    fn response(reply: Reply) -> R {
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
