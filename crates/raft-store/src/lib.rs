//! The storage of a Raft node in one sprag directory: log, hard state, state machine, snapshots.
//!
//! The crate has no types of a Raft library. `sprag-openraft` and `sprag-openraft-09` implement the
//! traits of openraft 0.10 and 0.9 over it. Both write the same bytes, so a directory opens under
//! either.
//!
//! An adapter implements [`Consensus`], opens a [`Node`], and calls its methods. Calls on a
//! command's path wait through futures: [`Node::append`], [`Node::apply`], and reads of the last
//! entries. They neither block nor move to another thread. Calls that read or write files at length
//! run on tokio's blocking pool.

mod append;
mod apply;
mod arriving;
mod command;
mod consensus;
mod data;
mod failure;
mod handle;
mod hard;
mod lease;
mod node;
mod read;
mod snapshot;
mod snapshots;
mod tail;

pub use command::{Reason, Request, Response};
pub use consensus::{Consensus, NodeTag, RaftLogId, RaftVote};
pub use data::{Application, DataError, KeyValue, KeyValueData, Opaque, Scratch, decode, encode};
pub use failure::{Action, Failure, Subject};
pub use handle::Handle;
pub use node::{Node, PATIENCE, config};
pub use read::bounds;
pub use snapshot::SnapshotFile;
pub use snapshots::View;
