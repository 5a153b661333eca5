//! The order in which a thread may take the engine's locks, and the check that each thread keeps
//! it.
//!
//! `docs/ordering.md` has the same list as a table, with what each lock protects. The test below
//! compares the two.

/// Declares the ranks, and the list of all of them.
macro_rules! ranks {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The rank of a mutex. A thread that waits for a mutex holds only mutexes of lower ranks.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub(crate) enum Rank {
            $($(#[$doc])* $name,)*
        }

        impl Rank {
            /// All ranks, the lowest first.
            #[cfg(all(test, not(any(loom, shuttle))))]
            const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

ranks! {
    /// The handles of a manager's threads. A close holds it until all is closed.
    ManagerThreads,
    /// Phase of a manager's end.
    ManagerEnd,
    /// Number of running readings of figures.
    StatsReadings,
    /// The turn to write a snapshot, or to give up some of the log.
    SnapshotTurn,
    /// The receiver of a snapshot, if there is one.
    SnapshotReceiver,
    /// The turn to take a view, or to pause the workers.
    ViewTurn,
    /// The turn to sync a storage that has no log of ours.
    StorageSyncTurn,
    /// The appender, with what is queued for the workers.
    Appender,
    /// The post of one worker. Of several workers the lower number comes first.
    WorkerPlace,
    /// The log writer's post.
    LogWriter,
    /// A log's appender, until an engine takes it.
    UntakenAppender,
    /// The file HARD.
    HardState,
    /// The file META.
    LogMeta,
    /// Beginning of the log.
    LogBase,
    /// The file that is ready for the next segment.
    ReadySegment,
    /// The files that are kept to be used again.
    SpareSegments,
    /// Beginnings of the log's segments.
    SegmentStarts,
    /// The segments of records that are not of the log.
    RecordSegments,
    /// The images of a journal.
    Images,
    /// Entries that a machine over a storage has applied and not committed.
    StorageStage,
    /// Content of the records in a storage.
    StorageCommitted,
    /// The last entry that a storage has made durable.
    StorageDurable,
    /// Finds of a worker at the view token, for a view of a storage.
    StorageView,
    /// The pieces of the snapshot that keys refer to.
    SnapshotPieces,
    /// The turn to fill a store from a snapshot. Of two fillings the older one comes first.
    FillTurn,
    /// The pieces that a store was filled from.
    FilledPieces,
    /// The tombstones of a filling that has ended.
    Burying,
    /// The keys that got a tombstone.
    RemovedKeys,
    /// The copies of a view that is being taken.
    ViewCopies,
    /// The newest membership of a machine.
    Membership,
    /// The notes of a machine.
    Notes,
    /// The last entry that a machine was given.
    AppliedEntry,
    /// The first indexes of the synchronous calls under way.
    Claims,
    /// The cells of replies that futures want.
    ReplyCells,
    /// The marks that the log moves.
    LogMarks,
    /// The registered waiters.
    Waiters,
    /// The callers that listen to a bell.
    Listeners,
    /// The turn to take time stamps off.
    LatencyTurn,
    /// Progress of compacting.
    CompactionState,
    /// Results of pinning threads.
    PinnedThreads,
    /// The cores that threads of the process are pinned to.
    UsedCores,
    /// Views that keep segments, and the segments that they keep.
    SegmentHolds,
    /// The segments that are read from their files and have them open.
    OpenSegments,
    /// The file of one segment.
    SegmentFile,
    /// The data directories that the process has open.
    OpenDirectories,
    /// The descriptor that is kept in reserve.
    ReserveDescriptor,
    /// The simulated disk.
    #[cfg(any(test, feature = "testing"))]
    SimulatedDisk,
    /// The storage in memory.
    #[cfg(any(test, feature = "testing"))]
    MemoryStorage,
    /// The roles that wait for a thread of a host. A value may be dropped under any lock, frees
    /// memory, and so gives a role work.
    CrewRoles,
    /// The calls that wait for room. A value may be dropped under any lock, and frees memory.
    RoomLine,
}

impl Rank {
    /// Asserts that this thread may wait for a mutex of this rank: where a value is made whose drop
    /// locks one.
    #[inline]
    #[track_caller]
    pub(crate) fn assert_free(self) {
        Key::new(self, 0).check();
    }
}

#[cfg(not(any(debug_assertions, loom, shuttle)))]
mod unchecked {
    use super::Rank;

    /// Nothing: a release build checks no ranks.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Key;

    impl Key {
        #[inline]
        pub(crate) const fn new(_: Rank, _: u32) -> Self {
            Self
        }

        #[inline]
        pub(crate) fn check(self) {}

        #[inline]
        pub(crate) fn hold(self) -> Held {
            Held
        }
    }

    /// Nothing.
    #[derive(Debug)]
    pub(crate) struct Held;

    impl Held {
        #[inline]
        pub(crate) fn check_alone(&self) {}
    }

    /// Nothing.
    #[inline]
    pub(crate) fn assert_none_held(_: &str) {}

    /// Nothing.
    #[derive(Debug)]
    pub(crate) struct Aside;

    /// Nothing.
    #[inline]
    pub(crate) fn set_aside() -> Aside {
        Aside
    }
}
#[cfg(not(any(debug_assertions, loom, shuttle)))]
pub(crate) use unchecked::*;

#[cfg(any(debug_assertions, loom, shuttle))]
mod checked {
    use std::cell::RefCell;
    use std::fmt;

    use super::Rank;
    use crate::sync::thread_local;

    /// The place of one mutex in the order of all.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Key {
        rank: Rank,
        /// Tells mutexes of one rank, of which a thread may hold several.
        number: u32,
    }

    impl fmt::Debug for Key {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{:?} {} (rank {})", self.rank, self.number, self.rank as usize + 1)
        }
    }

    /// The mutexes that a thread holds.
    #[derive(Default)]
    struct AllHeld {
        /// Each with the depth at which the thread took it, in that order. Foreign code leaves the
        /// list in its place, so it allocates nothing once the list has grown.
        keys: Vec<(Key, u32)>,
        /// The number of calls of foreign code that the thread is in, one inside of the other.
        depth: u32,
    }

    impl AllHeld {
        fn hold(&mut self, key: Key) {
            self.keys.push((key, self.depth));
        }

        fn release(&mut self, key: Key) {
            if let Some(at) = self.keys.iter().rposition(|(held, _)| *held == key) {
                self.keys.remove(at);
            }
        }

        /// The first mutex that `is_wrong` is true for, of those that are not set aside.
        fn find(&self, is_wrong: impl Fn(Key) -> bool) -> Option<Key> {
            let counted = self.keys.iter().filter(|(_, depth)| *depth >= self.depth);
            counted.map(|(key, _)| *key).find(|key| is_wrong(*key))
        }
    }

    thread_local! {
        #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const block")]
        static HELD: RefCell<AllHeld> = RefCell::default();
    }

    /// Runs `look` over the mutexes that this thread holds. A thread that ends may have lost the
    /// list.
    fn with_held<R>(look: impl FnOnce(&mut AllHeld) -> R) -> Option<R> {
        // As the documentation says: the list may be gone.
        HELD.try_with(|held| look(&mut held.borrow_mut())).ok()
    }

    fn find_held(is_wrong: impl Fn(Key) -> bool) -> Option<Key> {
        with_held(|held| held.find(is_wrong)).flatten()
    }

    impl Key {
        pub(crate) const fn new(rank: Rank, number: u32) -> Self {
            Self { rank, number }
        }

        /// Called before this thread waits for the mutex.
        #[track_caller]
        pub(crate) fn check(self) {
            if let Some(above) = find_held(|held| held >= self)
                && !std::thread::panicking()
            {
                panic!(
                    "a thread that holds the lock {above:?} waits for the lock {self:?}: ranks \
                     must rise; see the lock table of docs/ordering.md"
                );
            }
        }

        /// This thread has the mutex until the result is dropped.
        pub(crate) fn hold(self) -> Held {
            with_held(|held| held.hold(self));
            Held(self)
        }
    }

    /// A mutex that this thread holds.
    #[derive(Debug)]
    pub(crate) struct Held(Key);

    impl Held {
        /// Called before this thread gives the mutex up to wait for a signal, and takes it again
        /// afterwards.
        #[track_caller]
        pub(crate) fn check_alone(&self) {
            if let Some(above) = find_held(|held| held > self.0) {
                let of = self.0;
                panic!("a thread that holds the lock {above:?} waits for a signal under {of:?}");
            }
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            with_held(|held| held.release(self.0));
        }
    }

    /// A call of foreign code, during which the locks held before it do not count.
    #[derive(Debug)]
    pub(crate) struct Aside(());

    /// Sets the locks of this thread aside until the result is dropped. A user's state machine runs
    /// under locks of its engine by design, and may call another engine.
    pub(crate) fn set_aside() -> Aside {
        with_held(|held| held.depth += 1);
        Aside(())
    }

    impl Drop for Aside {
        fn drop(&mut self) {
            // It is 0 if the list was gone when the call began.
            with_held(|held| held.depth = held.depth.saturating_sub(1));
        }
    }

    /// Called before foreign code runs: it may call the engine, so this thread holds no lock.
    #[track_caller]
    pub(crate) fn assert_none_held(what: &str) {
        if let Some(held) = find_held(|_| true)
            && !std::thread::panicking()
        {
            panic!("a thread that holds the lock {held:?} runs foreign code: {what}");
        }
    }
}
#[cfg(any(debug_assertions, loom, shuttle))]
pub(crate) use checked::*;

#[cfg(all(test, not(any(loom, shuttle))))]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    #[cfg(debug_assertions)]
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::{Path, PathBuf};

    #[cfg(debug_assertions)]
    use super::super::{Condvar, Mutex};
    use super::*;

    /// Backticked words of a cell.
    fn names(cell: &str) -> Vec<&str> {
        cell.split('`').skip(1).step_by(2).collect()
    }

    #[test]
    fn the_lock_table_of_the_ordering_page_lists_each_rank_in_its_place() {
        let document = include_str!("../../docs/ordering.md");
        let (_, section) = document.split_once("\n## Locks\n").unwrap();
        let rows = section.split("\n## ").next().unwrap().lines();
        let rows = rows.filter(|line| line.starts_with("| ") && !line.starts_with("| rank"));
        let rows: Vec<Vec<&str>> =
            rows.map(|row| row.split('|').map(str::trim).collect()).collect();
        let listed: Vec<(usize, String)> =
            rows.iter().map(|row| (row[1].parse().unwrap(), names(row[2])[0].into())).collect();
        let declared = Rank::ALL.iter().map(|rank| (*rank as usize + 1, format!("{rank:?}")));
        assert_eq!(listed, declared.collect::<Vec<_>>());
        let number = |name: &str| {
            let at = listed.iter().find(|(_, listed)| listed == name);
            at.unwrap_or_else(|| panic!("{name} is no lock")).0
        };
        for row in &rows {
            let [_, rank, _, protects, under, by, _] = row[..] else { panic!("{row:?}") };
            assert!(!protects.is_empty() && !by.is_empty(), "{row:?}");
            assert!(under == "none" || !names(under).is_empty(), "{row:?}");
            for name in names(under) {
                assert!(number(name) > rank.parse().unwrap(), "{name} under rank {rank}");
            }
        }
    }

    /// The files below `folder` that are not all tests.
    pub(in crate::sync) fn sources(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !["tests", "models", "sync"].contains(&&*name) {
                found.extend(sources(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !name.ends_with("tests")
                && !["test_disk", "sync"].contains(&&*name)
            {
                found.push(path);
            }
        }
        found
    }

    #[test]
    fn no_source_outside_of_sync_has_a_mutex_without_a_rank() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let files = sources(&root);
        assert!(files.len() > 80, "the walk finds the sources: {}", files.len());
        for path in files {
            let source = fs::read_to_string(&path).unwrap();
            let source = source.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
            let compact: String = source.split_whitespace().collect();
            let imports = compact.split("usestd::sync::").skip(1);
            for import in imports.map(|import| import.split(';').next().unwrap_or_default()) {
                for name in ["Mutex", "Condvar", "PoisonError"] {
                    assert!(!import.contains(name), "{}: {import}", path.display());
                }
            }
            for name in ["std::sync::Mutex", "std::sync::Condvar", "sync::PoisonError"] {
                assert!(!compact.contains(name), "{}: {name}", path.display());
            }
        }
    }

    /// Returns the message of a panic in `run`.
    #[cfg(debug_assertions)]
    fn panic_of(run: impl FnOnce()) -> Option<String> {
        let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
        panic.downcast::<String>().ok().map(|said| *said)
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_lower_rank_is_refused_under_a_higher_one_and_both_are_named() {
        let low = Mutex::new(Rank::Appender, 1);
        let high = Mutex::new(Rank::Waiters, 2);
        {
            let _low = low.lock();
            assert_eq!(*high.lock(), 2);
        }
        let _high = high.lock();
        let said = panic_of(|| drop(low.lock())).unwrap();
        assert!(said.contains("Appender") && said.contains("Waiters"), "{said}");
        // It waits for nothing.
        assert_eq!(*low.try_lock().unwrap(), 1);
        let said = panic_of(|| drop(high.lock())).unwrap();
        assert!(said.contains("holds the lock Waiters"), "the same lock again: {said}");
    }

    #[cfg(debug_assertions)]
    #[test]
    fn locks_of_one_rank_are_taken_in_the_order_of_their_numbers_and_released_in_any() {
        let place = |number| Mutex::numbered(Rank::WorkerPlace, number, ());
        let (first, second) = (place(1), place(2));
        let held_first = first.lock();
        let held_second = second.lock();
        drop(held_first);
        assert!(panic_of(|| drop(first.lock())).is_some());
        drop(held_second);
        drop(first.lock());
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_panic_under_a_lock_leaves_it_usable_and_its_rank_released() {
        let lock = Mutex::new(Rank::Waiters, 1);
        let said = panic_of(|| {
            let mut held = lock.lock();
            *held = 2;
            panic!("{}", "under it");
        });
        assert_eq!(said.as_deref(), Some("under it"));
        assert_eq!(*lock.lock(), 2);
        assert_none_held("a test");
    }

    #[cfg(debug_assertions)]
    #[test]
    fn foreign_code_under_a_lock_is_refused() {
        let lock = Mutex::new(Rank::Waiters, ());
        let held = lock.lock();
        let said = panic_of(|| assert_none_held("a waker")).unwrap();
        assert!(said.contains("Waiters") && said.contains("a waker"), "{said}");
        drop(held);
        assert_none_held("a waker");
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_user_machine_may_call_another_engine_and_the_locks_under_it_count_again_afterwards() {
        let (low, high) = (Mutex::new(Rank::Appender, ()), Mutex::new(Rank::WorkerPlace, ()));
        let held = high.lock();
        let aside = set_aside();
        drop(low.lock());
        assert_none_held("a waker of the other engine");
        drop(aside);
        assert!(panic_of(|| drop(low.lock())).is_some());
        drop(held);
        drop(low.lock());
    }

    #[cfg(debug_assertions)]
    #[test]
    fn foreign_code_in_foreign_code_sets_aside_what_it_finds_and_may_release_what_it_was_given() {
        let outer = Mutex::new(Rank::WorkerPlace, ());
        let (inner, low) = (Mutex::new(Rank::Waiters, ()), Mutex::new(Rank::Appender, ()));
        let held = outer.lock();
        let first = set_aside();
        let held_inside = inner.lock();
        let second = set_aside();
        drop(low.lock());
        drop(held);
        assert_none_held("a waker");
        drop(second);
        let said = panic_of(|| drop(low.lock())).unwrap();
        assert!(said.contains("Waiters"), "the lock of the first foreign code counts: {said}");
        drop(held_inside);
        assert_none_held("a waker");
        drop(first);
        assert_none_held("a waker");
        drop(low.lock());
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_wait_for_a_signal_under_another_lock_of_a_higher_rank_is_refused() {
        let (low, high) = (Mutex::new(Rank::ManagerEnd, ()), Mutex::new(Rank::Waiters, ()));
        let signal = Condvar::new();
        let wait = || drop(signal.wait_timeout(low.lock(), std::time::Duration::ZERO));
        wait();
        let held_low = low.lock();
        let _held_high = high.lock();
        let said = panic_of(|| drop(signal.wait_timeout(held_low, std::time::Duration::ZERO)));
        assert!(said.unwrap().contains("waits for a signal"));
    }
}
