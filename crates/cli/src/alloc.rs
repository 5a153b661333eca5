//! A counting allocator: `sprag run` reports how many allocations an entry takes.
#![allow(unsafe_code, reason = "a global allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU64, Ordering};

use mimalloc::MiMalloc;

/// Number of times that [`Counting`] was asked for memory.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// mimalloc, with a count of every allocation of every thread.
#[derive(Debug)]
pub(crate) struct Counting;

/// Number of allocations of all threads since the start. Growing and shrinking in place count too.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

fn count() {
    // Relaxed: the tally orders nothing. A reader of two values has joined or waited in between.
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
}

// SAFETY: each method hands its arguments unchanged to mimalloc's allocator, which keeps the
// contract. Beside that it only adds to an atomic, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller promises about `layout` what mimalloc asks for here.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: every block of ours is one of mimalloc's, of this layout. The rest is the
        // caller's promise.
        unsafe { MiMalloc.realloc(block, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: every block of ours is one of mimalloc's, of this layout.
        unsafe { MiMalloc.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::hint::black_box;
    use std::time::Duration;

    use sprag::{
        ApplyConfig, ApplyManager, Durability, Entry, MemoryConfig, MemoryStateMachine,
        PersistentConfig, PersistentStateMachine, StateMachine,
    };

    use super::allocations;

    /// The fewest allocations counted around several runs of `work`. Other tests of this process
    /// can only add to a count.
    fn fewest(mut work: impl FnMut()) -> u64 {
        let counts = (0..10_000).map(|_| {
            let before = allocations();
            work();
            allocations() - before
        });
        counts.min().unwrap_or(u64::MAX)
    }

    /// Runs the test again in its own process, where no other test allocates. Returns false there.
    fn is_run_alone_instead(test: &str) -> bool {
        const ALONE: &str = "SPRAG_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return false;
        }
        let name = format!("alloc::tests::{test}");
        let program = std::env::current_exe().unwrap();
        let arguments = [name.as_str(), "--exact", "--test-threads=1"];
        let output = std::process::Command::new(program).args(arguments).env(ALONE, "1").output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        true
    }

    #[test]
    fn one_allocation_is_seen_as_one_and_none_as_none() {
        if is_run_alone_instead("one_allocation_is_seen_as_one_and_none_as_none") {
            return;
        }
        assert_eq!(fewest(|| ()), 0);
        assert_eq!(fewest(|| drop(black_box(Box::new(7_u64)))), 1);
        assert_eq!(fewest(|| drop(black_box(vec![0_u8; 100]))), 1);
        let grown = || {
            let mut bytes = black_box(Vec::<u8>::with_capacity(10));
            bytes.reserve_exact(black_box(100_000));
            drop(black_box(bytes));
        };
        assert_eq!(fewest(grown), 2);
    }

    /// The fewest allocations of all threads for some entries on existing keys, once the path is
    /// warm. The first number is for entries without a wait, the second for calls that wait.
    fn fewest_an_entry<M: StateMachine>(machine: M) -> [u64; 2] {
        const KEYS: u64 = 64;
        let timeout = Duration::from_secs(60);
        let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
        let keys: Vec<_> = (0..KEYS).map(u64::to_be_bytes).collect();
        let mut next = 1;
        let mut entry = || {
            let index = next;
            next += 1;
            Entry::put(index, 1, &keys[(index % KEYS) as usize], b"a value of some 30 bytes or so")
        };
        let mut round = |count: u64, waits: bool| {
            let before = allocations();
            for _ in 0..count {
                let entry = entry();
                if waits {
                    manager.apply(&entry, timeout).unwrap();
                } else {
                    while manager.apply_entries(&[entry]).is_err() {
                        std::thread::yield_now();
                    }
                }
            }
            manager.flush_pending(timeout).unwrap();
            allocations() - before
        };
        // Every image in memory, every slot and every waiter's place has been used by then.
        round(100_000, false);
        round(1_000, true);
        let fewest = |counts: &mut dyn Iterator<Item = u64>| counts.min().unwrap_or(u64::MAX);
        let asynchronous = fewest(&mut (0..20).map(|_| round(2_000, false)));
        let synchronous = fewest(&mut (0..20).map(|_| round(200, true)));
        manager.close(timeout).unwrap();
        [asynchronous, synchronous]
    }

    /// Proves RES-2.
    #[test]
    fn an_entry_on_existing_keys_allocates_nothing_once_the_path_is_warm() {
        if is_run_alone_instead("an_entry_on_existing_keys_allocates_nothing_once_the_path_is_warm")
        {
            return;
        }
        let memory = MemoryStateMachine::new(MemoryConfig::new().expected_keys(1024)).unwrap();
        assert_eq!(fewest_an_entry(memory), [0, 0], "in memory");
        let directory = tempfile::tempdir().unwrap();
        // The syncs of a disk would take most of the time, and allocate nothing.
        let config = PersistentConfig::new(directory.path().join("data")).compaction(None);
        let config = config.durability(Durability::Os).expected_keys(1024);
        let machine = PersistentStateMachine::open(config).unwrap();
        assert_eq!(fewest_an_entry(machine), [0, 0], "on the log");
    }

    /// Proves RES-2.
    #[test]
    fn a_log_in_memory_allocates_nothing_where_it_rolls_to_the_next_image() {
        if is_run_alone_instead(
            "a_log_in_memory_allocates_nothing_where_it_rolls_to_the_next_image",
        ) {
            return;
        }
        // Images of 1 MiB, of which each round fills 20.
        const ROUND: u64 = 20 << 10;
        let timeout = Duration::from_secs(60);
        let machine = MemoryStateMachine::new(MemoryConfig::new().expected_keys(1024)).unwrap();
        let manager = ApplyManager::new(machine, ApplyConfig::new()).unwrap();
        let mut next = 1;
        let mut round = || {
            let before = allocations();
            for _ in 0..ROUND {
                let entry = Entry::put(next, 1, b"key", &[7; 1024]);
                while manager.apply_entries(&[entry]).is_err() {
                    std::thread::yield_now();
                }
                next += 1;
            }
            manager.flush_pending(timeout).unwrap();
            allocations() - before
        };
        round();
        let fewest = (0..5).map(|_| round()).min();
        manager.close(timeout).unwrap();
        assert_eq!(fewest, Some(0));
    }

    #[test]
    fn an_allocation_of_another_thread_is_seen() {
        if is_run_alone_instead("an_allocation_of_another_thread_is_seen") {
            return;
        }
        let spawn_only = || drop(std::thread::spawn(|| ()).join());
        let spawn_and_allocate =
            || drop(std::thread::spawn(|| drop(black_box(Box::new(7_u64)))).join());
        let fewest_of_few = |work: &dyn Fn()| {
            let counts = (0..200).map(|_| {
                let before = allocations();
                work();
                allocations() - before
            });
            counts.min().unwrap_or(u64::MAX)
        };
        assert_eq!(fewest_of_few(&spawn_and_allocate), fewest_of_few(&spawn_only) + 1);
    }
}
