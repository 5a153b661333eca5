//! A gate at which threads of an engine wait, and a machine that waits there.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "tests; each file uses its own part of this"
)]

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use sprag::error::SnapshotError;
use sprag::snapshot::{SnapshotSink, SnapshotSource};
use sprag::{EntryRange, Fatal, Partition, Replies, Reply, StateMachine};

/// Longer than any test holds a gate closed. A wait of this length means that a call blocks the
/// thread that would open the gate.
const STUCK: Duration = Duration::from_secs(60);

/// A gate at which threads of the engine wait.
#[derive(Debug, Default)]
pub struct Gate {
    /// Whether the gate is closed, and whether a thread has arrived at it since.
    state: Mutex<(bool, bool)>,
    moved: Condvar,
}

impl Gate {
    pub fn close(&self) {
        *self.state.lock().unwrap() = (true, false);
    }

    pub fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.moved.notify_all();
    }

    /// Waits until the gate is open. Returns whether it was opened in time.
    pub fn pass(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.1 = true;
        let (_state, stuck) =
            self.moved.wait_timeout_while(state, STUCK, |(closed, _)| *closed).unwrap();
        !stuck.timed_out()
    }

    /// Waits until a thread has arrived since the gate was closed.
    pub async fn visited(&self) {
        while !self.state.lock().unwrap().1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A machine without state that stops at a gate.
#[derive(Default)]
pub struct Held(pub Arc<Gate>);

impl StateMachine for Held {
    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        if !self.0.pass() {
            return Err(Fatal::new("stuck".to_owned()));
        }
        for entry in range.entries(partition) {
            replies.set(&entry?, Reply::Custom(7));
        }
        Ok(())
    }

    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        out.write(b"nothing").map_err(|source| SnapshotError::Io {
            action: "writing",
            file: "nothing".to_owned(),
            source,
        })
    }

    fn restore(&self, _source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        if self.0.pass() { Ok(()) } else { Err(SnapshotError::OtherSnapshot) }
    }
}
