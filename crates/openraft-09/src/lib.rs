//! sprag under openraft 0.9: log, state machine and snapshots of a node, in one data directory.
//!
//! The log of openraft *is* the log of the engine. A command's bytes go to disk once, when they are
//! appended. Applying moves no value, and the state machine needs no sync.
//!
//! [`Store::new`] takes a machine that was opened with [`config`]. It returns the two halves that
//! [`openraft::Raft::new`] takes:
//!
//! ```
//! use openraft::declare_raft_types;
//! use sprag::{ApplyConfig, PersistentStateMachine};
//! use sprag_openraft_09::{KeyValue, Request, Response, SnapshotFile, Store};
//!
//! declare_raft_types!(
//!     /// A key-value node.
//!     pub Node: D = Request, R = Response, SnapshotData = SnapshotFile
//! );
//!
//! # let directory = std::env::temp_dir().join(format!("sprag-openraft-09-{}", std::process::id()));
//! let machine = PersistentStateMachine::open(sprag_openraft_09::config(&directory))?;
//! let store = Store::<Node, KeyValue<PersistentStateMachine>>::new(machine, ApplyConfig::new())?;
//! // openraft::Raft::new(id, raft_config, network, store.log, store.state_machine).await
//! assert_eq!(store.handle.machine().get(b"key")?.as_deref(), None);
//! # drop(store);
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | of openraft | is |
//! |---|---|
//! | `append` | done when the entries are readable; the thread that synced them makes the callback |
//! | `save_vote` | done when it is on stable storage; no thread of the runtime waits |
//! | `apply` | done when it is in the state, for every partition |
//! | `save_committed` | kept, and on disk with the frames of the log that follow |
//! | membership, last applied log id | in the state, atomically with the entry they come from |
//! | a snapshot | of the entry at which openraft asked for it; built, read and sent beside apply |
//! | `purge` | done at once for openraft; the files go when a snapshot covers whole segments |
//!
//! An application is an [`Application`]. [`KeyValue`] takes commands of the key-value machines.
//! [`Opaque`] takes any data that serde can serialize, and your own state machine. Openraft must be
//! built without its feature `single-term-leader`: a log id has the leader's node in it.

#![allow(clippy::result_large_err, reason = "openraft's StorageError is what its traits return")]

mod log;
mod state_machine;
mod store;
mod types;
#[cfg(test)]
mod waiting_tests;

pub use log::{LogReader, LogStore};
pub use sprag_raft_store::{
    Application, DataError, KeyValue, KeyValueData, NodeTag, Opaque, Reason, Request, Response,
    Scratch, SnapshotFile, config, decode, encode,
};
pub use state_machine::{SnapshotBuilder, StateMachineStore, to_snapshot};
pub use store::{Handle, Store};
pub use types::{Openraft, Types};
