//! Events of `tracing`. A subscriber is foreign code: it may block, and it may call an engine.
//!
//! Every event of the engine goes through one of the two calls, so that its place says which locks
//! the thread may hold. `docs/ordering.md` lists the events that may come under a lock.

use super::rank::{assert_none_held, set_aside};

/// Tells an event where this thread holds no lock of the engine: a subscriber may call the engine.
#[inline]
#[track_caller]
pub(crate) fn tell(event: impl FnOnce()) {
    assert_none_held("a subscriber of tracing");
    event();
}

/// Tells an event where this thread may hold locks of the engine. A subscriber may call another
/// engine, for which these locks do not count, and must not call this one.
#[inline]
pub(crate) fn tell_under_locks(event: impl FnOnce()) {
    let _aside = set_aside();
    event();
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;
    use std::fs;
    #[cfg(debug_assertions)]
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::Path;

    use super::super::rank::tests::sources;
    #[cfg(debug_assertions)]
    use super::super::{Mutex, Rank};
    #[cfg(debug_assertions)]
    use super::*;

    /// Text before the event's macro, without white space, by which it goes through a call here.
    const CALLS: [&str; 4] = ["tell(||", "tell(||{", "tell_under_locks(||", "tell_under_locks(||{"];

    /// The messages of the events that may come under a lock.
    fn messages_under_locks(source: &str) -> impl Iterator<Item = String> {
        let events = source.split("tell_under_locks(||").skip(1);
        events.map(|event| event.split('"').nth(1).unwrap().to_owned())
    }

    #[test]
    fn every_event_goes_through_a_call_that_knows_of_locks_and_the_page_lists_those_under_locks() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (mut events, mut under_locks) = (0, BTreeSet::new());
        for path in sources(&root.join("src")) {
            let source = fs::read_to_string(&path).unwrap();
            let source = source.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
            let compact: String = source.split_whitespace().collect();
            for level in ["error!(", "warn!(", "info!(", "debug!(", "trace!("] {
                let mut before = "";
                for part in compact.split(&format!("tracing::{level}")) {
                    let is_told = CALLS.iter().any(|call| before.ends_with(call));
                    assert!(before.is_empty() || is_told, "an event in {}", path.display());
                    events += usize::from(!before.is_empty());
                    before = part;
                }
            }
            under_locks.extend(messages_under_locks(source));
        }
        assert!(events > 30, "the walk finds the events: {events}");
        let document = include_str!("../../docs/ordering.md");
        let (_, section) = document.split_once("\n## Events\n").unwrap();
        let rows = section.split("\n## ").next().unwrap().lines();
        let rows = rows.filter(|line| line.starts_with("| ") && !line.starts_with("| event"));
        let listed: BTreeSet<String> =
            rows.map(|row| row.split('|').nth(1).unwrap().trim().to_owned()).collect();
        assert_eq!(listed, under_locks);
    }

    #[cfg(debug_assertions)]
    #[test]
    fn an_event_under_a_lock_is_refused_except_where_its_place_says_so() {
        let (low, high) = (Mutex::new(Rank::Appender, ()), Mutex::new(Rank::Waiters, ()));
        let mut told = 0;
        tell(|| told += 1);
        let held = high.lock();
        tell_under_locks(|| {
            // A subscriber may call another engine.
            drop(low.lock());
            told += 1;
        });
        let panic = catch_unwind(AssertUnwindSafe(|| tell(|| told += 1))).unwrap_err();
        let said = panic.downcast::<String>().unwrap();
        assert!(said.contains("Waiters") && said.contains("tracing"), "{said}");
        drop(held);
        assert_eq!(told, 2);
    }
}
