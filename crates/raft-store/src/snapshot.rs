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
    Reading {
        snapshot: Snapshot,
        reading: Option<Job<Vec<u8>>>,
        block: Block,
    },
    Receiving {
        arriving: Arc<Arriving>,
        writing: Option<Job<io::Result<()>>>,
    },
}

/// Interval at which a new transfer checks whether the snapshot before it is installed.
const BUSY_LOOK: Duration = Duration::from_millis(1);

/// Most bytes that one job reads. A job costs two thread hops.
const BLOCK_BYTES: usize = 256 << 10;

/// A read or write in progress: the number of bytes, and their offset.
#[derive(Debug)]
struct Job<T> {
    position: u64,
    len: usize,
    done: JoinHandle<T>,
}

/// The bytes that were read last, and their offset.
#[derive(Default)]
struct Block {
    begin: u64,
    bytes: Vec<u8>,
}

/// Shows no bytes: they have keys and values.
impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("begin", &self.begin).finish_non_exhaustive()
    }
}

impl Block {
    /// The bytes from an offset in the file on; none if the block does not have that.
    fn rest_at(&self, position: u64) -> &[u8] {
        let skip = position.checked_sub(self.begin).and_then(|skip| usize::try_from(skip).ok());
        // An offset outside of the block has no bytes in it.
        skip.and_then(|skip| self.bytes.get(skip..)).unwrap_or_default()
    }
}

type Begin = Box<dyn Fn() -> Result<SnapshotReceiver, SnapshotError> + Send + Sync>;

/// A snapshot that arrives.
pub(crate) struct Arriving {
    /// Locked while bytes are written, by threads that may block.
    arrival: Mutex<Arrival>,
    /// Locked for a moment only, by any thread.
    fate: Mutex<Fate>,
    begin: Begin,
    patience: Duration,
}

#[derive(Debug)]
enum Arrival {
    /// No byte has arrived. An earlier snapshot may be waiting for its installation, and must not
    /// be disturbed.
    Awaited,
    Receiving(SnapshotReceiver),
    /// Another snapshot has replaced this one, or it was installed.
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
        f.debug_struct("Arriving").field("arrival", &self.arrival).finish_non_exhaustive()
    }
}

impl Arriving {
    fn lock(&self) -> MutexGuard<'_, Arrival> {
        self.arrival.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn receive(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let began = Instant::now();
        loop {
            if *self.fate() == Fate::Replaced {
                return Err(replaced());
            }
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
                Arrival::Receiving(receiver) => {
                    receiver.receive_bytes(position, bytes).map_err(io::Error::other)?;
                    return Ok(());
                }
                Arrival::Gone => return Err(replaced()),
            }
        }
    }

    /// Marks the snapshot as complete, unless another one has replaced it.
    fn complete(&self) {
        let mut fate = self.fate();
        if *fate == Fate::Open {
            *fate = Fate::Complete;
        }
    }

    /// Takes what has arrived. Waits for a write that is under way.
    fn take(&self) -> Option<SnapshotReceiver> {
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

/// A snapshot that has arrived, for its installation.
#[derive(Debug)]
pub struct Arrived(Option<Arc<Arriving>>);

impl Arrived {
    /// Takes its bytes; `None` if there are none, or another snapshot has replaced it.
    pub(crate) fn take(self) -> Option<SnapshotReceiver> {
        self.0.and_then(|arriving| arriving.take())
    }
}

impl SnapshotFile {
    /// A snapshot to read, from its beginning.
    #[must_use]
    pub fn reading(snapshot: Snapshot) -> Self {
        let side = Side::Reading { snapshot, reading: None, block: Block::default() };
        Self { side, position: 0 }
    }

    /// The snapshot; `None` while it is arriving.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Snapshot> {
        match &self.side {
            Side::Reading { snapshot, .. } => Some(snapshot),
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
        let fate = Mutex::new(Fate::Open);
        let arriving = Arc::new(Arriving { arrival, fate, begin, patience });
        let weak = Arc::downgrade(&arriving);
        (Self { side: Side::Receiving { arriving, writing: None }, position: 0 }, weak)
    }

    /// Takes the content, for [`Node::install`](crate::Node::install).
    #[must_use]
    pub fn into_content(self) -> Content {
        match self.side {
            Side::Nothing => Content::Received(Arrived(None)),
            Side::Reading { snapshot, .. } => Content::Snapshot(snapshot),
            Side::Receiving { arriving, .. } => {
                arriving.complete();
                Content::Received(Arrived(Some(arriving)))
            }
        }
    }
}

fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

impl AsyncRead for SnapshotFile {
    /// Reads the file in blocks, on a thread that may wait for the disk.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let position = self.position;
        let (snapshot, reading, block) = match &mut self.side {
            Side::Nothing => return Poll::Ready(Ok(())),
            Side::Reading { snapshot, reading, block } => (snapshot, reading, block),
            Side::Receiving { .. } => {
                return Poll::Ready(Err(unsupported("a snapshot that arrives is not read")));
            }
        };
        while buffer.remaining() > 0 && position < snapshot.bytes() {
            let bytes = block.rest_at(position);
            if !bytes.is_empty() {
                let read = bytes.len().min(buffer.remaining());
                buffer.put_slice(bytes.get(..read).unwrap_or(bytes));
                self.position += read as u64;
                break;
            }
            let job = reading.get_or_insert_with(|| {
                let (snapshot, len) = (snapshot.clone(), BLOCK_BYTES);
                let read = move || {
                    let piece = snapshot.pieces(position, len).next();
                    // `position` is before the end, so there is a piece.
                    piece.map(|piece| piece.bytes.to_vec()).unwrap_or_default()
                };
                Job { position, len, done: tokio::task::spawn_blocking(read) }
            });
            let read = ready!(Pin::new(&mut job.done).poll(context));
            // An earlier caller may have given up waiting for a job elsewhere in the file.
            let begin = job.position;
            *reading = None;
            *block = Block { begin, bytes: read.map_err(io::Error::other)? };
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::mpsc;

    use super::*;

    /// Longer than a call that does not wait can take.
    const STUCK: Duration = Duration::from_secs(60);

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
        let (_file, arriving) = SnapshotFile::receiving(Box::new(begin), Duration::ZERO);
        let arriving = arriving.upgrade().unwrap();
        let writes = Arc::clone(&arriving);
        let writing = std::thread::spawn(move || writes.receive(0, b"bytes").unwrap_err());
        begun.recv().unwrap();
        assert!(arriving.give_way());
        go.send(()).unwrap();
        let error = writing.join().unwrap().to_string();
        assert_eq!(error, SnapshotError::Closed.to_string(), "the write waited for the test");
        arriving.leave();
        assert_eq!(arriving.receive(0, b"").unwrap_err().to_string(), replaced().to_string());
        arriving.complete();
        assert!(arriving.take().is_none());
    }

    #[test]
    fn a_complete_transfer_is_not_replaced() {
        let begin = || -> Result<SnapshotReceiver, _> { Err(SnapshotError::Busy) };
        let (file, arriving) = SnapshotFile::receiving(Box::new(begin), Duration::ZERO);
        let arriving = arriving.upgrade().unwrap();
        let _content = file.into_content();
        assert!(!arriving.give_way());
    }
}
