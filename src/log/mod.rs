//! The log: frames in segments, one appender, one log writer.
//!
//! In the order of an entry's way: [`appender`] encodes it into an [`image`], a [`queue`] hands its frame on, [`writer`] puts
//! the frames on disk, [`segment`] has the files ready, [`table`] says where a segment's bytes are, [`reader`] reads entries back.
//! [`open`] with [`recovery`] and [`replay`] is how a log comes back; [`format`], [`meta`] and [`hard`] are its bytes.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::apply::worker::Step;
use crate::clock::Clock;
use crate::codec::{FRAME_BYTES_MAX, Limits};
use crate::config::{CommitMode, CompactionPolicy, Durability};
use crate::disk::Disk;
use crate::entry::LogId;
use crate::error::{Corrupt, LogError, OpenError, Poison};
use crate::poison::PoisonCell;
use crate::progress::watermark::{AckRule, Progress, StartMarks};

pub(crate) mod appender;
pub(crate) mod apply_only;
pub(crate) mod compact;
pub(crate) mod figures;
pub(crate) mod format;
pub(crate) mod hard;
#[cfg(test)]
mod hard_tests;
pub(crate) mod image;
pub(crate) mod index;
pub(crate) mod known;
#[cfg(test)]
mod lost_frame_tests;
pub(crate) mod meta;
pub(crate) mod open;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod reader;
pub(crate) mod recovery;
pub(crate) mod replay;
pub(crate) mod segment;
pub(crate) mod slots;
pub(crate) mod table;
mod tally;
pub(crate) mod terms;
#[cfg(test)]
pub(crate) mod test_disk;
pub(crate) mod times;
pub(crate) mod two_slot;
pub(crate) mod unmapped;
pub(crate) mod writer;

use appender::known::KnownPlaces;
use appender::{Appender, AppenderConfig, LogPosition};
use figures::MemoryStats;
use format::DatabaseId;
use meta::{LogBase, Meta, MetaFile};
use pool::ImagePool;
use queue::LogQueue;
use reader::LogEntries;
use recovery::files::ForeignFiles;
use segment::SegmentFiles;
use table::SegmentTable;
use writer::{LogWriter, WriterShared};

/// What the apply manager encodes entries into: our log, or memory only.
///
/// A state machine of the user's own has [`Journal::memory`], the default of the trait.
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

/// Size of an image of a memory journal, and how many there are: enough to keep submitter and workers apart, small
/// enough to stay in the cache.
const MEMORY_IMAGE_BYTES: usize = 1 << 20;
const MEMORY_IMAGES: usize = 16;
/// What entries larger than such an image may take in all.
const MEMORY_OVERSIZE_BYTES: usize = 2 * (FRAME_BYTES_MAX + (1 << 20));

/// What an engine is built on.
pub(crate) struct JournalParts {
    pub(crate) appender: Appender,
    pub(crate) log: Option<Arc<Log>>,
    pub(crate) table: Arc<SegmentTable>,
    pub(crate) rule: AckRule,
    pub(crate) start: StartMarks,
    pub(crate) poison: Arc<PoisonCell>,
    /// The log's part; the engine adds its own.
    pub(crate) memory: MemoryStats,
}

