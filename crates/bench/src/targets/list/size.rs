//! Targets of growth, of workers, and of stalls.

use super::super::{Held, Pick, Target};
use super::goal;

const fn growth(case: &'static str, subject: &'static str) -> Pick {
    Pick::new("growth", case, subject)
}

pub(super) const ALL: &[Target] = &[
    goal(
        13,
        (
            "growth-updates-memory",
            "updates in memory, growth from 1M to 10M keys, beside the raw table's",
        ),
        growth("10M* keys, updates", "sprag memory"),
        Held::Growth {
            small: growth("1M* keys, updates", "sprag memory"),
            other: growth("10M* keys, updates", "hashbrown*"),
            other_small: growth("1M* keys, updates", "hashbrown*"),
        },
        1.2,
    ),
    goal(
        13,
        (
            "growth-updates-durable",
            "durable updates, growth from 1M to 10M keys, beside the raw table's",
        ),
        growth("10M* keys, updates", "sprag persistent*"),
        Held::Growth {
            small: growth("1M* keys, updates", "sprag persistent*"),
            other: growth("10M* keys, updates", "hashbrown*"),
            other_small: growth("1M* keys, updates", "hashbrown*"),
        },
        1.2,
    ),
    goal(
        13,
        (
            "growth-reads-memory",
            "reads in memory, growth from 1M to 10M keys, beside the raw table's",
        ),
        growth("10M* keys, reads", "sprag memory"),
        Held::Growth {
            small: growth("1M* keys, reads", "sprag memory"),
            other: growth("10M* keys, reads", "hashbrown*"),
            other_small: growth("1M* keys, reads", "hashbrown*"),
        },
        1.2,
    ),
    goal(
        13,
        ("growth-reads-durable", "reads of a durable state, the same growth"),
        growth("10M* keys, reads", "sprag persistent*"),
        Held::Growth {
            small: growth("1M* keys, reads", "sprag persistent*"),
            other: growth("10M* keys, reads", "hashbrown*"),
            other_small: growth("1M* keys, reads", "hashbrown*"),
        },
        1.2,
    ),
    goal(
        14,
        ("workers-1-us", "two workers beside one, commands of 1 us"),
        Pick::new("workers", "1 us a command, 2 workers", "sprag*"),
        Held::AtLeast(Pick::new("workers", "1 us a command, 1 worker", "sprag*")),
        1.6,
    ),
    goal(
        14,
        ("workers-10-us", "two workers beside one, commands of 10 us"),
        Pick::new("workers", "10 us a command, 2 workers", "sprag*"),
        Held::AtLeast(Pick::new("workers", "10 us a command, 1 worker", "sprag*")),
        1.9,
    ),
    goal(
        14,
        ("workers-100-us", "two workers beside one, commands of 100 us"),
        Pick::new("workers", "100 us a command, 2 workers", "sprag*"),
        Held::AtLeast(Pick::new("workers", "100 us a command, 1 worker", "sprag*")),
        1.9,
    ),
    goal(
        15,
        (
            "stall-snapshot-p99.9",
            "p99.9 at a fixed rate, a snapshot meanwhile, beside nothing else",
        ),
        Pick::new("stalls", "durable, * entries a second, p99.9", "sprag, a snapshot"),
        Held::AtMost(Pick::new(
            "stalls",
            "durable, * entries a second, p99.9",
            "sprag, nothing else",
        )),
        3.0,
    ),
    goal(
        15,
        ("stall-snapshot-longest", "longest wait of the same, above that of nothing else"),
        Pick::new("stalls", "durable, * entries a second, longest", "sprag, a snapshot"),
        Held::Above(Pick::new(
            "stalls",
            "durable, * entries a second, longest",
            "sprag, nothing else",
        )),
        10_000.0,
    ),
    goal(
        15,
        (
            "stall-compaction-p99.9",
            "p99.9 at a fixed rate, a compaction meanwhile, beside nothing else",
        ),
        Pick::new("stalls", "durable, * entries a second, p99.9", "sprag, a compaction"),
        Held::AtMost(Pick::new(
            "stalls",
            "durable, * entries a second, p99.9",
            "sprag, nothing else",
        )),
        3.0,
    ),
    goal(
        15,
        ("stall-compaction-longest", "longest wait of the same, above that of nothing else"),
        Pick::new("stalls", "durable, * entries a second, longest", "sprag, a compaction"),
        Held::Above(Pick::new(
            "stalls",
            "durable, * entries a second, longest",
            "sprag, nothing else",
        )),
        10_000.0,
    ),
    goal(
        15,
        (
            "stall-growth-p99.9",
            "p99.9 at a fixed rate, a table that grows meanwhile, beside nothing else",
        ),
        Pick::new("stalls", "durable, * entries a second, p99.9", "sprag, a table that grows"),
        Held::AtMost(Pick::new(
            "stalls",
            "durable, * entries a second, p99.9",
            "sprag, nothing else",
        )),
        3.0,
    ),
    goal(
        15,
        ("stall-growth-longest", "longest wait of the same, above that of nothing else"),
        Pick::new("stalls", "durable, * entries a second, longest", "sprag, a table that grows"),
        Held::Above(Pick::new(
            "stalls",
            "durable, * entries a second, longest",
            "sprag, nothing else",
        )),
        10_000.0,
    ),
    goal(
        15,
        (
            "stall-segments-p99.9",
            "p99.9 at a fixed rate, segments of 4 MiB meanwhile, beside nothing else",
        ),
        Pick::new("stalls", "durable, * entries a second, p99.9", "sprag, segments of 4 MiB"),
        Held::AtMost(Pick::new(
            "stalls",
            "durable, * entries a second, p99.9",
            "sprag, nothing else",
        )),
        3.0,
    ),
    goal(
        15,
        ("stall-segments-longest", "longest wait of the same, above that of nothing else"),
        Pick::new("stalls", "durable, * entries a second, longest", "sprag, segments of 4 MiB"),
        Held::Above(Pick::new(
            "stalls",
            "durable, * entries a second, longest",
            "sprag, nothing else",
        )),
        10_000.0,
    ),
    goal(
        15,
        ("stall-waiters-p99.9", "p99.9 at a fixed rate beside 10,000 waiters, beside nothing else"),
        Pick::new("stalls", "durable, * entries a second, p99.9", "sprag, 10,000 waiters"),
        Held::AtMost(Pick::new(
            "stalls",
            "durable, * entries a second, p99.9",
            "sprag, nothing else",
        )),
        3.0,
    ),
    goal(
        15,
        (
            "stall-waiters-longest",
            "longest at a fixed rate beside 10,000 waiters, beside nothing else",
        ),
        Pick::new("stalls", "durable, * entries a second, longest", "sprag, 10,000 waiters"),
        Held::Above(Pick::new(
            "stalls",
            "durable, * entries a second, longest",
            "sprag, nothing else",
        )),
        10_000.0,
    ),
    goal(
        15,
        ("stop-memory", "memory that a disk's stop of a second adds"),
        Pick::new(
            "stalls",
            "a simulated disk, *, most memory above the start",
            "sprag, the disk stops*",
        ),
        Held::Above(Pick::new(
            "stalls",
            "a simulated disk, *, most memory above the start",
            "sprag, the disk does not stop",
        )),
        64.0,
    ),
];
