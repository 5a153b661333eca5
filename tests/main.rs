//! The integration tests of the engine: one binary, a module for each subject.
//!
//! Its tests share a process. Those that start themselves as a child, set a limit, or measure the
//! process are in `processes.rs`. Those that fork are alone in `lock.rs`.

mod adapter_log;
mod board;
mod byte_replies;
mod closing;
mod common;
mod compaction_races;
mod conformance;
mod consensus_log;
mod direct_calls;
mod hard_state;
mod index_ends;
mod install;
mod journaled;
mod journaled_storage;
mod known_entries;
mod law_order;
mod log_id_waits;
mod log_races;
mod opening;
mod options;
mod order_and_progress;
mod overlap;
mod own_state;
mod propose;
mod reading_beside;
mod recycling;
mod regressions;
mod repair;
mod repair_snapshot;
mod restore;
mod room;
mod simulation;
mod snapshots;
mod stats;
mod storage_batches;
mod storages;
mod submission;
mod upgrade;
mod values;
mod views;
mod waiting;
mod watermarks;
