//! Repair of a damaged directory: it gives up what cannot be read back, and nothing else, after
//! making a copy.
//!
//! Opening never repairs on its own. The damaged bytes were durable, so they may have been
//! acknowledged. An operator must decide to drop them, who knows which other nodes have them.
//!
//! **The order of the steps, and why.** The copies are complete and durable before the first byte
//! is changed. Then repair removes segments behind the damage, from the last to the first, and
//! makes that durable. Then it overwrites everything behind the last good frame with zeros, and
//! makes that durable. At last it stores META. Until META is stored, a crash leaves a log that
//! holds as many good frames as before. Its end is damaged as before, or is a torn end that the
//! next open cuts. The place is the same either way, because the frame after the last good one
//! never becomes good.
//!
//! **A snapshot that reaches beyond the damage** has what the log lost, and a log that ended before
//! it could not continue from it. So the log begins anew behind the snapshot, in a new segment:
//! storing META is the whole step. Segments below the new base do not belong to the log, whether
//! they are removed by then or not.
//!
//! **Why cut frames cannot come back.** A frame behind the cut could do harm in two ways. The log
//! could take it for its next frame after growing up to it. Or it could prove that lost frames were
//! durable. Repair leaves no non-zero byte behind the cut in any segment, so neither can happen.
//! Later writes there have a higher incarnation than any earlier header, because repair raises
//! META's incarnation above all of them. META itself is such a proof, and has two slots. Repair
//! stores both, so that a slot lost later does not bring back the earlier watermark.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bytes::filled;
use crate::disk::names::{HARD_FILE, META_FILE, parse_snapshot_name, segment_name, snapshot_name};
use crate::disk::real::{OpenMode, RealDisk, backup};
use crate::disk::{Access, Disk};
use crate::entry::LogId;
use crate::error::{Corrupt, OpenError, SnapshotError};
use crate::log::Cut;
use crate::log::format::FrameKind;
use crate::log::hard::{self, HardFile};
use crate::log::meta::{LogBase, Meta, MetaFile};
use crate::log::recovery::files::{check_lengths, first_frame, list_files};
use crate::log::recovery::older::OlderMeta;
use crate::log::recovery::scan::{
    OnDamage, ScanOptions, ScanResult, Tail, Unreadable, erase_after, rewrite, scan,
};
use crate::numbers::SegmentNumber;
use crate::snapshot::Snapshot;

/// Options of [`repair`].
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct RepairOptions {
    write: bool,
    forget_hard_state: bool,
}

impl RepairOptions {
    /// Makes options that only look.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether to repair, and not only to report what a repair would lose. Default: false.
    pub fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn writes(self) -> bool {
        self.write
    }

    /// Sets whether a damaged, missing or outdated `HARD` may be taken back to the hard state
    /// before, or to none. Default: false, because the node may then vote twice in a term. It is
    /// better to discard its log and vote, and to add the node as a new one.
    pub fn forget_hard_state(mut self, forget: bool) -> Self {
        self.forget_hard_state = forget;
        self
    }
}

/// Findings and actions of [`repair`].
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Damage of the log, and the entries lost with it.
    pub log: Option<LostLog>,
    /// Offset of an unreadable slot of `META`. Repair from the other slot loses no entry.
    pub meta_slot: Option<u64>,
    /// Evidence that `META` is an older copy of itself, or a copy of another time. Where a frame or
    /// a snapshot is newer, the repair loses no entry.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::what"))]
    pub meta: Option<Corrupt>,
    /// Damage of `HARD`.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::what"))]
    pub hard: Option<Corrupt>,
    /// Damage of snapshots. Repair removes them where an older snapshot, or the log, has their
    /// content.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::files"))]
    pub damaged_snapshots: Vec<Corrupt>,
    /// The last entry such that it and all before it are whole; the snapshot's last entry, if that
    /// is later.
    #[cfg_attr(feature = "serde", serde(flatten, serialize_with = "crate::serial::last"))]
    pub last: Option<LogId>,
    /// A snapshot that has what the log lost, up to this entry. The log is then not cut, but begins
    /// anew behind the snapshot.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "snapshot_index", serialize_with = "crate::serial::index")
    )]
    pub snapshot: Option<LogId>,
    /// A torn end, which is no damage: the next open for writing cuts it.
    pub torn_end: Option<Cut>,
    /// Whether the directory was repaired. Always false without [`RepairOptions::write`], and where
    /// nothing is damaged.
    pub repaired: bool,
    /// Directory with copies of the original files; `None` if nothing was changed.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
    pub backup: Option<PathBuf>,
    /// Names of the copied files.
    pub backed_up: Vec<String>,
}

