//! The write queue of [`IoBackend::Auto`](crate::IoBackend::Auto): each group goes the way that was
//! faster of late.
//!
//! Which way is faster depends on the disk, the kernel, the length of the groups and the load. So
//! the queue measures both: it takes one way, and from time to time tries the other for a few
//! groups. Short and long groups are judged apart. The ways change only while no write is in
//! flight: one goes through the page cache and the other past it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::Duration;

use super::{Completion, LogWrite, WriteQueue};
use crate::bytes::nanos;

/// Longest group of the short ones, in bytes.
const SHORT_BYTES_MAX: usize = 64 << 10;
/// Bytes that a sync alone counts for, so that the cost of a byte is about the same for groups of
/// different lengths.
const SYNC_BYTES: u64 = 128 << 10;
/// Number of groups before the first try of the other way, and after a change of the way. Each try
/// that changes nothing doubles the number.
const SETTLED_GROUPS_MIN: u32 = 64;
const SETTLED_GROUPS_MAX: u32 = 16_384;
/// Number of groups of a try. The slowest of them does not count.
const TRIED_GROUPS: u32 = 8;
/// The other way must be faster by one part of so many.
const GAIN_PARTS: u64 = 10;
/// Share of a group in the cost of its way: one part of so many.
const COST_PARTS: u64 = 16;

/// Maker of the ring, which is made for the first try.
pub(super) type MakeRing = Box<dyn FnOnce() -> io::Result<Box<dyn WriteQueue>> + Send>;

/// The way of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Plain,
    Ring,
}

impl Way {
    fn other(self) -> Self {
        match self {
            Self::Plain => Self::Ring,
            Self::Ring => Self::Plain,
        }
    }
}

/// Figures of the groups of one kind, and the way that follows from them.
#[derive(Debug)]
struct Choice {
    way: Way,
    /// Cost of the way: nanoseconds for 1,024 bytes, over the last groups; 0 if none is known.
    cost: u64,
    /// Number of groups from one try to the next.
    settled_groups: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The way is taken for so many more groups.
    Settled { left: u32 },
    /// The other way is taken for so many more groups. `sum` and `most` are of the costs so far.
    Trying { left: u32, sum: u64, most: u64 },
}

impl Choice {
    fn new() -> Self {
        let phase = Phase::Settled { left: SETTLED_GROUPS_MIN };
        Self { way: Way::Plain, cost: 0, settled_groups: SETTLED_GROUPS_MIN, phase }
    }

    /// The way of the next group.
    fn next(&self) -> Way {
        match self.phase {
            Phase::Settled { .. } => self.way,
            Phase::Trying { .. } => self.way.other(),
        }
    }

    /// Notes a group of `bytes` that went `way` and took `took`.
    fn note(&mut self, way: Way, bytes: usize, took: Duration) {
        if way != self.next() {
            // It was in flight when the decision fell.
            return;
        }
        // A cost that saturates is beyond any other.
        let cost = nanos(took).saturating_mul(1024) / (bytes as u64 + SYNC_BYTES);
        match &mut self.phase {
            Phase::Settled { left } => {
                let before = if self.cost == 0 { cost } else { self.cost };
                // One pause of the disk must not decide, so a group counts twice the cost at most.
                // A cost that saturates is beyond any other.
                let cost = cost.min(before.saturating_mul(2));
                self.cost = (before - before / COST_PARTS).saturating_add(cost / COST_PARTS);
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.phase = Phase::Trying { left: TRIED_GROUPS, sum: 0, most: 0 };
                }
            }
            Phase::Trying { left, sum, most } => {
                // A sum that saturates is beyond any other.
                (*sum, *most) = (sum.saturating_add(cost), cost.max(*most));
                *left = left.saturating_sub(1);
                if *left == 0 {
                    let mean = (*sum - *most) / u64::from(TRIED_GROUPS - 1);
                    self.decide(mean);
                }
            }
        }
    }

    fn decide(&mut self, tried: u64) {
        if tried < self.cost - self.cost / GAIN_PARTS {
            self.way = self.way.other();
            self.cost = tried;
            self.settled_groups = SETTLED_GROUPS_MIN;
        } else {
            self.settled_groups = (2 * self.settled_groups).min(SETTLED_GROUPS_MAX);
        }
        self.phase = Phase::Settled { left: self.settled_groups };
    }
}

