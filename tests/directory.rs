//! Tests of who may open which directory, and of the errors.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use crate::common::{
    LONG, Scratch, apply_config, child, child_directory, dir_bytes, open, refused,
};
use sprag::error::OpenError;
use sprag::inspect::enclosing_data_directory;
use sprag::{
    ApplyManager, CommitMode, Contiguity, Entry, PersistentStateMachine, RepairOptions,
    StateMachine as _, repair, restore,
};

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Proves DUR-33.
#[test]
fn a_second_opener_is_refused_in_this_process_and_in_another() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    manager.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
    let before = dir_bytes(&scratch.path());
    assert!(matches!(refused(scratch.config()), OpenError::Locked { .. }));
    let read_only = PersistentStateMachine::open_read_only(scratch.path());
    assert!(read_only.is_ok(), "reading beside a writer: {:?}", read_only.map(drop));
    let in_a_child = || {
        let output = child(module_path!(), "child_opens", &scratch.path()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let said = said.lines().find_map(|line| Some(line.split_once("outcome: ")?.1.to_owned()));
        said.unwrap_or_else(|| panic!("the child did not run"))
    };
    assert_eq!(in_a_child(), "locked");
    assert_eq!(dir_bytes(&scratch.path()), before, "a refused opener changed a byte");
    manager.apply(&Entry::put(2, 1, b"k", b"w"), LONG).unwrap();
    manager.close(LONG).unwrap();
    assert_eq!(in_a_child(), "opened");
    drop(scratch.open());
}

/// The child: opens its directory and prints the result.
#[test]
fn child_opens() {
    let Some(directory) = child_directory() else { return };
    match PersistentStateMachine::open(crate::common::io::config(directory).segment_bytes(64 << 10))
    {
        Ok(_) => println!("outcome: opened"),
        Err(OpenError::Locked { .. }) => println!("outcome: locked"),
        Err(error) => println!("outcome: {error}"),
    }
}

#[test]
fn a_reader_and_a_value_in_a_sealed_segment_keep_the_directory_locked() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    let reader = manager.reader();
    for index in 1..=100 {
        manager.apply(&Entry::put(index, 1, &index.to_be_bytes(), &[7; 4000]), LONG).unwrap();
    }
    let value = reader.get(&1_u64.to_be_bytes()).unwrap().unwrap();
    manager.close(LONG).unwrap();
    assert!(matches!(refused(scratch.config()), OpenError::Locked { .. }), "by the reader");
    drop(reader);
    assert!(matches!(refused(scratch.config()), OpenError::Locked { .. }), "by the value");
    assert_eq!(value, [7; 4000]);
    drop(value);
    drop(scratch.open());
}

#[test]
fn a_short_value_keeps_nothing_locked() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    manager.apply(&Entry::put(1, 1, b"k", &[7; 128]), LONG).unwrap();
    let value = manager.machine().get(b"k").unwrap().unwrap();
    drop(manager);
    drop(scratch.open());
    assert_eq!(value, [7; 128]);
}

#[test]
fn a_machine_takes_one_manager_and_a_read_only_one_none() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let machine = PersistentStateMachine::open_read_only(scratch.path()).unwrap();
    match ApplyManager::new(machine, apply_config(1)) {
        Err(OpenError::Config { .. }) => {}
        outcome => panic!("{:?}", outcome.map(drop)),
    }
}

#[test]
fn a_directory_that_is_not_there_or_none_is_said() {
    let scratch = Scratch::new();
    assert!(matches!(refused(scratch.config().create(false)), OpenError::Missing { .. }));
    let read_only = PersistentStateMachine::open_read_only(scratch.path());
    assert!(matches!(read_only, Err(OpenError::Missing { .. })));
    fs::write(scratch.path(), b"a file").unwrap();
    for create in [true, false] {
        let error = refused(scratch.config().create(create));
        assert!(matches!(error, OpenError::NotADirectory { .. }), "{error}");
    }
    assert_eq!(fs::read(scratch.path()).unwrap(), b"a file");
    fs::remove_file(scratch.path()).unwrap();
    let deep = scratch.path().join("missing").join("data");
    assert!(PersistentStateMachine::open(crate::common::io::config(deep)).is_err());
}