impl RepairReport {
    /// Whether anything is damaged, or was before the repair.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        let beside = self.hard.is_some() || !self.damaged_snapshots.is_empty();
        self.log.is_some() || self.meta_slot.is_some() || self.meta.is_some() || beside
    }
}

/// Losses of cutting the log at its damage.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LostLog {
    /// The damage: file, offset, first index lost. Serialized, its fields stand among the others.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub damage: Corrupt,
    /// Bytes behind the last good frame, over all segments.
    pub bytes: u64,
    /// Number of frames behind it with readable headers, including the damaged one if its header is
    /// readable.
    pub frames: u64,
    /// Number of entries in those frames.
    pub entries: u64,
    /// First and last index of those entries.
    pub indexes: Option<(u64, u64)>,
    /// Segments that are removed as a whole; the rest of the segment before them is overwritten
    /// with zeros.
    pub segments: Vec<String>,
}

/// Checks the directory at `path` and, with [`RepairOptions::write`], cuts its log at the first
/// damage, so that it opens again. Where a snapshot goes further, the log begins anew behind it
/// instead. An older copy of `META` is brought up to the frames and snapshots. All files that
/// repair changes are copied first, into a new directory `<path>-backup-<n>`.
///
/// A check costs one pass over the log and the snapshots. A repair costs another pass and the
/// copies: damaged snapshots, the damaged segment, and later ones. Where a snapshot goes further,
/// it copies all of the log. After a crash on the way, the directory is repaired or can be repaired
/// again.
///
/// # Errors
///
/// Returns [`OpenError`] with the obstacle. It is [`OpenError::Corrupt`] where no repair is
/// possible, and nothing was changed then. No slot of `META` is readable, or a committed entry is
/// nowhere. Or a file is too long for a segment, or the log begins behind a snapshot that no whole
/// one covers. Or `HARD` is damaged, and [`forget_hard_state`](RepairOptions::forget_hard_state)
/// was not chosen.
///
/// # Examples
///
/// ```
/// # use sprag::{ApplyConfig, ApplyManager, Entry, PersistentConfig, PersistentStateMachine};
/// use sprag::{RepairOptions, repair};
/// # let temporary = tempfile::tempdir()?;
/// # let path = temporary.path().join("data");
/// # let machine = PersistentStateMachine::open(PersistentConfig::new(&path))?;
/// # let manager = ApplyManager::new(machine, ApplyConfig::new())?;
/// # let timeout = std::time::Duration::from_secs(10);
/// # manager.apply(&Entry::put(1, 1, b"key", b"value"), timeout)?;
/// # manager.close(timeout)?;
///
/// let report = repair(&path, RepairOptions::new())?;
/// if let Some(lost) = &report.log {
///     println!("{}: {} entries would be lost", lost.damage, lost.entries);
/// }
/// # assert!(!report.is_damaged());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn repair(path: impl AsRef<Path>, options: RepairOptions) -> Result<RepairReport, OpenError> {
    let path = path.as_ref();
    let mode = if options.write { OpenMode::Write { create: false } } else { OpenMode::ReadOnly };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(path, mode)?);
    repair_on_disk(&disk, options, &mut || {
        let (disk, path) = backup::create_beside(path)?;
        Ok((Arc::new(disk) as Arc<dyn Disk>, path))
    })
}

