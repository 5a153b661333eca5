//! Limits of the process, which are checked before they are reached.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::sync::{Mutex, Rank};

/// The kernel's default, for systems that do not tell the limit.
const MAP_COUNT_MAX_USUAL: usize = 65_530;

/// Number of live mappings.
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// The maximum of mappings: half of what the kernel allows the process, whose allocator and threads
/// need some too.
fn mappings_max() -> usize {
    static MAX: OnceLock<usize> = OnceLock::new();
    *MAX.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count");
        let allowed = text.ok().and_then(|text| text.trim().parse().ok());
        allowed.unwrap_or(MAP_COUNT_MAX_USUAL) / 2
    })
}

/// A permit for one mapping of a file, returned when it is dropped.
#[derive(Debug)]
pub(super) struct MappingPermit(());

impl MappingPermit {
    /// Takes a permit; an error if the process has its maximum.
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

/// Refuses a write past the process's limit of a file's size (`RLIMIT_FSIZE`), at which the kernel
/// would end the process by a signal.
pub(super) fn check_file_end(end: u64) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(max) if end > max => Err(Errno::FBIG.into()),
        _ => Ok(()),
    }
}

/// Number of the `len` bytes at `offset` that may be written within that limit.
pub(super) fn bytes_within_limit(offset: u64, len: usize) -> usize {
    match getrlimit(Resource::Fsize).current {
        // Behind the limit no byte may be written.
        Some(max) => usize::try_from(max.saturating_sub(offset)).map_or(len, |left| left.min(len)),
        None => len,
    }
}

/// A descriptor in reserve: if the process has no other left, the next segment can still be opened
/// in its place.
#[derive(Debug)]
pub(super) struct Reserve(Mutex<Option<OwnedFd>>);

impl Default for Reserve {
    fn default() -> Self {
        Self(Mutex::new(Rank::ReserveDescriptor, None))
    }
}

impl Reserve {
    /// Opens a file with `open`, and gives up the reserved descriptor if there is no other. `keep`
    /// reserves a new one, now or at a later call.
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
            // Without a descriptor now, a later call reserves one.
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
        // Other tests of the process have some mappings meanwhile, so use a number that is above
        // them and below the limit.
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