impl Journal {
    /// Memory only: nothing is written anywhere, and entries are gone once they are applied.
    #[must_use]
    pub fn memory() -> Self {
        Self::memory_with(MemoryJournal {
            limits: Limits::default(),
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

    /// Whether it is on a disk.
    pub(crate) fn is_log(&self) -> bool {
        matches!(self.0, Kind::Log(_))
    }

    /// Whether it is on a disk, and was opened for writing.
    pub(crate) fn is_writable(&self) -> bool {
        matches!(&self.0, Kind::Log(log) if log.writing.is_some())
    }

    pub(crate) fn poison(&self) -> &Arc<PoisonCell> {
        match &self.0 {
            Kind::Memory(journal) => &journal.poison,
            Kind::Log(log) => &log.poison,
        }
    }

    /// Everything an engine needs; a log gives it once.
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
        let active = pool.begin(0, 0, &[]).map_err(error)?;
        let active =
            active.ok_or_else(|| error(std::io::Error::from(std::io::ErrorKind::OutOfMemory)))?;
        let config = AppenderConfig {
            limits: self.limits,
            frame_entries_max: self.frame_entries_max,
            frame_bytes_max: self.frame_bytes_max,
            is_monotone: false,
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

/// What opening a directory found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The last entry of the log.
    pub last: Option<LogId>,
    /// The last entry replayed into the state.
    pub applied: Option<u64>,
    /// Frames read.
    pub frames: u64,
    /// The torn end that was cut, if there was one. Nothing known to be durable is in it. After a crash it may hold an
    /// acknowledged last group that was damaged later and, under `Periodic` and `Os`, acknowledged entries.
    pub cut: Option<Cut>,
    /// One of META's two slots does not read back. The other one does; no crash leaves this behind.
    pub meta_slot_damaged: bool,
    /// Opened read-only: damage to what was durable. Of the log, reading ended there, and what is said here is of the part
    /// before it; of `HARD`, the hard state is missing.
    pub unreadable: Option<Corrupt>,
    /// The entry of the snapshot that opening started from; what the log has after it was replayed.
    pub snapshot: Option<LogId>,
    /// The last entry that is gone from the log, and in that snapshot.
    pub purged: Option<LogId>,
    /// Newer snapshots than that, which do not read back. The log had what they had.
    pub damaged_snapshots: Vec<String>,
    /// Opened read-only, while somebody was writing: what is here is the log up to some moment of the opening.
    pub beside_a_writer: bool,
    /// Files of the directory that are not the engine's. They were passed over, and nothing of them was changed.
    pub foreign: ForeignFiles,
    /// Why the directory itself could not be locked, beside its file `LOCK`; `None` if it is. Another process can then
    /// open it once `LOCK` is removed or replaced.
    pub directory_lock_refused: Option<String>,
}

/// The torn end of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The segment it starts in.
    pub file: String,
    /// Where in that segment.
    pub offset: u64,
    /// To the last byte that is not zero, over all segments.
    pub bytes: u64,
    /// First and last index of whole frames among these bytes, if there are any.
    pub indexes: Option<(u64, u64)>,
}

impl RecoveryReport {
    /// Adds what was found while the directory was copied, to be looked at beside its writer.
    pub(crate) fn add_copied(&mut self, result: Option<recovery::scan::ScanResult>) {
        let Some(result) = result else { return };
        self.cut = result.cut.map(Into::into);
        if let Some(damage) = result.unreadable {
            self.unreadable = Some(damage.place);
        }
    }
}

impl From<recovery::scan::CutReport> for Cut {
    fn from(cut: recovery::scan::CutReport) -> Self {
        let recovery::scan::CutReport { file, offset, bytes, indexes, .. } = cut;
        Self { file, offset, bytes, indexes }
    }
}

/// One log on disk, open.
#[derive(Debug)]
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    pub(crate) table: Arc<SegmentTable>,
    database_id: DatabaseId,
    /// Held while META is stored: for those who change it.
    meta: Mutex<(Option<MetaFile>, Meta)>,
    /// Where the log begins, as META on disk has it.
    base: Mutex<LogBase>,
    /// Taken before `meta` where both are.
    hard: Mutex<hard::HardFile>,
    /// The sequence of HARD's last store that is durable. META records it; it is written with `hard` held.
    hard_sequence: AtomicU64,
    pub(crate) start: StartMarks,
    pub(crate) recovery: RecoveryReport,
    pub(crate) poison: Arc<PoisonCell>,
    commit_mode: CommitMode,
    is_monotone: bool,
    durability: Durability,
    memory_bytes: usize,
    /// The clean mark is on disk, or must not be any more.
    closed: AtomicBool,
    /// `None`: read-only.
    writing: Option<Writing>,
    /// The snapshot that it was opened from: its index and its length.
    opened_from: Option<(u64, u64)>,
    opened_in: Duration,
    retain_entries: u64,
    pub(crate) snapshot_chunk_bytes: usize,
    compaction: Option<CompactionPolicy>,
}

/// What writing takes.
#[derive(Debug)]
pub(crate) struct Writing {
    /// Until an engine takes it.
    appender: Mutex<Option<Appender>>,
    writer: Mutex<LogWriter>,
    queue: Arc<LogQueue>,
    shared: Arc<WriterShared>,
    files: Arc<SegmentFiles>,
    pool: Arc<ImagePool>,
    /// The name of the I/O back-end.
    backend: &'static str,
    /// Why it is not the one that was asked for.
    io_fallback: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    fn open_parts(log: &Arc<Self>) -> Result<JournalParts, OpenError> {
        let refuse = |message: &str| OpenError::Config {
            option: "state machine",
            message: message.to_owned(),
        };
        let writing = log
            .writing
            .as_ref()
            .ok_or_else(|| refuse("it was opened read-only: it takes no entries"))?;
        let appender = lock(&writing.appender).take();
        let appender = appender.ok_or_else(|| refuse("its log has an apply manager already"))?;
        Ok(JournalParts {
            appender,
            log: Some(Arc::clone(log)),
            table: Arc::clone(&log.table),
            rule: match log.durability {
                Durability::Sync => AckRule::Durable,
                Durability::Periodic(_) | Durability::Os => AckRule::Written,
            },
            start: log.start,
            poison: Arc::clone(&log.poison),
            memory: MemoryStats {
                images: log.memory_bytes,
                log_queue: writing.queue.memory_bytes() + Appender::spans_bytes(),
                ..MemoryStats::default()
            },
        })
    }

    pub(crate) fn set_clock(&self, clock: Clock) {
        if let Some(writing) = &self.writing {
            lock(&writing.writer).set_clock(clock);
        }
    }

    pub(crate) fn commit_mode(&self) -> CommitMode {
        self.commit_mode
    }

    /// Whether indexes may have gaps.
    pub(crate) fn is_monotone(&self) -> bool {
        self.is_monotone
    }

    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    pub(crate) fn database_id(&self) -> &DatabaseId {
        &self.database_id
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The snapshot that it was opened from: its index and its length.
    pub(crate) fn opened_from(&self) -> Option<(u64, u64)> {
        self.opened_from
    }

    /// How long opening took.
    pub(crate) fn opened_in(&self) -> Duration {
        self.opened_in
    }

    /// When it compacts by itself.
    pub(crate) fn compaction_policy(&self) -> Option<&CompactionPolicy> {
        self.compaction.as_ref()
    }

    /// How many of the last entries a compaction leaves in the log.
    pub(crate) fn retain_entries(&self) -> u64 {
        self.retain_entries
    }

    /// The name of the I/O back-end in use.
    pub(crate) fn backend(&self) -> &'static str {
        self.writing.as_ref().map_or("read-only", |writing| writing.backend)
    }

    /// Why it is not the one that was asked for.
    pub(crate) fn io_fallback(&self) -> Option<&str> {
        self.writing.as_ref()?.io_fallback.as_deref()
    }

    /// One step of the log writer, unless somebody else has its place.
    pub(crate) fn step_writer(&self, progress: &Progress) -> Result<Step, Poison> {
        let Some(writing) = &self.writing else { return Ok(Step::Idle) };
        let mut writer = match writing.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Step::Blocked),
        };
        let worked = writer.step(progress)?;
        Ok(if worked { Step::Worked } else { Step::Idle })
    }

