//! Tests that tools see the content that was put into a directory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::codec::{CommandRef, PayloadRef};
use crate::{
    ApplyConfig, ApplyManager, CommitMode, Entry, PersistentConfig, PersistentStateMachine, Stage,
};

const TIMEOUT: Duration = Duration::from_secs(20);

type Manager = ApplyManager<PersistentStateMachine>;

fn open(path: &Path, mode: CommitMode) -> Manager {
    let config = PersistentConfig::new(path).commit_mode(mode).segment_bytes(64 << 10);
    let machine = PersistentStateMachine::open(config).unwrap();
    ApplyManager::new(machine, ApplyConfig::new()).unwrap()
}

/// Appends `indexes` of `term`, each value naming both, and makes them durable.
fn append(manager: &Manager, indexes: std::ops::RangeInclusive<u64>, term: u64) {
    for index in indexes {
        let value = format!("{index} of {term}");
        let _ = manager
            .consensus()
            .unwrap()
            .append(&[Entry::put(index, term, b"key", value.as_bytes())])
            .unwrap();
        manager.wait_until(index, Stage::Durable, TIMEOUT).unwrap();
    }
}

fn dumped(path: &Path, indexes: impl std::ops::RangeBounds<u64>) -> Vec<(u64, u64, bool, String)> {
    let mut seen = Vec::new();
    let summary = dump(path, indexes, &mut |entry| {
        let PayloadRef::Command(CommandRef::Put { value, .. }) = entry.payload else {
            panic!("only puts were appended");
        };
        let value = String::from_utf8(value.bytes.to_vec()).unwrap();
        seen.push((entry.log_id.index, entry.log_id.term, entry.committed, value));
        Ok(())
    });
    assert_eq!(summary.unwrap().entries, seen.len() as u64);
    seen
}

#[test]
fn a_dump_leaves_out_what_was_truncated_however_often() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("data");
    let manager = open(&path, CommitMode::ByCommit);
    append(&manager, 0..=9, 1);
    manager.consensus().unwrap().commit(2).unwrap();
    manager.consensus().unwrap().truncate_after(Some(6)).unwrap();
    append(&manager, 7..=9, 2);
    manager.consensus().unwrap().truncate_after(Some(4)).unwrap();
    append(&manager, 5..=11, 3);
    manager.consensus().unwrap().truncate_after(Some(10)).unwrap();
    manager.consensus().unwrap().commit(4).unwrap();
    manager.wait_until(4, Stage::Applied, TIMEOUT).unwrap();
    manager.close(TIMEOUT).unwrap();

    let expected: Vec<_> = (0..=10)
        .map(|index| {
            let term = if index < 5 { 1 } else { 3 };
            (index, term, index <= 4, format!("{index} of {term}"))
        })
        .collect();
    assert_eq!(dumped(&path, ..), expected);
    assert_eq!(dumped(&path, 4..=6), expected[4..=6]);
    assert_eq!(dumped(&path, 11..), []);

    let inspection = inspect(&path).unwrap();
    assert_eq!(inspection.last.map(|last| (last.index, last.term)), Some((10, 3)));
    assert_eq!(inspection.committed, Some(4));
    assert_eq!((inspection.cut, inspection.damage), (None, None));
    let mut truncations = Vec::new();
    let mut count = 0;
    frames(&path, &mut |frame| {
        count += 1;
        assert_eq!(frame.sequence, count);
        if frame.entries.is_none() {
            truncations.push(frame.first.index);
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(truncations, [7, 5, 11]);
    assert_eq!((inspection.frames, inspection.sequence), (count, count));
}

#[test]
fn an_inspection_says_what_meta_and_the_segments_hold() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("data");
    let manager = open(&path, CommitMode::OnAppend);
    let value = vec![7; 1000];
    for index in 1..=200 {
        manager.apply(&Entry::put(index, 5, b"key", &value), TIMEOUT).unwrap();
    }
    manager.close(TIMEOUT).unwrap();

    let inspection = inspect(&path).unwrap();
    let meta = inspection.meta.unwrap();
    assert!(meta.clean_close && meta.commit_mode == CommitMode::OnAppend);
    assert_eq!((meta.incarnation, meta.committed), (1, Some(200)));
    assert_eq!((inspection.committed, inspection.frames), (Some(200), 200));
    assert_eq!((inspection.sequence, inspection.durable_sequence), (200, 200));
    assert_eq!(inspection.hard_state_bytes, None);
    let used: Vec<_> = inspection.segments.iter().filter(|segment| segment.frames > 0).collect();
    assert!(used.len() > 2, "200 kB are more than two segments of 64 KiB");
    let mut next = 1;
    for segment in used {
        assert_eq!(segment.first_index, Some(next));
        assert_eq!(segment.last_index, Some(next + segment.frames - 1));
        assert!(segment.used_bytes <= segment.file_bytes);
        next += segment.frames;
    }
    assert_eq!(next, 201);
}

#[test]
fn damage_is_a_finding_of_verify_and_everything_else_is_read_up_to_it() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("data");
    let manager = open(&path, CommitMode::OnAppend);
    for index in 1..=20 {
        manager.apply(&Entry::put(index, 1, b"key", b"value"), TIMEOUT).unwrap();
    }
    manager.close(TIMEOUT).unwrap();
    assert!(verify(&path).unwrap().is_clean());

    let segment = path.join(segment_name_of_first(&path));
    let whole = fs::read(&segment).unwrap();
    let mut bytes = whole.clone();
    let mut places = Vec::new();
    frames(&path, &mut |frame| {
        places.push(frame.offset);
        Ok(())
    })
    .unwrap();
    for position in [3, 11] {
        let at = usize::try_from(places[position]).unwrap() + 130;
        bytes[at] ^= 1;
    }
    fs::write(&segment, &bytes).unwrap();
    let report = verify(&path).unwrap();
    assert!(!report.is_clean());
    let found: Vec<_> = report.findings.iter().map(|f| (f.place.offset, f.place.index)).collect();
    assert_eq!(found, [(places[3], Some(4)), (places[11], Some(12))]);
    let damage = inspect(&path).unwrap().damage.unwrap();
    assert_eq!((damage.offset, damage.index), (places[3], Some(4)));
    let mut seen = 0;
    let count = &mut |_: &super::LiveEntry<'_>| {
        seen += 1;
        Ok(())
    };
    let summary = dump(&path, .., count).unwrap();
    assert_eq!((seen, summary.entries, summary.unreadable.as_ref()), (3, 3, Some(&damage)));
    let inspection = inspect(&path).unwrap();
    assert_eq!((inspection.frames, inspection.last.unwrap().index), (3, 3));

    // Both slots of META are damaged, so nothing can be said of the log.
    fs::write(&segment, &whole).unwrap();
    let mut meta = fs::read(path.join("META")).unwrap();
    meta[9] ^= 1;
    meta[4096 + 9] ^= 1;
    fs::write(path.join("META"), &meta).unwrap();
    let report = verify(&path).unwrap();
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].place.file, "META");
    assert!(matches!(inspect(&path), Err(OpenError::Corrupt(_))));
}

