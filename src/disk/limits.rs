//! Limits of the process that are looked at before they are met.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::sync::{Mutex, Rank};

/// The kernel's default, for where it does not say.
const MAP_COUNT_MAX_USUAL: usize = 65_530;

/// Mappings that live.
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// The most there are of these: half of what the kernel allows the process, whose allocator and threads need some too.
fn mappings_max() -> usize {
    static MAX: OnceLock<usize> = OnceLock::new();
    *MAX.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count");
        let allowed = text.ok().and_then(|text| text.trim().parse().ok());
        allowed.unwrap_or(MAP_COUNT_MAX_USUAL) / 2
    })
}

/// The right to one mapping of a file, given back when it is dropped.
#[derive(Debug)]
pub(super) struct MappingPermit(());

impl MappingPermit {
    /// An error if the process has as many as it should.
    pub(super) fn take() -> io::Result<Self> {
        Self::take_of(mappings_max())
    }

    fn take_of(max: usize) -> io::Result<Self> {
        let more = |count: usize| (count < max).then_some(count + 1);
        match MAPPINGS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Self(())),
            Err(_) => Err(Errno::NOMEM.into()),
        }
    }
}

impl Drop for MappingPermit {
    fn drop(&mut self) {
        MAPPINGS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Refuses a file that would reach past the process's limit of a file's size (`RLIMIT_FSIZE`): the kernel would end the
/// process by a signal.
pub(super) fn check_file_end(end: u64) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(max) if end > max => Err(Errno::FBIG.into()),
        _ => Ok(()),
    }
}

/// How many of the next `len` bytes at `offset` may be written within that limit.
pub(super) fn bytes_within_limit(offset: u64, len: usize) -> usize {
    match getrlimit(Resource::Fsize).current {
        Some(max) => usize::try_from(max.saturating_sub(offset)).map_or(len, |left| left.min(len)),
        None => len,
    }
}

/// A descriptor that is kept for when the process has no other left: the next segment can still be opened then.
#[derive(Debug)]
pub(super) struct Reserve(Mutex<Option<OwnedFd>>);

impl Default for Reserve {
    fn default() -> Self {
        Self(Mutex::new(Rank::ReserveDescriptor, None))
    }
}

impl Reserve {
    /// Opens a file by `open`; with the kept descriptor's place if there is no other. It is kept anew by `keep`, now or at a
    /// later call.
    pub(super) fn open(
        &self,
        open: impl Fn() -> Result<OwnedFd, Errno>,
        keep: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<OwnedFd, Errno> {
        let mut kept = self.0.lock();
        let file = match open() {
            Err(error @ (Errno::MFILE | Errno::NFILE)) => {
                drop(kept.take().ok_or(error)?);
                return open();
            }
            opened => opened?,
        };
        if kept.is_none() {
            *kept = keep().ok();
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn there_are_no_more_mappings_than_the_process_should_have() {
        // Other tests of the process have some meanwhile: more than there ever are, and fewer than there can be.
        let max = MAPPINGS.load(Ordering::Relaxed) + 100_000;
        let mut held = Vec::new();
        let refused = loop {
            match MappingPermit::take_of(max) {
                Ok(permit) => held.push(permit),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.raw_os_error(), Some(Errno::NOMEM.raw_os_error()));
        assert!(held.len() <= max);
        held.truncate(10);
        MappingPermit::take_of(max).unwrap();
        assert!((1000..10_000_000).contains(&mappings_max()));
    }
}
