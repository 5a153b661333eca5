//! Models of the read cache over a storage: no get goes back for a key.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;

use super::loom_parts::check;
use crate::config::storage::CacheLimits;
use crate::contract::value::Value;
use crate::machine::storage::cache::{ReadCache, Step};
use crate::machine::storage::{StorageBatch, Table};

const STATE: Table = Table::State(1);
const KEY: &[u8] = b"key";

/// One key with a version, and a cache for it. `None`: deleted.
#[derive(Debug)]
struct Cached {
    cache: ReadCache,
    committed: Mutex<Option<u8>>,
}

impl Cached {
    /// Makes the key with version 1 committed.
    fn new(left_out: Option<Step>) -> Arc<Self> {
        let limits = CacheLimits { entries: 8, bytes: 1 << 20 };
        let cache = left_out
            .map_or_else(|| ReadCache::new(limits), |step| ReadCache::without(step, limits));
        Arc::new(Self { cache, committed: Mutex::new(Some(1)) })
    }

    fn get(&self) -> Option<u8> {
        match self.cache.look_up(KEY) {
            Ok(value) => Some(value[0]),
            Err(fill) => {
                let version = *self.committed.lock().unwrap();
                if let Some(version) = version {
                    fill.keep(KEY, &Value::copied(&[version]));
                }
                version
            }
        }
    }

    fn commit(&self, version: Option<u8>) {
        let mut batch = StorageBatch::new();
        match version {
            Some(version) => batch.put(STATE, KEY, &[version]),
            None => batch.remove(STATE, KEY),
        }
        let commit = || {
            *self.committed.lock().unwrap() = version;
            Ok::<_, ()>(())
        };
        self.cache.during_commit(&batch, STATE, commit).unwrap();
    }
}

fn get(cached: &Arc<Cached>, count: usize) -> thread::JoinHandle<Vec<Option<u8>>> {
    let cached = Arc::clone(cached);
    thread::spawn(move || (0..count).map(|_| cached.get()).collect())
}

/// Runs two readers, of which one reads twice, beside a commit.
fn a_commit_runs_beside_gets(new: Option<u8>, left_out: Option<Step>) {
    let cached = Cached::new(left_out);
    let (once, twice) = (get(&cached, 1), get(&cached, 2));
    cached.commit(new);
    assert_eq!(cached.get(), new, "a get after the commit");
    let once = once.join().unwrap();
    let twice = twice.join().unwrap();
    assert!(once[0] == Some(1) || once[0] == new);
    assert!(twice != [new, Some(1)], "a get went back");
    // A get also returns it after the readers' fills.
    assert_eq!(cached.get(), new, "a get after all");
}

/// Proves ORD-10.
#[test]
fn gets_beside_a_put_never_go_back() {
    check(3, || a_commit_runs_beside_gets(Some(2), None));
}

/// Proves ORD-10.
#[test]
fn gets_beside_a_removal_never_bring_the_value_back() {
    check(3, || a_commit_runs_beside_gets(None, None));
}

#[test]
fn gets_beside_two_commits_see_them_in_order() {
    check(2, || {
        let cached = Cached::new(None);
        let reader = get(&cached, 3);
        cached.commit(Some(2));
        cached.commit(Some(3));
        assert_eq!(cached.get(), Some(3));
        assert!(reader.join().unwrap().is_sorted());
        assert_eq!(cached.get(), Some(3));
    });
}

#[test]
fn gets_beside_a_switch_of_tables_never_go_back() {
    check(3, || {
        let cached = Cached::new(None);
        let reader = get(&cached, 2);
        let switch = || {
            *cached.committed.lock().unwrap() = Some(2);
            Ok::<_, ()>(())
        };
        cached.cache.during_switch(switch).unwrap();
        assert_eq!(cached.get(), Some(2));
        assert!(reader.join().unwrap().is_sorted());
        assert_eq!(cached.get(), Some(2));
    });
}

#[test]
#[should_panic(expected = "a get")]
fn canary_without_the_closing_before_a_commit_a_get_goes_back() {
    check(3, || a_commit_runs_beside_gets(Some(2), Some(Step::Close)));
}

#[test]
#[should_panic(expected = "a get")]
fn canary_without_the_comparison_of_stamps_a_get_goes_back() {
    check(3, || a_commit_runs_beside_gets(Some(2), Some(Step::Compare)));
}
