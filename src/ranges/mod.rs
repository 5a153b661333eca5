//! Ranges of entries on their way into the state. [`partition`] says which part of the state an
//! entry concerns, and [`index_range`] is the unit of hand-off. [`range`] is what a state machine
//! is given, and [`slots`] is the in-flight ring.

pub(crate) mod index_range;
pub(crate) mod partition;
pub(crate) mod range;
pub(crate) mod slots;
