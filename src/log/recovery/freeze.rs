//! A consistent prefix of a log that somebody else may be writing to, copied frame by frame.
//!
//! Nothing read twice from such a directory need be the same, and nothing of it may be mapped. So each frame is read
//! once, by `pread`, checked, and kept; what is opened then is the copy, which nobody changes. A frame that does not
//! hold yet is the end of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disk::frozen::FrozenDisk;
use crate::disk::real::RealDisk;
use crate::disk::{Access, Disk, Mapping};
use crate::error::OpenError;
use crate::log::format::{FRAME_HEADER_BYTES, HARD_FILE, META_FILE, segment_name};
use crate::log::hard::HardFile;
use crate::log::meta::{LogBase, Meta, MetaFile};
use crate::log::recovery::files::{foreign_files, list_files};
use crate::log::recovery::scan::{ScanOptions, ScanResult, scan};
use crate::snapshot::Snapshot;
use crate::sync::thread;

/// Both slots of a two-slot file.
const SLOTS_BYTES: usize = 2 * 4096;
/// Looks that follow each other at once, and the pause between later ones.
const QUICK_LOOKS: usize = 16;
const LOOK_PAUSE: Duration = Duration::from_millis(1);
/// How long what a writer changes meanwhile is looked at again. A slot is written in one go: only a writer that does not get a
/// processor leaves it half-way for longer than a moment.
const LOOKS_TIME: Duration = Duration::from_secs(1);

/// Looks at what a writer may be changing.
pub(crate) struct Looks {
    taken: usize,
    began: Instant,
}

impl Looks {
    pub(crate) fn new() -> Self {
        Self { taken: 0, began: Instant::now() }
    }

    /// Whether to look again; waits a moment before most of them.
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

/// What of a directory stays as it is while it is looked at: itself, or a copy if it may change, and then what
/// copying found.
pub(crate) fn hold_still(disk: RealDisk) -> Result<(Arc<dyn Disk>, Option<ScanResult>), OpenError> {
    if !disk.may_change() {
        return Ok((Arc::new(disk), None));
    }
    let (frozen, result) = freeze(&disk)?;
    Ok((Arc::new(frozen), result))
}

/// Copies what there is; the scan it was copied by, unless nothing was ever completed in the directory.
///
/// Costs one pass over the log and the newest snapshot, and as much memory as they take.
pub(crate) fn freeze(disk: &dyn Disk) -> Result<(FrozenDisk, Option<ScanResult>), OpenError> {
    let mut looks = Looks::new();
    loop {
        let frozen = freeze_once(disk);
        let moved = match &frozen {
            // A file that was there when the directory was listed: its writer has no more use for it.
            Err(OpenError::Io { source, .. }) => source.kind() == io::ErrorKind::NotFound,
            // The log begins elsewhere by now: what was read of it may have been removed meanwhile. Or it was opened again,
            // and META was read before that, and frames after.
            Ok((_, Some((meta, _)))) => era(disk)? != Some((meta.base, meta.incarnation)),
            _ => false,
        };
        if !moved || !looks.again() {
            return frozen.map(|(frozen, read)| (frozen, read.map(|(_, result)| result)));
        }
    }
}

/// Where the log begins now, and the incarnation of the opening that writes it.
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
    // That they are there tells a directory that was completed from one that was not.
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
    // Before the log, which has every entry that a snapshot has had since before that got its name.
    freeze_snapshots(disk, &mut frozen)?;
    let mut segments: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let options = ScanOptions::looking_at(disk).by_meta(&meta, &damage);
    let result = scan(disk, &meta, options, &mut |frame| {
        let bytes = segments.entry(frame.segment).or_default();
        let offset = usize::try_from(frame.offset).unwrap_or(usize::MAX);
        bytes.resize(offset + FRAME_HEADER_BYTES + frame.body.len(), 0);
        let (header, body) = bytes[offset..].split_at_mut(FRAME_HEADER_BYTES);
        header.copy_from_slice(frame.header_bytes);
        body.copy_from_slice(frame.body);
        Ok(())
    })?;
    for (number, bytes) in segments {
        frozen.insert(segment_name(number), bytes);
    }
    // Listed again: it may have been made before META was read, which then says so.
    if list_files(disk)?.hard {
        // What is damaged is for whoever opens the copy to say.
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

/// Copies the newest snapshot that reads back, and those after it. None of them ever changes.
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
        let mut copy = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
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

/// Beside a writer, what looks damaged may be half-way through being written: `look` says so by `true` or by
/// [`OpenError::Corrupt`], and is then asked again.
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
