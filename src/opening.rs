//! Opening a log: read META, replay the frames, make them durable, raise the incarnation, continue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use crate::bytes::to_usize;
use crate::clock::Clock;
use crate::codec::FRAME_BYTES_MAX;
use crate::config::{BATCH_SIZE_MAX, CommitMode, EXPECTED_KEYS_MAX, PersistentConfig, within};
use crate::contract::machine::StateMachine;
use crate::disk::names::{META_FILE, parse_snapshot_name, segment_name, snapshot_name};
use crate::disk::{Access, Disk};
use crate::entry::LogId;
use crate::error::{Corrupt, OpenError, Poison, SnapshotError};
use crate::log::appender::{Appender, AppenderConfig, LogPosition, SEGMENT_SLACK_BYTES};
use crate::log::format::SEGMENT_BYTES_MAX;
use crate::log::hard::HardFile;
use crate::log::meta::{LogBase, Meta, MetaDamage, MetaFile};
use crate::log::opened::Opened;
use crate::log::pool::ImagePool;
use crate::log::queue::LogQueue;
use crate::log::recovery::files::{ForeignFiles, list_files};
use crate::log::recovery::older::OlderMeta;
use crate::log::recovery::scan::{CutReport, ScanOptions, ScanResult, scan};
use crate::log::segment::{SegmentFile, SegmentFiles};
use crate::log::settings::LogSettings;
use crate::log::writer::{LogWriter, WriterConfig, WriterPosition, WriterShared};
use crate::log::{Log, RecoveryReport, Writing};
use crate::numbers::{Mark, SegmentNumber};
use crate::opening::replay::{Replay, Truncations};
use crate::opening::tally::Tally;
use crate::places::table::{SegmentBytes, SegmentTable};
use crate::poison::PoisonCell;
use crate::progress::watermark::StartMarks;
use crate::ranges::index_range::IndexRange;
use crate::snapshot::{Snapshot, SnapshotKind};
use crate::sync::{Mutex, Rank, tell};

mod kept;
pub(crate) mod replay;
mod settle;
pub(crate) mod tally;

/// Number of closed frames that may wait for the log writer.
const QUEUED_FRAMES_MAX: usize = 8192;

/// A log whose META is read and whose segments can be read in place, before its frames are
/// replayed.
#[derive(Debug)]
pub(crate) struct LogOpening {
    disk: Arc<dyn Disk>,
    config: PersistentConfig,
    writable: bool,
    meta: Option<(MetaFile, Meta, MetaDamage)>,
    /// The content that META will have, or has.
    content: Meta,
    table: Arc<SegmentTable>,
    poison: Arc<PoisonCell>,
    /// Whether the end of the log is certain although a slot of META is damaged.
    is_end_proved: bool,
    /// The snapshot that the machine starts from, and its length.
    snapshot: Option<(LogId, u64)>,
    /// The last entry in the machine's storage.
    kept: Option<LogId>,
    /// Names of snapshots that cannot be read back.
    damaged_snapshots: Vec<String>,
    /// Files that are not the engine's.
    foreign: ForeignFiles,
    /// Evidence that META is older than the other files. Set only in a read-only open.
    older_meta: Option<Corrupt>,
    began: Instant,
}