#[test]
fn what_is_made_is_for_its_user_only() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    for index in 1..=60 {
        manager.apply(&Entry::put(index, 1, b"k", &[1; 3000]), LONG).unwrap();
    }
    manager.log().unwrap().save_hard_state(b"vote").unwrap();
    manager.close(LONG).unwrap();
    assert_eq!(mode_of(&scratch.path()), 0o700);
    for file in fs::read_dir(scratch.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(mode_of(&file.path()), 0o600, "{:?}", file.file_name());
    }
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let scratch = Scratch::new();
    drop(scratch.open());
    for mode in [0o720, 0o702, 0o777, 0o770] {
        set_mode(&scratch.path(), mode);
        match refused(scratch.config()) {
            OpenError::WritableByOthers { mode: found, .. } => assert_eq!(found, mode),
            error => panic!("{error}"),
        }
    }
    set_mode(&scratch.path(), 0o755);
    drop(scratch.open());
}

const STRANGER: u32 = 54_321;

/// Whether this process may give files away; prints a note where a test does nothing.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root can give a directory to another user");
    }
    is_root
}

/// Gives a directory with its content to another user.
fn give_away(path: &Path, user: u32) {
    for file in fs::read_dir(path).unwrap() {
        chown(file.unwrap().path(), Some(user), Some(user)).unwrap();
    }
    chown(path, Some(user), Some(user)).unwrap();
}

/// Makes a directory of some segments, a snapshot and a log after it.
fn of_several_files(scratch: &Scratch) {
    let manager = scratch.open();
    let put = |index: u64| {
        manager.apply(&Entry::put(index, 1, &index.to_be_bytes(), &[7; 3000]), LONG).unwrap();
    };
    (1..=60).for_each(put);
    manager.snapshots().write().unwrap();
    (61..=100).for_each(put);
    manager.log().unwrap().save_hard_state(b"vote").unwrap();
    manager.close(LONG).unwrap();
}

/// Reads everything in every way, also after the files' owner has cut them.
fn read_in_every_way(path: &Path, cut: bool) {
    let report = sprag::inspect::verify(path).unwrap();
    assert!(report.is_clean() && report.snapshots == 1, "{report:?}");
    assert_eq!(sprag::inspect::inspect(path).unwrap().last.unwrap().index, 100);
    let mut entries = 0;
    let mut count = |_: &sprag::inspect::LiveEntry<'_>| {
        entries += 1;
        Ok(())
    };
    sprag::inspect::dump(path, .., &mut count).unwrap();
    assert!(entries >= 40, "{entries}");
    let machine = PersistentStateMachine::open_read_only(path).unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    assert!(!maps.contains(path.to_str().unwrap()), "nothing of it is mapped");
    if cut {
        for file in fs::read_dir(path).unwrap() {
            fs::File::options().write(true).open(file.unwrap().path()).unwrap().set_len(0).unwrap();
        }
    }
    let mut copy = Vec::new();
    assert_eq!(machine.view_read_only().unwrap().snapshot_to(&mut copy).unwrap().keys, 100);
    for index in 1..=100_u64 {
        assert_eq!(machine.get(&index.to_be_bytes()).unwrap().unwrap(), [7; 3000]);
    }
}

#[test]
fn root_reads_and_copies_a_directory_of_another_user_and_does_not_write_to_it() {
    let scratch = Scratch::new();
    of_several_files(&scratch);
    if !is_root() {
        return;
    }
    give_away(&scratch.path(), STRANGER);
    let before = dir_bytes(&scratch.path());
    match refused(scratch.config()) {
        OpenError::ForeignOwner { owner: STRANGER, user, .. } => assert_eq!(user, 0),
        error => panic!("{error}"),
    }
    let written = repair(scratch.path(), RepairOptions::new().write(true)).map(drop);
    assert!(matches!(written, Err(OpenError::ForeignOwner { .. })), "{written:?}");
    assert!(!repair(scratch.path(), RepairOptions::new()).unwrap().is_damaged());
    // A snapshot of another user is also copied.
    let name = "000000000000003c.snap";
    let snapshot = sprag::Snapshot::open(scratch.path().join(name)).unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    assert!(!maps.contains(name));
    drop(snapshot);
    assert_eq!(dir_bytes(&scratch.path()), before);
    read_in_every_way(&scratch.path(), true);
    give_away(&scratch.path(), 0);
}

