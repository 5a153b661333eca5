//! The back-end by which the tests' engines write their logs: `SPRAG_TEST_IO` is `uring` or
//! `pwrite`; unset, the engine chooses. The helpers check the choice, because an engine that fell
//! back silently would prove nothing.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests; each file uses its own part of this"
)]

use std::path::PathBuf;

use sprag::{
    ApplyConfig, ApplyManager, ApplyStats, IoBackend, PersistentConfig, PersistentStateMachine,
    StateMachine,
};

const TEST_IO: &str = "SPRAG_TEST_IO";

/// The back-end that the environment asks for. A meaningless value fails, and is not taken for the
/// default.
pub fn asked() -> IoBackend {
    match std::env::var(TEST_IO) {
        Err(std::env::VarError::NotPresent) => IoBackend::Auto,
        Ok(value) if value == "uring" => IoBackend::Uring,
        Ok(value) if value == "pwrite" => IoBackend::Pwrite,
        other => panic!("{TEST_IO} must be uring or pwrite, or not be set: {other:?}"),
    }
}

/// The back-end in the form of the command's `--io`.
pub fn asked_name() -> &'static str {
    match asked() {
        IoBackend::Uring => "uring",
        IoBackend::Pwrite => "pwrite",
        _ => "auto",
    }
}

/// The default options for a directory of the file system. Every such engine of the tests uses
/// them.
pub fn config(path: impl Into<PathBuf>) -> PersistentConfig {
    PersistentConfig::new(path).io(asked())
}

/// A manager whose log, if it is in a directory, is written as the environment asks.
pub fn manage<M: StateMachine>(machine: M, config: ApplyConfig) -> ApplyManager<M> {
    manage_over(asked(), machine, config)
}

/// A manager as [`manage`] makes it, for a back-end that the test chose.
pub fn manage_over<M: StateMachine>(
    io: IoBackend,
    machine: M,
    config: ApplyConfig,
) -> ApplyManager<M> {
    let manager = ApplyManager::new(machine, config).unwrap();
    check(&manager.stats(), io);
    manager
}

/// An engine over the back-end that the test chose.
pub fn open_over(
    io: IoBackend,
    config: PersistentConfig,
    apply: ApplyConfig,
) -> ApplyManager<PersistentStateMachine> {
    manage_over(io, PersistentStateMachine::open(config.io(io)).unwrap(), apply)
}

/// Fails if the log is not written by `io`.
pub fn check(stats: &ApplyStats, io: IoBackend) {
    check_name(stats.io_backend, io, || stats.io_fallback.clone());
}

/// Checks the back-end that the command reports, as [`check`] does.
pub fn check_name(backend: &str, io: IoBackend, fallback: impl Fn() -> Option<String>) {
    match (io, backend) {
        (IoBackend::Auto, _) | (_, "memory" | "simulated") => {}
        (IoBackend::Pwrite, _) => assert_eq!((backend, fallback()), ("pwrite", None)),
        (_, "io_uring") => {}
        // A test of io_uring also runs where there is none, unless the environment asks for it.
        (_, "pwrite") if asked() != IoBackend::Uring && fallback().is_some() => {}
        _ => panic!("{io:?} was asked for, and it is {backend}: {:?}", fallback()),
    }
}
