//! Ranges of entries on their way into the state. [`partition`] says which part of the state an
//! entry concerns, and [`index_range`] is the unit of hand-off. [`range`] is what a state machine
//! is given, and [`in_flight_ring`] has the hash, offset
//! and reply of each entry in flight.

pub(crate) mod in_flight_ring;
pub(crate) mod index_range;
pub(crate) mod partition;
pub(crate) mod range;