#[test]
fn a_user_with_read_permission_reads_a_directory_and_another_one_is_refused() {
    let scratch = Scratch::new();
    of_several_files(&scratch);
    if !is_root() {
        return;
    }
    let path = scratch.path();
    set_mode(path.parent().unwrap(), 0o755);
    let run = |name: &str| {
        let mut command = child(module_path!(), name, &path);
        let output = command.uid(STRANGER).gid(STRANGER).output();
        match output {
            Ok(output) => output.status.success(),
            Err(error) => {
                println!("skipped: another user cannot run this program: {error}");
                name == "child_reads"
            }
        }
    };
    assert!(!run("child_reads"), "without permission");
    set_mode(&path, 0o755);
    for file in fs::read_dir(&path).unwrap() {
        set_mode(&file.unwrap().path(), 0o644);
    }
    assert!(run("child_reads"));
    // Without the lock file, which the process may not read, it reads as beside a writer that may
    // come.
    set_mode(&path.join("LOCK"), 0o600);
    assert!(run("child_reads"));
}

/// The child: reads its directory as another user.
#[test]
fn child_reads() {
    let Some(directory) = child_directory() else { return };
    read_in_every_way(&directory, false);
}

/// Names that file systems, desktops, editors and crashes put into any directory.
const BY_THEMSELVES: [&str; 6] =
    ["lost+found", ".nfs000000000001", ".fuse_hidden0001", ".snapshot", ".DS_Store", "._x"];
/// Names of data directories, and names that a user gave.
const OTHERS: [&str; 9] = [
    "META~",
    ".META.swp",
    "core.123",
    "notes.txt",
    "0.seg",
    "000000000000000g.seg",
    "x.snap",
    "META.bak",
    ".hidden",
];

/// Makes a file or a directory of this name, as it usually is.
fn make(path: &Path) {
    let name = path.file_name().unwrap();
    if name == "lost+found" || name == ".snapshot" {
        fs::create_dir(path).unwrap();
    } else {
        fs::write(path, b"mine").unwrap();
    }
}

fn made_directory(scratch: &Scratch) {
    fs::create_dir(scratch.path()).unwrap();
    set_mode(&scratch.path(), 0o755);
}

#[test]
fn a_directory_with_a_file_of_a_stranger_and_no_log_does_not_become_a_data_directory() {
    for name in OTHERS {
        let scratch = Scratch::new();
        made_directory(&scratch);
        make(&scratch.path().join(name));
        let before = dir_bytes(&scratch.path());
        let read = PersistentStateMachine::open_read_only(scratch.path()).map(drop).unwrap_err();
        for error in [refused(scratch.config()), read] {
            match error {
                OpenError::ForeignFile { file, .. } => assert_eq!(file, name),
                error => panic!("{name}: {error}"),
            }
        }
        assert_eq!(dir_bytes(&scratch.path()), before, "{name}: no lock file, nothing");
        assert_eq!(mode_of(&scratch.path()), 0o755);
    }
}

#[test]
fn the_root_of_a_volume_becomes_a_data_directory_and_keeps_its_mode() {
    let scratch = Scratch::new();
    made_directory(&scratch);
    BY_THEMSELVES.iter().for_each(|name| make(&scratch.path().join(name)));
    let manager = scratch.open();
    manager.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
    manager.close(LONG).unwrap();
    assert_eq!(mode_of(&scratch.path()), 0o755);
    let machine = PersistentStateMachine::open_read_only(scratch.path()).unwrap();
    assert_eq!(machine.get(b"k").unwrap().unwrap(), b"v");
    assert_eq!(machine.recovery().foreign.count, BY_THEMSELVES.len() as u64);
}

