//! The log: frames in segments, one appender, one log writer.
//!
//! An entry passes these modules in order. [`appender`] encodes it into an
//! [`image`](crate::image), a [`queue`] hands its frame on, and [`writer`] puts the frames on disk.
//! [`segment`] has the files ready, the [`table`](crate::places::table) resolves a segment's bytes,
//! and [`reader`] reads entries back. [`recovery`] reads a log after a crash;
//! [`format`], [`meta`] and [`hard`] are its bytes.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{CommitMode, CompactionPolicy, Contiguity, Durability};
use crate::disk::{Disk, RING_BACKEND};
use crate::error::{LogError, OpenError, Poison};
use crate::numbers::FrameSequence;
use crate::poison::PoisonCell;
use crate::progress::watermark::{AckRule, Progress};
use crate::sync::{Mutex, tell, tell_under_locks};
use crate::threads::Step;

pub(crate) mod appender;
pub(crate) mod apply_only;
pub(crate) mod compact;
pub(crate) mod figures;
pub(crate) mod format;
#[cfg(test)]
mod format_hash_tests;
pub(crate) mod hard;
#[cfg(test)]
mod hard_tests;
pub(crate) mod index;
pub(crate) mod journal;
pub(crate) mod known;
#[cfg(test)]
mod lost_frame_tests;
pub(crate) mod meta;
pub(crate) mod opened;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod reader;
pub(crate) mod recovery;
pub(crate) mod segment;
pub(crate) mod settings;
pub(crate) mod terms;
#[cfg(test)]
pub(crate) mod test_disk;
pub(crate) mod times;
pub(crate) mod two_slot;
pub(crate) mod writer;

use crate::places::table::SegmentTable;
use appender::Appender;
use appender::known::KnownPlaces;
use figures::MemoryStats;
use format::DatabaseId;
use meta::{LogBase, Meta, MetaFile};
use opened::Opened;
use pool::ImagePool;
use queue::LogQueue;
use reader::LogEntries;
use segment::SegmentFiles;
use settings::LogSettings;
use writer::{LogWriter, WriterShared};

pub use journal::Journal;
pub(crate) use journal::{JournalParts, MemoryJournal};
pub use opened::{Cut, RecoveryReport};

/// One log on disk, open.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) table: Arc<SegmentTable>,
    pub(crate) database_id: DatabaseId,
    /// META, locked while it is stored or changed.
    pub(crate) meta: Mutex<(Option<MetaFile>, Meta)>,
    /// The base of the log: a copy of the one in `meta`, which is locked while META is stored.
    /// Callers that read the base hold the appender, and must not wait for the disk. The base moves
    /// in `move_base` only, which compares the two first and writes both.
    pub(crate) base: Mutex<LogBase>,
    /// HARD. This lock is taken before `meta` where both are taken.
    pub(crate) hard: Mutex<hard::HardFile>,
    /// Sequence of HARD's last durable store. META records it; writers hold `hard`.
    pub(crate) hard_sequence: AtomicU64,
    pub(crate) opened: Opened,
    pub(crate) settings: LogSettings,
    pub(crate) poison: Arc<PoisonCell>,
    /// Whether the clean mark is on disk, or must not be written any more.
    pub(crate) closed: AtomicBool,
    /// The parts for writing; `None` for a read-only log.
    pub(crate) writing: Option<Writing>,
}

/// The parts of a log that is open for writing.
#[derive(Debug)]
pub(crate) struct Writing {
    /// The appender, until an engine takes it.
    pub(crate) appender: Mutex<Option<Appender>>,
    pub(crate) writer: Mutex<LogWriter>,
    pub(crate) queue: Arc<LogQueue>,
    pub(crate) shared: Arc<WriterShared>,
    pub(crate) files: Arc<SegmentFiles>,
    pub(crate) pool: Arc<ImagePool>,
    /// The name of the I/O back-end at opening.
    pub(crate) backend: &'static str,
    /// Reason why it is not the one asked for.
    pub(crate) io_fallback: Option<String>,
}

