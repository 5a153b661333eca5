//! The apply side of an engine. An entry passes [`manager`] and [`pipeline`], and then
//! [`progress`](crate::progress).
//!
//! [`engine`] owns what threads and calls share: the pipeline, and the desk of the snapshots.
//! [`pipeline`] has the steps of the workers, and [`threads`] the loops over all steps. The calls
//! that concern the whole log or state have a desk in [`desks`].

// The public face.
pub(crate) mod manager;

// The life of an entry.
pub(crate) mod pipeline;

// What the engine does beside entries.
pub(crate) mod desks;

// The engine as a whole.
pub(crate) mod counters;
pub(crate) mod engine;
mod hosted;
pub(crate) mod signals;
pub(crate) mod stats;
pub(crate) mod threads;

#[cfg(all(test, any(loom, shuttle)))]
mod models;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