impl LogOpening {
    /// Reads META, or makes the one of a new directory, and maps the segments. The machine's
    /// snapshots hold `state`; it keeps its state in a storage if `is_kept`.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        config: PersistentConfig,
        writable: bool,
        (state, is_kept): (SnapshotKind, bool),
    ) -> Result<Self, OpenError> {
        let began = Instant::now();
        check_config(&config)?;
        let meta = MetaFile::open(&*disk, writable)?;
        let files = list_files(&*disk)?;
        files.warn(&*disk);
        let mut content = match &meta {
            Some((_, content, _)) => *content,
            None => Meta {
                contiguity: config.contiguity,
                ..Meta::fresh(&*disk, config.commit_mode, config.hash_seed)?
            },
        };
        let found = content.commit_mode;
        if writable && meta.is_some() && found != config.commit_mode {
            let asked = config.commit_mode.describe();
            return Err(OpenError::CommitMode { found: found.describe(), asked });
        }
        let found = content.contiguity;
        if writable && meta.is_some() && found != config.contiguity {
            let asked = config.contiguity.describe();
            return Err(OpenError::Contiguity { found: found.describe(), asked });
        }
        let found = *content.state.get_or_insert(state);
        if found != state {
            return Err(OpenError::OtherState { found: found.holds(), asked: state.holds() });
        }
        if content.is_kept && !is_kept {
            let found = "what a storage beside the directory has";
            return Err(OpenError::OtherState { found, asked: state.holds() });
        }
        content.is_kept = is_kept;
        let table = Arc::new(SegmentTable::new(config.pinned_images));
        for number in files.segments {
            if number >= content.base.segment {
                map_segment(&disk, &table, number)?;
            }
        }
        Ok(Self {
            disk,
            config,
            writable,
            meta,
            content,
            table,
            poison: Arc::default(),
            is_end_proved: false,
            snapshot: None,
            kept: None,
            damaged_snapshots: Vec::new(),
            foreign: files.foreign,
            older_meta: None,
            began,
        })
    }

    /// Records the log's first failure in a cell that is shared with others.
    pub(crate) fn share_poison(&mut self, poison: &Arc<PoisonCell>) {
        self.poison = Arc::clone(poison);
    }

    /// The newest readable snapshot; the state is that with the log's later entries. Returns `None`
    /// if there is none and the log has everything.
    ///
    /// Reads the whole snapshot to check it, except with `lazily`, where the state can come from
    /// nowhere else. Then each part is checked when it is first used. Returns whether the snapshot
    /// was checked.
    pub(crate) fn newest_snapshot(
        &mut self,
        lazily: bool,
    ) -> Result<Option<(Snapshot, bool)>, OpenError> {
        if self.meta.is_none() {
            // These snapshots belong to an interrupted restore.
            return Ok(None);
        }
        let base = self.content.base.last;
        let mut names = list_files(&*self.disk)?.snapshots;
        names.sort_unstable();
        let reaching = |name: &&String| {
            parse_snapshot_name(name) >= base.map(|base| base.index) && base.is_some()
        };
        let lazily = lazily && names.iter().filter(reaching).count() == 1;
        let mut first_error = None;
        while let Some(name) = names.pop() {
            let Some(index) = parse_snapshot_name(&name) else { continue };
            if base.is_some_and(|base| index < base.index) {
                names.push(name);
                break;
            }
            // Where the storage has more, the snapshot only serves to be sent.
            let lazily = lazily || self.has(index);
            match self.check_snapshot(&name, index, lazily) {
                Ok(snapshot) => {
                    self.snapshot = snapshot.log_id().map(|log_id| (log_id, snapshot.bytes()));
                    self.look_at_older(&names);
                    return Ok(Some((snapshot, !lazily)));
                }
                // An error without damage, such as missing memory or descriptors, must not select
                // an older snapshot, because the next open would select another one.
                Err(error) if !error.is_damage() => return Err(OpenError::of_snapshot(error)),
                Err(error) => {
                    tell(|| tracing::warn!(%error, name, "a snapshot does not read back"));
                    self.damaged_snapshots.push(name);
                    first_error.get_or_insert(error);
                }
            }
        }
        match (base, first_error) {
            (None, _) => Ok(None),
            (Some(base), _) if self.has(base.index) => Ok(None),
            (Some(base), None) if self.content.is_kept => Err(self.is_behind(base)),
            (Some(_), Some(error)) => Err(OpenError::of_snapshot(error)),
            (Some(base), None) => Err(Corrupt {
                file: snapshot_name(base.index),
                offset: 0,
                index: Some(base.index),
                what: "the log begins after this entry, and no snapshot has what is before",
            }
            .into()),
        }
    }

    /// Notes which of the unused snapshots are damaged, as far as their indexes tell.
    fn look_at_older(&mut self, names: &[String]) {
        for name in names {
            let of = Snapshot::open_on(&self.disk, name).map(|snapshot| snapshot.log_id());
            let is_damaged = match of {
                Ok(of) => of.map(|log_id| log_id.index) != parse_snapshot_name(name),
                Err(error) => error.is_damage(),
            };
            if is_damaged {
                tell(|| tracing::warn!(name, "an older snapshot does not read back"));
                self.damaged_snapshots.push(name.clone());
            }
        }
    }

    fn check_snapshot(
        &self,
        name: &str,
        index: u64,
        lazily: bool,
    ) -> Result<Snapshot, SnapshotError> {
        let snapshot = Snapshot::open_on(&self.disk, name)?;
        if !lazily {
            snapshot.verify()?;
        }
        let named = snapshot.log_id().filter(|log_id| log_id.index == index);
        let base = self.content.base.last.filter(|base| base.index == index);
        if named.is_none() || (base.is_some() && named != base) {
            let what = "it is of another entry than it should be";
            return Err(SnapshotError::Corrupt { file: name.to_owned(), offset: 0, what });
        }
        Ok(snapshot)
    }

    /// Seed of the store's hash.
    pub(crate) fn hash_seed(&self) -> u64 {
        self.content.hash_seed
    }

    pub(crate) fn table(&self) -> &Arc<SegmentTable> {
        &self.table
    }

    /// Reads the log into `machine`, and makes it ready for writing (or, read-only, only reports).
    pub(crate) fn replay<M: StateMachine>(mut self, machine: &M) -> Result<Arc<Log>, OpenError> {
        let options = if self.writable {
            ScanOptions { strict: self.config.strict, ..ScanOptions::default() }
        } else {
            ScanOptions::looking_at(&*self.disk)
        };
        let options = match &self.meta {
            Some((.., damage)) => options.by_meta(&self.content, damage),
            None => options,
        };
        let options = ScanOptions { snapshot: self.start(), ..options };
        let content = self.content;
        self.check_kept_at_base()?;
        let had = machine.applied();
        let mut tally = Tally::at(&content.base);
        let by_commit = content.commit_mode == CommitMode::ByCommit;
        let mut replay = Replay::new(
            machine,
            if by_commit { Mark::NONE } else { Mark::ALL },
            Truncations::default(),
        );
        let result = scan(&*self.disk, &content, options, &mut |frame| {
            tally.frame(frame)?;
            if by_commit { Ok(()) } else { replay.frame(frame) }
        })?;
        self.check_meta(&result)?;
        self.check_end(&result)?;
        self.check_kept_in_log(&result, &tally)?;
        if let Some(base) = self.base_of_installed(&result) {
            // Nothing was applied: all of this log is before the machine's last entry.
            self.start_over(base)?;
            return self.replay(machine);
        }
        let last = result.tail.last;
        let committed = if by_commit { result.tail.committed } else { last.map(|last| last.index) };
        if let Some(place) = result.begins_late {
            return Err(place.into());
        }
        replay.finish()?;
        // Entries in a snapshot were committed.
        let committed = committed.max(self.start().map(|log_id| log_id.index));
        if by_commit {
            // Only now the end of the committed entries is known, and which entries were truncated
            // before they committed.
            let committed_mark = Mark::of(committed);
            for phase in tally.phases(committed_mark) {
                let truncations = tally.truncations.clone();
                let mut replay = Replay::phase(machine, &phase, truncations, content.contiguity);
                scan(&*self.disk, &content, options, &mut |frame| replay.frame(frame))?;
                replay.finish()?;
            }
        }
        if let Some(applied) = had.filter(|had| Some(had.index) > committed) {
            return Err(OpenError::OtherLog { applied, found: None });
        }
        // Apply-only records may have moved the state past the log.
        let submitted = last.map(|last| last.index).max(committed);
        let start = StartMarks { submitted, committed, applied: committed };
        let unfed = tally.unfed(start.applied, &self.table);
        let unfed =
            unfed.ok_or(OpenError::Replay(Poison::Internal("an uncommitted frame is gone")))?;
        self.finish(result, tally, start, unfed)
    }

    /// Refuses a META that is not the newest one that existed. A read-only open only notes it.
    fn check_meta(&mut self, result: &ScanResult) -> Result<(), OpenError> {
        let Some((.., damage)) = &self.meta else { return Ok(()) };
        let result = ScanResult {
            // A storage may have continued without a closed log.
            lacks_snapshot: result.lacks_snapshot.filter(|lacks| self.is_of_snapshot(*lacks)),
            ..result.clone()
        };
        let older = OlderMeta::of_scan(&self.content, damage, &result).map(OlderMeta::place);
        if !self.writable {
            self.older_meta = self.older_meta.take().or(older);
            return Ok(());
        }
        older.map_or(Ok(()), |place| Err(place.into()))
    }

    /// The base of the log, if the snapshot's entry is not of this log.
    ///
    /// Such a snapshot was being installed when the process ended, after it was durable and before
    /// the base was moved. During a read beside a writer, it may also be newer than the part of the
    /// log that was read.
    fn base_of_installed(&self, result: &ScanResult) -> Option<LogBase> {
        // Behind damage the log may have the snapshot's entry, and more. In that case
        // `lacks_snapshot` is `None`.
        let log_id = result.lacks_snapshot?;
        let tail = &result.tail;
        let last_segment = result.segments.iter().map(|segment| segment.number).max();
        let known = tail.durable_sequence_known.max(self.content.durable_sequence);
        Some(LogBase {
            segment: last_segment.unwrap_or_default().max(tail.segment).next(),
            sequence: known.max(tail.next_sequence.previous()),
            chain: tail.chain,
            last: Some(log_id),
        })
    }

    /// Completes an installation: makes the log begin, empty, after the snapshot's entry.
    fn start_over(&mut self, base: LogBase) -> Result<(), OpenError> {
        self.content.base = base;
        self.content.committed = base.last.map(|last| last.index).max(self.content.committed);
        match &mut self.meta {
            Some((file, ..)) if self.writable => {
                tell(|| tracing::warn!(?base, "a snapshot was being installed: completing that"));
                // The snapshot's name may be in the cache only, and nothing else has the entries
                // before the base.
                let synced = self.disk.sync_dir();
                synced.map_err(|error| OpenError::io("syncing", ".", error))?;
                let stored = file.store(&self.content);
                stored.map_err(|error| OpenError::io("writing", META_FILE, error))
            }
            _ => Ok(()),
        }
    }

    fn finish(
        mut self,
        result: ScanResult,
        tally: Tally,
        start: StartMarks,
        unfed: VecDeque<IndexRange>,
    ) -> Result<Arc<Log>, OpenError> {
        let mut recovery = self.report(&result, start);
        let mut hard = match HardFile::open(&*self.disk, &self.content, self.writable) {
            Err(OpenError::Corrupt(place)) if !self.writable => {
                recovery.unreadable.get_or_insert(place);
                HardFile::none(self.content.database_id)
            }
            hard => hard?,
        };
        if let Some(CutReport { file, offset, bytes, .. }) = &result.cut {
            tell(|| {
                tracing::warn!(file, offset, bytes, "the log ends in torn bytes, which are cut")
            });
        }
        let mut writing = None;
        if self.writable {
            self.settle(&result, &mut hard)?;
            writing = Some(self.writing(&result, tally, start, unfed)?);
        }
        let meta_file = self.meta.map(|(file, ..)| file);
        Ok(Arc::new(Log {
            settings: LogSettings {
                commit_mode: self.content.commit_mode,
                contiguity: self.content.contiguity,
                durability: self.config.durability,
                memory_bytes: self.config.memory_bytes(),
                retain_entries: self.config.retain_entries,
                snapshot_chunk_bytes: self.config.snapshot_chunk_bytes,
                compaction: self.config.compaction_policy(),
            },
            opened: Opened {
                start,
                recovery,
                snapshot: self.snapshot.map(|(log_id, bytes)| (log_id.index, bytes)),
                took: self.began.elapsed(),
            },
            disk: self.disk,
            table: self.table,
            database_id: self.content.database_id,
            meta: Mutex::new(Rank::LogMeta, (meta_file, self.content)),
            base: Mutex::new(Rank::LogBase, self.content.base),
            hard_sequence: AtomicU64::new(hard.sequence()),
            hard: Mutex::new(Rank::HardState, hard),
            poison: self.poison,
            closed: AtomicBool::new(false),
            writing,
        }))
    }

    fn report(&self, result: &ScanResult, start: StartMarks) -> RecoveryReport {
        RecoveryReport {
            last: result.tail.last,
            applied: start.applied,
            frames: result.segments.iter().map(|segment| segment.frames).sum(),
            cut: result.cut.clone().map(Into::into),
            meta_slot_damaged: self.damaged_slot().is_some(),
            unreadable: result
                .unreadable
                .as_ref()
                .map(|damage| damage.place.clone())
                .or_else(|| self.older_meta.clone()),
            snapshot: self.snapshot.map(|(log_id, _)| log_id),
            purged: self.content.base.last,
            damaged_snapshots: self.damaged_snapshots.clone(),
            beside_a_writer: self.disk.is_beside_a_writer(),
            foreign: self.foreign.clone(),
            directory_lock_refused: self.disk.directory_lock_refused(),
        }
    }

    /// Makes the appender and the log writer, at the end of the log.
    fn writing(
        &self,
        result: &ScanResult,
        tally: Tally,
        start: StartMarks,
        unfed: VecDeque<IndexRange>,
    ) -> Result<Writing, OpenError> {
        let (config, tail) = (&self.config, &result.tail);
        let too_long = || OpenError::Config {
            option: "segment_bytes",
            message: format!("segment {} is beyond what can be addressed", tail.segment),
        };
        let segment = tail.segment;
        if segment == SegmentNumber::NOWHERE {
            return Err(too_long());
        }
        let name = segment_name(tail.segment);
        let error = |action| {
            let name = name.clone();
            move |source| OpenError::io(action, name, source)
        };
        let files = SegmentFiles::new(
            Arc::clone(&self.disk),
            self.content.database_id,
            config.segment_bytes as u64,
            config.spare_segments,
        );
        // META with the base above these segments has been stored by now, so no power cut takes it
        // back. The segments may have been mapped before that was known.
        for number in &result.obsolete {
            self.table.remove(*number);
            files.let_go(*number);
        }
        let files = Arc::new(files);
        let (SegmentFile { file, is_blank }, file_bytes) =
            files.take_last(segment).map_err(OpenError::before_start)?;
        let used = usize::try_from(tail.offset).map_err(|_| too_long())?;
        let mut content = vec![0; used];
        let read = file.read_at(&mut content, 0).map_err(error("reading"))?;
        content.truncate(read);
        // In a directory made with longer segments, the last segment keeps its length.
        let image_bytes = config.segment_bytes;
        let images = config.segment_images + config.pinned_images;
        let pool = Arc::new(ImagePool::new(image_bytes, images, used.next_multiple_of(4096)));
        let active = pool.begin(segment, used, &content);
        let active = active.map_err(error("allocating memory for"))?.ok_or_else(too_long)?;
        let queue = Arc::new(LogQueue::new(QUEUED_FRAMES_MAX));
        let shared = Arc::new(WriterShared::default());
        tally.starts.iter().for_each(|start| shared.starts.push(*start));
        for record in &tally.records {
            shared.starts.record(record.segment, record.mark());
        }
        let mark = Mark::of(tail.last.map(|last| last.index));
        let sequence = tail.next_sequence.previous();
        let position = WriterPosition {
            segment,
            file,
            file_bytes,
            is_blank,
            written_bytes: used,
            chain: tail.chain,
            sequence,
        };
        let writer = LogWriter::new(
            WriterConfig {
                database_id: self.content.database_id,
                durability: config.durability,
                group_bytes_max: config.group_bytes,
                linger: config.batch_interval,
                linger_entries: config.batch_size as u64,
            },
            Arc::clone(&queue),
            Arc::clone(&shared),
            self.disk.queue().map_err(error("making a write queue for"))?,
            Arc::clone(&files),
            Arc::clone(&self.table),
            Clock::real(),
            position,
            mark,
        );
        let position = LogPosition {
            incarnation: self.content.incarnation,
            next_sequence: tail.next_sequence,
            last: tail.last,
            committed_mark: Mark::of(start.committed),
            skipped: tally.skipped(),
            terms: tally.terms,
            index: tally.index,
            unfed,
        };
        let appender_config = AppenderConfig {
            limits: config.limits,
            frame_entries_max: AppenderConfig::frame_entries(config.batch_size)?,
            frame_bytes_max: config.frame_bytes,
            contiguity: self.content.contiguity,
        };
        let to_writer = Some(Arc::clone(&queue));
        let table = Arc::clone(&self.table);
        let pool_of = Arc::clone(&pool);
        let appender = Appender::new(appender_config, position, pool_of, table, active, to_writer);
        let backend = writer.backend();
        let io_fallback = writer.io_fallback().map(str::to_owned);
        let appender = Mutex::new(Rank::UntakenAppender, Some(appender));
        let writer = Mutex::new(Rank::LogWriter, writer);
        Ok(Writing { appender, writer, queue, shared, files, pool, backend, io_fallback })
    }
}

