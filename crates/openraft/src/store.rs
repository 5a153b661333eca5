//! State that the log and the state machine of one node share: the engine, and values kept beside
//! its log.

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

/// Time that a call waits for the disk before it logs that and continues to wait. A call that gave
/// up would cancel nothing, and end the node. An operation that can never finish shows as a
/// poisoned engine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Timeout of waits that cannot be repeated, because their replies would be lost.
pub(crate) const NO_LIMIT: Duration = Duration::MAX;

/// Makes the options of a node's data directory: sprag's defaults, with a log that openraft
/// commits.
///
/// A command that no node can take (an empty key, a batch in a batch, more than the highest limits)
/// is rejected. A command that only this node has no room for stops the node: its limits are lower,
/// or its segments shorter than the longest entry. Give all nodes the same limits and segment
/// lengths, and make segments longer than what clients may send.
///
/// You may change every option but [`commit_mode`](PersistentConfig::commit_mode) and
/// [`contiguity`](PersistentConfig::contiguity). Set no
/// [`compaction`](PersistentConfig::compaction) policy, because openraft has its own. Open the
/// machine with the result.
pub fn config(path: impl Into<std::path::PathBuf>) -> PersistentConfig {
    PersistentConfig::new(path).commit_mode(CommitMode::ByCommit).contiguity(Contiguity::Monotone)
}

/// One node's storage: the two halves that openraft takes, and a handle for the application.
#[derive(Debug)]
pub struct Store<C: Types, A: Application<C>> {
    /// The log, for [`Raft::new`](openraft::Raft::new).
    pub log: LogStore<C, A>,
    /// The state machine, for [`Raft::new`](openraft::Raft::new).
    pub state_machine: StateMachineStore<C, A>,
    /// The handle for the application: it reads the state and the engine's figures.
    pub handle: Handle<C, A>,
}

/// The application's side of a node's storage. It is cheap to clone and usable from any thread,
/// also while openraft has the store.
#[derive(Debug)]
pub struct Handle<C: Types, A: Application<C>>(Arc<Shared<C, A>>);

impl<C: Types, A: Application<C>> Clone for Handle<C, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Types, A: Application<C>> Handle<C, A> {
    /// The state machine, for reads of entries that this node has applied. A read that must see
    /// everything committed asks openraft first
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

    /// Blocks until a watermark of this node covers the entry with this log id. Another entry of
    /// the same index does not count.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError`], as [`ApplyManager::wait_for_log_id`] does. It is
    /// [`Replaced`](WaitError::Replaced) or [`Truncated`](WaitError::Truncated) if another leader's
    /// entry took the index, and [`NoLongerKnown`](WaitError::NoLongerKnown) below what the log
    /// remembers.
    pub fn wait_for_log_id(
        &self,
        log_id: &LogId<C::NodeId>,
        stage: Stage,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        self.0.manager.wait_for_log_id(to_sprag(log_id), stage, timeout)
    }

    /// A future that waits for [`Stage::Acknowledged`]: the entry is applied here, and as safe as
    /// the durability mode asks. The future does not keep the store open.
    #[must_use = "a future does nothing until it is polled"]
    pub fn acknowledged_log_id(&self, log_id: &LogId<C::NodeId>) -> AcknowledgedLogId {
        self.0.manager.acknowledged_log_id(to_sprag(log_id))
    }

    /// A future that completes when the store and all its handles are dropped, and the directory is
    /// free. A [`Value`](sprag::Value), [`View`](sprag::View) or
    /// [`SnapshotFile`](crate::SnapshotFile) that is still alive keeps the directory locked.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut gone = self.0.gone.subscribe();
        async move { while gone.changed().await.is_ok() {} }
    }

    /// The state of a key-value machine at one exact index.
    ///
    /// # Errors
    ///
    /// Returns [`ViewError`], as [`Snapshots::view`](sprag::Snapshots::view) does.
    pub fn view(&self) -> Result<View, ViewError> {
        self.0.manager.snapshots().view()
    }
}

