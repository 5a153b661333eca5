//! The suite for storages, over fjall: alone, killed, and under a machine.

use sprag::StorageError;
use sprag::testing::storage::{Subject, Suite};
use sprag_fjall::FjallStorage;

use crate::power_cut::Image;
use crate::{Scratch, small};

struct Fjall;

impl Subject for Fjall {
    type Storage = FjallStorage;
    type Place = Scratch;

    fn place(&self) -> Scratch {
        Scratch::new()
    }

    fn open(&self, place: &Scratch) -> Result<FjallStorage, StorageError> {
        // One worker thread is enough, because the suite opens a thousand storages.
        FjallStorage::open(place.path(), small().worker_threads(1)).map_err(|error| {
            StorageError::Failed { what: "opening the storage", message: error.to_string() }
        })
    }

    fn crash(
        &self,
        place: Scratch,
        storage: FjallStorage,
    ) -> Result<Option<Scratch>, StorageError> {
        // A kill leaves what is on disk while the storage is open.
        let found = Scratch::new();
        Image::of(&place.path()).write(&found.path());
        drop(storage);
        Ok(Some(found))
    }
}

#[test]
fn fjall_conforms_alone_and_under_a_machine() {
    Suite::new().logs(2).check(&Fjall).unwrap();
}

/// Runs half of the logs of the next test, at the same time as that.
#[test]
fn random_logs_give_what_a_machine_in_memory_gives() {
    Suite::new().seed(1).logs(500).entries(8).check_machine(&Fjall).unwrap();
}

#[test]
fn more_random_logs_give_what_a_machine_in_memory_gives() {
    Suite::new().seed(1_000_001).logs(500).entries(8).check_machine(&Fjall).unwrap();
}