/// Puts a segment's file into the table.
fn map_segment(
    disk: &Arc<dyn Disk>,
    table: &SegmentTable,
    number: SegmentNumber,
) -> Result<(), OpenError> {
    let name = &*segment_name(number);
    let error = |action| move |source| OpenError::io(action, name, source);
    let file = disk.open(name, Access::Read).map_err(error("opening"))?;
    let bytes = file.len().map_err(error("measuring"))?;
    // A file too long for a segment is not mapped: reading the log reaches it, and names it.
    let bytes = to_usize(bytes);
    if bytes > 0 && bytes as u64 <= SEGMENT_BYTES_MAX {
        let sealed = SegmentBytes::sealed(disk, number, file, bytes);
        table.set(number, sealed.map_err(error("mapping"))?);
    }
    Ok(())
}

fn check_config(config: &PersistentConfig) -> Result<(), OpenError> {
    let longest = to_usize(SEGMENT_BYTES_MAX) / 4096 * 4096;
    config.limits.check()?;
    within("segment_bytes", config.segment_bytes, 4 * SEGMENT_SLACK_BYTES, longest)?;
    within("segment_images", config.segment_images, 2, 1 << 10)?;
    within("pinned_images", config.pinned_images, 0, 1 << 10)?;
    within("spare_segments", config.spare_segments, 0, 1 << 10)?;
    within("batch_size", config.batch_size, 1, BATCH_SIZE_MAX)?;
    within("frame_bytes", config.frame_bytes, 1, FRAME_BYTES_MAX)?;
    within("group_bytes", config.group_bytes, 1, longest)?;
    within("expected_keys", config.expected_keys, 0, EXPECTED_KEYS_MAX)?;
    within("snapshot_chunk_bytes", config.snapshot_chunk_bytes, 1, usize::MAX)?;
    if let Some(policy) = config.compaction_policy() {
        policy.check()?;
    }
    config.contiguity.check(config.commit_mode)?;
    if !config.segment_bytes.is_multiple_of(4096) {
        let message = format!("{} is not a multiple of 4096", config.segment_bytes);
        return Err(OpenError::Config { option: "segment_bytes", message });
    }
    Ok(())
}
