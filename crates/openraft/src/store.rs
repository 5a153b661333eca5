//! What the log and the state machine of one node share: the engine, and what is kept beside its log.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use openraft::{AnyError, ErrorSubject, ErrorVerb, LogId, StorageError, StorageIOError, Vote};
use serde::{Deserialize, Serialize};
use sprag::error::{LogError, OpenError, ViewError, WaitError};
use sprag::{
    AcknowledgedLogId, ApplyConfig, ApplyManager, ApplyStats, CommitMode, Contiguity,
    PersistentConfig, Stage, StateMachine, View,
};
use tokio::sync::{RwLock, watch};

use crate::log::LogStore;
use crate::snapshot::Arriving;
use crate::state_machine::StateMachineStore;
use crate::types::{Application, NodeTag, Types, decode, encode, to_sprag};

/// How long a call waits for the disk before it says so and waits on. A wait that gave up would cancel nothing, and end the
/// node; what will never be done shows as a poisoned engine.
const PATIENCE: Duration = Duration::from_secs(60);

/// For what cannot be waited for again, as its replies would be lost.
pub(crate) const NO_LIMIT: Duration = Duration::MAX;

/// The options of a data directory for a node: the defaults of sprag, with a log that openraft commits.
///
/// A command that no node could have (an empty key, a batch in a batch, more than the highest limits) is rejected. One that only this
/// node has no room for, as its limits are lowered or its segments shorter than the longest entry, stops it: have
/// the same of both on all nodes, and segments longer than what clients may send.
///
/// Change what you like of it but [`commit_mode`](PersistentConfig::commit_mode) and
/// [`contiguity`](PersistentConfig::contiguity), set no [`compaction`](PersistentConfig::compaction) policy (openraft has its
/// own), and open the machine with it.
pub fn config(path: impl Into<std::path::PathBuf>) -> PersistentConfig {
    PersistentConfig::new(path).commit_mode(CommitMode::ByCommit).contiguity(Contiguity::Monotone)
}

/// One node's storage, in the two halves that openraft takes, and a reader for the application.
#[derive(Debug)]
pub struct Store<C: Types, A: Application<C>> {
    /// For [`Raft::new`](openraft::Raft::new).
    pub log: LogStore<C, A>,
    /// For [`Raft::new`](openraft::Raft::new).
    pub state_machine: StateMachineStore<C, A>,
    /// For the application: reads the state, and says how the engine is.
    pub handle: Handle<C, A>,
}

/// The application's side of a node's storage; cheap to clone, usable from any thread, also while openraft has the store.
#[derive(Debug)]
pub struct Handle<C: Types, A: Application<C>>(Arc<Shared<C, A>>);

impl<C: Types, A: Application<C>> Clone for Handle<C, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Types, A: Application<C>> Handle<C, A> {
    /// The state machine, to read what is applied here. A read that has to see everything committed asks openraft first
    /// ([`ensure_linearizable`](openraft::Raft::ensure_linearizable)).
    #[must_use]
    pub fn machine(&self) -> &A::Machine {
        self.0.manager.machine()
    }

    /// Figures and watermarks of the engine.
    #[must_use]
    pub fn stats(&self) -> ApplyStats {
        self.0.manager.stats()
    }

    /// Blocks until a named watermark of this node covers the entry with this log id, and not another entry of its index.
    ///
    /// # Errors
    ///
    /// [`WaitError`], as [`ApplyManager::wait_for_log_id`] has it: [`Replaced`](WaitError::Replaced) and
    /// [`Truncated`](WaitError::Truncated) if another leader's entry took the index, [`NoLongerKnown`](WaitError::NoLongerKnown)
    /// below what the log remembers.
    pub fn wait_for_log_id(
        &self,
        log_id: &LogId<C::NodeId>,
        stage: Stage,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        self.0.manager.wait_for_log_id(to_sprag(log_id), stage, timeout)
    }