impl Log {
    /// Returns everything an engine needs, once.
    fn open_parts(log: &Arc<Self>) -> Result<JournalParts, OpenError> {
        let refuse = |message: &str| OpenError::Config {
            option: "state machine",
            message: message.to_owned(),
        };
        let writing = log
            .writing
            .as_ref()
            .ok_or_else(|| refuse("it was opened read-only: it takes no entries"))?;
        let appender = writing.appender.lock().take();
        let appender = appender.ok_or_else(|| refuse("its log has an apply manager already"))?;
        Ok(JournalParts {
            appender,
            log: Some(Arc::clone(log)),
            table: Arc::clone(&log.table),
            rule: match log.settings.durability {
                Durability::Sync => AckRule::Durable,
                Durability::Periodic(_) | Durability::Os => AckRule::Written,
            },
            start: log.opened.start,
            poison: Arc::clone(&log.poison),
            memory: MemoryStats {
                images: log.settings.memory_bytes,
                log_queue: writing.queue.memory_bytes() + Appender::spans_bytes(),
                ..MemoryStats::default()
            },
        })
    }

    pub(crate) fn set_clock(&self, clock: Clock) {
        if let Some(writing) = &self.writing {
            writing.writer.lock().set_clock(clock);
        }
    }

    pub(crate) fn commit_mode(&self) -> CommitMode {
        self.settings.commit_mode
    }

    pub(crate) fn contiguity(&self) -> Contiguity {
        self.settings.contiguity
    }

    pub(crate) fn durability(&self) -> Durability {
        self.settings.durability
    }

    pub(crate) fn database_id(&self) -> &DatabaseId {
        &self.database_id
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Index and length of the snapshot that the log was opened from.
    pub(crate) fn opened_from(&self) -> Option<(u64, u64)> {
        self.opened.snapshot
    }

    /// Duration of the opening.
    pub(crate) fn opened_in(&self) -> Duration {
        self.opened.took
    }

    /// The policy of automatic compaction.
    pub(crate) fn compaction_policy(&self) -> Option<&CompactionPolicy> {
        self.settings.compaction.as_ref()
    }

    /// Number of the last entries that a compaction leaves in the log.
    pub(crate) fn retain_entries(&self) -> u64 {
        self.settings.retain_entries
    }

    /// The name of the I/O back-end in use.
    pub(crate) fn backend(&self) -> &'static str {
        match &self.writing {
            // An engine that chooses by itself began with another.
            Some(writing) if writing.shared.by_ring.load(Ordering::Relaxed) => RING_BACKEND,
            Some(writing) => writing.backend,
            None => "read-only",
        }
    }

    /// Reason why it is not the one asked for.
    pub(crate) fn io_fallback(&self) -> Option<&str> {
        self.writing.as_ref()?.io_fallback.as_deref()
    }

    /// Takes one step of the log writer, unless another thread has the writer's post. `close_open`
    /// closes the open frame, unless another thread has the appender.
    pub(crate) fn step_writer(
        &self,
        progress: &Progress,
        close_open: impl FnOnce(),
    ) -> Result<Step, Poison> {
        let Some(writing) = &self.writing else { return Ok(Step::Idle) };
        let Some(mut writer) = writing.writer.try_lock() else { return Ok(Step::Blocked) };
        if !writing.queue.is_empty() {
            // A group takes everything that was appended during the last sync. The entries of the
            // open frame would wait for one more sync.
            close_open();
        }
        let worked = writer.step(progress)?;
        Ok(if worked { Step::Worked } else { Step::Idle })
    }

