//! Snapshots that a node lends: the node takes them back when it ends.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sprag::Snapshot;
use sprag::error::SnapshotError;
use tokio::sync::watch;

/// A snapshot that is read. It keeps its directory locked.
#[derive(Clone, Debug)]
pub(crate) struct Lent {
    /// Dropped first.
    pub(crate) snapshot: Snapshot,
    /// Tells the node's end; `None` for a snapshot that is not of a node.
    _gone: Option<watch::Sender<()>>,
}

/// The right to read a snapshot. A lease of a node ends with the node.
#[derive(Debug)]
pub(crate) struct Lease(Mutex<Option<Lent>>);

impl Lease {
    /// A lease without an end, of a snapshot that is not of a node.
    pub(crate) fn endless(snapshot: Snapshot) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(Lent { snapshot, _gone: None }))))
    }

    fn lent(&self) -> MutexGuard<'_, Option<Lent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot. The node's directory is in use until the result is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::Closed`] after the node's end.
    pub(crate) fn get(&self) -> Result<Lent, SnapshotError> {
        self.lent().clone().ok_or(SnapshotError::Closed)
    }
}

/// The leases of one node.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<Vec<Weak<Lease>>>);

impl Leases {
    /// Lends a snapshot of the node. `gone` is dropped when the node and every read have ended.
    pub(crate) fn lend(&self, snapshot: Snapshot, gone: &watch::Sender<()>) -> Arc<Lease> {
        let lent = Lent { snapshot, _gone: Some(gone.clone()) };
        let lease = Arc::new(Lease(Mutex::new(Some(lent))));
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|lease| lease.strong_count() > 0);
        leases.push(Arc::downgrade(&lease));
        lease
    }

    /// Ends all leases.
    pub(crate) fn end(&self) {
        let leases = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for lease in leases.iter().filter_map(Weak::upgrade) {
            let lent = lease.lent().take();
            // The file is closed without the lease's lock.
            drop(lent);
        }
    }
}
