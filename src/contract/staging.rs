//! How an engine commits what a machine over a storage applied.

use std::time::Duration;

use crate::config::Durability;
use crate::entry::LogId;
use crate::error::Fatal;

/// The interface by which an engine lets a machine over a [`Storage`](crate::Storage) commit many
/// applied entries at once.
///
/// Such a machine has one partition. The engine calls `apply` with ranges, and then `commit`;
/// watermarks and replies move after the commit. The thread in the worker's post makes all calls
/// except `sync` and `durable`.
#[doc(hidden)]
pub trait Staging: Send + Sync {
    /// Tells the machine that the engine will call `commit`. Until then each `apply` commits, for
    /// callers that only know `apply`.
    fn begin(&self) {}
    /// Most entries that are applied before a commit.
    fn batch_size(&self) -> usize;
    /// Time that fewer entries wait for more.
    fn batch_interval(&self) -> Duration;
    /// Returns the moment of an acknowledgement, in an engine without a log.
    fn durability(&self) -> Durability;
    /// Tells the machine that our log makes entries durable, so commits need no sync. It is called
    /// once, at open.
    fn leave_syncs_to_log(&self);
    /// Commits everything applied since the last call. Returns whether everything committed so far
    /// is durable.
    #[allow(clippy::missing_errors_doc, reason = "not called from outside")]
    fn commit(&self) -> Result<bool, Fatal>;
    /// Makes everything committed durable.
    #[allow(clippy::missing_errors_doc, reason = "not called from outside")]
    fn sync(&self) -> Result<(), Fatal>;
    /// The last durable entry in the storage.
    fn durable(&self) -> Option<LogId>;
}
