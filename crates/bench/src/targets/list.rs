//! Every target, in the order of the questions.

use super::{Held, Pick, Target};

/// Target with a floor.
const fn with_floor(
    row: u8,
    (name, says): (&'static str, &'static str),
    of: Pick,
    held: Held,
    goal: f64,
    floor: f64,
) -> Target {
    Target { row, name, says, of, held, goal, floor: Some(floor) }
}

/// Target that is missed below its goal.
const fn goal(
    row: u8,
    (name, says): (&'static str, &'static str),
    of: Pick,
    held: Held,
    goal: f64,
) -> Target {
    Target { row, name, says, of, held, goal, floor: None }
}

const fn memory(subject: &'static str) -> Pick {
    Pick::new("memory", "update, zipfian, * keys", subject)
}

const fn hand_off(case: &'static str, subject: &'static str) -> Pick {
    Pick::new("hand-off", case, subject)
}

const TO_A_THREAD: &str = "to a thread that applies, zipfian, * keys";
const ON_TWO: &str = "both halves on two threads, zipfian, * keys";
const STORE_HALF: &str = "the store half, zipfian, * keys";

const fn one_call(case: &'static str, subject: &'static str) -> Pick {
    Pick::new("one-call", case, subject)
}

const fn growth(case: &'static str, subject: &'static str) -> Pick {
    Pick::new("growth", case, subject)
}

const fn durable(case: &'static str, subject: &'static str) -> Pick {
    Pick::new("durable", case, subject)
}

const fn get(case: &'static str, subject: &'static str) -> Pick {
    Pick::new("get", case, subject)
}

const SYNCHRONOUS: Pick = memory("sprag, synchronous*");

