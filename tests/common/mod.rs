//! Helpers of the scenario files: the serial oracle, the generators, observable machines, and small
//! functions.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "tests; each file uses its own part of this"
)]

pub mod acting_disk;
pub mod files;
pub mod frames;
pub mod generate;
pub mod io;
pub mod machines;
pub mod model;
pub mod ops;

use std::fs;
use std::future::Future;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use sprag::{
    ApplyConfig, ApplyManager, CommitMode, PersistentConfig, PersistentStateMachine, StateMachine,
};
use tempfile::TempDir;

/// Long enough for anything that is not stuck.
pub const LONG: Duration = Duration::from_secs(20);
/// Long enough for hundreds of syncs: a busy disk may take most of a second for each.
pub const PATIENT: Duration = Duration::from_secs(180);
/// Long enough to see that something does not happen.
pub const SHORT: Duration = Duration::from_millis(60);

/// A guard that sets a flag when it is dropped, also by a panic, so that threads end and a failing
/// test does not hang.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs `work` on another thread, and fails instead of hanging if it does not return.
pub fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::channel();
    let worker = thread::spawn(move || {
        let _receiver_may_be_gone = sender.send(work());
    });
    match receiver.recv_timeout(limit) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: not back after {limit:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("the result was sent"),
        },
    }
}

/// Waits until `reached` returns true. Returns whether it did in time.
pub fn eventually(limit: Duration, mut reached: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !reached() {
        if started.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_micros(200));
    }
    true
}

/// An observer of a thread that goes to sleep: a sleeping waiter is registered, whatever else the
/// machine does.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<OnceLock<PathBuf>>);

impl Watch {
    /// The thread calls this before it begins to wait.
    pub fn here(&self) {
        let task = fs::read_link("/proc/thread-self").unwrap();
        self.0.set(Path::new("/proc").join(task)).unwrap();
    }

    /// Returns when the thread sleeps, or has ended.
    pub fn until_asleep(&self) {
        let sleeps = || {
            let Some(task) = self.0.get() else { return false };
            let Ok(stat) = fs::read_to_string(task.join("stat")) else { return true };
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
        };
        // The thread may also wait for a lock, but not for as long.
        let mut in_a_row = 0;
        let asleep = eventually(LONG, || {
            in_a_row = if sleeps() { in_a_row + 1 } else { 0 };
            in_a_row == 20
        });
        assert!(asleep, "the thread does not wait");
    }
}

pub fn workers(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

/// A manager's options for tests: several workers on any machine, and none of them pinned.
pub fn apply_config(worker_count: usize) -> ApplyConfig {
    ApplyConfig::new().worker_count(workers(worker_count)).pin_workers(false)
}

pub fn manage<M: StateMachine>(machine: M, config: ApplyConfig) -> ApplyManager<M> {
    io::manage(machine, config)
}

pub type Persistent = ApplyManager<PersistentStateMachine>;

/// A data directory that is removed with the test. The data is one level down, so that sprag
/// creates its directory.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("sprag-test-").tempdir().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Options with small segments, so that a few hundred entries fill several.
    pub fn config(&self) -> PersistentConfig {
        io::config(self.path()).segment_bytes(64 << 10).expected_keys(256)
    }

    pub fn by_commit(&self) -> PersistentConfig {
        self.config().commit_mode(CommitMode::ByCommit)
    }

    pub fn open(&self) -> Persistent {
        open(self.config())
    }

    /// A copy of the directory as a `kill -9` at this moment would leave it.
    pub fn crash_image(&self) -> Self {
        let image = Self::new();
        copy_dir(&self.path(), &image.path());
        image
    }
}

pub fn open(config: PersistentConfig) -> Persistent {
    manage(PersistentStateMachine::open(config).unwrap(), apply_config(2))
}

/// Opens, and returns the error that this must cause.
pub fn refused(config: PersistentConfig) -> sprag::error::OpenError {
    match PersistentStateMachine::open(config) {
        Ok(_) => panic!("opening must be refused"),
        Err(error) => error,
    }
}

pub fn copy_dir(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // A listed file may have another name by now: a segment that was recycled.
    while !copy_files(from, to) {
        fs::remove_dir_all(to).unwrap();
    }
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
}

/// Copies the files. Returns whether all were there.
fn copy_files(from: &Path, to: &Path) -> bool {
    fs::create_dir(to).unwrap();
    // Copy META last: a crash leaves all files of one moment, so the copied META must not be older
    // than the files.
    let mut names: Vec<_> =
        fs::read_dir(from).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort_by_key(|name| name == "META");
    names.into_iter().all(|name| match fs::copy(from.join(&name), to.join(&name)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        copied => copied.map(|_bytes| true).unwrap(),
    })
}

/// Every file of a directory with its bytes.
pub fn dir_bytes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// A child process: this test binary again, which runs the one test `name` of `module` with
/// `directory` as its argument. The module is the `module_path!()` of the test.
pub fn child(module: &str, name: &str, directory: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &name_in(module, name), "--nocapture", "--test-threads=1"]);
    command.env(CHILD_DIRECTORY, directory);
    command
}

/// Name that the test harness gives the test `name` of `module`: its path below the crate.
pub fn name_in(module: &str, name: &str) -> String {
    module.split_once("::").map_or(name.to_owned(), |(_, below)| format!("{below}::{name}"))
}

const CHILD_DIRECTORY: &str = "SPRAG_TEST_CHILD_DIRECTORY";

/// The argument of a child; `None` in the parent, where a child's test does nothing.
pub fn child_directory() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIRECTORY).map(PathBuf::from)
}

/// A tiny executor, which polls on this thread, and parks it between polls.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A waker that counts its calls.
#[derive(Debug, Default)]
pub struct CountingWaker(AtomicUsize);

impl CountingWaker {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
