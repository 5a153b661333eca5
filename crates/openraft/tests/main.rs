//! The integration tests of the adapter for openraft 0.10: one binary, a module for each subject.

mod common;
mod faults;
mod rolling;
mod runtime;
mod suite;
mod transfer;
mod upgrade;
mod wire;
