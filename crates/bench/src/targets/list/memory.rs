//! Targets of updates in memory, of the hand-off, and of one call.

use super::super::{Held, Pick, Target};
use super::{goal, with_floor};

const fn memory(subject: &'static str) -> Pick {
    Pick::new("memory", "update, zipfian, * keys", subject)
}

const fn hand_off(case: &'static str, subject: &'static str) -> Pick {
    Pick::new("hand-off", case, subject)
}

const fn one_call(case: &'static str, subject: &'static str) -> Pick {
    Pick::new("one-call", case, subject)
}

const TO_A_THREAD: &str = "to a thread that applies, zipfian, * keys";
const ON_TWO: &str = "both halves on two threads, zipfian, * keys";
const STORE_HALF: &str = "the store half, zipfian, * keys";
const SYNCHRONOUS: Pick = memory("sprag, synchronous*");

pub(super) const ALL: &[Target] = &[
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
];
