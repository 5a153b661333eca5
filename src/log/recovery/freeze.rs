//! A consistent prefix of a log that another process may be writing, copied frame by frame.
//!
//! Two reads of such a directory may differ, and none of its files may be mapped. So each frame is
//! read once, by `pread`, checked, and kept. The copy, which no process changes, is opened then. A
//! frame that is not good yet is the end of the copy.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bytes::to_usize;
use crate::disk::frozen::FrozenDisk;
use crate::disk::names::{HARD_FILE, META_FILE, segment_name};
use crate::disk::real::RealDisk;
use crate::disk::{Access, Disk, Mapping};
use crate::error::OpenError;
use crate::log::format::FRAME_HEADER_BYTES;
use crate::log::hard::HardFile;
use crate::log::meta::{LogBase, Meta, MetaFile};
use crate::log::recovery::files::{foreign_files, list_files};
use crate::log::recovery::scan::{ScanOptions, ScanResult, scan};
use crate::numbers::SegmentNumber;
use crate::snapshot::Snapshot;
use crate::sync::thread;

/// Length of both slots of a two-slot file.
const SLOTS_BYTES: usize = 2 * 4096;
/// Number of looks without a pause; later looks have one.
const QUICK_LOOKS: usize = 16;
const LOOK_PAUSE: Duration = Duration::from_millis(1);
/// Time for which changing bytes are read again. A writer writes a slot in one call. Only a writer
/// without a processor leaves a slot unfinished for longer than a moment.
const LOOKS_TIME: Duration = Duration::from_secs(1);

/// A series of looks at bytes that a writer may be changing.
pub(crate) struct Looks {
    taken: usize,
    began: Instant,
}

impl Looks {
    pub(crate) fn new() -> Self {
        Self { taken: 0, began: Instant::now() }
    }

    /// Whether to look again; waits a moment before most looks.
    pub(crate) fn again(&mut self) -> bool {
        self.taken += 1;
        if self.taken < QUICK_LOOKS {
            return true;
        }
        if self.began.elapsed() >= LOOKS_TIME {
            return false;
        }
        thread::sleep(LOOK_PAUSE);
        true
    }
}

/// An unchanging view of a directory: the directory itself, or a copy if it may change. With a
/// copy, also returns the findings of copying.
pub(crate) fn hold_still(disk: RealDisk) -> Result<(Arc<dyn Disk>, Option<ScanResult>), OpenError> {
    if !disk.may_change() {
        return Ok((Arc::new(disk), None));
    }
    let (frozen, result) = freeze(&disk)?;
    Ok((Arc::new(frozen), result))
}

/// Copies the directory. Returns the scan that the copy was made by, unless the directory was never
/// completed.
///
/// The call costs one pass over the log and the newest snapshot, and as much memory as they take.
pub(crate) fn freeze(disk: &dyn Disk) -> Result<(FrozenDisk, Option<ScanResult>), OpenError> {
    let mut looks = Looks::new();
    loop {
        let frozen = freeze_once(disk);
        let moved = match &frozen {
            // The file existed when the directory was listed, and its writer has removed it.
            Err(OpenError::Io { source, .. }) => source.kind() == io::ErrorKind::NotFound,
            // The log's start has moved, so files may have been removed during the read. Or the log
            // was opened again, and META was read before that, and frames after.
            Ok((_, Some((meta, _)))) => era(disk)? != Some((meta.base, meta.incarnation)),
            _ => false,
        };
        if !moved || !looks.again() {
            return frozen.map(|(frozen, read)| (frozen, read.map(|(_, result)| result)));
        }
    }
}

/// The current start of the log, and the incarnation of its last opening for writing.
fn era(disk: &dyn Disk) -> Result<Option<(LogBase, u64)>, OpenError> {
    look_again(disk, &mut || {
        let meta = MetaFile::open(disk, false)?;
        let torn = meta.as_ref().is_some_and(|(.., damage)| damage.slot_offset.is_some());
        Ok((meta.map(|(_, meta, _)| (meta.base, meta.incarnation)), torn))
    })
}

