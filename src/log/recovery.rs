//! Recovery: what of the log is good, where it ends, and whether something is gone that must be there.
//!
//! [`freeze`] reads one that somebody else may be writing to.
//!
//! In the order a log is read: [`files`] finds and reads segments, [`chain`] says what the next frame must be,
//! [`walk`] goes from frame to frame, [`survey`] looks at what is behind the last good one, [`decision`] decides, and
//! [`scan`] and [`verify`] put these together. [`older`] compares META with what was found.

pub(in crate::log) mod chain;
pub(crate) mod decision;
pub(crate) mod files;
pub(crate) mod freeze;
pub(crate) mod older;
pub(crate) mod scan;
pub(in crate::log) mod survey;
pub(crate) mod verify;
pub(in crate::log) mod walk;

#[cfg(test)]
mod tests;