    /// The same as a future, for [`Stage::Acknowledged`]: applied here, and as safe as the durability mode asks. It does not
    /// keep the store.
    #[must_use = "a future does nothing until it is polled"]
    pub fn acknowledged_log_id(&self, log_id: &LogId<C::NodeId>) -> AcknowledgedLogId {
        self.0.manager.acknowledged_log_id(to_sprag(log_id))
    }

    /// Completes when everything of the store is dropped, this handle and its clones included, and the directory is free
    /// (but for a [`Value`](sprag::Value), a [`View`](sprag::View) or a [`SnapshotFile`](crate::SnapshotFile) that somebody
    /// holds).
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut gone = self.0.gone.subscribe();
        async move { while gone.changed().await.is_ok() {} }
    }

    /// The state of a key-value machine at one exact index.
    ///
    /// # Errors
    ///
    /// [`ViewError`], as [`ApplyManager::view`] has it.
    pub fn view(&self) -> Result<View, ViewError> {
        self.0.manager.view()
    }
}

impl<C: Types, A: Application<C>> Store<C, A> {
    /// Takes over a machine that was opened with [`config`], and starts its workers.
    ///
    /// The directory stays locked until both halves, what openraft made of them, and all handles are dropped.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; [`OpenError::Config`] for a machine without a log, or that was not opened with such options, or with a
    /// [`compaction`](PersistentConfig::compaction) policy, or whose hard state is not of such a node.
    pub fn new(machine: A::Machine, apply: ApplyConfig) -> Result<Self, OpenError> {
        Self::with_patience(machine, apply, PATIENCE)
    }

    pub(crate) fn with_patience(
        machine: A::Machine,
        apply: ApplyConfig,
        patience: Duration,
    ) -> Result<Self, OpenError> {
        let refuse = |message: String| OpenError::Config { option: "state machine", message };
        let manager = ApplyManager::new(machine, apply)?;
        let log = manager.log_options().map_err(|error| refuse(error.to_string()))?;
        if log.commit_mode != CommitMode::ByCommit || log.contiguity != Contiguity::Monotone {
            return Err(refuse(
                "it was not opened with the options of sprag_openraft::config".to_owned(),
            ));
        }
        if log.compacts {
            let message = "it compacts by itself: openraft says what of the log may go";
            return Err(refuse(message.to_owned()));
        }
        let kept = manager.hard_state().map_err(|error| refuse(error.to_string()))?;
        let mut kept: Kept<C::NodeId> = match kept {
            Some(bytes) => decode(&bytes).map_err(|error| refuse(error.to_string()))?,
            None => Kept::default(),
        };
        // What the state does not have is not gone, whatever was said before: the log has it, or nobody here.
        let applied = manager.machine().applied().map(|applied| applied.index);
        kept.purged = kept.purged.filter(|purged| Some(purged.index) <= applied);
        let shared = Arc::new(Shared {
            manager,
            patience,
            kept: Mutex::new(kept),
            purged_in_memory: Mutex::default(),
            rejected: Mutex::default(),
            saving: Mutex::default(),
            arriving: Mutex::default(),
            installing: RwLock::default(),
            installs: watch::Sender::new(Installs::Possible),
            gone: watch::Sender::new(()),
        });
        let log = LogStore::new(Arc::clone(&shared));
        let log = log.map_err(|error| refuse(format!("starting a thread: {error}")))?;
        let state_machine = StateMachineStore::new(Arc::clone(&shared));
        Ok(Self { log, state_machine, handle: Handle(shared) })
    }
}

/// What is kept in the hard state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) struct Kept<N: NodeTag> {
    pub(crate) vote: Option<Vote<N>>,
    /// As of the last time that something else here changed. The log's own frames say it too, and for good.
    pub(crate) committed: Option<LogId<N>>,
    /// Up to here the log is gone for openraft; of the log itself only whole segments go, when a snapshot covers them. Never
    /// past the state.
    pub(crate) purged: Option<LogId<N>>,
}

impl<N: NodeTag> Default for Kept<N> {
    fn default() -> Self {
        Self { vote: None, committed: None, purged: None }
    }
}

