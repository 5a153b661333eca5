//! The failure after which an engine does nothing more.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use thiserror::Error;

use super::LockLost;

/// The sticky first failure of an engine. No step begins after it, and reads fail. A step that had
/// begun may complete, and what it completes is acknowledged. Only opening the directory anew ends
/// this state: it recovers everything acknowledged, and maybe more.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Poison {
    /// A write or sync of the log, of `META`, of `HARD`, or of the directory failed.
    #[error("{action} {file} failed ({}): {source}", describe_io(source))]
    Io {
        /// The operation.
        action: &'static str,
        /// The file of the directory.
        file: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The directory no longer belongs to this process. It or its lock file was moved or replaced,
    /// or the caller is in a child that `fork` made. Nothing was written.
    #[error(transparent)]
    LockLost(#[from] LockLost),
    /// A state machine panicked.
    #[error("the state machine panicked at the entry of index {index}")]
    Panic {
        /// Index of the entry that was being applied, or of the first entry of the batch that its
        /// storage was committing.
        index: u64,
    },
    /// A state machine returned that it cannot continue.
    #[error("the state machine failed at the entry of index {index}: {message}")]
    Fatal {
        /// Index of the entry that was being applied, or of the first entry of the batch that its
        /// storage failed to commit or to sync.
        index: u64,
        /// The machine's message.
        message: String,
    },
    /// A snapshot to install could not be made durable, or the snapshot that the directory was
    /// opened from cannot be read back.
    #[error("a snapshot could not be used: {message}; open the directory again")]
    Snapshot {
        /// The reason.
        message: String,
    },
    /// A move would have broken an order of the engine's own numbers, and was not made. This is a
    /// defect of sprag; please report it.
    #[error(
        "the invariant \"{invariant}\" would not hold ({found}), so nothing was moved; please report this, and open the \
         directory again"
    )]
    Invariant {
        /// The order that has to hold.
        invariant: &'static str,
        /// The numbers that break it.
        found: String,
    },
    /// The engine is in a state that must be impossible. This is a defect of sprag; please report
    /// it.
    #[error("an internal invariant does not hold: {0}")]
    Internal(&'static str),
}

impl Poison {
    /// Wraps an I/O error with the operation and the file.
    pub(crate) fn io(action: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        match LockLost::of(&source) {
            Some(lost) => Self::LockLost(lost),
            None => Self::Io { action, file: file.into(), source: Arc::new(source) },
        }
    }

    /// A broken invariant of the engine. A path without failure calls this lazily: a poison made
    /// for nothing must be dropped, which costs some ten instructions.
    #[cold]
    pub(crate) fn internal(invariant: &'static str) -> Self {
        Self::Internal(invariant)
    }

    /// Every word that [`reason`](Poison::reason) can return.
    pub const REASONS: [&str; 7] =
        ["disk_full", "io", "lock_lost", "panic", "fatal", "snapshot", "internal"];

    /// One word for the kind of failure, for a label of a metric: one of
    /// [`REASONS`](Poison::REASONS).
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Io { .. } if self.is_disk_full() => "disk_full",
            Self::Io { .. } => "io",
            Self::LockLost(_) => "lock_lost",
            Self::Panic { .. } => "panic",
            Self::Fatal { .. } => "fatal",
            Self::Snapshot { .. } => "snapshot",
            Self::Invariant { .. } | Self::Internal(_) => "internal",
        }
    }

    /// Whether the disk (or a quota) was full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_disk_full(source))
    }
}

/// Whether an I/O error means that no space is left.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether an I/O error means that no descriptor is left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// The limit of the process or of the system behind an I/O error, and how to raise it.
pub(crate) fn limit_of(error: &io::Error) -> Option<&'static str> {
    let errno = Errno::from_io_error(error);
    Some(match errno {
        _ if is_disk_full(error) => "the disk is full",
        Some(Errno::MFILE) => {
            "this process has as many files open as RLIMIT_NOFILE allows: raise it (ulimit -n)"
        }
        Some(Errno::NFILE) => "the system has as many files open as fs.file-max allows: raise it",
        Some(Errno::FBIG) => {
            "the file would be longer than RLIMIT_FSIZE (ulimit -f) or the file system allows: raise it"
        }
        Some(Errno::NOMEM) => {
            "no memory, address space or mapping is left: raise RLIMIT_AS (ulimit -v) or vm.max_map_count"
        }
        Some(Errno::AGAIN) => {
            "no thread or locked memory is left: raise RLIMIT_NPROC (ulimit -u), pids.max or RLIMIT_MEMLOCK"
        }
        _ => return None,
    })
}

/// The limit behind an I/O error, as a suffix of a message.
pub(crate) fn what_limit(error: &io::Error) -> String {
    limit_of(error).map_or(String::new(), |limit| format!(" ({limit})"))
}

fn describe_io(error: &io::Error) -> String {
    match limit_of(error) {
        Some(limit) if is_disk_full(error) => format!(
            "{limit}; what was acknowledged is safe: make room and open the directory again"
        ),
        Some(limit) => {
            format!("{limit}; what was acknowledged is safe: open the directory again after that")
        }
        None => {
            "what was acknowledged is safe; open the directory again to go on from there".to_owned()
        }
    }
}
