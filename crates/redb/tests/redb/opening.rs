//! Tests of opening, by what the path holds.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use redb::{Database, MultimapTableDefinition, TableDefinition};
use sprag::machine::storage::{Storage, Table};
use sprag::testing::Random;
use sprag_redb::{OpenError, RedbConfig, RedbStorage};
use tempfile::TempDir;

use crate::disk::Disk;
use crate::{STATE, all, get, put};

fn scratch() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    (directory, path)
}

fn open(path: &Path) -> Result<RedbStorage, OpenError> {
    RedbStorage::open(path, RedbConfig::new())
}

#[test]
fn a_file_is_made_for_its_owner_only_and_found_again() {
    let (_directory, path) = scratch();
    let storage = open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    storage.create_table(STATE).unwrap();
    put(&storage, b"key", &[3; 100_000], true);
    let stats = storage.stats();
    assert!(stats.disk_bytes.unwrap() > 100_000 && stats.memory_bytes.unwrap() > 0, "{stats:?}");
    drop(storage);
    let storage = open(&path).unwrap();
    assert_eq!(get(&storage, STATE, b"key"), Some(vec![3; 100_000]));
    assert!(!storage.was_repaired(), "it was closed");
}

#[test]
fn a_file_is_locked_until_the_storage_and_its_snapshots_are_gone() {
    let (_directory, path) = scratch();
    let storage = open(&path).unwrap();
    assert!(matches!(open(&path), Err(OpenError::Locked { .. })));
    let snapshot = storage.snapshot().unwrap();
    drop(storage);
    let error = open(&path).unwrap_err();
    assert!(error.to_string().contains("is open elsewhere"), "{error}");
    drop(snapshot);
    open(&path).unwrap();
}

#[test]
fn what_is_no_storage_is_named_and_left_as_it_is() {
    let (directory, path) = scratch();
    let missing = directory.path().join("missing").join("state.redb");
    assert!(matches!(open(&missing), Err(OpenError::NoParent { .. })));
    assert!(matches!(open(directory.path()), Err(OpenError::IsDirectory { .. })));
    assert!(matches!(open(Path::new("/dev/null")), Err(OpenError::NotRedb { .. })));
    let zeros_and_more = [vec![0; 10_000], b"end".to_vec()].concat();
    for content in [b"some text".to_vec(), vec![1; 100_000], zeros_and_more, vec![0; 3 << 20]] {
        fs::write(&path, &content).unwrap();
        assert!(matches!(open(&path), Err(OpenError::NotRedb { .. })), "{} bytes", content.len());
        assert!(fs::read(&path).unwrap() == content);
    }
}

#[test]
fn a_redb_file_of_another_program_is_refused() {
    let other = |name: &'static str| TableDefinition::<u64, u64>::new(name);
    for name in ["users", "meta", "state-0000000000000001"] {
        let (_directory, path) = scratch();
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(other(name)).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let error = open(&path).unwrap_err();
        assert!(
            matches!(&error, OpenError::ForeignTable { table, .. } if table == name),
            "{error}"
        );
    }
    let (_directory, path) = scratch();
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_multimap_table(MultimapTableDefinition::<u64, u64>::new("meta")).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(open(&path), Err(OpenError::ForeignTable { .. })));
}

#[test]
fn a_file_that_a_crash_left_half_made_is_made_anew() {
    let (_directory, path) = scratch();
    // redb gives the file its length first, and then writes the header without its first bytes.
    for header in [vec![], [vec![0; 9], vec![7; 300]].concat()] {
        let content = [header, vec![0; 70_000]].concat();
        fs::write(&path, content).unwrap();
        let storage = open(&path).unwrap();
        assert_eq!(storage.tables().unwrap(), []);
    }
}

/// The bytes of a closed file with some state.
fn filled() -> Vec<u8> {
    let disk = Disk::new();
    let config = RedbConfig::new().sync_every(None);
    let storage = RedbStorage::with_backend(disk.clone(), config).unwrap();
    for table in [Table::Meta, STATE] {
        storage.create_table(table).unwrap();
    }
    for key in 0..200_u8 {
        put(&storage, &[key], &[key; 300], key % 50 == 0);
    }
    drop(storage);
    disk.bytes()
}

#[test]
fn damage_is_told_by_an_open_that_verifies_and_never_read_as_a_value() {
    let sound = filled();
    let config = RedbConfig::new().sync_every(None).verify_on_open(true);
    let whole = RedbStorage::with_backend(Disk::of(sound.clone()), config).unwrap();
    let expected = all(&whole.snapshot().unwrap(), STATE);
    assert_eq!(expected.len(), 200);
    let mut random = Random::new(11);
    let (mut told, mut unharmed) = (0, 0);
    for _ in 0..150 {
        let mut damaged = sound.clone();
        let place = random.below(damaged.len());
        damaged[place] ^= 1 << random.below(8);
        match RedbStorage::with_backend(Disk::of(damaged), config) {
            Ok(storage) => {
                let found = all(&storage.snapshot().unwrap(), STATE);
                assert!(found == expected, "a flip at {place} changes what is read");
                unharmed += 1;
            }
            Err(_) => told += 1,
        }
    }
    assert!(told > 10 && unharmed > 10, "{told} told, {unharmed} in pages that hold nothing");
    let mut short = sound.clone();
    short.truncate(sound.len() / 2);
    let error = RedbStorage::with_backend(Disk::of(short), config).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}
