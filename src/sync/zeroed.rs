//! Zeroed atomics whose memory the system provides as it is first touched.
//!
//! A ring is as long as the pipeline is deep, and an idle engine uses little of it. Atomics that
//! are made one by one are written to, and so take all of their pages at once.

#![allow(unsafe_code, reason = "a zeroed allocation; see docs/unsafe.md")]

use std::sync::atomic::AtomicU64;

/// Makes `count` groups of `N` atomics, each 0. A page of them takes memory once it is written to.
pub(crate) fn zeroed<const N: usize>(count: usize) -> Box<[[AtomicU64; N]]> {
    let groups = Box::<[[AtomicU64; N]]>::new_zeroed_slice(count);
    // SAFETY: every byte of the slice is 0. An `AtomicU64` has the size and the bit validity of a
    // `u64`, for which 8 zero bytes are the value 0. An array has no other bytes than its elements.
    unsafe { groups.assume_init() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn every_atomic_begins_at_0_and_has_its_own_place() {
        assert!(zeroed::<3>(0).is_empty());
        let groups = zeroed::<3>(1000);
        assert_eq!(groups.len(), 1000);
        assert!(groups.iter().flatten().all(|atomic| atomic.load(Ordering::Relaxed) == 0));
        for (at, atomic) in groups.iter().flatten().enumerate() {
            atomic.store(at as u64, Ordering::Relaxed);
        }
        let read = groups.iter().flatten().map(|atomic| atomic.load(Ordering::Relaxed));
        assert!(read.eq(0..3000));
    }
}
