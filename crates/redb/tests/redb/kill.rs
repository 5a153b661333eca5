//! SIGKILL at any moment of a process with a machine over redb.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sprag::StorageConfig;
use sprag::testing::Random;
use sprag_redb::{RedbConfig, RedbStorage};

use crate::machine::{Manager, PATIENT, applied, entry, manage};

const DIRECTORY: &str = "SPRAG_REDB_TEST_CHILD_DIRECTORY";

fn open(directory: &Path, sync: bool) -> Manager {
    let config = RedbConfig::new().sync_every(None).unsynced_bytes(20_000);
    let storage = RedbStorage::open(directory.join("state.redb"), config).unwrap();
    manage(storage, StorageConfig::default().batch_size(16).sync_writes(sync)).unwrap()
}

/// The last index that the child has acknowledged. The last line may be half there.
fn acknowledged(directory: &Path) -> u64 {
    let text = fs::read_to_string(directory.join("acknowledged")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().last().map_or(0, |line| line.parse().unwrap())
}

/// A process that applies entries until it is killed.
#[test]
fn the_program() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let sync = directory.join("sync").exists();
    let manager = open(&directory, sync);
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
        // In one write: a kill leaves all of the line or none of it.
        file.write_all(format!("{index}\n").as_bytes()).unwrap();
    }
}

/// Kills the program again and again; how often redb repaired.
fn kill_again_and_again(sync: bool, rounds: usize) -> usize {
    let directory = tempfile::tempdir().unwrap();
    if sync {
        File::create(directory.path().join("sync")).unwrap();
    }
    let (mut random, mut before, mut repaired) = (Random::new(7), 0, 0);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::the_program", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Once in a while it is killed while it opens.
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
        let manager = open(directory.path(), sync);
        let recovered = applied(&manager);
        assert!(recovered >= acknowledged, "round {round}: {recovered} of {acknowledged}");
        assert!(recovered >= before, "round {round}: {recovered} after {before}");
        repaired += usize::from(manager.machine().storage().was_repaired());
        manager.close(PATIENT).unwrap();
        before = recovered;
    }
    assert!(before > 0, "it got somewhere");
    repaired
}

#[test]
fn sigkill_takes_nothing_acknowledged_and_nothing_is_applied_twice() {
    let repaired = kill_again_and_again(true, 9);
    assert!(repaired > 2, "{repaired} repairs");
}

#[test]
fn sigkill_takes_nothing_flushed_where_batches_are_not_synced() {
    kill_again_and_again(false, 6);
}