fn freeze_once(disk: &dyn Disk) -> Result<(FrozenDisk, Option<(Meta, ScanResult)>), OpenError> {
    let mut frozen = FrozenDisk::beside(disk);
    frozen.list_foreign(foreign_files(disk)?);
    let files = list_files(disk)?;
    // The existence of segments tells a completed directory from an incomplete one.
    for number in &files.segments {
        frozen.insert(segment_name(*number), Vec::new());
    }
    if files.meta {
        frozen.insert(META_FILE.to_owned(), slots(disk, META_FILE)?);
    }
    let Some((_, meta, damage)) = look_again(disk, &mut || {
        if files.meta {
            frozen.insert(META_FILE.to_owned(), slots(disk, META_FILE)?);
        }
        let meta = MetaFile::open(&frozen, false)?;
        let torn = meta.as_ref().is_some_and(|(.., damage)| damage.slot_offset.is_some());
        Ok((meta, torn))
    })?
    else {
        return Ok((frozen, None));
    };
    // Snapshots come before the log. The log has had every entry of a snapshot since before the
    // snapshot got its name.
    freeze_snapshots(disk, &mut frozen)?;
    let mut segments: BTreeMap<SegmentNumber, Vec<u8>> = BTreeMap::new();
    let options = ScanOptions::looking_at(disk).by_meta(&meta, &damage);
    let result = scan(disk, &meta, options, &mut |frame| {
        let bytes = segments.entry(frame.segment).or_default();
        let offset = to_usize(frame.offset);
        bytes.resize(offset + FRAME_HEADER_BYTES + frame.body.len(), 0);
        let (header, body) = bytes[offset..].split_at_mut(FRAME_HEADER_BYTES);
        header.copy_from_slice(frame.header_bytes);
        body.copy_from_slice(frame.body);
        Ok(())
    })?;
    for (number, bytes) in segments {
        frozen.insert(segment_name(number), bytes);
    }
    // List the files again: HARD may have been made before META was read, which then says so.
    if list_files(disk)?.hard {
        // Damage is copied; the opening of the copy reports it.
        let read = look_again(disk, &mut || {
            frozen.insert(HARD_FILE.to_owned(), slots(disk, HARD_FILE)?);
            HardFile::open(&frozen, &meta, false).map(|_| ((), false))
        });
        match read {
            Ok(()) | Err(OpenError::Corrupt(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok((frozen, Some((meta, result))))
}

/// Copies the newest readable snapshot, and newer ones. A snapshot never changes.
fn freeze_snapshots(disk: &dyn Disk, frozen: &mut FrozenDisk) -> Result<(), OpenError> {
    let mut names = list_files(disk)?.snapshots;
    names.sort_unstable();
    for name in names.into_iter().rev() {
        let failed = |action| {
            let name = name.clone();
            move |source| OpenError::io(action, name, source)
        };
        let file = disk.open(&name, Access::Read).map_err(failed("opening"))?;
        let bytes = file.len().map_err(failed("measuring"))?;
        let mut copy = vec![0; to_usize(bytes)];
        let read = file.read_at(&mut copy, 0).map_err(failed("reading"))?;
        copy.truncate(read);
        let copy: Arc<[u8]> = copy.into();
        frozen.insert_shared(name.clone(), Arc::clone(&copy));
        let whole = Snapshot::of_mapping(Mapping::Copied(copy), name, None)
            .is_ok_and(|snapshot| snapshot.verify().is_ok());
        if whole {
            break;
        }
    }
    Ok(())
}

fn slots(disk: &dyn Disk, name: &str) -> Result<Vec<u8>, OpenError> {
    let failed = |action| move |source| OpenError::io(action, name, source);
    let file = disk.open(name, Access::Read).map_err(failed("opening"))?;
    let mut bytes = vec![0; SLOTS_BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(failed("reading"))?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Repeats `look` while it reports damage by `true` or by [`OpenError::Corrupt`]. Beside a writer,
/// such a place may just be half written.
pub(crate) fn look_again<T>(
    disk: &dyn Disk,
    look: &mut dyn FnMut() -> Result<(T, bool), OpenError>,
) -> Result<T, OpenError> {
    let mut looks = Looks::new();
    loop {
        let seen = look();
        let half_way = matches!(seen, Ok((_, true)) | Err(OpenError::Corrupt(_)));
        if !half_way || !disk.is_beside_a_writer() || !looks.again() {
            return seen.map(|(seen, _)| seen);
        }
    }
}
