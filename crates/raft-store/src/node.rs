//! State that the log and the state machine of one node share: the engine, and values kept beside
//! its log.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sprag::error::{LogError, OpenError};
use sprag::{
    ApplyConfig, ApplyManager, CommitMode, Contiguity, LogId, PersistentConfig, StateMachine,
};
use tokio::sync::{RwLock, watch};

use crate::arriving::Arriving;
use crate::consensus::{Consensus, RaftLogId, RaftVote};
use crate::data::{decode, encode};
use crate::failure::{Action, Failure, Subject};
use crate::handle::Handle;
use crate::hard::HardState;
use crate::lease::Leases;
use crate::tail::Tail;

/// Time that a call waits for the disk before it logs that and continues to wait. A call that gave
/// up would cancel nothing, and end the node. An operation that can never finish shows as a
/// poisoned engine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Timeout of waits that cannot be repeated, because their replies would be lost.
pub(crate) const NO_LIMIT: Duration = Duration::MAX;

/// Most bytes of entries that are kept in memory for readers.
const TAIL_BYTES_MAX: usize = 16 << 20;

/// Makes the options of a node's data directory: sprag's defaults, with a log that its
/// Raft library commits.
///
/// A command that no node can take (an empty key, a batch in a batch, more than the highest limits)
/// is rejected. A command that only this node has no room for stops the node: its limits are lower,
/// or its segments shorter than the longest entry. Give all nodes the same limits and segment
/// lengths, and make segments longer than what clients may send.
///
/// You may change every option but [`commit_mode`](PersistentConfig::commit_mode) and
/// [`contiguity`](PersistentConfig::contiguity). Set no
/// [`compaction`](PersistentConfig::compaction) policy, because the Raft library has its own.
/// Open the machine with the result.
pub fn config(path: impl Into<std::path::PathBuf>) -> PersistentConfig {
    PersistentConfig::new(path).commit_mode(CommitMode::ByCommit).contiguity(Contiguity::Monotone)
}

/// Prospects of a snapshot that is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Installs {
    /// A snapshot may still be installed.
    Possible,
    /// An installation failed, or the Raft library has dropped the state machine.
    Ended,
}

/// The storage of one node. An adapter shares it between its two halves.
pub struct Node<E: Consensus> {
    pub(crate) manager: ApplyManager<E::Machine>,
    pub(crate) patience: Duration,
    pub(crate) hard: Mutex<HardState<E::NodeId>>,
    /// Lock that is held from a change of `hard` until the change is durable.
    saving: Mutex<()>,
    /// The purged log id as [`HardState::purged`] has it, for entries that the state does not have
    /// yet. A restart must not know of it.
    pub(crate) purged_in_memory: Mutex<Option<RaftLogId<E::NodeId>>>,
    /// Indexes of commands that cannot be entries. The log has them as entries without data until
    /// they are applied and the client has its answer. A node that did not take the command from a
    /// client has no client to answer.
    pub(crate) rejected: Mutex<BTreeSet<u64>>,
    /// The last entries of the log.
    pub(crate) tail: Mutex<Tail<E::Entry>>,
    /// The snapshots that began to arrive, the newest last. The Raft library may begin with the
    /// next one before it releases this one.
    pub(crate) arrivals: Mutex<Vec<Weak<Arriving>>>,
    /// The snapshots of this node that are read.
    pub(crate) leases: Leases,
    /// Locked for writing while a snapshot is installed, and for reading while entries are
    /// appended.
    pub(crate) installing: RwLock<()>,
    /// Notified when something was applied or installed, or when nothing more will be.
    pub(crate) installs: watch::Sender<Installs>,
    /// Dropped last, when the engine has ended.
    pub(crate) gone: watch::Sender<()>,
}

impl<E: Consensus> fmt::Debug for Node<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("hard", &*self.hard()).finish_non_exhaustive()
    }
}

impl<E: Consensus> Drop for Node<E> {
    fn drop(&mut self) {
        self.end_transfers();
    }
}

