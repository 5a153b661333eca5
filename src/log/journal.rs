//! The journal into which an engine encodes entries: a log on a disk, or memory.

use std::sync::Arc;

use super::Log;
use super::appender::{Appender, AppenderConfig, LogPosition};
use super::figures::MemoryStats;
use super::pool::ImagePool;
use crate::codec::{FRAME_BYTES_MAX, Limits};
use crate::config::Contiguity;
use crate::entry::LogId;
use crate::error::OpenError;
use crate::numbers::SegmentNumber;
use crate::places::table::SegmentTable;
use crate::poison::PoisonCell;
use crate::progress::watermark::{AckRule, StartMarks};

/// The journal into which the apply manager encodes entries: our log, or memory only.
///
/// An embedder's state machine has [`Journal::memory`], the default of the trait.
#[derive(Clone, Debug)]
pub struct Journal(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Memory(MemoryJournal),
    Log(Arc<Log>),
}

/// Frames in pooled memory, reused as soon as they are applied.
#[derive(Clone, Debug)]
pub(crate) struct MemoryJournal {
    pub(crate) limits: Limits,
    pub(crate) frame_entries_max: u32,
    pub(crate) frame_bytes_max: usize,
    pub(crate) poison: Arc<PoisonCell>,
}

/// Length of an image of a memory journal, and their number: enough to keep submitter and workers
/// apart, and small enough for the cache.
const MEMORY_IMAGE_BYTES: usize = 1 << 20;
const MEMORY_IMAGES: usize = 16;
/// Bytes that all entries larger than such an image may take together.
const MEMORY_OVERSIZE_BYTES: usize = 2 * (FRAME_BYTES_MAX + (1 << 20));

/// The parts of a journal that an engine is built on.
pub(crate) struct JournalParts {
    pub(crate) appender: Appender,
    pub(crate) log: Option<Arc<Log>>,
    pub(crate) table: Arc<SegmentTable>,
    pub(crate) rule: AckRule,
    pub(crate) start: StartMarks,
    pub(crate) poison: Arc<PoisonCell>,
    /// Memory of the log; the engine adds its own.
    pub(crate) memory: MemoryStats,
}

impl Journal {
    /// Makes a journal in memory: nothing is written, and entries are gone once they are applied.
    #[must_use]
    pub fn memory() -> Self {
        Self::memory_with(MemoryJournal {
            limits: Limits::new(),
            frame_entries_max: 128,
            frame_bytes_max: 256 << 10,
            poison: Arc::default(),
        })
    }

    pub(crate) fn memory_with(journal: MemoryJournal) -> Self {
        Self(Kind::Memory(journal))
    }

    pub(crate) fn log(log: Arc<Log>) -> Self {
        Self(Kind::Log(log))
    }

    /// Whether the journal is on a disk.
    pub(crate) fn is_log(&self) -> bool {
        matches!(self.0, Kind::Log(_))
    }

    /// Whether the journal is on a disk, and was opened for writing.
    pub(crate) fn is_writable(&self) -> bool {
        matches!(&self.0, Kind::Log(log) if log.writing.is_some())
    }

    pub(crate) fn poison(&self) -> &Arc<PoisonCell> {
        match &self.0 {
            Kind::Memory(journal) => &journal.poison,
            Kind::Log(log) => &log.poison,
        }
    }

    /// Returns everything an engine needs; a log returns it once.
    pub(crate) fn open(&self, applied: Option<LogId>) -> Result<JournalParts, OpenError> {
        match &self.0 {
            Kind::Memory(journal) => journal.open(applied),
            Kind::Log(log) => Log::open_parts(log),
        }
    }
}

impl MemoryJournal {
    fn open(&self, applied: Option<LogId>) -> Result<JournalParts, OpenError> {
        let pool =
            Arc::new(ImagePool::new(MEMORY_IMAGE_BYTES, MEMORY_IMAGES, MEMORY_OVERSIZE_BYTES));
        let table = Arc::new(SegmentTable::new(0));
        let error = |error| OpenError::io("allocating memory for", "the journal", error);
        let active = pool.begin(SegmentNumber::LOWEST, 0, &[]).map_err(error)?;
        let active =
            active.ok_or_else(|| error(std::io::Error::from(std::io::ErrorKind::OutOfMemory)))?;
        let config = AppenderConfig {
            limits: self.limits,
            frame_entries_max: self.frame_entries_max,
            frame_bytes_max: self.frame_bytes_max,
            contiguity: Contiguity::Strict,
        };
        let mut position = LogPosition { last: applied, ..LogPosition::default() };
        if let Some(applied) = applied {
            position.terms.push(applied);
        }
        let memory = MemoryStats {
            images: pool.memory_bytes(),
            log_queue: Appender::spans_bytes(),
            ..MemoryStats::default()
        };
        let appender = Appender::new(config, position, pool, Arc::clone(&table), active, None);
        let applied = applied.map(|last| last.index);
        let start = StartMarks { submitted: applied, committed: applied, applied };
        let (rule, poison) = (AckRule::Applied, Arc::clone(&self.poison));
        Ok(JournalParts { appender, log: None, table, rule, start, poison, memory })
    }
}
