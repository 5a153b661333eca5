//! The holders of a data directory in this process, which the error of another opening names.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use crate::sync::{Mutex, Rank};

/// Kinds of holders that are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holder {
    OpenManager,
    ClosedManager,
    Reader,
    View,
    Snapshot,
}

/// Each kind, and its name in messages.
const NAMES: [(Holder, &str); 5] = [
    (Holder::OpenManager, "manager that is not closed"),
    (Holder::ClosedManager, "closed manager that was not dropped"),
    (Holder::Reader, "reader"),
    (Holder::View, "view"),
    (Holder::Snapshot, "snapshot"),
];

/// The holders of one open directory, by kind.
#[derive(Debug, Default)]
pub struct Holders([AtomicUsize; NAMES.len()]);

impl Holders {
    fn count(&self, holder: Holder) -> &AtomicUsize {
        &self.0[holder as usize]
    }

    /// Counts one more holder, until the result is dropped.
    pub(crate) fn hold(self: &Arc<Self>, holder: Holder) -> Holding {
        self.count(holder).fetch_add(1, Ordering::Relaxed);
        Holding { holders: Arc::clone(self), holder }
    }
}

/// One holder, counted while it lives.
#[derive(Debug)]
pub(crate) struct Holding {
    holders: Arc<Holders>,
    holder: Holder,
}

impl Holding {
    /// Counts the holder as one of another kind.
    pub(crate) fn becomes(&mut self, holder: Holder) {
        *self = self.holders.hold(holder);
    }
}

impl Clone for Holding {
    fn clone(&self) -> Self {
        self.holders.hold(self.holder)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.holders.count(self.holder).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Device and inode of a directory.
type Directory = (u64, u64);

/// Directories with their holders.
type OpenDirectories = Vec<(Directory, Weak<Holders>)>;

/// The directories that this process has open.
static OPEN: LazyLock<Mutex<OpenDirectories>> =
    LazyLock::new(|| Mutex::new(Rank::OpenDirectories, Vec::new()));

/// Notes that a directory was opened.
pub(super) fn opened(directory: Directory) -> Arc<Holders> {
    let holders = Arc::new(Holders::default());
    let mut open = OPEN.lock();
    open.retain(|(_, holders)| holders.strong_count() > 0);
    open.push((directory, Arc::downgrade(&holders)));
    holders
}

/// Describes the holder of a locked directory.
pub(super) fn describe(directory: Directory) -> String {
    let open = OPEN.lock();
    let of_it = open.iter().filter(|(other, _)| *other == directory);
    let ours: Vec<Arc<Holders>> = of_it.filter_map(|(_, holders)| holders.upgrade()).collect();
    drop(open);
    if ours.is_empty() {
        return "another process holds it".to_owned();
    }
    let held = NAMES.iter().filter_map(|(holder, name)| {
        let count: usize =
            ours.iter().map(|ours| ours.count(*holder).load(Ordering::Relaxed)).sum();
        match count {
            0 => None,
            1 => Some(format!("1 {name}")),
            _ => Some(format!("{count} x {name}")),
        }
    });
    let held: Vec<String> = held.collect();
    if held.is_empty() {
        return "this process holds it, by a machine, a value, or a snapshot that is being received"
            .to_owned();
    }
    format!("this process holds it, by {}", held.join(" and "))
}