/// Returns an empty directory for the copies, and its path.
pub(crate) type MakeBackup<'a> = dyn FnMut() -> Result<(Arc<dyn Disk>, PathBuf), OpenError> + 'a;

/// Repairs as [`repair`] does, on any disk.
pub(crate) fn repair_on_disk(
    disk: &Arc<dyn Disk>,
    options: RepairOptions,
    make_backup: &mut MakeBackup<'_>,
) -> Result<RepairReport, OpenError> {
    let (shared, disk) = (disk, &**disk);
    let mut report = RepairReport::default();
    let Some((mut meta_file, meta, meta_damage)) = MetaFile::open(disk, options.write)? else {
        return Ok(report);
    };
    let (newest, damaged) = look_at_snapshots(shared)?;
    let newest =
        newest.filter(|newest| Some(newest.index) >= meta.base.last.map(|base| base.index));
    report.damaged_snapshots = damaged;
    let look =
        ScanOptions { on_damage: OnDamage::StopThere, snapshot: newest, ..ScanOptions::default() };
    let result = scan(disk, &meta, look, &mut |_| Ok(()))?;
    report.meta_slot = meta_damage.slot_offset;
    report.last = result.tail.last;
    report.torn_end = result.cut.clone().map(Into::into);
    report.log = result.unreadable.clone().map(|damage| LostLog::new(damage, &result));
    let older = OlderMeta::of_scan(&meta, &meta_damage, &result);
    report.meta = result.begins_late.clone().or(older.map(OlderMeta::place));
    let mut later_log = None;
    if let Some(lost) = &mut report.log
        && let Some(log_id) = newest
        && result.tail.last.is_none_or(|last| last.index < log_id.index)
    {
        later_log = log_behind(disk, &meta, log_id)?;
        let mut segments = list_files(disk)?.segments;
        segments.retain(|number| *number >= meta.base.segment);
        lost.only_above(log_id.index, segments);
        (report.snapshot, report.last) = (Some(log_id), Some(log_id));
    }
    // Opening does the same for a snapshot that was being installed, where META is intact.
    if let Some(log_id) = result.lacks_snapshot
        && (report.meta.is_some() || report.meta_slot.is_some())
    {
        (report.snapshot, report.last) = (Some(log_id), Some(log_id));
    }
    if let Some(LaterLog { result, .. }) = &later_log {
        // The log is whole; only META's start of the log is outdated.
        (report.log, report.last) = (None, result.tail.last);
        report.torn_end = result.cut.clone().map(Into::into);
        report.meta = Some(OlderMeta::Incarnation(result.tail.incarnation_seen_max).place());
    }
    let mut record = meta.hard;
    match HardFile::open(disk, &meta, false) {
        Ok(_) => {}
        Err(OpenError::Corrupt(place)) => report.hard = Some(place),
        Err(other) => return Err(other),
    }
    if !options.write || !report.is_damaged() {
        return Ok(report);
    }
    if let Some(place) = report.hard.as_ref().filter(|_| !options.forget_hard_state) {
        return Err(place.clone().into());
    }
    if let Some(place) = &result.begins_late {
        return Err(place.clone().into());
    }
    if let Some(base) = meta.base.last.filter(|_| newest.is_none() && !meta.is_kept) {
        // No file has the entries before the log.
        let missing = || Corrupt {
            file: snapshot_name(base.index),
            offset: 0,
            index: Some(base.index),
            what: "the log begins after this entry, and no snapshot has what is before",
        };
        return Err(report.damaged_snapshots.pop().unwrap_or_else(missing).into());
    }
    // A file can be filled with zeros and removed, but not shortened.
    check_lengths(disk)?;
    // Segments below the log's base do not belong to it.
    let of_snapshot = report.snapshot.is_some() && later_log.is_none();
    let first_changed = match (of_snapshot, &report.log) {
        (true, _) => Some(meta.base.segment),
        (false, log) => log.as_ref().map(|_| result.tail.segment),
    };
    back_up(disk, &mut report, first_changed, make_backup)?;
    if report.log.is_some() && report.snapshot.is_none() {
        cut_log(disk, &result.tail)?;
    }
    if !report.damaged_snapshots.is_empty() {
        for Corrupt { file, .. } in &report.damaged_snapshots {
            disk.remove(file).map_err(|error| OpenError::io("removing", file, error))?;
        }
        disk.sync_dir().map_err(|error| OpenError::io("syncing", disk.describe(), error))?;
    }
    if report.hard.is_some() {
        record = hard::mend(disk, &meta)?;
    }
    if report.log.is_some()
        || report.meta_slot.is_some()
        || report.meta.is_some()
        || report.hard.is_some()
    {
        let content = match (later_log, report.snapshot) {
            (Some(LaterLog { meta, result }), _) => {
                make_durable(disk, &result)?;
                repaired_meta(&meta, &result, false)
            }
            (None, Some(log_id)) => {
                meta_behind(&meta, &result.tail, log_id, list_files(disk)?.segments)
            }
            (None, None) => {
                make_durable(disk, &result)?;
                repaired_meta(&meta, &result, report.log.is_some())
            }
        };
        if report.hard.is_none() {
            // HARD is written again unchanged: META must not record more of it than is durable.
            let hard = HardFile::open(disk, &meta, true)?;
            disk.sync_dir().map_err(|error| OpenError::io("syncing", disk.describe(), error))?;
            record = record.at(hard.settled_sequence());
        }
        // The first store goes to the slot that does not count: a damaged one, if there is one.
        let content = Meta { hard: record, ..content };
        meta_file
            .store_twice(&content)
            .map_err(|error| OpenError::io("writing", META_FILE, error))?;
    }
    if of_snapshot {
        remove_segments(disk, SegmentNumber::LOWEST)?;
    }
    check(disk)?;
    report.repaired = true;
    Ok(report)
}

