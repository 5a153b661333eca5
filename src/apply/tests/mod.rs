//! Tests of the engine from inside, whose schedules no public call can play out.

mod here;
mod invariants;
mod log_futures;
mod log_reads;
mod threads;
mod waiters;
