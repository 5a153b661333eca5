//! State machines, which carry entries out.
//!
//! [`StateMachine`] is the seam between the apply manager and a state. The built-in machines
//! ([`MemoryStateMachine`], [`PersistentStateMachine`]) implement it over a sharded store. An
//! embedder's machine needs about 50 lines (see `examples/`).

pub(crate) mod capture;
pub(crate) mod cell;
mod effect;
mod fill;
mod gets;
mod journaled;
mod key_value;
mod memory;
mod number;
mod persistent;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod probe;
mod reads;
mod repoint;
pub(crate) mod sorted;
pub mod storage;
mod store;

pub use crate::contract::machine::{StateMachine, StateMachineStats};
pub use crate::contract::value::Value;
pub use crate::contract::view::{View, ViewIter, Views};
pub use crate::error::Fatal;

#[doc(hidden)]
pub use crate::places::table::SegmentHold;
pub use crate::ranges::partition::{Footprint, Partition};
pub use crate::ranges::range::{Entries, EntryRange, EntryRef, Replies};
pub use journaled::Journaled;
pub use memory::{MemoryConfig, MemoryStateMachine};
pub use persistent::PersistentStateMachine;
