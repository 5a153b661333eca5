//! The ring itself: slots that own the memory that the kernel reads, from submission to completion.
//!
//! The ring is safe to use in any way. The ring releases a slot's memory and file only when the
//! kernel has said that it is done with them. If the kernel can no longer be asked, it never does.
//! Until then this process only reads that memory, or leaves it alone:
//!
//! | the kernel reads | this process meanwhile |
//! |---|---|
//! | bytes of an image below `filled` | reads them; they are not written again while the slot holds the image |
//! | the slot's block and vectors | does not touch them; no reference to them is ever made, see `Lent` |

#![allow(
    unsafe_code,
    reason = "the kernel reads memory behind the compiler's back; see docs/unsafe.md"
)]

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, Probe, opcode, squeue};
use memmap2::MmapMut;

use crate::bytes::to_usize;
use crate::disk::DiskFile;
use crate::hook::Hook;
use crate::image::ImageSlice;
use crate::sync::tell_under_locks;

/// Alignment of writes past the page cache, in file, memory and length.
pub(super) const BLOCK_BYTES: usize = 4096;

/// Bytes of a segment's image from a block's start on; the missing part of the last block is
/// written as zeros.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) file: Arc<dyn DiskFile>,
    /// The bytes, which start at a block of the image, and so of memory.
    pub(super) bytes: ImageSlice,
    pub(super) offset: u64,
    pub(super) sync: bool,
}

/// A finished request: its slot, and its result or error number.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) slot: usize,
    pub(super) result: i32,
}

pub(super) struct Ring {
    ring: IoUring,
    /// Resources of each slot's request; `None` for a free slot.
    slots: ManuallyDrop<Box<[Option<Held>]>>,
    lent: ManuallyDrop<Lent>,
    busy: usize,
}

/// Resources of a request.
enum Held {
    Write { _blocks: Blocks },
    Sync { _file: Arc<dyn DiskFile> },
}

/// Two parts of a write, in the form that the kernel takes.
type Vectors = [libc::iovec; 2];

/// Memory of a slot that the kernel reads: a block and the vectors of the request. The block is for
/// the last one of a write, while the appender writes its end in the image.
///
/// The memory is mapped, so that it stays where it is, and reached by pointers only. No reference
/// to it is ever made. A unique one would claim bytes of other slots too, or outlive the moment at
/// which the kernel begins to read.
struct Lent {
    base: NonNull<u8>,
    slots: usize,
    /// Keeps the memory; not used otherwise.
    _memory: MmapMut,
}

// SAFETY: the memory is owned by this value and shared with no other thread; the pointer goes where
// the value goes. Any thread may have the value: the kernel, which follows pointers into it, does
// not care.
unsafe impl Send for Lent {}

impl Lent {
    fn new(slots: usize) -> io::Result<Self> {
        let mut memory = MmapMut::map_anon(slots * (BLOCK_BYTES + size_of::<Vectors>()))?;
        let base = NonNull::new(memory.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, slots, _memory: memory })
    }

    /// The block of a slot.
    fn block(&self, slot: usize) -> *mut u8 {
        self.base.as_ptr().wrapping_add(slot * BLOCK_BYTES)
    }

    /// The vectors of a slot: they come after all blocks, and so are aligned.
    fn vectors(&self, slot: usize) -> *mut Vectors {
        let first = self.base.as_ptr().wrapping_add(self.slots * BLOCK_BYTES);
        first.cast::<Vectors>().wrapping_add(slot)
    }

    /// Writes the memory that the kernel is to read: `whole` blocks where they are, then `rest` in
    /// the slot's own block. `rest` is shorter than a block, and zeros follow it. Returns the
    /// vectors, their number, and the number of bytes.
    ///
    /// `None` if there is no such slot, or `rest` is not shorter than a block.
    ///
    /// # Safety
    ///
    /// The kernel has no request of this slot.
    unsafe fn fill(
        &mut self,
        slot: usize,
        whole: &[u8],
        rest: &[u8],
    ) -> Option<(*const libc::iovec, u32, usize)> {
        if slot >= self.slots || rest.len() >= BLOCK_BYTES {
            return None;
        }
        let block = self.block(slot);
        // SAFETY: `rest` fits the block, which is ours (`slot < slots`) and outside of any slice.
        // The kernel reads other slots' blocks only, as the caller says, and no reference to this
        // one exists.
        unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), block, rest.len()) };
        // SAFETY: from `rest.len()` to the end of the same block.
        unsafe { ptr::write_bytes(block.wrapping_add(rest.len()), 0, BLOCK_BYTES - rest.len()) };
        let whole_vector =
            libc::iovec { iov_base: whole.as_ptr().cast_mut().cast(), iov_len: whole.len() };
        let rest_vector = libc::iovec { iov_base: block.cast(), iov_len: BLOCK_BYTES };
        let (parts, count, bytes): (Vectors, _, _) = match (whole.is_empty(), rest.is_empty()) {
            (false, false) => ([whole_vector, rest_vector], 2, whole.len() + BLOCK_BYTES),
            (false, true) => ([whole_vector, rest_vector], 1, whole.len()),
            (true, _) => ([rest_vector, whole_vector], 1, BLOCK_BYTES),
        };
        let vectors = self.vectors(slot);
        // SAFETY: inside of our memory, aligned (blocks are whole pages), and of this slot, as
        // above.
        unsafe { vectors.write(parts) };
        Some((vectors.cast_const().cast(), count, bytes))
    }
}

