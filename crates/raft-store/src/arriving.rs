//! A snapshot that arrives at a node.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{fmt, io, mem};

use sprag::Snapshot;
use sprag::error::SnapshotError;
use sprag::snapshot::SnapshotReceiver;

/// Interval at which a new transfer checks whether the snapshot before it is installed.
const BUSY_LOOK: Duration = Duration::from_millis(1);

/// The node that a snapshot arrives at.
pub(crate) trait Destination: Send + Sync {
    /// Makes room for a snapshot. Reports busy while there is another one.
    fn begin(&self) -> Result<SnapshotReceiver, SnapshotError>;
}

/// A snapshot that arrives.
pub(crate) struct Arriving {
    /// Locked while bytes are written or verified, by threads that may block.
    arrival: Mutex<Arrival>,
    /// Locked for a moment only, by any thread.
    fate: Mutex<Fate>,
    node: Weak<dyn Destination>,
    patience: Duration,
}

#[derive(Debug)]
enum Arrival {
    /// No byte has arrived. An earlier snapshot may be waiting for its installation, and must not
    /// be disturbed.
    Awaited,
    Receiving(SnapshotReceiver),
    /// Another snapshot has replaced this one, it was damaged or installed, or the node has ended.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Open,
    /// All bytes have arrived, and the installation is next.
    Complete,
    /// Another snapshot has replaced this one.
    Replaced,
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving").field("fate", &self.fate).finish_non_exhaustive()
    }
}

impl Arriving {
    /// `node` may report busy for as long as `patience`.
    pub(crate) fn new(node: Weak<dyn Destination>, patience: Duration) -> Arc<Self> {
        let arrival = Mutex::new(Arrival::Awaited);
        Arc::new(Self { arrival, fate: Mutex::new(Fate::Open), node, patience })
    }

    fn lock(&self) -> MutexGuard<'_, Arrival> {
        self.arrival.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node, to be held while `arrival` is locked: the end of a node takes that lock.
    fn node(&self) -> Result<Arc<dyn Destination>, SnapshotError> {
        self.node.upgrade().ok_or(SnapshotError::Closed)
    }

    /// Lets another snapshot replace this one, unless it is complete. Returns whether it is
    /// replaced; then the caller calls [`Arriving::leave`] on a thread that may block.
    #[must_use]
    pub(crate) fn give_way(&self) -> bool {
        let mut fate = self.fate();
        if *fate == Fate::Open {
            *fate = Fate::Replaced;
        }
        *fate == Fate::Replaced
    }

    /// Removes what has arrived. Waits for a write that is under way.
    pub(crate) fn leave(&self) {
        let gone = mem::replace(&mut *self.lock(), Arrival::Gone);
        // The file is removed without the lock.
        drop(gone);
    }

    pub(crate) fn receive(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let began = Instant::now();
        loop {
            let node = self.node().map_err(io::Error::other)?;
            match *self.fate() {
                Fate::Open => {}
                Fate::Replaced => return Err(replaced()),
                Fate::Complete => return Err(io::Error::other("the snapshot was complete before")),
            }
            let mut arrival = self.lock();
            match &mut *arrival {
                Arrival::Awaited => match node.begin() {
                    Ok(receiver) => *arrival = Arrival::Receiving(receiver),
                    Err(SnapshotError::Busy) if began.elapsed() < self.patience => {
                        drop((arrival, node));
                        std::thread::sleep(BUSY_LOOK);
                    }
                    Err(error) => return Err(io::Error::other(error)),
                },
                Arrival::Receiving(receiver) => {
                    receiver.receive_bytes(position, bytes).map_err(io::Error::other)?;
                    return Ok(());
                }
                Arrival::Gone => return Err(replaced()),
            }
        }
    }

    /// Marks the snapshot as complete, unless another one has replaced it, and verifies it. A
    /// damaged snapshot is removed.
    pub(crate) fn finish(&self) -> Result<(), SnapshotError> {
        let _node = self.node()?;
        self.complete();
        if *self.fate() == Fate::Replaced {
            return Err(SnapshotError::OtherSnapshot);
        }
        let mut arrival = self.lock();
        let verified = match &mut *arrival {
            Arrival::Awaited => Err(SnapshotError::Incomplete { received: 0, file_bytes: None }),
            Arrival::Receiving(receiver) => receiver.verify().map(drop),
            Arrival::Gone => Err(SnapshotError::OtherSnapshot),
        };
        let failed = match &verified {
            Ok(()) => None,
            Err(_) => Some(mem::replace(&mut *arrival, Arrival::Gone)),
        };
        drop(arrival);
        // The file is removed without the lock.
        drop(failed);
        verified
    }

