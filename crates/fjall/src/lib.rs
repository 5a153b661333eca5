//! fjall as the storage of a sprag state machine: a log-structured merge tree.
//!
//! [`FjallStorage`] keeps keys and values in a directory. New ones go to a journal and to a buffer in
//! memory; full buffers become sorted files, which threads of fjall merge. Large values lie apart
//! from their keys, so that merging moves them seldom. The state may be larger than memory.
//!
//! ```
//! use sprag::machine::storage::{Storage, StorageBatch, Table};
//! use sprag_fjall::{FjallConfig, FjallStorage};
//!
//! # let temporary = tempfile::tempdir()?;
//! # let path = temporary.path().join("state");
//! let storage = FjallStorage::open(&path, FjallConfig::new().cache_bytes(16 << 20))?;
//! storage.create_table(Table::State(1))?;
//!
//! let mut batch = StorageBatch::new();
//! batch.put(Table::State(1), b"color", b"green");
//! let is_durable = storage.commit(&batch, true)?;
//! assert!(is_durable);
//!
//! let mut color = Vec::new();
//! storage.get(Table::State(1), b"color", &mut |value| color.extend_from_slice(value))?;
//! assert_eq!(color, b"green");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What holds after a crash
//!
//! A batch is one record in the journal, with a checksum at its end. fjall writes journals from start
//! to end, and a sync covers all that was written before it. So after a crash there are all batches up
//! to one of them, at least up to the last that was synced, and nothing of later ones:
//!
//! - Opening finds the end of the last whole batch and cuts what follows.
//! - Damage is refused, as far as it can be told from a torn end: a batch that is not whole in a journal
//!   that has a successor, or one with whole batches after it while each batch was synced.
//! - fjall syncs the journal before it writes a buffer to a file, so no file is ahead of the journal.
//! - A journal is removed when every table has written to files what was in it.
//! - What opening found is synced before it returns.
//!
//! # What a reader sees
//!
//! A get shows batches that are committed, and those as a whole: after a get that found a write of a
//! batch, every get finds the batch. With `sync`, a batch is on stable storage before any get finds it.
//! A snapshot shows all tables at one moment, while batches are committed and tables are removed. It
//! keeps the files that it needs on disk.

mod config;
mod error;
mod journal;
mod long;
mod open;
mod snapshot;
mod storage;
mod syncer;

pub use config::FjallConfig;
pub use error::OpenError;
pub use open::is_fjall;
pub use snapshot::FjallSnapshot;
pub use storage::FjallStorage;