    /// Whether no thread has the log writer's post at the moment.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn writer_is_free(&self) -> bool {
        self.writing.as_ref().is_none_or(|writing| writing.writer.try_lock().is_some())
    }

    /// Runs `look` in the log writer's post.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn while_writing<R>(&self, look: impl FnOnce(&Self) -> R) -> R {
        let _held = self.writing.as_ref().map(|writing| writing.writer.lock());
        look(self)
    }

    /// Longest time that the log writer may sleep.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.writing.as_ref()?.writer.lock().next_due()
    }

    /// Whether work becomes due by time alone: [`Log::next_due`] says when.
    pub(crate) fn waits_for_time(&self) -> bool {
        self.writing
            .as_ref()
            .is_some_and(|writing| writing.shared.waits_for_time.load(Ordering::Acquire))
    }

    /// Whether less than a group waits for more entries.
    pub(crate) fn is_lingering(&self) -> bool {
        self.writing
            .as_ref()
            .is_some_and(|writing| writing.shared.lingering.load(Ordering::Acquire))
    }

    /// Asks the holder of the appender to close the open frame.
    pub(crate) fn want_close(&self) {
        if let Some(writing) = &self.writing {
            writing.queue.want_close();
        }
    }

    /// Whether there are frames to write, or writes in flight whose completions no thread waits
    /// for.
    pub(crate) fn has_closed_frames(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| {
            !writing.queue.is_empty() || writing.shared.in_flight.load(Ordering::Acquire)
        })
    }

    /// Asks for frames up to this one to become durable, in every mode.
    pub(crate) fn want_sync(&self, sequence: FrameSequence) {
        if let Some(writing) = &self.writing {
            writing.shared.sync_wanted.raise(sequence, Ordering::AcqRel);
        }
    }

    /// Whether frames are not durable that should be.
    pub(crate) fn sync_is_due(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.shared.sync_is_wanted())
    }

    /// Sequence of the last frame that is durable, with all before it.
    pub(crate) fn durable_sequence(&self) -> FrameSequence {
        let shared = self.writing.as_ref().map(|writing| &writing.shared);
        shared.map_or(FrameSequence::NONE, |shared| shared.durable_sequence.load(Ordering::Acquire))
    }

    /// Whether the next segment should be made ready.
    pub(crate) fn background_wanted(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.files.is_wanted())
    }

    /// Makes the next segment's file and image ready. The log writer reports missing space or
    /// memory when it gets there; a failed sync is final.
    pub(crate) fn step_background(&self) -> Result<(), Poison> {
        let Some(writing) = &self.writing else { return Ok(()) };
        writing.files.prepare()?;
        if let Err(error) = writing.pool.prepare() {
            tell(|| tracing::warn!(%error, "no memory for the next segment yet"));
        }
        Ok(())
    }

    /// Copies entries of `wanted` from their places.
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
        self.hard.lock().load().map(<[u8]>::to_vec)
    }

    /// Makes a hard state durable. The caller has made all earlier appends durable.
    pub(crate) fn save_hard_state(&self, state: &[u8]) -> Result<(), LogError> {
        if self.writing.is_none() {
            return Err(LogError::ReadOnly);
        }
        let (bytes, limit) = (state.len(), hard::HARD_BYTES_MAX);
        if bytes > limit {
            return Err(LogError::HardStateTooLarge { bytes, limit });
        }
        let failed = |file: &'static str| move |source| Poison::io("writing", file, source);
        let mut hard = self.hard.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(LogError::Closed);
        }
        let is_first =
            hard.store(&*self.disk, state).map_err(failed(crate::disk::names::HARD_FILE))?;
        self.hard_sequence.store(hard.sequence(), Ordering::Release);
        if is_first {
            // From here on a missing HARD is damage.
            let mut meta = self.meta.lock();
            let content = self.with_hard_sequence(meta.1);
            if let Some(file) = &mut meta.0 {
                file.store(&content).map_err(failed(crate::disk::names::META_FILE))?;
            }
            meta.1 = content;
        }
        Ok(())
    }

    /// META's content with the current record of HARD.
    fn with_hard_sequence(&self, content: Meta) -> Meta {
        let sequence = self.hard_sequence.load(Ordering::Acquire);
        Meta { hard: content.hard.at(sequence), ..content }
    }

    /// Marks the log as closed with everything durable. Everything submitted must be durable; a
    /// poisoned log is left unchanged.
    pub(crate) fn close(&self, committed: Option<u64>) -> Result<(), Poison> {
        let Some(writing) = &self.writing else { return Ok(()) };
        self.poison.check()?;
        // Take the lock of HARD first, so that a store in progress ends before.
        let hard = self.hard.lock();
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        drop(hard);
        let mut meta = self.meta.lock();
        let content = Meta {
            clean_close: true,
            durable_sequence: writing.shared.durable_sequence.load(Ordering::Acquire),
            committed,
            ..self.with_hard_sequence(meta.1)
        };
        let Some(file) = &mut meta.0 else { return Ok(()) };
        // Store META into both slots, so that each alone says where the log ends.
        file.store_twice(&content).map_err(|source| {
            let poison = Poison::io("writing", crate::disk::names::META_FILE, source);
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
            // This is a copy that `fork` made. It must write nothing, and take no lock that a
            // thread of the parent may have held.
            return;
        }
        // An engine closes the log itself. Without an engine nothing was appended, so the log's end
        // is the end found at opening, and durable.
        let unused = self.writing.as_ref().is_some_and(|writing| writing.appender.lock().is_some());
        if unused && let Err(poison) = self.close(self.opened.start.committed) {
            tell_under_locks(|| tracing::warn!(%poison, "the log could not be marked as closed"));
        }
    }
}