/// The newest whole snapshot, and the damage of the others.
fn look_at_snapshots(disk: &Arc<dyn Disk>) -> Result<(Option<LogId>, Vec<Corrupt>), OpenError> {
    let mut names = list_files(&**disk)?.snapshots;
    names.sort_unstable();
    let (mut newest, mut damaged) = (None, Vec::new());
    for name in names {
        let corrupt = |what| Corrupt { file: name.clone(), offset: 0, index: None, what };
        let opened = Snapshot::open_on(disk, &name);
        match opened.and_then(|snapshot| snapshot.verify().map(|()| snapshot.log_id())) {
            Ok(log_id) if log_id.map(|log_id| log_id.index) == parse_snapshot_name(&name) => {
                newest = log_id;
            }
            Ok(_) => damaged.push(corrupt("the snapshot is of another entry than its name says")),
            Err(SnapshotError::NotASnapshot { .. }) => {
                damaged.push(corrupt("it does not start as a snapshot does"));
            }
            Err(error) => match OpenError::of_snapshot(error) {
                OpenError::Corrupt(place) => damaged.push(place),
                other => return Err(other),
            },
        }
    }
    Ok((newest, damaged))
}

impl LostLog {
    fn new(damage: Unreadable, result: &ScanResult) -> Self {
        let Unreadable { place, bytes, frames, entries, indexes } = damage;
        let later = result.segments.iter().map(|segment| segment.number);
        let later = later.filter(|number| *number > result.tail.segment);
        let segments = later.map(segment_name).collect();
        Self { damage: place, bytes, frames, entries, indexes, segments }
    }
}

