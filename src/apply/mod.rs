//! The apply pipeline. An entry passes [`submit`], [`feed`], [`ring`] and [`worker`], and then
//! [`progress`](crate::progress).
//!
//! [`manager`] is the public face. [`engine`] has the state that threads share and the steps they
//! take, and [`threads`] the loops over those steps.

pub(crate) mod apply_only;
pub(crate) mod cells;
pub(crate) mod claims;
pub(crate) mod compaction;
pub(crate) mod consensus;
pub(crate) mod counters;
pub(crate) mod engine;
pub(crate) mod feed;
pub(crate) mod install;
#[cfg(all(test, not(any(loom, shuttle))))]
mod invariant_tests;
mod kept;
pub(crate) mod known;
pub(crate) mod latency;
pub(crate) mod log_calls;
pub(crate) mod log_ids;
#[cfg(all(test, not(any(loom, shuttle))))]
mod log_read_tests;
mod log_waits;
pub(crate) mod manager;
#[cfg(all(test, any(loom, shuttle)))]
mod models;
pub(crate) mod propose;
pub(crate) mod retry;
pub(crate) mod ring;
mod rooms;
pub(crate) mod snapshot_calls;
pub(crate) mod snapshot_desk;
pub(crate) mod snapshots;
pub(crate) mod staging;
pub(crate) mod stats;
pub(crate) mod submit;
#[cfg(all(test, not(any(loom, shuttle))))]
mod thread_tests;
pub(crate) mod threads;
pub(crate) mod times;
pub(crate) mod views;
#[cfg(all(test, not(any(loom, shuttle))))]
mod waiter_tests;
pub(crate) mod worker;
