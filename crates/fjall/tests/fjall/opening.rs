//! Tests of opening, by what the directory holds.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use sprag::machine::storage::Storage;
use sprag_fjall::{FjallConfig, FjallStorage, OpenError, is_fjall};

use crate::{STATE, Scratch, get, put, small};

fn refused(path: &std::path::Path) -> OpenError {
    FjallStorage::open(path, small()).unwrap_err()
}

#[test]
fn a_new_directory_is_its_owners_only_and_its_parent_must_exist() {
    let scratch = Scratch::new();
    assert!(!is_fjall(scratch.path()).unwrap());
    drop(scratch.open());
    assert!(is_fjall(scratch.path()).unwrap());
    let mode = fs::metadata(scratch.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let below = scratch.path().join("missing").join("state");
    let error = refused(&below);
    assert!(matches!(error, OpenError::NoParent { .. }), "{error}");
    assert!(!scratch.path().join("missing").exists(), "nothing was made");
}

#[test]
fn a_file_and_foreign_directories_are_refused_and_left_alone() {
    let scratch = Scratch::new();
    let file = scratch.0.path().join("file");
    fs::write(&file, "text").unwrap();
    assert!(matches!(refused(&file), OpenError::IsFile { .. }));
    assert!(!is_fjall(&file).unwrap());

    let other = scratch.0.path();
    let error = refused(other);
    assert!(matches!(&error, OpenError::Foreign { found, .. } if found == "file"), "{error}");
    assert_eq!(fs::read_dir(other).unwrap().count(), 1, "nothing was made");

    fs::create_dir(scratch.path()).unwrap();
    fs::write(scratch.path().join("version"), "1.2.3").unwrap();
    let error = refused(&scratch.path());
    assert!(matches!(&error, OpenError::Foreign { found, .. } if found == "version"), "{error}");
    fs::write(scratch.path().join("version"), b"FJL\x02").unwrap();
    let error = refused(&scratch.path());
    assert!(matches!(error, OpenError::Version { version: 2, .. }), "{error}");

    let foreign = scratch.0.path().join("foreign");
    let database = fjall::Database::builder(&foreign).open().unwrap();
    database.keyspace("users", Default::default).unwrap();
    drop(database);
    let error = refused(&foreign);
    let is_named =
        matches!(&error, OpenError::ForeignTable { keyspace, .. } if keyspace == "users");
    assert!(is_named, "{error}");
}

#[test]
fn a_directory_is_open_once_also_while_a_snapshot_of_it_lives() {
    let scratch = Scratch::new();
    let storage = scratch.open();
    put(&storage, b"key", b"value", false);
    assert!(matches!(refused(&scratch.path()), OpenError::Locked { .. }));
    let snapshot = storage.snapshot().unwrap();
    drop(storage);
    assert!(matches!(refused(&scratch.path()), OpenError::Locked { .. }));
    drop(snapshot);
    assert_eq!(get(&scratch.open(), STATE, b"key"), Some(b"value".to_vec()));
}

#[test]
fn a_directory_that_a_crash_left_half_made_is_made_again() {
    // fjall makes the files in this order.
    type Step = (&'static str, Option<&'static [u8]>);
    let steps: [Step; 5] = [
        ("lock", Some(b"")),
        ("keyspaces", None),
        ("0.jnl", Some(b"")),
        ("0.jnl", Some(&[0; 4096])),
        ("version", Some(b"FJL")),
    ];
    for count in 0..=steps.len() {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path()).unwrap();
        for (name, content) in &steps[..count] {
            let path = scratch.path().join(name);
            match content {
                Some(content) => fs::write(path, content).unwrap(),
                None => fs::create_dir(path).unwrap(),
            }
        }
        let storage = scratch.open();
        put(&storage, b"key", b"value", false);
        drop(storage);
        assert_eq!(get(&scratch.open(), STATE, b"key"), Some(b"value".to_vec()), "{count} steps");
    }
}

#[test]
fn what_fjall_would_abort_the_process_for_is_refused() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let keyspaces = scratch.path().join("keyspaces");
    fs::write(keyspaces.join("a file"), "text").unwrap();
    drop(scratch.open());
    fs::create_dir(keyspaces.join("a folder")).unwrap();
    let error = refused(&scratch.path());
    let is_named =
        matches!(&error, OpenError::Foreign { found, .. } if found == "keyspaces/a folder");
    assert!(is_named, "{error}");
}

#[test]
fn the_journals_need_their_room_and_a_full_disk_is_called_so() {
    let full = OpenError::Io {
        what: "opening",
        path: "state".into(),
        source: std::io::ErrorKind::StorageFull.into(),
    };
    assert!(full.is_disk_full());
    assert!(!OpenError::Locked { path: "state".into() }.is_disk_full());
    // fjall panics with journals below 64 MiB. An option is refused before anything is made.
    let scratch = Scratch::new();
    let path = scratch.path();
    for (config, named) in [
        (FjallConfig::new().journal_bytes((64 << 20) - 1), "journal_bytes"),
        (FjallConfig::new().worker_threads(0), "worker_threads"),
    ] {
        let error = FjallStorage::open(&path, config).unwrap_err();
        let is_named = matches!(error, OpenError::Config { option, .. } if option == named);
        assert!(is_named, "{error}");
        assert!(!path.exists());
    }
    FjallStorage::open(&path, FjallConfig::new().journal_bytes(64 << 20)).unwrap();
}