fn segment_name_of_first(path: &Path) -> String {
    inspect(path).unwrap().segments[0].file.clone()
}

/// Proves DUR-16.
#[test]
fn nothing_is_created_and_nothing_is_changed() {
    let temporary = tempfile::tempdir().unwrap();
    let missing = temporary.path().join("missing");
    assert!(matches!(verify(&missing), Err(OpenError::Missing { .. })));
    assert!(matches!(inspect(&missing), Err(OpenError::Missing { .. })));
    assert!(matches!(dump(&missing, .., &mut |_| Ok(())), Err(OpenError::Missing { .. })));
    assert!(!missing.exists());

    let empty = temporary.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(verify(&empty).unwrap(), VerifyReport::default());
    assert_eq!(inspect(&empty).unwrap(), Inspection::default());
    assert_eq!(dump(&empty, .., &mut |_| Ok(())).unwrap(), DumpSummary::default());
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);

    let path = temporary.path().join("data");
    let manager = open(&path, CommitMode::OnAppend);
    manager.apply(&Entry::put(1, 1, b"key", b"value"), TIMEOUT).unwrap();
    let beside = verify(&path).unwrap();
    assert!(beside.beside_a_writer && beside.is_clean() && beside.entries == 1);
    manager.close(TIMEOUT).unwrap();
    let before = content(&path);
    verify(&path).unwrap();
    inspect(&path).unwrap();
    frames(&path, &mut |_| Ok(())).unwrap();
    dump(&path, .., &mut |_| Ok(())).unwrap();
    assert_eq!(content(&path), before);
}

fn content(path: &Path) -> Vec<(String, SystemTime, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            let name = file.file_name().into_string().unwrap();
            (name, modified, fs::read(file.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn an_error_of_the_sink_ends_a_dump_and_comes_back() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("data");
    let manager = open(&path, CommitMode::OnAppend);
    for index in 1..=3 {
        manager.apply(&Entry::noop(index, 1), TIMEOUT).unwrap();
    }
    manager.close(TIMEOUT).unwrap();
    let mut seen = 0;
    let error = dump(&path, .., &mut |_| {
        seen += 1;
        if seen == 2 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    });
    let OpenError::Io { source, .. } = error.unwrap_err() else { panic!("not an I/O error") };
    assert_eq!((source.kind(), seen), (io::ErrorKind::BrokenPipe, 2));
}
