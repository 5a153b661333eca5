//! Snapshots in transfer: one node's Raft library reads a file of sprag in pieces, and another
//! node's writes it in pieces.

use std::fmt;
use std::io::{self, SeekFrom};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use sprag::Snapshot;
use sprag::error::SnapshotError;
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;

use crate::arriving::Arriving;
use crate::lease::Lease;
use crate::snapshots::{Arrived, Content};

/// The snapshot data of a node: an existing snapshot to read, or an arriving one to write.
///
/// The bytes are those of the snapshot's file, which contains its checksums. A transport carries
/// them unchanged, and no damaged snapshot is installed.
///
/// A file of a node's own snapshot is readable until the node ends: then each read fails with
/// [`SnapshotError::Closed`], and the file keeps nothing locked. A clone has a position of its own.
/// Clones of an arriving snapshot write to the same file.
///
/// # Examples
///
/// A snapshot is made of its file's bytes, and taken apart again:
///
/// ```
/// # use sprag::{ApplyConfig, ApplyManager, Entry, LogId, Payload};
/// # use sprag::{MemoryConfig, MemoryStateMachine};
/// use sprag::error::SnapshotError;
/// use sprag_raft_store::SnapshotFile;
/// use tokio::io::AsyncReadExt;
///
/// # let timeout = std::time::Duration::from_secs(10);
/// # let machine = MemoryStateMachine::new(MemoryConfig::new())?;
/// # let manager = ApplyManager::new(machine, ApplyConfig::new())?;
/// # let put = Payload::Command(sprag::Command::put(b"key", b"value"));
/// # manager.apply(&Entry::new(LogId::new(1, 1), put), timeout)?;
/// # let mut bytes = Vec::new();
/// # manager.snapshots().write_to(&mut bytes)?;
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut file = SnapshotFile::from_bytes(bytes.clone())?;
/// let mut read = Vec::new();
/// file.clone().read_to_end(&mut read).await?;
/// assert_eq!(read, bytes);
/// file.finish().await?;
/// assert_eq!(file.snapshot()?.get(b"key")?, Some(&b"value"[..]));
///
/// bytes[100] ^= 1;
/// assert!(matches!(SnapshotFile::from_bytes(bytes), Err(SnapshotError::Corrupt { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SnapshotFile {
    side: Side,
    position: u64,
}

#[derive(Debug)]
enum Side {
    /// The state before the first entry. The Raft library may ask for its snapshot, and never sends
    /// it.
    Nothing,
    Reading {
        lease: Arc<Lease>,
        file_bytes: u64,
        reading: Option<Job<Result<Vec<u8>, SnapshotError>>>,
        block: Block,
    },
    Receiving {
        arriving: Arc<Arriving>,
        writing: Option<Job<io::Result<()>>>,
        finishing: Option<JoinHandle<Result<(), SnapshotError>>>,
    },
}

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

impl Clone for SnapshotFile {
    fn clone(&self) -> Self {
        let side = match &self.side {
            Side::Nothing => Side::Nothing,
            Side::Reading { lease, file_bytes, .. } => Side::leased(Arc::clone(lease), *file_bytes),
            Side::Receiving { arriving, .. } => Side::receiving(Arc::clone(arriving)),
        };
        Self { side, position: self.position }
    }
}

impl Side {
    fn leased(lease: Arc<Lease>, file_bytes: u64) -> Self {
        Self::Reading { lease, file_bytes, reading: None, block: Block::default() }
    }

    fn receiving(arriving: Arc<Arriving>) -> Self {
        Self::Receiving { arriving, writing: None, finishing: None }
    }
}

impl SnapshotFile {
    /// A snapshot to read, from its beginning. The caller's snapshot stays readable while this file
    /// or a clone of it lives.
    #[must_use]
    pub fn reading(snapshot: Snapshot) -> Self {
        let file_bytes = snapshot.bytes();
        Self::leased(Lease::endless(snapshot), file_bytes)
    }

    /// Makes a file of its bytes, and verifies them.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Snapshot::from_bytes`].
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Result<Self, SnapshotError> {
        Snapshot::from_bytes(bytes).map(Self::reading)
    }