    /// Whether no thread is in the log writer's place at the moment.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn writer_is_free(&self) -> bool {
        self.writing.as_ref().is_none_or(|writing| writing.writer.try_lock().is_ok())
    }

    /// Runs `look` in the log writer's place.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn while_writing<R>(&self, look: impl FnOnce(&Self) -> R) -> R {
        let _held = self.writing.as_ref().map(|writing| lock(&writing.writer));
        look(self)
    }

    /// How long the log writer may sleep.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        lock(&self.writing.as_ref()?.writer).next_due()
    }

    /// Whether something is to be done when a time is over, if nothing else happens: [`Log::next_due`] says when.
    pub(crate) fn waits_for_time(&self) -> bool {
        self.writing
            .as_ref()
            .is_some_and(|writing| writing.shared.waits_for_time.load(Ordering::Acquire))
    }

    /// Whether less than a group waits for more to come.
    pub(crate) fn is_lingering(&self) -> bool {
        self.writing
            .as_ref()
            .is_some_and(|writing| writing.shared.lingering.load(Ordering::Acquire))
    }

    /// The open frame should be closed by whoever holds the appender.
    pub(crate) fn want_close(&self) {
        if let Some(writing) = &self.writing {
            writing.queue.want_close();
        }
    }

    /// Whether there are frames to write, or writes in flight whose completions nobody waits for.
    pub(crate) fn has_closed_frames(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| {
            !writing.queue.is_empty() || writing.shared.in_flight.load(Ordering::Acquire)
        })
    }

    /// Frames up to this one should become durable, whatever the mode.
    pub(crate) fn want_sync(&self, sequence: u64) {
        if let Some(writing) = &self.writing {
            writing.shared.sync_wanted.fetch_max(sequence, Ordering::AcqRel);
        }
    }

    /// Whether frames should be made durable that are not.
    pub(crate) fn sync_is_due(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.shared.sync_is_wanted())
    }

    /// The last frame that is durable, with all before it.
    pub(crate) fn durable_sequence(&self) -> u64 {
        let shared = self.writing.as_ref().map(|writing| &writing.shared);
        shared.map_or(0, |shared| shared.durable_sequence.load(Ordering::Acquire))
    }

    /// Whether the next segment should be made ready.
    pub(crate) fn background_wanted(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.files.is_wanted())
    }

    /// Makes the next segment's file and image ready. No space or no memory yet is for the log writer to report, when
    /// it gets there; a sync that failed is final.
    pub(crate) fn step_background(&self) -> Result<(), Poison> {
        let Some(writing) = &self.writing else { return Ok(()) };
        writing.files.prepare()?;
        if let Err(error) = writing.pool.prepare() {
            tracing::warn!(%error, "no memory for the next segment yet");
        }
        Ok(())
    }

    /// Copies entries of `wanted` out from where they are.
    pub(crate) fn entries(
        &self,
        places: &KnownPlaces,
        wanted: RangeInclusive<u64>,
        bytes_max: usize,
    ) -> Result<LogEntries, LogError> {
        let read = reader::read_places(&self.table, &self.database_id, places, wanted, bytes_max);
        Ok(read?)
    }

    /// The hard state that was saved last.
    pub(crate) fn hard_state(&self) -> Option<Vec<u8>> {
        lock(&self.hard).load().map(<[u8]>::to_vec)
    }

    /// Makes a hard state durable. The caller has made durable what was appended before it.
    pub(crate) fn save_hard_state(&self, state: &[u8]) -> Result<(), LogError> {
        if self.writing.is_none() {
            return Err(LogError::ReadOnly);
        }
        let (bytes, limit) = (state.len(), hard::HARD_BYTES_MAX);
        if bytes > limit {
            return Err(LogError::HardStateTooLarge { bytes, limit });
        }
        let failed = |file: &'static str| move |source| Poison::io("writing", file, source);
        let mut hard = lock(&self.hard);
        if self.closed.load(Ordering::Acquire) {
            return Err(LogError::Closed);
        }
        let is_first = hard.store(&*self.disk, state).map_err(failed(format::HARD_FILE))?;
        self.hard_sequence.store(hard.sequence(), Ordering::Release);
        if is_first {
            // From here on a HARD that is missing is damage.
            let mut meta = lock(&self.meta);
            let content = self.with_hard_sequence(meta.1);
            if let Some(file) = &mut meta.0 {
                file.store(&content).map_err(failed(format::META_FILE))?;
            }
            meta.1 = content;
        }
        Ok(())
    }

    /// META's content with what is known of HARD by now.
    fn with_hard_sequence(&self, content: Meta) -> Meta {
        let sequence = self.hard_sequence.load(Ordering::Acquire);
        Meta { hard: content.hard.at(sequence), ..content }
    }

    /// Marks the log as closed with everything durable. Everything submitted must be durable; a poisoned log is left.
    pub(crate) fn close(&self, committed: Option<u64>) -> Result<(), Poison> {
        let Some(writing) = &self.writing else { return Ok(()) };
        self.poison.check()?;
        // A hard state that is being stored is stored before.
        let hard = lock(&self.hard);
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        drop(hard);
        let mut meta = lock(&self.meta);
        let content = Meta {
            clean_close: true,
            durable_sequence: writing.shared.durable_sequence.load(Ordering::Acquire),
            committed,
            ..self.with_hard_sequence(meta.1)
        };
        let Some(file) = &mut meta.0 else { return Ok(()) };
        // Into both slots: each alone says where the log ends.
        file.store_twice(&content).map_err(|source| {
            let poison = Poison::io("writing", format::META_FILE, source);
            self.poison.set(poison.clone());
            poison
        })?;
        meta.1 = content;
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if !self.disk.is_of_this_process() {
            // A copy that `fork` made: it writes nothing, and takes no lock that a thread of the parent may have held.
            return;
        }
        // An engine closes the log itself. Without one, nothing was appended: what is durable is what was opened.
        let unused = self.writing.as_ref().is_some_and(|writing| lock(&writing.appender).is_some());
        if unused && let Err(poison) = self.close(self.start.committed) {
            tracing::warn!(%poison, "the log could not be marked as closed");
        }
    }
}
