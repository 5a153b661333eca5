//! The life of an entry, in the order of the modules below: from its submission to its effect.

// In: all of a submission, or nothing.
pub(crate) mod submit;

// Entries that the log has already.
pub(crate) mod known;

// Replies that are still wanted: slots, claims of callers, cells of futures.
pub(crate) mod in_flight;

pub(crate) mod claims;

pub(crate) mod cells;

// Through the rings.
pub(crate) mod feed;

pub(crate) mod ring;

// Into the state.
pub(crate) mod worker;

pub(crate) mod staging;

// How long that took.
pub(crate) mod latency;

pub(crate) mod times;
