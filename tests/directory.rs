//! Who may open which directory, and what a wrong one says.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use common::{LONG, Scratch, apply_config, child, child_directory, dir_bytes, open, refused};
use sprag::error::OpenError;
use sprag::{ApplyManager, Entry, PersistentStateMachine};

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

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
        let output = child("child_opens", &scratch.path()).output().unwrap();
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

/// The child: opens its directory and says what came of it.
#[test]
fn child_opens() {
    let Some(directory) = child_directory() else { return };
    match PersistentStateMachine::open(common::io::config(directory).segment_bytes(64 << 10)) {
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
    assert!(PersistentStateMachine::open(common::io::config(deep)).is_err());
}

#[test]
fn what_is_made_is_for_its_user_only() {
    let scratch = Scratch::new();
    let manager = scratch.open();
    for index in 1..=60 {
        manager.apply(&Entry::put(index, 1, b"k", &[1; 3000]), LONG).unwrap();
    }
    manager.save_hard_state(b"vote").unwrap();
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

#[test]
fn a_directory_of_another_user_is_refused() {
    let scratch = Scratch::new();
    drop(scratch.open());
    if chown(scratch.path(), Some(54_321), None).is_err() {
        // Only root may give a directory away.
        return;
    }
    match refused(scratch.config()) {
        OpenError::ForeignOwner { owner: 54_321, user, .. } => assert_ne!(user, 54_321),
        error => panic!("{error}"),
    }
    chown(scratch.path(), Some(0), None).unwrap();
    drop(scratch.open());
}

#[test]
fn a_directory_with_somebody_elses_file_is_refused_and_left_alone() {
    for existing in [true, false] {
        let scratch = Scratch::new();
        if existing {
            drop(scratch.open());
        } else {
            fs::create_dir(scratch.path()).unwrap();
            set_mode(&scratch.path(), 0o700);
        }
        for name in ["notes.txt", "0.seg", "META.bak", "000000000000000g.seg", ".hidden"] {
            let file = scratch.path().join(name);
            fs::write(&file, b"mine").unwrap();
            let before = dir_bytes(&scratch.path());
            match refused(scratch.config()) {
                OpenError::ForeignFile { file, .. } => assert_eq!(file, name),
                error => panic!("{name}: {error}"),
            }
            let after = dir_bytes(&scratch.path());
            let without_lock = |files: Vec<(String, Vec<u8>)>| -> Vec<_> {
                files.into_iter().filter(|(name, _)| name != "LOCK").collect()
            };
            assert_eq!(without_lock(after), without_lock(before));
            fs::remove_file(file).unwrap();
        }
        drop(scratch.open());
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