impl LostLog {
    /// Changes the loss to entries above `index`, which a snapshot covers; all `segments` go.
    fn only_above(&mut self, index: u64, segments: Vec<SegmentNumber>) {
        self.indexes = self.indexes.and_then(|(first, last)| {
            // `index` is below `last` here.
            (last > index).then(|| (first.max(index.saturating_add(1)), last))
        });
        // All 2^64 indexes can not be in a log.
        let most = self.indexes.map_or(0, |(first, last)| (last - first).saturating_add(1));
        self.entries = self.entries.min(most);
        self.segments = segments.into_iter().map(segment_name).collect();
    }
}

/// Copies every file that repair is going to change.
fn back_up(
    disk: &dyn Disk,
    report: &mut RepairReport,
    first_changed: Option<SegmentNumber>,
    make_backup: &mut MakeBackup<'_>,
) -> Result<(), OpenError> {
    // Copy META in any case, so that the copies are a directory that can be inspected.
    let mut names = vec![META_FILE.to_owned()];
    if let Some(first_changed) = first_changed {
        let segments = list_files(disk)?.segments.into_iter();
        names.extend(segments.filter(|number| *number >= first_changed).map(segment_name));
    }
    if report.hard.is_some() && list_files(disk)?.hard {
        names.push(HARD_FILE.to_owned());
    }
    names.extend(report.damaged_snapshots.iter().map(|place| place.file.clone()));
    let (backup, path) = make_backup()?;
    let copied = names.iter().try_for_each(|name| copy(disk, &*backup, name));
    let synced = || backup.sync_dir().map_err(|e| OpenError::io("syncing", backup.describe(), e));
    if let Err(error) = copied.and_then(|()| synced()) {
        // Remove a partial copy: it would look like a whole one, and needs room that the next
        // attempt needs.
        names.iter().for_each(|name| drop(backup.remove(name)));
        return Err(error);
    }
    (report.backup, report.backed_up) = (Some(path), names);
    Ok(())
}

/// Copies a file and syncs it. Ranges of zeros are reserved and not written.
fn copy(from: &dyn Disk, to: &dyn Disk, name: &str) -> Result<(), OpenError> {
    let failed = |action| move |source| OpenError::io(action, name, source);
    let copied = || format!("{}/{name}", to.describe());
    let source = from.open(name, Access::Read).map_err(failed("opening"))?;
    let bytes = source.len().map_err(failed("measuring"))?;
    let target =
        to.open(name, Access::Create).map_err(|e| OpenError::io("creating", copied(), e))?;
    target.allocate(bytes).map_err(|e| OpenError::io("reserving space for", copied(), e))?;
    let mut buffer = vec![0; 256 << 10];
    let mut offset = 0;
    loop {
        let read = source.read_at(&mut buffer, offset).map_err(failed("reading"))?;
        let chunk = filled(&buffer, read).map_err(failed("reading"))?;
        if chunk.iter().any(|byte| *byte != 0) {
            target
                .write_all_at(chunk, offset)
                .map_err(|e| OpenError::io("writing", copied(), e))?;
        }
        offset += read as u64;
        if read < buffer.len() {
            break;
        }
    }
    target.sync_data().map_err(|e| OpenError::io("syncing", copied(), e))
}

/// Fills everything behind the last good frame with zeros, durably, before META records the new
/// end.
fn cut_log(disk: &dyn Disk, tail: &Tail) -> Result<(), OpenError> {
    remove_segments(disk, tail.segment.next())?;
    erase_after(disk, tail)?;
    Ok(())
}

/// Removes the segments from `first` on, from the last to the first, durably.
fn remove_segments(disk: &dyn Disk, first: SegmentNumber) -> Result<(), OpenError> {
    let segments = list_files(disk)?.segments.into_iter().filter(|number| *number >= first);
    for number in segments.rev() {
        let name = segment_name(number);
        disk.remove(&name).map_err(|error| OpenError::io("removing", name, error))?;
    }
    disk.sync_dir().map_err(|error| OpenError::io("syncing", disk.describe(), error))
}