/// Proves DUR-18.
#[test]
fn a_foreign_name_beside_a_log_stops_nothing_and_is_reported() {
    let not_utf8 = OsStr::from_bytes(b"\xff\xfe.doc");
    let all = BY_THEMSELVES.iter().chain(&OTHERS).map(OsStr::new).chain([not_utf8]);
    for name in all {
        let scratch = Scratch::new();
        let path = scratch.path();
        let config = || scratch.config().segment_bytes(64 << 10);
        let manager = open(config());
        let mut index = 0;
        let mut put = |manager: &crate::common::Persistent| {
            for _ in 0..40 {
                index += 1;
                manager.apply(&Entry::put(index, 1, b"k", &[7; 3000]), LONG).unwrap();
            }
        };
        put(&manager);
        make(&path.join(name));
        let shown = || name.to_string_lossy().into_owned();
        put(&manager);
        assert!(manager.snapshots().compact().unwrap().segments > 0, "{name:?}");
        manager.snapshots().write().unwrap();
        assert!(manager.stats().recovery.unwrap().foreign.is_empty(), "it came later");
        manager.close(LONG).unwrap();
        let manager = open(config());
        let foreign = manager.stats().recovery.unwrap().foreign;
        assert_eq!((foreign.count, &*foreign.names), (1, &[shown()][..]));
        put(&manager);
        manager.snapshots().compact().unwrap();
        manager.close(LONG).unwrap();
        let machine = PersistentStateMachine::open_read_only(&path).unwrap();
        assert_eq!(machine.applied().unwrap().index, 120);
        assert_eq!(machine.recovery().foreign, foreign);
        let report = sprag::inspect::verify(&path).unwrap();
        assert!(report.is_clean() && report.foreign == foreign, "{report:?}");
        assert_eq!(sprag::inspect::inspect(&path).unwrap().foreign, foreign);
        drop(machine);
        let repaired = repair(&path, RepairOptions::new().write(true)).unwrap();
        assert!(!repaired.is_damaged());
        assert!(path.join(name).exists(), "{name:?} is left alone");
    }
}

/// Proves DUR-18.
#[test]
fn a_name_of_the_engine_that_is_of_something_else_stops_writing_and_no_reading() {
    let directories = ["HARD", "00000000000000ff.seg", "00000000000000ff.snap", "LOCK"];
    let directories = directories.into_iter().chain(["00000000000000ff.snap.tmp"]);
    let files = ["00000000000000ff.seg", "00000000000000ff.snap.tmp"];
    for (name, is_dir) in directories.map(|name| (name, true)).chain(files.map(|n| (n, false))) {
        let scratch = Scratch::new();
        let path = scratch.path();
        let manager = scratch.open();
        manager.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
        manager.close(LONG).unwrap();
        let file = path.join(name);
        if name == "LOCK" {
            fs::remove_file(&file).unwrap();
        }
        if is_dir {
            fs::create_dir(&file).unwrap();
        } else {
            fs::write(&file, b"a thesis, and the only copy").unwrap();
        }
        for writing in [refused(scratch.config()), {
            let options = RepairOptions::new().write(true);
            repair(&path, options).map(|_| refused(scratch.config())).unwrap_or_else(|e| e)
        }] {
            match writing {
                OpenError::NameTaken { file, .. } => assert_eq!(file, name),
                error => panic!("{name}: {error}"),
            }
        }
        assert!(file.exists(), "{name}");
        let machine = PersistentStateMachine::open_read_only(&path).unwrap();
        assert_eq!(machine.get(b"k").unwrap().unwrap(), b"v", "{name}");
        assert_eq!(machine.recovery().foreign.taken.len(), usize::from(is_dir), "{name}");
        drop(machine);
        assert!(sprag::inspect::inspect(&path).is_ok(), "{name}");
        assert!(sprag::inspect::verify(&path).is_ok(), "{name}");
        fs::rename(&file, scratch.path().with_extension("moved")).unwrap();
        drop(scratch.open());
    }
}

