//! Tests of reading beside a writer, which a disk plays by changing between two looks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::disk::names::META_FILE;
use crate::disk::{Access, DiskFile, WriteQueue};
use crate::log::recovery::freeze::freeze;
use crate::log::recovery::older::OlderMeta;
use crate::log::recovery::scan::OnDamage;

/// A disk that lists its files once unchanged, and from the second listing on as the writer has
/// changed them.
#[derive(Debug)]
struct Changing {
    files: MemoryDisk,
    listed: AtomicBool,
    /// Later content of the first segment.
    later: Vec<u8>,
    /// Later content of META, if that changes too.
    later_meta: Option<Vec<u8>>,
}

impl Disk for Changing {
    fn describe(&self) -> String {
        self.files.describe()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        if self.listed.swap(true, Ordering::Relaxed) {
            self.files.set(&segment_name(0), self.later.clone());
            if let Some(meta) = &self.later_meta {
                self.files.set(META_FILE, meta.clone());
            }
        }
        self.files.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.files.open(name, access)
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn is_beside_a_writer(&self) -> bool {
        true
    }

    fn queue(&self) -> io::Result<Box<dyn WriteQueue>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Three frames, the last of which says that the second is durable. `change` alters the second for
/// the first look, and `later` for every look after it.
fn changing(change: impl Fn(&mut [u8]), later: impl Fn(&mut [u8])) -> (Changing, u64) {
    let mut log = Writer::new();
    log.entries(&["a"]).entries(&["b"]);
    log.durable_sequence = 2;
    log.entries(&["c"]);
    let (_, start, end) = log.frames[1];
    let mut changed = log.segments[0].clone();
    later(&mut changed[start..end]);
    change(&mut log.segments[0][start..end]);
    let listed = AtomicBool::new(false);
    let disk = Changing { files: log.disk(0), listed, later: changed, later_meta: None };
    (disk, start as u64)
}

/// Number of good frames, and the place of damage.
fn look(disk: &dyn Disk) -> Result<(usize, Option<u64>), OpenError> {
    let options = ScanOptions::looking_at(disk);
    assert!(options.beside_a_writer && options.on_damage == OnDamage::StopThere);
    let mut seen = 0;
    let result = scan(disk, &meta(0), options, &mut |_| {
        seen += 1;
        Ok(())
    })?;
    assert_eq!(result.cut, None);
    Ok((seen, result.unreadable.map(|unreadable| unreadable.place.offset)))
}

fn torn(frame: &mut [u8]) {
    frame[100..].fill(0);
}

#[test]
fn a_frame_that_is_whole_at_the_second_look_is_the_end_and_no_damage() {
    let (disk, _) = changing(torn, |_| {});
    assert_eq!(look(&disk).unwrap(), (1, None));
}

#[test]
fn a_frame_that_is_torn_at_both_looks_is_damage() {
    let (disk, start) = changing(torn, torn);
    assert_eq!(look(&disk).unwrap(), (1, Some(start)));
}

#[test]
fn a_place_that_is_damage_by_itself_at_the_second_look_is_not_whole_and_keeps_nothing_from_being_read()
 {
    let unknown_kind = |frame: &mut [u8]| {
        frame[6] = 4;
        reseal(frame);
    };
    let (disk, start) = changing(torn, unknown_kind);
    assert_eq!(look(&disk).unwrap(), (1, Some(start)));
    // Set a length that no frame can have.
    let too_long = |frame: &mut [u8]| {
        put(frame, 64, &u32::MAX.to_le_bytes());
        reseal(frame);
    };
    let (disk, start) = changing(torn, too_long);
    assert_eq!(look(&disk).unwrap(), (1, Some(start)));
    // The place is bad at the first look too, so one look is enough.
    let (disk, start) = changing(unknown_kind, unknown_kind);
    assert_eq!(look(&disk).unwrap(), (1, Some(start)));
}

/// META is read, and then its writer closes, opens again and appends. The new frame does not prove
/// that META is an older copy.
#[test]
fn a_writer_that_opens_again_while_it_is_read_makes_no_older_meta() {
    let mut log = Writer::new();
    log.entries(&["a"]);
    let files = log.disk(64);
    let closed = Meta { clean_close: true, ..meta(1) };
    MetaFile::create(&files, &closed).unwrap();
    let again = MemoryDisk::default();
    MetaFile::create(&again, &Meta { incarnation: 2, ..meta(1) }).unwrap();
    log.incarnation = 2;
    log.entries(&["b"]);
    let disk = Changing {
        files,
        listed: AtomicBool::new(false),
        later: log.segments[0].clone(),
        later_meta: Some(again.bytes(META_FILE)),
    };
    let (frozen, result) = freeze(&disk).unwrap();
    let (_, meta, damage) = MetaFile::open(&frozen, false).unwrap().unwrap();
    let result = result.unwrap();
    assert_eq!((meta.incarnation, result.tail.next_sequence.get()), (2, 3));
    assert_eq!(OlderMeta::of_scan(&meta, &damage, &result), None);
    // By the META that was read first, it would be one.
    assert!(OlderMeta::of_scan(&closed, &damage, &result).is_some());
}
