//! What an engine does beside entries: for its log, and for its state as a whole.

// The log on its way to the disk.
pub(crate) mod log;

pub(crate) mod log_waits;

// A storage that is durable without the log.
pub(crate) mod storage;

// Entries that the log does not hold.
pub(crate) mod apply_only;

// The state at one index.
pub(crate) mod views;

// The state in a file, and the log that it covers.
pub(crate) mod snapshots;

pub(crate) mod still;

pub(crate) mod write;

pub(crate) mod compaction;

pub(crate) mod kept;

// The state from another node.
pub(crate) mod install;
