//! Openraft's own suite, on every machine, number of workers and way to write the log.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use crate::common::{Data, Kind, KvStore, open_store};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use sprag::testing::storage::MemoryStorage;
use sprag::{IoBackend, Journaled, MemoryStateMachine, PersistentStateMachine, StorageMachine};
use sprag_fjall::FjallStorage;
use sprag_openraft::{KeyValue, LogStore, StateMachineStore};
use sprag_redb::RedbStorage;
use tempfile::TempDir;

/// A builder that makes each store in a new directory.
struct Builder {
    workers: usize,
    io: IoBackend,
}

type Parts<M> = (TempDir, LogStore<Data, KeyValue<M>>, StateMachineStore<Data, KeyValue<M>>);

impl Builder {
    fn parts<M: Kind>(&self) -> Parts<M> {
        let directory = tempfile::tempdir().unwrap();
        let KvStore { log, state_machine, .. } =
            open_store::<M>(&directory.path().join("data"), self.workers, self.io);
        (directory, log, state_machine)
    }
}

impl<M: Kind>
    StoreBuilder<Data, LogStore<Data, KeyValue<M>>, StateMachineStore<Data, KeyValue<M>>, TempDir>
    for Builder
{
    async fn build(&self) -> Result<Parts<M>, StorageError<Data>> {
        Ok(self.parts())
    }
}

async fn passes<M: Kind>(workers: usize, io: IoBackend) {
    let builder = Builder { workers, io };
    Suite::<
        Data,
        LogStore<Data, KeyValue<M>>,
        StateMachineStore<Data, KeyValue<M>>,
        Builder,
        TempDir,
    >::test_all(builder)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_persistent_machine_passes_with_one_worker() {
    passes::<PersistentStateMachine>(1, IoBackend::Pwrite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_persistent_machine_passes_with_four_workers() {
    passes::<PersistentStateMachine>(4, IoBackend::Pwrite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_persistent_machine_passes_over_a_ring() {
    for workers in [1, 4] {
        passes::<PersistentStateMachine>(workers, IoBackend::Uring).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_machine_passes_with_one_worker() {
    passes::<Journaled<MemoryStateMachine>>(1, IoBackend::Pwrite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_machine_passes_with_four_workers() {
    passes::<Journaled<MemoryStateMachine>>(4, IoBackend::Pwrite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_machine_passes_over_a_ring() {
    for workers in [1, 4] {
        passes::<Journaled<MemoryStateMachine>>(workers, IoBackend::Uring).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_over_a_storage_in_memory_passes() {
    passes::<Journaled<StorageMachine<MemoryStorage>>>(1, IoBackend::Pwrite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_over_redb_passes() {
    passes::<Journaled<StorageMachine<RedbStorage>>>(1, IoBackend::Pwrite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_over_fjall_passes() {
    passes::<Journaled<StorageMachine<FjallStorage>>>(1, IoBackend::Pwrite).await;
}
