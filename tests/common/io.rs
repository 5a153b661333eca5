//! Which back-end the engines of the tests write their logs with: `SPRAG_TEST_IO` is `uring` or `pwrite`; unset, it is
//! the engine's own choice. And that they really do: an engine that fell back in silence would prove nothing.
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

/// What the environment asks for. A value that means nothing fails, and is not taken for the default.
pub fn asked() -> IoBackend {
    match std::env::var(TEST_IO) {
        Err(std::env::VarError::NotPresent) => IoBackend::Auto,
        Ok(value) if value == "uring" => IoBackend::Uring,
        Ok(value) if value == "pwrite" => IoBackend::Pwrite,
        other => panic!("{TEST_IO} must be uring or pwrite, or not be set: {other:?}"),
    }
}

/// The same as the command's `--io` takes it.
pub fn asked_name() -> &'static str {
    match asked() {
        IoBackend::Uring => "uring",
        IoBackend::Pwrite => "pwrite",
        _ => "auto",
    }
}

/// The defaults for a directory of the file system. Every such engine of the tests is made of this.
pub fn config(path: impl Into<PathBuf>) -> PersistentConfig {
    PersistentConfig::new(path).io(asked())
}

/// A manager whose log, if it is one of a directory, is written as the environment asks.
pub fn manage<M: StateMachine>(machine: M, config: ApplyConfig) -> ApplyManager<M> {
    manage_over(asked(), machine, config)
}

/// As [`manage`], where the test itself chose the back-end.
pub fn manage_over<M: StateMachine>(
    io: IoBackend,
    machine: M,
    config: ApplyConfig,
) -> ApplyManager<M> {
    let manager = ApplyManager::new(machine, config).unwrap();
    check(&manager.stats(), io);
    manager
}

/// An engine over the back-end that the test itself chose.
pub fn open_over(
    io: IoBackend,
    config: PersistentConfig,
    apply: ApplyConfig,
) -> ApplyManager<PersistentStateMachine> {
    manage_over(io, PersistentStateMachine::open(config.io(io)).unwrap(), apply)
}

/// Fails if the log is written in another way than `io`.
pub fn check(stats: &ApplyStats, io: IoBackend) {
    check_name(stats.io_backend, io, || stats.io_fallback.clone());
}

/// As [`check`], for what the command reports.
pub fn check_name(backend: &str, io: IoBackend, fallback: impl Fn() -> Option<String>) {
    match (io, backend) {
        (IoBackend::Auto, _) | (_, "memory" | "simulated") => {}
        (IoBackend::Pwrite, _) => assert_eq!((backend, fallback()), ("pwrite", None)),
        (_, "io_uring") => {}
        // A test that is about io_uring by itself also runs where there is none, unless all of them are to.
        (_, "pwrite") if asked() != IoBackend::Uring && fallback().is_some() => {}
        _ => panic!("{io:?} was asked for, and it is {backend}: {:?}", fallback()),
    }
}