/// The META of a log without frames, which continues from the snapshot of `log_id`, behind all
/// `segments`.
fn meta_behind(meta: &Meta, tail: &Tail, log_id: LogId, segments: Vec<SegmentNumber>) -> Meta {
    // The sequence is above everything that was proved durable, so that no frame counts as missing.
    let sequence = tail.durable_sequence_known.max(tail.next_sequence);
    // The base alone counts in a directory without segments.
    let last_segment = segments.last().copied().unwrap_or_default().max(meta.base.segment);
    Meta {
        // An incarnation rises by one an open: 2^64 are never reached.
        incarnation: meta.incarnation.max(tail.incarnation_seen_max).saturating_add(2),
        base: LogBase {
            segment: last_segment.next(),
            sequence,
            chain: tail.chain,
            last: Some(log_id),
        },
        durable_sequence: sequence,
        clean_close: true,
        committed: tail.committed.max(Some(log_id.index)),
        ..*meta
    }
}

/// Makes durable what was read and may not be durable yet.
fn make_durable(disk: &dyn Disk, result: &ScanResult) -> Result<(), OpenError> {
    let known = result.tail.durable_sequence_known;
    let doubtful = result.segments.iter().filter(|segment| segment.last_sequence > known);
    for segment in doubtful {
        rewrite(disk, &segment_name(segment.number), segment.used_bytes)?;
    }
    Ok(())
}

/// A whole log that begins behind a snapshot, while META says that it begins earlier.
struct LaterLog {
    /// META with the start of that log.
    meta: Meta,
    result: ScanResult,
}

/// The log that begins right behind the snapshot of `log_id`, if it is whole and newer than META.
/// All of its frames come from later openings.
fn log_behind(disk: &dyn Disk, meta: &Meta, log_id: LogId) -> Result<Option<LaterLog>, OpenError> {
    let segments = list_files(disk)?.segments.into_iter();
    for number in segments.rev().filter(|number| *number > meta.base.segment) {
        let Some(first) = first_frame(disk, &meta.database_id, number)? else { continue };
        let opening = first.opening;
        let follows = opening.kind == FrameKind::Entries
            && Some(opening.first_index) == log_id.index.checked_add(1)
            && opening.term >= log_id.term
            && opening.incarnation > meta.incarnation;
        if !follows {
            continue;
        }
        let sequence = opening.sequence.previous();
        let last = Some(log_id);
        let base = LogBase { segment: number, sequence, chain: first.previous, last };
        let meta = Meta {
            base,
            durable_sequence: sequence,
            committed: meta.committed.max(Some(log_id.index)),
            ..*meta
        };
        let look = ScanOptions { on_damage: OnDamage::StopThere, ..ScanOptions::default() };
        let result = scan(disk, &meta, look, &mut |_| Ok(()))?;
        if result.unreadable.is_none() && result.begins_late.is_none() {
            return Ok(Some(LaterLog { meta, result }));
        }
    }
    Ok(None)
}

/// META for the log's new end; all of its frames are durable.
fn repaired_meta(meta: &Meta, result: &ScanResult, cut: bool) -> Meta {
    let tail = &result.tail;
    Meta {
        // Add two, because the lost slot may have recorded one more open.
        incarnation: meta.incarnation.max(tail.incarnation_seen_max).saturating_add(2),
        // Frames behind this one have the new incarnation, or do not exist.
        durable_sequence: tail.next_sequence.previous(),
        clean_close: result.cut.is_none(),
        // Committed entries above the cut are gone. New entries at those indexes must not count as
        // committed.
        committed: if cut { tail.committed } else { tail.committed.max(meta.committed) },
        ..*meta
    }
}

/// Checks that the repaired directory opens.
fn check(disk: &dyn Disk) -> Result<(), OpenError> {
    let opened = MetaFile::open(disk, false)?;
    if let Some((_, meta, _)) = opened {
        scan(disk, &meta, ScanOptions::default(), &mut |_| Ok(()))?;
        HardFile::open(disk, &meta, false)?;
    }
    Ok(())
}