    /// The snapshot, once it is verified.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        let _node = self.node()?;
        match &*self.lock() {
            Arrival::Awaited => Err(SnapshotError::Incomplete { received: 0, file_bytes: None }),
            Arrival::Receiving(receiver) => {
                let incomplete = SnapshotError::Incomplete {
                    received: receiver.next_offset(),
                    file_bytes: None,
                };
                receiver.verified().cloned().ok_or(incomplete)
            }
            Arrival::Gone => Err(SnapshotError::OtherSnapshot),
        }
    }

    /// Marks the snapshot as complete, unless another one has replaced it.
    pub(crate) fn complete(&self) {
        let mut fate = self.fate();
        if *fate == Fate::Open {
            *fate = Fate::Complete;
        }
    }

    /// Takes what has arrived. Waits for a write that is under way.
    pub(crate) fn take(&self) -> Option<SnapshotReceiver> {
        if *self.fate() == Fate::Replaced {
            return None;
        }
        match mem::replace(&mut *self.lock(), Arrival::Gone) {
            Arrival::Receiving(receiver) => Some(receiver),
            Arrival::Awaited | Arrival::Gone => None,
        }
    }
}

fn replaced() -> io::Error {
    io::Error::other("another snapshot has taken its place")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::mpsc;

    use super::*;

    /// Longer than a call that does not wait can take.
    const STUCK: Duration = Duration::from_secs(60);

    /// A node whose room for a snapshot is made by a function.
    struct Making<F>(F);

    impl<F> Destination for Making<F>
    where
        F: Fn() -> Result<SnapshotReceiver, SnapshotError> + Send + Sync,
    {
        fn begin(&self) -> Result<SnapshotReceiver, SnapshotError> {
            self.0()
        }
    }

    #[test]
    fn a_transfer_is_replaced_without_a_wait_for_its_write() {
        let (has_begun, begun) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let may_go = Mutex::new(may_go);
        let begin = move || -> Result<SnapshotReceiver, SnapshotError> {
            has_begun.send(()).unwrap();
            let in_time: Result<(), _> = may_go.lock().unwrap().recv_timeout(STUCK);
            Err(if in_time.is_ok() { SnapshotError::Closed } else { SnapshotError::Busy })
        };
        let node: Arc<dyn Destination> = Arc::new(Making(begin));
        let arriving = Arriving::new(Arc::downgrade(&node), Duration::ZERO);
        let writes = Arc::clone(&arriving);
        let writing = std::thread::spawn(move || writes.receive(0, b"bytes").unwrap_err());
        begun.recv().unwrap();
        assert!(arriving.give_way());
        go.send(()).unwrap();
        let error = writing.join().unwrap().to_string();
        assert_eq!(error, SnapshotError::Closed.to_string(), "the write waited for the test");
        arriving.leave();
        assert_eq!(arriving.receive(0, b"").unwrap_err().to_string(), replaced().to_string());
        assert!(matches!(arriving.finish(), Err(SnapshotError::OtherSnapshot)));
        assert!(arriving.take().is_none());
    }

    #[test]
    fn a_complete_transfer_is_not_replaced_and_takes_no_more_bytes() {
        let begin = || -> Result<SnapshotReceiver, _> { Err(SnapshotError::Busy) };
        let node: Arc<dyn Destination> = Arc::new(Making(begin));
        let arriving = Arriving::new(Arc::downgrade(&node), Duration::ZERO);
        arriving.complete();
        assert!(!arriving.give_way());
        let error = arriving.receive(0, b"more").unwrap_err();
        assert!(error.to_string().contains("complete before"), "{error}");
    }

    #[test]
    fn a_transfer_into_a_node_that_has_ended_says_that_it_is_closed() {
        let node: Arc<dyn Destination> =
            Arc::new(Making(|| -> Result<SnapshotReceiver, _> { Err(SnapshotError::Busy) }));
        let arriving = Arriving::new(Arc::downgrade(&node), Duration::ZERO);
        drop(node);
        let error = arriving.receive(0, b"bytes").unwrap_err();
        assert_eq!(error.to_string(), SnapshotError::Closed.to_string());
        assert!(matches!(arriving.finish(), Err(SnapshotError::Closed)));
        assert!(matches!(arriving.snapshot(), Err(SnapshotError::Closed)));
    }
}