impl Ring {
    /// Makes a ring for `slots` requests; an error if the kernel refuses one, or has none that
    /// writes and syncs.
    pub(super) fn new(slots: u32) -> io::Result<Self> {
        let ring = IoUring::builder().setup_coop_taskrun().build(slots).or_else(|error| {
            match error.raw_os_error() {
                // Kernels before 5.19 do not know the flag.
                Some(libc::EINVAL) => IoUring::new(slots),
                _ => Err(error),
            }
        })?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Writev::CODE) || !probe.is_supported(opcode::Fsync::CODE) {
            return Err(io::Error::other("the kernel's rings cannot write and sync"));
        }
        let slots = slots as usize;
        let lent = ManuallyDrop::new(Lent::new(slots)?);
        let slots = ManuallyDrop::new((0..slots).map(|_| None).collect());
        Ok(Self { ring, slots, lent, busy: 0 })
    }

    /// Queues a write, and returns its slot and length. After an error nothing is queued.
    pub(super) fn write(&mut self, blocks: Blocks) -> io::Result<(usize, usize)> {
        let slot = self.free_slot()?;
        let descriptor =
            blocks.file.direct(Hook::ENGINE).ok_or(io::ErrorKind::Unsupported)?.as_raw_fd();
        let bytes: &[u8] = blocks.bytes.as_ref();
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % BLOCK_BYTES);
        // SAFETY: the slot is free: its last request, if there was one, is completed (`take`), and
        // none is queued.
        let filled = unsafe { self.lent.fill(slot, whole, rest) };
        let (vectors, count, len) = filled.ok_or(io::ErrorKind::InvalidInput)?;
        let flags = if blocks.sync { libc::RWF_DSYNC } else { 0 };
        let entry = opcode::Writev::new(Fd(descriptor), vectors, count)
            .offset(blocks.offset)
            .rw_flags(flags)
            .build();
        self.push(slot, entry, Held::Write { _blocks: blocks })?;
        Ok((slot, len))
    }

    /// Queues a sync of everything written to `file`, and returns its slot.
    pub(super) fn sync(&mut self, file: Arc<dyn DiskFile>) -> io::Result<usize> {
        let slot = self.free_slot()?;
        let descriptor = file.direct(Hook::ENGINE).ok_or(io::ErrorKind::Unsupported)?.as_raw_fd();
        let entry = opcode::Fsync::new(Fd(descriptor)).flags(FsyncFlags::DATASYNC).build();
        self.push(slot, entry, Held::Sync { _file: file })?;
        Ok(slot)
    }

    fn free_slot(&self) -> io::Result<usize> {
        let free = self.slots.iter().position(Option::is_none);
        free.ok_or_else(|| io::Error::other("more requests in flight than the ring has slots"))
    }

    fn push(&mut self, slot: usize, entry: squeue::Entry, held: Held) -> io::Result<()> {
        let entry = entry.user_data(slot as u64);
        let full = || io::Error::other("the ring is full");
        let place = self.slots.get_mut(slot).ok_or_else(full)?;
        // SAFETY: until the completion is taken, the kernel may use the memory and the file of the
        // entry. They stay: `held` keeps the file and the image, and `lent` the block and the
        // vectors. `Drop` releases these only when nothing is in flight. The kernel reads the
        // memory and no thread writes it; the request is a write or a sync, so the kernel does not
        // write either. Bytes of the image lie below `filled`, and unique references exist above
        // `published` only. A closing half below `filled` has no token left. `Image::begin` needs
        // the only reference to the image, and `held` is another. Only `Lent::fill` writes the
        // block and the vectors, and it is not called for a slot that is held.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| full())?;
        *place = Some(held);
        self.busy += 1;
        Ok(())
    }

    /// Number of requests that the kernel has not finished, or not received yet.
    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    /// Submits the queued requests; with `wait`, blocks until a request is finished. The call may
    /// return early.
    pub(super) fn enter(&mut self, wait: bool) -> io::Result<()> {
        let entered = match wait {
            true => self.ring.submit_and_wait(1),
            false if self.ring.submission().is_empty() => Ok(0),
            false => self.ring.submit(),
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // A signal, no memory for a request at the moment, or completions that must be
                // taken first. All pass.
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes the next finished request, and releases its memory.
    pub(super) fn take(&mut self) -> Option<Done> {
        let completion = self.ring.completion().next()?;
        // A number that is no slot of ours has no request, and nothing is let go of for it.
        let slot = to_usize(completion.user_data());
        if self.slots.get_mut(slot).and_then(Option::take).is_some() {
            self.busy -= 1;
        }
        Some(Done { slot, result: completion.result() })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.busy > 0 {
            if let Err(error) = self.enter(true) {
                tell_under_locks(|| {
                    tracing::error!(
                        %error,
                        "a ring cannot be drained; the memory of its writes stays"
                    );
                });
                return;
            }
            while self.take().is_some() {}
        }
        // SAFETY: the slots are dropped here and nowhere else, and not used again.
        unsafe { ManuallyDrop::drop(&mut self.slots) };
        // SAFETY: dropped here and nowhere else. The kernel is done with every request, so nothing
        // reads the memory.
        unsafe { ManuallyDrop::drop(&mut self.lent) };
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("busy", &self.busy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// Returns the bytes that the kernel would read of a request.
    fn read(lent: &Lent, slot: usize, count: u32) -> Vec<u8> {
        // SAFETY: written by `fill`, inside of the memory, aligned.
        let vectors = unsafe { lent.vectors(slot).read() };
        let mut bytes = Vec::new();
        for vector in vectors.iter().take(count as usize) {
            let mut part = vec![0; vector.iov_len];
            // SAFETY: both are `iov_len` bytes long; the vector's are a live slice of the test or
            // the slot's block.
            unsafe {
                ptr::copy_nonoverlapping(vector.iov_base.cast(), part.as_mut_ptr(), part.len());
            };
            bytes.extend(part);
        }
        bytes
    }

    #[test]
    fn what_one_slot_lends_to_the_kernel_is_not_touched_for_another() {
        let mut lent = Lent::new(3).unwrap();
        let whole = vec![7; 2 * BLOCK_BYTES];
        let fill = |lent: &mut Lent, slot, whole: &[u8], rest: &[u8]| {
            // SAFETY: no request is made.
            let (_, count, bytes) = unsafe { lent.fill(slot, whole, rest) }.unwrap();
            (count, bytes)
        };
        assert_eq!(fill(&mut lent, 0, &whole, &[1; 100]), (2, 3 * BLOCK_BYTES));
        assert_eq!(fill(&mut lent, 1, &[], &[2; 4095]), (1, BLOCK_BYTES));
        assert_eq!(fill(&mut lent, 2, &whole, &[]), (1, 2 * BLOCK_BYTES));
        let first = [&whole[..], &[1; 100], &[0; BLOCK_BYTES - 100]].concat();
        assert_eq!(read(&lent, 0, 2), first);
        assert_eq!(read(&lent, 1, 1), [&[2; 4095][..], &[0]].concat());
        assert_eq!(read(&lent, 2, 1), whole);
        // A block that is used again has zeros behind what is written now.
        assert_eq!(fill(&mut lent, 1, &[], &[3; 5]), (1, BLOCK_BYTES));
        assert_eq!(read(&lent, 1, 1), [&[3; 5][..], &[0; BLOCK_BYTES - 5]].concat());
        assert_eq!(read(&lent, 0, 2), first);
    }

    #[test]
    fn a_slot_that_is_not_there_and_a_rest_of_a_whole_block_are_refused() {
        let mut lent = Lent::new(1).unwrap();
        // SAFETY: no request is made.
        assert!(unsafe { lent.fill(1, &[], &[1]) }.is_none());
        // SAFETY: no request is made.
        assert!(unsafe { lent.fill(0, &[], &[1; BLOCK_BYTES]) }.is_none());
    }
}
