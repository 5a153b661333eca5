//! Recovery: which part of the log is good, where it ends, and whether required data is missing.
//!
//! [`freeze`] reads a log that another process may be writing.
//!
//! A log passes these modules in order. [`files`] finds and reads segments, and [`chain`] says what
//! the next frame must be. [`found`] is the finding at one place. [`walk`] goes from frame to
//! frame, and [`survey`] checks what is behind the last good one. [`decision`] decides. [`scan`]
//! and [`verify`] put these together. [`older`] compares META with the findings.

pub(in crate::log) mod chain;
pub(crate) mod decision;
mod extent;
pub(crate) mod files;
pub(in crate::log) mod found;
pub(crate) mod freeze;
pub(crate) mod older;
pub(crate) mod scan;
pub(in crate::log) mod survey;
pub(crate) mod verify;
pub(in crate::log) mod walk;

#[cfg(test)]
mod tests;