/// Proves DUR-18.
#[test]
fn a_running_engine_neither_removes_nor_writes_over_a_file_that_it_did_not_write() {
    let scratch = Scratch::new();
    let path = scratch.path();
    let manager = scratch.open();
    let put = |index: u64| manager.apply(&Entry::put(index, 1, b"k", &[7; 3000]), LONG);
    (1..=40).for_each(|index| drop(put(index).unwrap()));
    let snapshot = path.join("0000000000000001.snap");
    fs::write(&snapshot, b"a thesis").unwrap();
    manager.snapshots().compact().unwrap();
    assert_eq!(fs::read(&snapshot).unwrap(), b"a thesis");
    // These names are in the way of later segments.
    let segments: Vec<_> = (2..40_u64).map(|n| path.join(format!("{n:016x}.seg"))).collect();
    let planted: Vec<_> = segments.into_iter().filter(|segment| !segment.exists()).collect();
    planted.iter().for_each(|segment| fs::write(segment, b"a thesis").unwrap());
    let error = (41..2000).find_map(|index| put(index).err()).unwrap();
    assert!(manager.poison().is_some(), "{error}");
    assert!(error.to_string().contains("move it out of the directory"), "{error}");
    drop(manager);
    for file in planted {
        assert_eq!(fs::read(file).unwrap(), b"a thesis");
    }
}

#[test]
fn a_meta_that_is_no_file_is_named_with_what_to_do() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).unwrap();
    fs::create_dir(scratch.path().join("META")).unwrap();
    let read = PersistentStateMachine::open_read_only(scratch.path()).map(drop).unwrap_err();
    for error in [refused(scratch.config()), read] {
        assert!(matches!(&error, OpenError::NameTaken { file, .. } if file == "META"), "{error}");
        assert!(error.to_string().contains("move it out of the directory"), "{error}");
    }
}

#[test]
fn an_empty_directory_becomes_an_empty_engine() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).unwrap();
    set_mode(&scratch.path(), 0o700);
    let manager = open(scratch.config().create(false));
    assert_eq!(manager.stats().applied, None);
    assert_eq!(manager.machine().len().unwrap(), 0);
}

#[test]
fn no_directory_is_made_in_a_data_directory_at_any_depth() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    manager.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
    let snapshot = scratch.path().with_extension("snap");
    let mut bytes = Vec::new();
    manager.snapshots().write_to(&mut bytes).unwrap();
    fs::write(&snapshot, bytes).unwrap();
    manager.close(LONG).unwrap();
    let (sub, deep) = (scratch.path().join("sub"), scratch.path().join("foreign/deep"));
    fs::create_dir(scratch.path().join("foreign")).unwrap();
    let link = scratch.path().with_extension("link");
    symlink(scratch.path(), &link).unwrap();
    for path in [&sub, &deep, &link.join("sub"), &scratch.path().join("../data/sub")] {
        let opened = PersistentStateMachine::open(crate::common::io::config(path)).map(drop);
        let restored = restore(&snapshot, path, CommitMode::OnAppend, Contiguity::Strict).map(drop);
        for error in [opened.unwrap_err(), restored.unwrap_err()] {
            assert!(matches!(error, OpenError::InsideDataDirectory { .. }), "{error}");
        }
        assert!(!path.exists(), "{}", path.display());
    }
    // An existing empty directory is no place to restore into either.
    fs::create_dir(&sub).unwrap();
    let error = restore(&snapshot, &sub, CommitMode::OnAppend, Contiguity::Strict).unwrap_err();
    assert!(matches!(error, OpenError::InsideDataDirectory { .. }), "{error}");
    assert_eq!(fs::read_dir(&sub).unwrap().count(), 0);
    let around = |path: &Path| enclosing_data_directory(path).unwrap();
    let real = fs::canonicalize(scratch.path()).unwrap();
    assert_eq!(around(&sub).as_ref(), Some(&real));
    assert_eq!(around(&link).as_ref(), Some(&real));
    assert_eq!(around(scratch.path().parent().unwrap()), None);
}
