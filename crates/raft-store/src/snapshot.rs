//! Snapshots in transfer: one node's openraft reads a file of sprag in pieces, and another node's
//! writes it in pieces.

use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use std::{fmt, mem};

use sprag::Snapshot;
use sprag::error::SnapshotError;
use sprag::snapshot::SnapshotReceiver;
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;

use crate::snapshots::Content;

/// The snapshot data of a node: an existing snapshot to read, or an arriving one to write.
///
/// The bytes are those of the snapshot's file, which contains its checksums. Openraft's transport
/// carries them unchanged, and no damaged snapshot is installed.
#[derive(Debug)]
pub struct SnapshotFile {
    side: Side,
    position: u64,
}

#[derive(Debug)]
enum Side {
    /// The state before the first entry. Openraft may ask for its snapshot, and never sends it.
    Nothing,
    Reading(Snapshot),
    Receiving {
        arriving: Arc<Arriving>,
        writing: Option<Job>,
    },
}

/// Interval at which a new transfer checks whether the snapshot before it is installed.
const BUSY_LOOK: Duration = Duration::from_millis(1);

/// A write in progress: the number of bytes, and their offset.
#[derive(Debug)]
struct Job {
    position: u64,
    len: usize,
    done: JoinHandle<io::Result<()>>,
}

type Begin = Box<dyn Fn() -> Result<SnapshotReceiver, SnapshotError> + Send + Sync>;

/// A snapshot that arrives.
pub(crate) struct Arriving {
    arrival: Mutex<Arrival>,
    begin: Begin,
    patience: Duration,
}

#[derive(Debug)]
enum Arrival {
    /// No byte has arrived. An earlier snapshot may be waiting for its installation, and must not
    /// be disturbed.
    Awaited,
    Receiving(SnapshotReceiver),
    /// All bytes have arrived, and the installation is next.
    Complete(SnapshotReceiver),
    /// Another snapshot has replaced this one, or it was installed.
    Gone,
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving").field("arrival", &self.arrival).finish_non_exhaustive()
    }
}

impl Arriving {
    fn lock(&self) -> MutexGuard<'_, Arrival> {
        self.arrival.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets another snapshot replace this one, unless it is complete.
    pub(crate) fn give_way(&self) {
        let mut arrival = self.lock();
        if !matches!(*arrival, Arrival::Complete(_)) {
            *arrival = Arrival::Gone;
        }
    }

    fn receive(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let began = Instant::now();
        loop {
            let mut arrival = self.lock();
            match &mut *arrival {
                Arrival::Awaited => match (self.begin)() {
                    Ok(receiver) => *arrival = Arrival::Receiving(receiver),
                    Err(SnapshotError::Busy) if began.elapsed() < self.patience => {
                        drop(arrival);
                        std::thread::sleep(BUSY_LOOK);
                    }
                    Err(error) => return Err(io::Error::other(error)),
                },
                Arrival::Receiving(receiver) | Arrival::Complete(receiver) => {
                    receiver.receive_bytes(position, bytes).map_err(io::Error::other)?;
                    return Ok(());
                }
                Arrival::Gone => {
                    return Err(io::Error::other("another snapshot has taken its place"));
                }
            }
        }
    }

    fn complete(&self) {
        let mut arrival = self.lock();
        *arrival = match mem::replace(&mut *arrival, Arrival::Gone) {
            Arrival::Receiving(receiver) => Arrival::Complete(receiver),
            other => other,
        };
    }

    fn take(&self) -> Option<SnapshotReceiver> {
        match mem::replace(&mut *self.lock(), Arrival::Gone) {
            Arrival::Receiving(receiver) | Arrival::Complete(receiver) => Some(receiver),
            Arrival::Awaited | Arrival::Gone => None,
        }
    }
}

impl SnapshotFile {
    /// A snapshot to read, from its beginning.
    #[must_use]
    pub fn reading(snapshot: Snapshot) -> Self {
        Self { side: Side::Reading(snapshot), position: 0 }
    }

    /// The snapshot; `None` while it is arriving.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Snapshot> {
        match &self.side {
            Side::Reading(snapshot) => Some(snapshot),
            Side::Nothing | Side::Receiving { .. } => None,
        }
    }

    /// The snapshot of the state before the first entry, which is never sent.
    #[must_use]
    pub fn nothing() -> Self {
        Self { side: Side::Nothing, position: 0 }
    }

    /// A snapshot to receive. `begin` makes room for it when its first bytes arrive; `begin` may
    /// report busy for as long as `patience`.
    pub(crate) fn receiving(begin: Begin, patience: Duration) -> (Self, Weak<Arriving>) {
        let arrival = Mutex::new(Arrival::Awaited);
        let arriving = Arc::new(Arriving { arrival, begin, patience });
        let weak = Arc::downgrade(&arriving);
        (Self { side: Side::Receiving { arriving, writing: None }, position: 0 }, weak)
    }

    /// Takes the content, for [`Node::install`](crate::Node::install).
    #[must_use]
    pub fn into_content(self) -> Content {
        match self.side {
            Side::Nothing => Content::Received(None),
            Side::Reading(snapshot) => Content::Snapshot(snapshot),
            Side::Receiving { arriving, .. } => Content::Received(arriving.take()),
        }
    }
}

fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

impl AsyncRead for SnapshotFile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let snapshot = match &self.side {
            Side::Nothing => return Poll::Ready(Ok(())),
            Side::Reading(snapshot) => snapshot,
            Side::Receiving { .. } => {
                return Poll::Ready(Err(unsupported("a snapshot that arrives is not read")));
            }
        };
        let mut read = 0;
        if let Some(piece) = snapshot.pieces(self.position, buffer.remaining()).next()
            && buffer.remaining() > 0
        {
            buffer.put_slice(piece.bytes);
            read = piece.bytes.len();
        }
        self.position += read as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SnapshotFile {
    /// Writes the bytes to the page cache, on a thread that may wait.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let position = self.position;
        let Side::Receiving { arriving, writing } = &mut self.side else {
            return Poll::Ready(Err(unsupported("a snapshot is not written to")));
        };
        let len = bytes.len();
        loop {
            let job = writing.get_or_insert_with(|| {
                let (arriving, bytes) = (Arc::clone(arriving), bytes.to_vec());
                let done = tokio::task::spawn_blocking(move || arriving.receive(position, &bytes));
                Job { position, len, done }
            });
            let written = ready!(Pin::new(&mut job.done).poll(context));
            let is_ours = (job.position, job.len) == (position, len);
            *writing = None;
            // Otherwise an earlier caller gave up waiting for its job.
            if is_ours {
                written.map_err(io::Error::other).and_then(|written| written)?;
                self.position += len as u64;
                return Poll::Ready(Ok(len));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A write is done when it returns; the installation makes it durable.
        Poll::Ready(Ok(()))
    }

    /// Marks the snapshot as complete: no other one replaces it any more.
    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Side::Receiving { arriving, .. } = &self.side {
            arriving.complete();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for SnapshotFile {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let end = self.snapshot().map_or(self.position, Snapshot::bytes);
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => end.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}
