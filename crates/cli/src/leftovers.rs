//! Temporary files and directories that are removed even if the command is interrupted.
//!
//! A thread takes a signal that ends the process (SIGINT, SIGTERM, SIGHUP), removes the files, and
//! then lets the signal act. The first leftover starts the thread; a command without leftovers has
//! no such thread.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Paths to remove. The thread that removes them keeps the lock until the process ends.
static PATHS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static WATCHING: OnceLock<()> = OnceLock::new();
/// Number of attempts to remove a directory: the engine may be making files in it at the same time.
const TRIES: u32 = 1000;

/// A path that is removed if the process is interrupted.
#[derive(Debug)]
pub(crate) struct Leftover(PathBuf);

impl Leftover {
    pub(crate) fn new(path: &Path) -> Self {
        // Without the thread, an interruption leaves the file. That is no reason to refuse the
        // work.
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

/// Waits for the end of the process if it is being interrupted. A failure during an interruption is
/// not reported.
pub(crate) fn settle() {
    drop(paths());
}

fn paths() -> MutexGuard<'static, Vec<PathBuf>> {
    PATHS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // A signal that the caller ignores, as nohup ignores SIGHUP, stays ignored.
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

/// Whether the process ignores a signal, according to `/proc/self/status`.
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