/// What there is to hope for where a snapshot is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Installs {
    /// It may come.
    Possible,
    /// Installing one failed, or openraft has given up the state machine.
    Ended,
}

pub(crate) struct Shared<C: Types, A: Application<C>> {
    pub(crate) manager: ApplyManager<A::Machine>,
    pub(crate) patience: Duration,
    pub(crate) kept: Mutex<Kept<C::NodeId>>,
    /// Held from a change of `kept` until it is durable.
    saving: Mutex<()>,
    /// As [`Kept::purged`], of what the state does not have yet: a restart must not know of it.
    purged_in_memory: Mutex<Option<LogId<C::NodeId>>>,
    /// Indexes of commands that cannot be entries, and are in the log as entries without data, until they are applied and the
    /// client is told. A node that did not take them from the client has nobody to tell.
    rejected: Mutex<BTreeSet<u64>>,
    /// The last snapshot that began to arrive. Openraft may begin with the next before it lets go of this one.
    pub(crate) arriving: Mutex<Weak<Arriving>>,
    /// Written while a snapshot is being installed, read while entries are appended.
    pub(crate) installing: RwLock<()>,
    /// Written when something was applied or installed, or when nothing more will be.
    pub(crate) installs: watch::Sender<Installs>,
    /// Dropped last, when the engine has ended.
    pub(crate) gone: watch::Sender<()>,
}

impl<C: Types, A: Application<C>> std::fmt::Debug for Shared<C, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("kept", &*self.lock_kept()).finish_non_exhaustive()
    }
}

impl<C: Types, A: Application<C>> Shared<C, A> {
    pub(crate) fn lock_kept(&self) -> MutexGuard<'_, Kept<C::NodeId>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_purged_in_memory(&self) -> MutexGuard<'_, Option<LogId<C::NodeId>>> {
        self.purged_in_memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_rejected(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is kept, durably. Waits for what was appended before.
    pub(crate) fn keep(
        &self,
        change: impl FnOnce(&mut Kept<C::NodeId>),
        subject: ErrorSubject<C::NodeId>,
    ) -> Result<(), StorageError<C::NodeId>> {
        // Of two changes the one that has both is saved last: an older vote must not come back.
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = {
            let mut kept = self.lock_kept();
            change(&mut kept);
            encode(&*kept)
        };
        let bytes = bytes.map_err(|error| failed(subject.clone(), ErrorVerb::Write, &error))?;
        self.patiently(|_| self.manager.save_hard_state(&bytes))
            .map_err(|error| failed(subject, ErrorVerb::Write, &error))
    }

    /// Makes everything that was appended durable.
    pub(crate) fn sync(&self) -> Result<(), LogError> {
        self.patiently(|patience| self.manager.sync(patience))
    }

    /// Does again what took too long, however often.
    pub(crate) fn patiently<T>(
        &self,
        call: impl Fn(Duration) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        loop {
            match call(self.patience) {
                Err(LogError::Timeout(error)) => {
                    tracing::warn!(%error, "the disk is slow: waiting on")
                }
                done => return done,
            }
        }
    }
}

/// An error of this storage as openraft's. Sprag's errors carry indexes and lengths, never keys or values.
pub(crate) fn failed<N: NodeTag>(
    subject: ErrorSubject<N>,
    verb: ErrorVerb,
    error: &(impl std::error::Error + 'static),
) -> StorageError<N> {
    StorageIOError::new(subject, verb, AnyError::new(error)).into()
}

/// Runs what may wait on a thread on which waiting is allowed.
pub(crate) async fn blocking<N: NodeTag, T: Send + 'static>(
    subject: ErrorSubject<N>,
    run: impl FnOnce() -> Result<T, StorageError<N>> + Send + 'static,
) -> Result<T, StorageError<N>> {
    match tokio::task::spawn_blocking(run).await {
        Ok(result) => result,
        Err(error) => Err(failed(subject, ErrorVerb::Write, &error)),
    }
}
