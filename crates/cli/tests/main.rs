//! The integration tests of the command: one binary, a module for each subject. Each test runs the
//! command as a process.

mod commands;
mod common;
mod damage;
mod dashboard;
mod data;
mod export_model;
mod full_disk;
mod generate;
mod import;
mod import_kill;
mod kill;
mod metrics;
mod operations;
mod outputs;
mod repair;
mod run;
mod snapshots;
mod stored;