pub(crate) const ALL: &[Target] = &[
    with_floor(
        1,
        ("memory-synchronous", "ranges of 128 in memory, beside a presized table"),
        SYNCHRONOUS,
        Held::AtLeast(memory("hashbrown*")),
        0.6,
        0.4,
    ),
    goal(
        1,
        ("memory-synchronous-dashmap", "the same, beside inserts into a DashMap"),
        SYNCHRONOUS,
        Held::AtLeast(memory("dashmap, insert")),
        4.0,
    ),
    goal(
        1,
        ("memory-synchronous-asynchronous", "the same, beside the asynchronous way"),
        SYNCHRONOUS,
        Held::AtLeast(memory("sprag, asynchronous*")),
        1.0,
    ),
    with_floor(
        2,
        ("hand-off-slower-half", "submit and store on two threads, beside the slower half alone"),
        hand_off(ON_TWO, "sprag, 512*"),
        Held::AtLeast(hand_off(ON_TWO, "sprag, the slower half alone")),
        0.85,
        0.75,
    ),
    goal(
        2,
        ("hand-off-store-half", "the store half alone, beside the raw table"),
        hand_off(STORE_HALF, "sprag, the store half alone"),
        Held::AtLeast(hand_off(STORE_HALF, "overwrite alone*")),
        0.7,
    ),
    with_floor(
        2,
        ("hand-off-rate", "entries a second through the pipeline, in memory"),
        hand_off(TO_A_THREAD, "sprag*"),
        Held::Rate,
        10e6,
        8.5e6,
    ),
    goal(
        2,
        ("hand-off-crossbeam", "the same, beside a crossbeam-channel of Vecs of 128"),
        hand_off(TO_A_THREAD, "sprag*"),
        Held::AtLeast(hand_off(TO_A_THREAD, "crossbeam-channel, Vec of 128")),
        1.0,
    ),
    with_floor(
        3,
        ("one-call-inline-p50", "p50 of one inline call, above the raw overwrite"),
        one_call("on the caller's thread, p50", "sprag*"),
        Held::Above(one_call("on the caller's thread, p50", "overwrite")),
        200.0,
        300.0,
    ),
    goal(
        3,
        ("one-call-inline-p99", "p99 of one inline call, above the raw overwrite"),
        one_call("on the caller's thread, p99", "sprag*"),
        Held::Above(one_call("on the caller's thread, p99", "overwrite")),
        500.0,
    ),
    goal(
        3,
        ("one-call-inline-p99.9", "p99.9 of one inline call"),
        one_call("on the caller's thread, p99.9", "sprag*"),
        Held::Alone,
        3_000.0,
    ),
    with_floor(
        3,
        ("one-call-threaded-p50", "p50 of one call through a worker, beside two atomics"),
        one_call("through another thread, p50", "sprag*"),
        Held::AtMost(one_call("through another thread, p50", "two atomics*")),
        1.5,
        1.7,
    ),
    goal(
        3,
        ("one-call-threaded-p99", "p99 of one call through a worker"),
        one_call("through another thread, p99", "sprag*"),
        Held::Alone,
        4_000.0,
    ),
    goal(
        4,
        (
            "durable-one-p50",
            "p50 of one durable entry in flight, beside the better of two bare files",
        ),
        durable("one entry, op by op in turn, p50", "sprag*"),
        Held::AtMost(durable("one entry, op by op in turn, p50", "pwrite*")),
        1.05,
    ),
    goal(
        4,
        ("durable-one-p99", "p99 of the same"),
        durable("one entry, op by op in turn, p99", "sprag*"),
        Held::AtMost(durable("one entry, op by op in turn, p99", "pwrite*")),
        1.1,
    ),
    goal(
        4,
        ("durable-one-fjall", "p50 of the same, beside fjall"),
        durable("one entry, op by op in turn, p50", "sprag*"),
        Held::AtLeast(durable("one entry, op by op in turn, p50", "fjall")),
        1.0,
    ),
    goal(
        5,
        ("durable-16-100", "calls of 16 entries of 100 B that wait, beside pwrite and fdatasync"),
        durable("16 a call, 100 B", "sprag, default"),
        Held::AtLeast(durable("16 a call, 100 B", "pwrite*")),
        0.9,
    ),
    goal(
        5,
        ("durable-128-100", "calls of 128 entries of 100 B that wait, beside pwrite and fdatasync"),
        durable("128 a call, 100 B", "sprag, default"),
        Held::AtLeast(durable("128 a call, 100 B", "pwrite*")),
        0.9,
    ),
    goal(
        5,
        (
            "durable-1024-100",
            "calls of 1024 entries of 100 B that wait, beside pwrite and fdatasync",
        ),
        durable("1024 a call, 100 B", "sprag, default"),
        Held::AtLeast(durable("1024 a call, 100 B", "pwrite*")),
        0.8,
    ),
    goal(
        5,
        ("durable-16-1024", "calls of 16 entries of 1 KiB that wait, beside pwrite and fdatasync"),
        durable("16 a call, 1024 B", "sprag, default"),
        Held::AtLeast(durable("16 a call, 1024 B", "pwrite*")),
        0.9,
    ),
    goal(
        5,
        (
            "durable-128-1024",
            "calls of 128 entries of 1 KiB that wait, beside pwrite and fdatasync",
        ),
        durable("128 a call, 1024 B", "sprag, default"),
        Held::AtLeast(durable("128 a call, 1024 B", "pwrite*")),
        0.9,
    ),
    goal(
        5,
        (
            "durable-1024-1024",
            "calls of 1024 entries of 1 KiB that wait, beside pwrite and fdatasync",
        ),
        durable("1024 a call, 1024 B", "sprag, default"),
        Held::AtLeast(durable("1024 a call, 1024 B", "pwrite*")),
        0.8,
    ),
    goal(
        5,
        (
            "durable-16-16384",
            "calls of 16 entries of 16 KiB that wait, beside pwrite and fdatasync",
        ),
        durable("16 a call, 16384 B", "sprag, default"),
        Held::AtLeast(durable("16 a call, 16384 B", "pwrite*")),
        0.9,
    ),
    goal(
        5,
        (
            "durable-128-16384",
            "calls of 128 entries of 16 KiB that wait, beside pwrite and fdatasync",
        ),
        durable("128 a call, 16384 B", "sprag, default"),
        Held::AtLeast(durable("128 a call, 16384 B", "pwrite*")),
        0.9,
    ),
    goal(
        5,
        (
            "durable-1024-16384",
            "calls of 1024 entries of 16 KiB that wait, beside pwrite and fdatasync",
        ),
        durable("1024 a call, 16384 B", "sprag, default"),
        Held::AtLeast(durable("1024 a call, 16384 B", "pwrite*")),
        0.8,
    ),
    goal(
        5,
        ("durable-1024-fjall", "calls of 1,024 entries, beside fjall"),
        durable("1024 a call, 100 B", "sprag, default"),
        Held::AtLeast(durable("1024 a call, 100 B", "fjall")),
        6.0,
    ),
    goal(
        5,
        ("durable-1024-redb", "calls of 1,024 entries, beside redb"),
        durable("1024 a call, 100 B", "sprag, default"),
        Held::AtLeast(durable("1024 a call, 100 B", "redb")),
        20.0,
    ),
    goal(
        5,
        ("durable-1024-lmdb", "calls of 1,024 entries, beside lmdb"),
        durable("1024 a call, 100 B", "sprag, default"),
        Held::AtLeast(durable("1024 a call, 100 B", "lmdb*")),
        20.0,
    ),
    goal(
        5,
        ("flat-out", "flat out in recycled segments, compaction between the rounds"),
        durable("flat out, 100 B", "sprag, default, compacted between rounds"),
        Held::AtLeast(durable("flat out, 100 B", "pwrite*")),
        0.8,
    ),
    goal(
        5,
        ("flat-out-compacting", "flat out in recycled segments, compaction included"),
        durable("flat out, 100 B", "sprag, default"),
        Held::AtLeast(durable("flat out, 100 B", "pwrite*")),
        0.68,
    ),
    goal(
        5,
        ("flat-out-rate", "entries a second, flat out and durable"),
        durable("flat out, 100 B", "sprag, default*"),
        Held::Rate,
        5e6,
    ),
    goal(
        5,
        ("flat-out-1024", "values of 1 KiB flat out, beside pwrite and fdatasync"),
        durable("flat out, 1024 B", "sprag, default*"),
        Held::AtLeast(durable("flat out, 1024 B", "pwrite*")),
        0.9,
    ),
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
    goal(
        10,
        ("log-bytes-100", "bytes of the log an entry of 116 B, beside key and value"),
        durable("flat out, 100 B, bytes of the log", "sprag, default"),
        Held::AtMost(durable("flat out, 100 B, bytes of the log", "key and value")),
        1.1,
    ),
    goal(
        10,
        ("log-bytes-1024", "bytes of the log an entry of 1,040 B"),
        durable("flat out, 1024 B, bytes of the log", "sprag, default"),
        Held::AtMost(durable("flat out, 1024 B, bytes of the log", "key and value")),
        1.05,
    ),
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
];
