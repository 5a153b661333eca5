//! Targets of gets, snapshots and openings.

use super::super::{Held, Pick, Target};
use super::goal;

const fn get(case: &'static str, subject: &'static str) -> Pick {
    Pick::new("get", case, subject)
}

pub(super) const ALL: &[Target] = &[
    goal(
        6,
        ("get-with-memory", "get_with of a key in memory, beside DashMap's raw interface"),
        get("hit, in memory", "sprag memory, get_with"),
        Held::AtLeast(get("hit, in memory", "dashmap, raw*")),
        0.7,
    ),
    goal(
        6,
        ("get-memory", "get of the same"),
        get("hit, in memory", "sprag memory, get"),
        Held::AtLeast(get("hit, in memory", "dashmap, raw*")),
        0.6,
    ),
    goal(
        6,
        ("get-miss-memory", "a miss in memory"),
        get("miss, in memory", "sprag memory*"),
        Held::AtLeast(get("miss, in memory", "dashmap, raw*")),
        0.8,
    ),
    goal(
        6,
        (
            "get-with-durable",
            "get_with of a durable state, beside the raw interface and one read of a log",
        ),
        get("hit, durable state", "sprag persistent, get_with"),
        Held::AtLeast(get("hit, durable state", "dashmap, raw*")),
        0.6,
    ),
    goal(
        6,
        ("get-durable-redb", "get_with of a durable state, beside redb"),
        get("hit, durable state", "sprag persistent, get_with"),
        Held::AtLeast(get("hit, durable state", "redb")),
        4.0,
    ),
    goal(
        6,
        ("get-durable-lmdb", "get_with of a durable state, beside lmdb"),
        get("hit, durable state", "sprag persistent, get_with"),
        Held::AtLeast(get("hit, durable state", "lmdb*")),
        4.0,
    ),
    goal(
        7,
        ("get-beside-memory", "get_with beside updates in memory, beside the same alone"),
        get("hit beside updates, in memory", "sprag memory, get_with"),
        Held::AtLeast(get("hit beside updates, in memory", "sprag memory, alone")),
        0.9,
    ),
    goal(
        7,
        ("get-beside-durable", "get_with beside durable updates flat out, beside the same alone"),
        get("hit beside updates, durable state", "sprag persistent, get_with"),
        Held::AtLeast(get("hit beside updates, durable state", "sprag persistent, alone")),
        0.75,
    ),
    goal(
        8,
        (
            "snapshot-idle",
            "a snapshot while nothing else runs, beside sort, gather, write and sync",
        ),
        Pick::new("snapshot", "idle, * keys", "sprag"),
        Held::AtMost(Pick::new("snapshot", "idle, * keys", "sort*")),
        1.25,
    ),
    goal(
        8,
        ("snapshot-beside", "durable updates beside snapshots, beside the same without"),
        Pick::new("snapshot", "durable updates*", "sprag, one snapshot*"),
        Held::AtLeast(Pick::new("snapshot", "durable updates*", "sprag, without*")),
        0.8,
    ),
    goal(
        9,
        ("open-first-read", "first read, with a tenth of the keys in the tail"),
        Pick::new("open", "to the first read*", "sprag"),
        Held::Alone,
        60.0,
    ),
    goal(
        9,
        ("open-complete", "opening complete, beside building a presized table"),
        Pick::new("open", "complete*", "sprag"),
        Held::AtMost(Pick::new("open", "complete*", "building*")),
        1.25,
    ),
];