impl<C: Types, A: Application<C>> Store<C, A> {
    /// Takes over a machine that was opened with [`config`], and starts its workers.
    ///
    /// The directory stays locked until both halves, openraft's copies of them, and all handles are
    /// dropped.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError`]. It is [`OpenError::Config`] for a machine without a log, with other
    /// options than [`config`] gives, or with a [`compaction`](PersistentConfig::compaction)
    /// policy. It is the same error if the hard state belongs to another kind of node.
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
        let log = manager.log().map_err(|error| refuse(error.to_string()))?;
        let options = log.options();
        if options.commit_mode != CommitMode::ByCommit || options.contiguity != Contiguity::Monotone
        {
            return Err(refuse(
                "it was not opened with the options of sprag_openraft::config".to_owned(),
            ));
        }
        if options.compacts {
            let message = "it compacts by itself: openraft says what of the log may go";
            return Err(refuse(message.to_owned()));
        }
        let kept = log.hard_state().map_err(|error| refuse(error.to_string()))?;
        let mut kept: Kept<C::NodeId> = match kept {
            Some(bytes) => decode(&bytes).map_err(|error| refuse(error.to_string()))?,
            None => Kept::default(),
        };
        // An entry that the state lacks is not purged, whatever openraft was told before: the log
        // has it, or no file here does.
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

/// The content of the hard state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) struct Kept<N: NodeTag> {
    pub(crate) vote: Option<Vote<N>>,
    /// The committed log id when another field here changed last. The frames of the log record it
    /// too, and lastingly.
    pub(crate) committed: Option<LogId<N>>,
    /// The last log id that openraft has purged. The log itself removes only whole segments that a
    /// snapshot covers. The value is never past the state.
    pub(crate) purged: Option<LogId<N>>,
}

impl<N: NodeTag> Default for Kept<N> {
    fn default() -> Self {
        Self { vote: None, committed: None, purged: None }
    }
}

/// Prospects of a snapshot that is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Installs {
    /// A snapshot may still be installed.
    Possible,
    /// An installation failed, or openraft has dropped the state machine.
    Ended,
}

pub(crate) struct Shared<C: Types, A: Application<C>> {
    pub(crate) manager: ApplyManager<A::Machine>,
    pub(crate) patience: Duration,
    pub(crate) kept: Mutex<Kept<C::NodeId>>,
    /// Lock that is held from a change of `kept` until the change is durable.
    saving: Mutex<()>,
    /// The purged log id as [`Kept::purged`] has it, for entries that the state does not have yet.
    /// A restart must not know of it.
    purged_in_memory: Mutex<Option<LogId<C::NodeId>>>,
    /// Indexes of commands that cannot be entries. The log has them as entries without data until
    /// they are applied and the client has its answer. A node that did not take the command from a
    /// client has no client to answer.
    rejected: Mutex<BTreeSet<u64>>,
    /// The last snapshot that began to arrive. Openraft may begin with the next one before it
    /// releases this one.
    pub(crate) arriving: Mutex<Weak<Arriving>>,
    /// Locked for writing while a snapshot is installed, and for reading while entries are
    /// appended.
    pub(crate) installing: RwLock<()>,
    /// Notified when something was applied or installed, or when nothing more will be.
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

    /// Changes the hard state, durably. Waits for everything appended before.
    pub(crate) fn keep(
        &self,
        change: impl FnOnce(&mut Kept<C::NodeId>),
        subject: ErrorSubject<C::NodeId>,
    ) -> Result<(), StorageError<C::NodeId>> {
        // The lock makes the later of two changes the last one saved, so that an older vote cannot
        // return.
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = {
            let mut kept = self.lock_kept();
            change(&mut kept);
            encode(&*kept)
        };
        let bytes = bytes.map_err(|error| failed(subject.clone(), ErrorVerb::Write, &error))?;
        self.patiently(|_| self.manager.log()?.save_hard_state(&bytes))
            .map_err(|error| failed(subject, ErrorVerb::Write, &error))
    }

    /// Makes everything that was appended durable.
    pub(crate) fn sync(&self) -> Result<(), LogError> {
        self.patiently(|patience| self.manager.log()?.sync(patience))
    }

    /// Repeats a call that timed out, without a limit.
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

/// Converts an error of this storage into openraft's. Sprag's errors carry indexes and lengths,
/// never keys or values.
pub(crate) fn failed<N: NodeTag>(
    subject: ErrorSubject<N>,
    verb: ErrorVerb,
    error: &(impl std::error::Error + 'static),
) -> StorageError<N> {
    StorageIOError::new(subject, verb, AnyError::new(error)).into()
}

/// Runs a blocking call on a thread that may block.
pub(crate) async fn blocking<N: NodeTag, T: Send + 'static>(
    subject: ErrorSubject<N>,
    run: impl FnOnce() -> Result<T, StorageError<N>> + Send + 'static,
) -> Result<T, StorageError<N>> {
    match tokio::task::spawn_blocking(run).await {
        Ok(result) => result,
        Err(error) => Err(failed(subject, ErrorVerb::Write, &error)),
    }
}
