//! sprag: the engine under a Raft node that turns committed log entries into durable state.
mod apply;
mod clock;
mod codec;
pub mod config;
pub mod disk;
pub mod entry;
pub mod error;
mod log;
pub mod machine;
mod poison;
mod stats;
pub mod testing;

pub use apply::latency::LatencyStats;
pub use apply::log_calls::LogState;
pub use apply::manager::{ApplyManager, Reader};
pub use apply::retry::RetryPolicy;
pub use apply::waiter::Acknowledged;
pub use apply::watermark::Stage;
pub use codec::{BatchRef, CommandRef, Limits, PayloadRef, Place, ValueRef};
pub use config::{ApplyConfig, CommitMode, Durability, IoBackend, PersistentConfig};
pub use entry::{
    BatchRejection, Command, Entry, LeaderTag, LogId, Note, Payload, Rejection, Reply,
};
pub use log::reader::LogEntries;
pub use log::{Cut, Journal, LogWriterStats, RecoveryReport};
pub use machine::{
    Entries, EntryRef, Fatal, Footprint, MemoryConfig, MemoryStateMachine, Partition,
    PersistentStateMachine, Range, Replies, StateMachine, StateMachineStats, Value,
};
pub use stats::ApplyStats;
