//! Targets of durable entries, and of the bytes that they take.

use super::super::{Held, Pick, Target};
use super::goal;

const fn durable(case: &'static str, subject: &'static str) -> Pick {
    Pick::new("durable", case, subject)
}

pub(super) const ALL: &[Target] = &[
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
];