    /// Opens a file at any path. The chunks are not verified: see [`finish`](Self::finish). The
    /// call blocks.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Snapshot::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SnapshotError> {
        Snapshot::open(path).map(Self::reading)
    }

    /// The snapshot of the state before the first entry, which is never sent.
    #[must_use]
    pub fn nothing() -> Self {
        Self { side: Side::Nothing, position: 0 }
    }

    /// A snapshot that a node lends, from its beginning.
    pub(crate) fn leased(lease: Arc<Lease>, file_bytes: u64) -> Self {
        Self { side: Side::leased(lease, file_bytes), position: 0 }
    }

    /// A snapshot to receive.
    pub(crate) fn receiving(arriving: Arc<Arriving>) -> Self {
        Self { side: Side::receiving(arriving), position: 0 }
    }

    /// The snapshot in the file: its log id, its membership, its content. Of an arriving snapshot,
    /// call [`finish`](Self::finish) first.
    ///
    /// The result of a node's file keeps the node's directory locked until it is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::Closed`] after the node's end, [`SnapshotError::Incomplete`] before
    /// an arriving snapshot is finished, and [`SnapshotError::OtherSnapshot`] if another one has
    /// replaced it or it is installed. [`SnapshotError::Unsupported`] is for the state before the
    /// first entry, which has no file.
    pub fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        match &self.side {
            Side::Nothing => {
                Err(SnapshotError::Unsupported { what: "a file of the state before any entry" })
            }
            Side::Reading { lease, .. } => Ok(lease.get()?.snapshot),
            Side::Receiving { arriving, .. } => arriving.snapshot(),
        }
    }

    /// Verifies every chunk, on the blocking pool. An arriving snapshot takes no more bytes then,
    /// and no other one replaces it before it is installed or dropped.
    ///
    /// Call it before you give an arriving snapshot to the Raft library, because a library may end
    /// the node when an installation fails. A damaged snapshot is removed: return the error to the
    /// sender, which sends the snapshot again. [`AsyncWrite`]'s `shutdown` does the same.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::Corrupt`] or another error of [`Snapshot::open`] for a damaged
    /// snapshot. Returns [`SnapshotError::Incomplete`] if nothing has arrived, and
    /// [`SnapshotError::OtherSnapshot`] if another snapshot has replaced it. After the node's end,
    /// it is [`SnapshotError::Closed`].
    pub async fn finish(&mut self) -> Result<(), SnapshotError> {
        let done = match &mut self.side {
            Side::Nothing => return Ok(()),
            Side::Reading { lease, .. } => {
                let lent = lease.get()?;
                tokio::task::spawn_blocking(move || lent.snapshot.verify()).await
            }
            Side::Receiving { arriving, finishing, .. } => {
                let done = finish(arriving, finishing).await;
                *finishing = None;
                done
            }
        };
        done.unwrap_or_else(|error| {
            let (action, file) = ("verifying", "a snapshot".to_owned());
            Err(SnapshotError::Io { action, file, source: io::Error::other(error) })
        })
    }

    /// Takes the content for an installation.
    pub(crate) fn into_content(self) -> Result<Content, SnapshotError> {
        Ok(match self.side {
            Side::Nothing => Content::Received(Arrived(None)),
            Side::Reading { lease, .. } => Content::Snapshot(lease.get()?),
            Side::Receiving { arriving, .. } => {
                arriving.complete();
                Content::Received(Arrived(Some(arriving)))
            }
        })
    }
}

/// The verification of an arriving snapshot: the one that is under way, or another one.
fn finish<'f>(
    arriving: &Arc<Arriving>,
    finishing: &'f mut Option<JoinHandle<Result<(), SnapshotError>>>,
) -> &'f mut JoinHandle<Result<(), SnapshotError>> {
    finishing.get_or_insert_with(|| {
        let arriving = Arc::clone(arriving);
        tokio::task::spawn_blocking(move || arriving.finish())
    })
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
        let (lease, file_bytes, reading, block) = match &mut self.side {
            Side::Nothing => return Poll::Ready(Ok(())),
            Side::Reading { lease, file_bytes, reading, block } => {
                (lease, *file_bytes, reading, block)
            }
            Side::Receiving { .. } => {
                return Poll::Ready(Err(unsupported("a snapshot that arrives is not read")));
            }
        };
        while buffer.remaining() > 0 && position < file_bytes {
            let bytes = block.rest_at(position);
            if !bytes.is_empty() {
                let read = bytes.len().min(buffer.remaining());
                buffer.put_slice(bytes.get(..read).unwrap_or(bytes));
                self.position += read as u64;
                break;
            }
            let job = reading.get_or_insert_with(|| {
                let (lease, len) = (Arc::clone(lease), BLOCK_BYTES);
                let read = move || {
                    let lent = lease.get()?;
                    let piece = lent.snapshot.pieces(position, len).next();
                    // `position` is before the end, so there is a piece.
                    Ok(piece.map(|piece| piece.bytes.to_vec()).unwrap_or_default())
                };
                Job { position, len, done: tokio::task::spawn_blocking(read) }
            });
            let read = ready!(Pin::new(&mut job.done).poll(context));
            // An earlier caller may have given up waiting for a job elsewhere in the file.
            let begin = job.position;
            *reading = None;
            let read = read.map_err(io::Error::other)?;
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
        let Side::Receiving { arriving, writing, .. } = &mut self.side else {
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

    /// Verifies an arriving snapshot, as [`SnapshotFile::finish`] does. The source of the error is
    /// a [`SnapshotError`].
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Side::Receiving { arriving, finishing, .. } = &mut self.side else {
            return Poll::Ready(Ok(()));
        };
        let finished = ready!(Pin::new(finish(arriving, finishing)).poll(context));
        *finishing = None;
        let finished = finished.map_err(io::Error::other)?;
        Poll::Ready(finished.map_err(io::Error::other))
    }
}

impl AsyncSeek for SnapshotFile {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let end = match &self.side {
            Side::Reading { file_bytes, .. } => *file_bytes,
            Side::Nothing | Side::Receiving { .. } => self.position,
        };
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
