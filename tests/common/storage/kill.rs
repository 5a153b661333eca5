//! Tests with SIGKILL at any moment of a process with a machine over a storage.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sprag::StorageConfig;
use sprag::machine::storage::Storage;
use sprag::testing::Random;

use super::{Manager, Open, PATIENT, applied, entry, manage};

const DIRECTORY: &str = "SPRAG_KILLED_CHILD_DIRECTORY";

fn open<S: Storage>(open: Open<S>, directory: &Path, sync: bool) -> Manager<S> {
    let config = StorageConfig::new().batch_size(16).sync_writes(sync);
    manage(open(directory), config).unwrap()
}

/// The last index that the child has acknowledged. The last line may be incomplete.
fn acknowledged(directory: &Path) -> u64 {
    let text = fs::read_to_string(directory.join("acknowledged")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().last().map_or(0, |line| line.parse().unwrap())
}

/// The child's program: applies entries until it is killed.
pub fn program<S: Storage>(how: Open<S>) {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let sync = directory.join("sync").exists();
    let manager = open(how, &directory, sync);
    let mut file =
        File::options().create(true).append(true).open(directory.join("acknowledged")).unwrap();
    for index in manager.applied().map_or(1, |last| last.index + 1).. {
        if sync {
            manager.apply(&entry(index), PATIENT).unwrap();
        } else {
            let _ = manager.apply_entries(&[entry(index)]).unwrap();
            if !index.is_multiple_of(40) {
                continue;
            }
            manager.flush_pending(PATIENT).unwrap();
        }
        // Write the line in one call: a kill leaves all of it or nothing.
        file.write_all(format!("{index}\n").as_bytes()).unwrap();
    }
}

/// Runs the test `program` and kills it many times. Acknowledged entries are there, and nothing is
/// applied twice. Calls `seen` with the storage after each kill.
pub fn kill_again_and_again<S: Storage>(
    program: &str,
    how: Open<S>,
    (sync, rounds): (bool, usize),
    mut seen: impl FnMut(&S),
) {
    let directory = tempfile::tempdir().unwrap();
    if sync {
        File::create(directory.path().join("sync")).unwrap();
    }
    let (mut random, mut before) = (Random::new(7), 0);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", program, "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Sometimes kill the child while it opens.
        let more = if round % 3 == 2 { 0 } else { before + random.below(60) as u64 + 1 };
        let start = Instant::now();
        while acknowledged(directory.path()) < more && start.elapsed() < PATIENT {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(random.below(8000) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = acknowledged(directory.path());
        assert!(acknowledged >= more, "round {round}: stuck at {acknowledged} of {more}");
        let manager = open(how, directory.path(), sync);
        let recovered = applied(&manager);
        assert!(recovered >= acknowledged, "round {round}: {recovered} of {acknowledged}");
        assert!(recovered >= before, "round {round}: {recovered} after {before}");
        seen(manager.machine().storage());
        manager.close(PATIENT).unwrap();
        before = recovered;
    }
    assert!(before > 0, "it got somewhere");
}
