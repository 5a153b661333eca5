//! The options of an open log.

use crate::config::{CommitMode, CompactionPolicy, Contiguity, Durability};

/// The options that a log was opened with; the first two are from META.
#[derive(Debug)]
pub(crate) struct LogSettings {
    pub(crate) commit_mode: CommitMode,
    pub(crate) contiguity: Contiguity,
    pub(crate) durability: Durability,
    /// Most memory of the log in bytes, without its queue.
    pub(crate) memory_bytes: usize,
    /// Number of the last entries that a compaction leaves in the log.
    pub(crate) retain_entries: u64,
    pub(crate) snapshot_chunk_bytes: usize,
    /// The policy of automatic compaction.
    pub(crate) compaction: Option<CompactionPolicy>,
}