impl<E: Consensus> Node<E> {
    /// Takes over a machine that was opened with [`config`], and starts its workers.
    ///
    /// The directory stays locked until every owner of the node is gone.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError`]. It is [`OpenError::Config`] for a machine without a log, with other
    /// options than [`config`] gives, or with a [`compaction`](PersistentConfig::compaction)
    /// policy. It is the same error if the hard state belongs to another kind of node.
    pub fn open(
        machine: E::Machine,
        apply: ApplyConfig,
        patience: Duration,
    ) -> Result<Arc<Self>, OpenError> {
        let refuse = |message: String| OpenError::Config { option: "state machine", message };
        let manager = ApplyManager::new(machine, apply)?;
        let log = manager.log().map_err(|error| refuse(error.to_string()))?;
        let options = log.options();
        if options.commit_mode != CommitMode::ByCommit || options.contiguity != Contiguity::Monotone
        {
            return Err(refuse("it was not opened with the options of config".to_owned()));
        }
        if options.compacts {
            let message = "it compacts by itself: the Raft library says what of the log may go";
            return Err(refuse(message.to_owned()));
        }
        let hard = log.hard_state().map_err(|error| refuse(error.to_string()))?;
        let mut hard: HardState<E::NodeId> = match hard {
            Some(bytes) => decode(&bytes).map_err(|error| refuse(error.to_string()))?,
            None => HardState::default(),
        };
        // An entry that the state lacks is not purged, whatever the Raft library was told before:
        // the log has it, or no file here does.
        let applied = manager.machine().applied().map(|applied| applied.index);
        hard.purged = hard.purged.filter(|purged| Some(purged.index()) <= applied);
        Ok(Arc::new(Self {
            manager,
            patience,
            hard: Mutex::new(hard),
            purged_in_memory: Mutex::default(),
            rejected: Mutex::default(),
            tail: Mutex::new(Tail::new(TAIL_BYTES_MAX)),
            saving: Mutex::default(),
            arrivals: Mutex::default(),
            leases: Leases::default(),
            installing: RwLock::default(),
            installs: watch::Sender::new(Installs::Possible),
            gone: watch::Sender::new(()),
        }))
    }

    /// A handle for the application.
    #[must_use]
    pub fn handle(self: &Arc<Self>) -> Handle<E> {
        Handle::new(Arc::clone(self))
    }

    /// Reports that no snapshot will be installed any more: the Raft library drops the state
    /// machine. Waiters for an installation would otherwise wait forever.
    pub fn ends_installs(&self) {
        self.installs.send_replace(Installs::Ended);
    }

    /// The vote that was saved last.
    #[must_use]
    pub fn vote(&self) -> Option<RaftVote<E::NodeId>> {
        self.hard().vote.clone()
    }

    /// Makes a vote durable, and everything appended before. Runs on the blocking pool.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`].
    pub async fn save_vote(self: &Arc<Self>, vote: RaftVote<E::NodeId>) -> Result<(), Failure> {
        let node = Arc::clone(self);
        let save = move || node.keep(|hard| hard.vote = Some(vote), Subject::Vote);
        blocking(Subject::Vote, save).await
    }

    /// Keeps the committed log id in memory. The next frame of the log puts it on disk, because a
    /// frame records what was committed when it was written.
    pub fn save_committed(&self, committed: Option<RaftLogId<E::NodeId>>) {
        self.hard().committed = committed;
    }

    /// The committed log id, as far as this node knows.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`].
    pub fn committed(&self) -> Result<Option<RaftLogId<E::NodeId>>, Failure> {
        let kept = self.hard().committed.clone();
        Ok(kept.max(self.applied()?))
    }

    /// The last entry in the state.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`] for a log of another kind of node.
    pub fn applied(&self) -> Result<Option<RaftLogId<E::NodeId>>, Failure> {
        let applied = self.manager.machine().applied().map(RaftLogId::from_sprag).transpose();
        applied.map_err(Failure::of(Subject::StateMachine, Action::Read))
    }

    /// The last membership in the state: its log id, and the bytes of its entry.
    #[must_use]
    pub fn membership(&self) -> Option<(LogId, Vec<u8>)> {
        self.manager.machine().last_membership().map(|(log_id, bytes)| (log_id, bytes.to_vec()))
    }

    pub(crate) fn hard(&self) -> MutexGuard<'_, HardState<E::NodeId>> {
        self.hard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rejected(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tail(&self) -> MutexGuard<'_, Tail<E::Entry>> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the hard state, durably. Waits for everything appended before.
    pub(crate) fn keep(
        &self,
        change: impl FnOnce(&mut HardState<E::NodeId>),
        subject: Subject,
    ) -> Result<(), Failure> {
        // The lock makes the later of two changes the last one saved, so that an older vote cannot
        // return.
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = {
            let mut hard = self.hard();
            change(&mut hard);
            encode(&*hard)
        };
        let bytes = bytes.map_err(Failure::of(subject, Action::Write))?;
        self.patiently(|_| self.manager.log()?.save_hard_state(&bytes))
            .map_err(Failure::of(subject, Action::Write))
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

/// Runs a blocking call, beside the caller: on a thread of its runtime that may block. A caller
/// outside of a runtime runs it itself.
pub(crate) fn beside(run: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(run)),
        Err(_outside) => run(),
    }
}

/// Runs a blocking call on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    subject: Subject,
    run: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(run).await {
        Ok(result) => result,
        Err(error) => Err(Failure::new(subject, Action::Write, error)),
    }
}
