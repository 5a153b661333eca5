//! Who waits for whom, each schedule played out: threads at gates, or none but the test's.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::manager::ApplyManager;
use super::watermark::Stage;
use crate::config::CommitMode;
use crate::disk::{Access, Completion, Disk, DiskFile, LogWrite, WriteQueue};
use crate::error::WaitError;
use crate::testing::SimDisk;
use crate::{ApplyConfig, Entry, PersistentConfig, PersistentStateMachine};

/// Long enough for anything that is not stuck.
const LONG: Duration = Duration::from_secs(20);

/// One end says that it has come, and waits until the other end opens.
#[derive(Debug)]
struct Gate {
    come: SyncSender<()>,
    open: Receiver<()>,
}

/// The other end.
struct Keeper {
    come: Receiver<()>,
    open: SyncSender<()>,
}

fn gate() -> (Gate, Keeper) {
    let ((come_in, come_out), (open_in, open_out)) = (sync_channel(1), sync_channel(1));
    (Gate { come: come_in, open: open_out }, Keeper { come: come_out, open: open_in })
}

impl Gate {
    fn pass(&self) {
        self.come.send(()).unwrap();
        self.open.recv_timeout(LONG).unwrap();
    }
}

/// A disk whose first write of the log to be waited for passes a gate.
#[derive(Debug)]
struct GatedDisk {
    disk: Arc<dyn Disk>,
    gate: Mutex<Option<Gate>>,
}

#[derive(Debug)]
struct GatedQueue {
    queue: Box<dyn WriteQueue>,
    gate: Option<Gate>,
}

impl Disk for GatedDisk {
    fn describe(&self) -> String {
        self.disk.describe()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name, access)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn queue(&self) -> io::Result<Box<dyn WriteQueue>> {
        let gate = self.gate.lock().unwrap().take();
        Ok(Box::new(GatedQueue { queue: self.disk.queue()?, gate }))
    }
}

impl WriteQueue for GatedQueue {
    fn backend(&self) -> &'static str {
        self.queue.backend()
    }

    fn depth(&self) -> usize {
        self.queue.depth()
    }

    fn submit(&mut self, write: LogWrite) {
        self.queue.submit(write);
    }

    fn complete(&mut self, wait: bool) -> Option<Completion> {
        if let Some(gate) = self.gate.take() {
            gate.pass();
        }
        self.queue.complete(wait)
    }
}

#[test]
fn whoever_writes_the_log_itself_is_told_that_its_entry_was_truncated_meanwhile() {
    let (gate, keeper) = gate();
    let disk = SimDisk::new(1).open(true).unwrap();
    let disk = Arc::new(GatedDisk { disk, gate: Mutex::new(Some(gate)) });
    let config = PersistentConfig::new("simulated")
        .segment_bytes(64 << 10)
        .expected_keys(16)
        .commit_mode(CommitMode::ByCommit);
    let machine = PersistentStateMachine::open_on_disk(disk, config).unwrap();
    let manager = ApplyManager::without_threads(machine, ApplyConfig::new()).unwrap();
    manager.append(&[Entry::put(1, 1, b"key", b"old")]).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| manager.wait_until(1, Stage::Durable, LONG));
        keeper.come.recv_timeout(LONG).unwrap();
        manager.truncate_after(None).unwrap();
        manager.append(&[Entry::put(1, 2, b"key", b"new")]).unwrap();
        keeper.open.send(()).unwrap();
        let waited = waiting.join().unwrap();
        assert!(matches!(waited, Err(WaitError::Truncated { index: 1 })), "{waited:?}");
    });
}
