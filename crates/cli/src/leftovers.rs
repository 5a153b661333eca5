//! Temporary files and directories that go away also if the command is interrupted.
//!
//! A signal that ends the process (SIGINT, SIGTERM, SIGHUP) is taken by a thread, which removes them and then lets the signal
//! do what it does. It is started with the first of them; a command without any has no such thread.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// What is to be removed. The thread that removes it keeps the lock until the process ends.
static PATHS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static WATCHING: OnceLock<()> = OnceLock::new();
/// The engine may be making files in a directory while it is being removed.
const TRIES: u32 = 1000;

/// Keeps a path on the list of what goes away if the process is interrupted.
#[derive(Debug)]
pub(crate) struct Leftover(PathBuf);

impl Leftover {
    pub(crate) fn new(path: &Path) -> Self {
        // Without the thread an interruption leaves the file: no reason not to do the work.
        WATCHING.get_or_init(|| drop(watch()));
        paths().push(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        paths().retain(|path| *path != self.0);
    }
}

/// Waits for the end of the process if it is being interrupted: what fails then is no failure to report.
pub(crate) fn settle() {
    drop(paths());
}

fn paths() -> MutexGuard<'static, Vec<PathBuf>> {
    PATHS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // One that the caller ignores, as nohup does SIGHUP, stays ignored.
    let taken =
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(&status, *signal));
    let mut signals = Signals::new(taken)?;
    thread::Builder::new().name("sprag-signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let paths = paths();
            paths.iter().for_each(|path| remove(path));
            let _failed = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// Whether the process was told to ignore a signal, by what `/proc/self/status` says.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

fn remove(path: &Path) {
    for _ in 0..TRIES {
        let removed = match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(_) => return,
        };
        if removed.is_ok() {
            return;
        }
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_read_from_the_mask() {
        let status = "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t00\n";
        assert!(is_ignored(status, SIGHUP));
        assert!(!is_ignored(status, SIGINT) && !is_ignored("", SIGHUP));
    }
}
