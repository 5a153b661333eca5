//! Integration tests about the process: they start themselves as a child, set a limit of it, or
//! look at its threads, files or memory.
//!
//! A test that sets or measures something process-wide does so in a child, where it is alone.

mod bank;
mod broken_machines;
mod common;
mod damage;
mod directory;
mod durability;
mod hardening;
mod host;
mod interrupted_writes;
mod io_backends;
mod limits;
mod memory_growth;
mod pinning;
