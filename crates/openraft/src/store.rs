//! One node's storage: the halves that openraft takes, and the application's handle.

use std::time::Duration;

use sprag::ApplyConfig;
use sprag::error::OpenError;
use sprag_raft_store::{Application, Node, PATIENCE};

use crate::log::LogStore;
use crate::state_machine::StateMachineStore;
use crate::types::{Openraft, Types};

/// The application's side of a node's storage. It is cheap to clone and usable from any thread,
/// also while openraft has the store.
pub type Handle<C, A> = sprag_raft_store::Handle<Openraft<C, A>>;

/// One node's storage: the two halves that openraft takes, and a handle for the application.
#[derive(Debug)]
pub struct Store<C: Types, A: Application<C::D, C::R>> {
    /// The log, for [`Raft::new`](openraft::Raft::new).
    pub log: LogStore<C, A>,
    /// The state machine, for [`Raft::new`](openraft::Raft::new).
    pub state_machine: StateMachineStore<C, A>,
    /// The handle for the application: it reads the state and the engine's figures.
    pub handle: Handle<C, A>,
}

impl<C: Types, A: Application<C::D, C::R>> Store<C, A> {
    /// Takes over a machine that was opened with [`config`](crate::config), and starts its workers.
    ///
    /// The directory stays locked until both halves, openraft's copies of them, and all handles are
    /// dropped.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError`]. It is [`OpenError::Config`] for a machine without a log, with other
    /// options than [`config`](crate::config) gives, or with a
    /// [`compaction`](sprag::PersistentConfig::compaction) policy. It is the same error if the hard
    /// state belongs to another kind of node.
    pub fn new(machine: A::Machine, apply: ApplyConfig) -> Result<Self, OpenError> {
        Self::with_patience(machine, apply, PATIENCE)
    }

    pub(crate) fn with_patience(
        machine: A::Machine,
        apply: ApplyConfig,
        patience: Duration,
    ) -> Result<Self, OpenError> {
        let node = Node::open(machine, apply, patience)?;
        let handle = node.handle();
        Ok(Self {
            log: LogStore(std::sync::Arc::clone(&node)),
            state_machine: StateMachineStore(node),
            handle,
        })
    }
}
