//! fjall as the storage of a sprag state machine: a log-structured merge tree.
//!
//! [`FjallStorage`] keeps keys and values in a directory. A new write goes to a journal and to a
//! buffer in memory. Full buffers become sorted files, which threads of fjall merge. Large values
//! lie apart from their keys, so that merging rarely moves them. The state may be larger than
//! memory.
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
//! A batch is one record in the journal, with a checksum at its end. The crate fjall writes
//! journals from start to end, and a sync covers all that was written before it. So a crash leaves
//! a prefix of the batches: at least all up to the last one that was synced, and nothing of later
//! ones:
//!
//! - Opening finds the end of the last whole batch and cuts what follows.
//! - Damage is refused, as far as it can be distinguished from a torn end. One case is a torn batch
//!   in a journal that has a successor. Another is a torn batch with whole batches after it, if
//!   each batch was synced.
//! - fjall syncs the journal before it writes a buffer to a file, so no file is ahead of the
//!   journal.
//! - A journal is removed when every table has written its part of the journal to files.
//! - Opening syncs what it found before it returns.
//!
//! # What a reader sees
//!
//! A get shows committed batches, each as a whole: after a get that found a write of a batch, every
//! get finds the batch. With `sync`, a batch is on stable storage before any get finds it. A
//! snapshot shows all tables at one moment, while batches are committed and tables are removed. A
//! snapshot keeps the files that it needs on disk.

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
