//! redb as the storage of a sprag state machine: a B-tree in one file.
//!
//! [`RedbStorage`] implements [`Storage`](sprag::machine::storage::Storage). Each table is a table
//! of redb with the name that the table displays as, and with bytes as keys and values.
//!
//! ```
//! use sprag::machine::storage::{Storage, StorageBatch, Table};
//! use sprag_redb::{RedbConfig, RedbStorage};
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("state.redb");
//! let storage = RedbStorage::open(&path, RedbConfig::new().cache_bytes(8 << 20))?;
//! storage.create_table(Table::State(1))?;
//! let mut batch = StorageBatch::new();
//! batch.put(Table::State(1), b"key", b"value");
//! assert!(storage.commit(&batch, true)?, "the batch is on stable storage");
//!
//! let mut found = Vec::new();
//! assert!(storage.get(Table::State(1), b"key", &mut |value| found.extend_from_slice(value))?);
//! assert_eq!(found, b"value");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a crash takes back
//!
//! A batch is a write transaction of redb. A batch with `sync` is a durable transaction: one sync
//! of the file, and the batch and all before it are on stable storage.
//!
//! A batch without `sync` stays in the memory of the process until the next durable transaction. A
//! crash of the *process* takes it back too, not only a power cut. The storage bounds what a crash
//! takes back in two ways. It syncs on its own once the batches since the last sync have
//! [`RedbConfig::unsynced_bytes`]. A thread of the storage syncs [`RedbConfig::sync_every`] after
//! the first batch that is not durable. A crash takes back whole batches, the newest first.
//!
//! # Size of the file
//!
//! redb reuses a page only after the last durable transaction that needs it. Without `sync` the
//! file therefore grows by the pages that changed since the last sync. The two bounds above limit
//! that growth. A snapshot that is alive keeps all pages of its moment.
//!
//! # Opening after a crash
//!
//! After a crash redb walks the whole file to find its free pages, unless the last durable
//! transaction recorded them ("quick repair"). The syncs that the storage makes on its own always
//! record them. Batches with `sync` record them with [`RedbConfig::quick_repair`] only, because the
//! record costs a second sync of the file for each batch.
//!
//! # Damage
//!
//! Every page has a checksum. redb checks the checksums when it repairs, and on every open with
//! [`RedbConfig::verify_on_open`]. It does not check them on each read. A page that was damaged
//! while the file was closed can give a wrong value or a panic.

mod config;
mod error;
mod open;
mod snapshot;
mod storage;
mod syncer;

pub use config::RedbConfig;
pub use error::OpenError;
pub use snapshot::RedbSnapshot;
pub use storage::RedbStorage;
