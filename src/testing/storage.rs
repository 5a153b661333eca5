//! For who writes a [`Storage`](crate::Storage): one in memory whose failures and power cuts are at hand.
//!
//! [`MemoryStorage`] is what the machine over a storage is tested with.

mod memory;

pub use memory::{MemorySnapshot, MemoryStorage};
