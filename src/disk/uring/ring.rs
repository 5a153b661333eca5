//! The ring itself: slots that own what the kernel reads from, from submission to completion.
//!
//! Safe to use in any way: a slot's memory (an image's, or its own bounce block) and file are let go of only when the
//! kernel has said that it is done with them, and if it can no longer be asked, never.

#![allow(
    unsafe_code,
    reason = "the kernel reads memory behind the compiler's back; see docs/unsafe.md"
)]

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Arc;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, Probe, opcode, squeue};
use memmap2::MmapMut;

use crate::disk::DiskFile;
use crate::log::image::ImageSlice;

/// What writes past the page cache start at, and are a multiple of, in file and memory.
pub(super) const BLOCK_BYTES: usize = 4096;

/// Bytes of a segment's image from a block's start on; what the last block lacks is written as zeros.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) file: Arc<dyn DiskFile>,
    /// Starts at a block of the image, and so of memory.
    pub(super) bytes: ImageSlice,
    pub(super) offset: u64,
    pub(super) sync: bool,
}

/// One request that the kernel is done with: its slot, and its result or error number.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) slot: usize,
    pub(super) result: i32,
}

pub(super) struct Ring {
    ring: IoUring,
    slots: ManuallyDrop<Box<[Slot]>>,
    /// A block for each slot: the last one of a write, whose end in the image is being written by the appender.
    bounce: ManuallyDrop<MmapMut>,
    busy: usize,
}

struct Slot {
    held: Option<Held>,
    /// What the kernel reads the request from, at an address that stays: the slots are boxed.
    vectors: [libc::iovec; 2],
}

/// What a request uses.
enum Held {
    Write { _blocks: Blocks },
    Sync { _file: Arc<dyn DiskFile> },
}

// SAFETY: what is not `Send` by itself are the pointers in `Slot::vectors`, which only the kernel follows; they point
// into memory that the same value owns (the bounce blocks) or holds by a reference count (the image).
unsafe impl Send for Ring {}

impl Ring {
    /// A ring for `slots` requests; an error if the kernel has none for us, or not one that writes and syncs.
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
        let bounce = ManuallyDrop::new(MmapMut::map_anon(slots * BLOCK_BYTES)?);
        let empty = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let slots = (0..slots).map(|_| Slot { held: None, vectors: [empty; 2] }).collect();
        Ok(Self { ring, slots: ManuallyDrop::new(slots), bounce, busy: 0 })
    }

    /// Queues a write; gives back its slot and length. An error leaves nothing queued.
    pub(super) fn write(&mut self, blocks: Blocks) -> io::Result<(usize, usize)> {
        let slot = self.free_slot()?;
        let descriptor = blocks.file.direct().ok_or(io::ErrorKind::Unsupported)?.as_raw_fd();
        let bytes: &[u8] = blocks.bytes.as_ref();
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % BLOCK_BYTES);
        let at = slot * BLOCK_BYTES;
        let block = self.bounce.get_mut(at..at + BLOCK_BYTES).ok_or(io::ErrorKind::InvalidInput)?;
        let (used, padding) = block.split_at_mut(rest.len());
        used.copy_from_slice(rest);
        padding.fill(0);
        let whole_vector =
            libc::iovec { iov_base: whole.as_ptr().cast_mut().cast(), iov_len: whole.len() };
        let rest_vector = libc::iovec { iov_base: block.as_mut_ptr().cast(), iov_len: BLOCK_BYTES };
        let vectors = &mut self.slots.get_mut(slot).ok_or(io::ErrorKind::InvalidInput)?.vectors;
        let count = match (whole.is_empty(), rest.is_empty()) {
            (false, false) => {
                *vectors = [whole_vector, rest_vector];
                2
            }
            (false, true) => {
                vectors[0] = whole_vector;
                1
            }
            (true, _) => {
                vectors[0] = rest_vector;
                1
            }
        };
        let len = vectors.iter().take(count).map(|vector| vector.iov_len).sum();
        let flags = if blocks.sync { libc::RWF_DSYNC } else { 0 };
        let count = u32::try_from(count).unwrap_or(1);
        let entry = opcode::Writev::new(Fd(descriptor), vectors.as_ptr(), count)
            .offset(blocks.offset)
            .rw_flags(flags)
            .build();
        self.push(slot, entry, Held::Write { _blocks: blocks })?;
        Ok((slot, len))
    }

    /// Queues a sync of what is written of `file`; gives back its slot.
    pub(super) fn sync(&mut self, file: Arc<dyn DiskFile>) -> io::Result<usize> {
        let slot = self.free_slot()?;
        let descriptor = file.direct().ok_or(io::ErrorKind::Unsupported)?.as_raw_fd();
        let entry = opcode::Fsync::new(Fd(descriptor)).flags(FsyncFlags::DATASYNC).build();
        self.push(slot, entry, Held::Sync { _file: file })?;
        Ok(slot)
    }

    fn free_slot(&self) -> io::Result<usize> {
        let free = self.slots.iter().position(|slot| slot.held.is_none());
        free.ok_or_else(|| io::Error::other("more requests in flight than the ring has slots"))
    }

    fn push(&mut self, slot: usize, entry: squeue::Entry, held: Held) -> io::Result<()> {
        let entry = entry.user_data(slot as u64);
        let full = || io::Error::other("the ring is full");
        let place = self.slots.get_mut(slot).ok_or_else(full)?;
        // SAFETY: the entry's file, vectors and memory stay as they are until its completion is taken: `held` keeps
        // file and image, the vectors and the bounce block are the slot's, which nobody uses while `held` is set, and
        // which `Drop` gives up only when nothing is in flight. Image bytes below `filled` never change.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| full())?;
        place.held = Some(held);
        self.busy += 1;
        Ok(())
    }

    /// Requests that the kernel has not finished, or not got yet.
    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    /// Hands over what is queued; with `wait`, blocks until a request is finished. May return early.
    pub(super) fn enter(&mut self, wait: bool) -> io::Result<()> {
        let entered = match wait {
            true => self.ring.submit_and_wait(1),
            false if self.ring.submission().is_empty() => Ok(0),
            false => self.ring.submit(),
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // A signal; no memory for a request right now; completions to be taken first. All pass.
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// The next finished request, whose memory is let go of.
    pub(super) fn take(&mut self) -> Option<Done> {
        let completion = self.ring.completion().next()?;
        let slot = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
        if let Some(place) = self.slots.get_mut(slot)
            && place.held.take().is_some()
        {
            self.busy -= 1;
        }
        Some(Done { slot, result: completion.result() })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.busy > 0 {
            if let Err(error) = self.enter(true) {
                tracing::error!(%error, "a ring cannot be drained; the memory of its writes stays");
                return;
            }
            while self.take().is_some() {}
        }
        // SAFETY: dropped here and nowhere else, and not used again.
        unsafe { ManuallyDrop::drop(&mut self.slots) };
        // SAFETY: so too; the kernel is done with every request.
        unsafe { ManuallyDrop::drop(&mut self.bounce) };
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("busy", &self.busy).finish_non_exhaustive()
    }
}
