//! The progress of an engine and its waiters. [`watermark`] moves the marks, [`waiter`] waits, and
//! [`waiters`] keeps the registered waiters. [`lifecycle`] says how far the engine's end is.
//!
//! [`waiters`] finds its waiters by index ([`order`]) and by id ([`places`]); [`cuts`] has the
//! latest truncations.

mod cuts;
pub(crate) mod lifecycle;
mod order;
mod places;
pub(crate) mod waiter;
pub(crate) mod waiters;
pub(crate) mod watermark;
