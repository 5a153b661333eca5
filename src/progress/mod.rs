//! The progress of an engine and its waiters. [`watermark`] moves the marks, [`waiter`] waits, and
//! [`waiters`] keeps the registered waiters. [`lifecycle`] says how far the engine's end is.
//!
//! [`waiters`] finds its waiters by index ([`order`]) and by id ([`seats`]). [`truncations`] has
//! the latest truncations. [`room`] has the calls that wait for room.

pub(crate) mod lifecycle;
mod order;
pub(crate) mod room;
pub(crate) mod seats;
mod truncations;
pub(crate) mod waiter;
pub(crate) mod waiters;
pub(crate) mod watermark;