/// A group on its way.
#[derive(Debug)]
struct Group {
    token: u64,
    bytes: usize,
    handed_at: Duration,
    watch: super::Watch,
}

/// The ring, once it is made.
enum Ring {
    NotYet(MakeRing),
    Made(Box<dyn WriteQueue>),
    Refused,
}

/// See the module.
pub(super) struct AutoQueue {
    plain: Box<dyn WriteQueue>,
    ring: Ring,
    /// The way of what is in flight, or of the last group.
    way: Way,
    groups: VecDeque<Group>,
    /// Time of the last completion.
    done_at: Duration,
    short: Choice,
    long: Choice,
    /// Whether the last group was a short one.
    is_short: bool,
}

impl AutoQueue {
    /// Makes a queue that begins with `plain`.
    pub(super) fn new(plain: Box<dyn WriteQueue>, ring: MakeRing) -> Self {
        Self {
            plain,
            ring: Ring::NotYet(ring),
            way: Way::Plain,
            groups: VecDeque::with_capacity(16),
            done_at: Duration::ZERO,
            short: Choice::new(),
            long: Choice::new(),
            is_short: true,
        }
    }

    fn choice(&mut self) -> &mut Choice {
        if self.is_short { &mut self.short } else { &mut self.long }
    }

    /// The queue of the current way.
    fn queue(&mut self) -> &mut dyn WriteQueue {
        match (self.way, &mut self.ring) {
            (Way::Ring, Ring::Made(ring)) => &mut **ring,
            _ => &mut *self.plain,
        }
    }

    /// The way of the next group, whose kind is known. Makes the ring for its first use.
    fn next_way(&mut self) -> Way {
        if matches!(self.ring, Ring::Refused) || self.choice().next() == Way::Plain {
            return Way::Plain;
        }
        self.ring = match std::mem::replace(&mut self.ring, Ring::Refused) {
            // `pwrite` is as good a choice as any, so nothing is told of a refusal.
            Ring::NotYet(make) => make().map_or(Ring::Refused, Ring::Made),
            made => made,
        };
        if matches!(self.ring, Ring::Made(_)) { Way::Ring } else { Way::Plain }
    }
}

impl fmt::Debug for AutoQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutoQueue")
            .field("way", &self.way)
            .field("short", &self.short)
            .field("long", &self.long)
            .finish_non_exhaustive()
    }
}

impl WriteQueue for AutoQueue {
    fn backend(&self) -> &'static str {
        match (self.way, &self.ring) {
            (Way::Ring, Ring::Made(ring)) => ring.backend(),
            _ => self.plain.backend(),
        }
    }

    /// Depth of the current way. It is one while the other way is to be taken, so that what is in
    /// flight comes to its end.
    fn depth(&self) -> usize {
        let choice = if self.is_short { &self.short } else { &self.long };
        match (self.way, choice.next(), &self.ring) {
            (Way::Ring, Way::Ring, Ring::Made(ring)) => ring.depth(),
            _ => 1,
        }
    }

    fn submit(&mut self, write: LogWrite) {
        let bytes = write.bytes.as_ref().len();
        self.is_short = bytes <= SHORT_BYTES_MAX;
        if self.groups.is_empty() {
            // No caller waits for the disk where nothing is synced with the write.
            self.way = if write.sync { self.next_way() } else { Way::Plain };
        }
        let (token, watch) = (write.token, write.watch.clone());
        self.groups.push_back(Group { token, bytes, handed_at: watch.now(), watch });
        self.queue().submit(write);
    }

    fn complete(&mut self, wait: bool) -> Option<Completion> {
        let completion = self.queue().complete(wait)?;
        let at = self.groups.iter().position(|group| group.token == completion.token);
        if let Some(group) = at.and_then(|at| self.groups.remove(at)) {
            let now = group.watch.now();
            // Of several in flight, each counts from the end of the one before. The clock of
            // another core may be a little behind; then no time has passed.
            let took = now.saturating_sub(group.handed_at.max(self.done_at));
            self.done_at = now;
            let way = self.way;
            let choice =
                if group.bytes <= SHORT_BYTES_MAX { &mut self.short } else { &mut self.long };
            if completion.result.is_ok() && !matches!(self.ring, Ring::Refused) {
                choice.note(way, group.bytes, took);
            }
        }
        Some(completion)
    }
}

#[cfg(test)]
#[path = "auto_tests.rs"]
mod tests;
