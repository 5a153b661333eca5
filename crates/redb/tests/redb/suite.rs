//! The suite for storages, over a file and over a disk whose power is cut.

use std::path::PathBuf;
use std::sync::Mutex;

use sprag::StorageError;
use sprag::testing::Random;
use sprag::testing::storage::{Subject, Suite};
use sprag_redb::{RedbConfig, RedbStorage};
use tempfile::TempDir;

use crate::disk::Disk;

/// Storages in memory that lose at a crash whatever a power cut may take.
struct CutOff(Mutex<Random>);

/// The disk of a storage; each opening replaces it, because a disk is opened once.
type Place = Mutex<Disk>;

impl Subject for CutOff {
    type Storage = RedbStorage;
    type Place = Place;

    fn place(&self) -> Place {
        Mutex::new(Disk::new())
    }

    fn open(&self, place: &Place) -> Result<RedbStorage, StorageError> {
        let mut disk = place.lock().unwrap();
        *disk = disk.reopened();
        let config = RedbConfig::new().sync_every(None).cache_bytes(1 << 20);
        Ok(RedbStorage::with_backend(disk.clone(), config)?)
    }

    fn crash(&self, place: Place, storage: RedbStorage) -> Result<Option<Place>, StorageError> {
        let mut random = self.0.lock().unwrap();
        let keep = [0, 50, 100][random.below(3)];
        // Take the content before the storage is dropped, which syncs.
        let left = place.lock().unwrap().after_a_cut(&mut random, keep);
        drop(storage);
        Ok(Some(Mutex::new(left)))
    }
}

struct Files;

impl Subject for Files {
    type Storage = RedbStorage;
    type Place = TempDir;

    fn place(&self) -> TempDir {
        tempfile::tempdir().unwrap()
    }

    fn open(&self, place: &TempDir) -> Result<RedbStorage, StorageError> {
        let path: PathBuf = place.path().join("state.redb");
        Ok(RedbStorage::open(path, RedbConfig::new())?)
    }
}

#[test]
fn redb_conforms_over_files() {
    Suite::new().logs(2).check(&Files).unwrap();
}

#[test]
fn redb_conforms_over_a_disk_that_is_cut_off() {
    let subject = CutOff(Mutex::new(Random::new(1)));
    Suite::new().logs(1000).entries(8).check(&subject).unwrap();
}
