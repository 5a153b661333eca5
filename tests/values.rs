//! Tests of values that a get returns: the right bytes, never another value's, and without a lock
//! held.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use crate::common::machines::{KeyValueReads, compare, memory};
use crate::common::model::Model;
use crate::common::ops::{Op, log_of, with_entries};
use crate::common::{LONG, PATIENT, Persistent, Scratch, apply_config, manage, within};
use sprag::{ApplyManager, Entry, MemoryStateMachine, Payload, Rejection, Reply};

type Memory = ApplyManager<MemoryStateMachine>;

fn in_memory() -> Memory {
    manage(memory(), apply_config(2))
}

/// The same check for both machines, whose reads have the same names.
macro_rules! on_both {
    (|$manager:ident| $check:expr) => {{
        let scratch = Scratch::new();
        {
            let $manager: Arc<Memory> = Arc::new(in_memory());
            $check
        }
        {
            let $manager: Arc<Persistent> = Arc::new(scratch.open());
            $check
        }
    }};
}

#[test]
fn keys_and_values_of_any_bytes_come_back_as_they_were() {
    let value = |byte: u8| match byte {
        0 => vec![],
        1 => vec![0xff, 0xfe],
        2 => vec![0; 128],
        3 => vec![0xff; 129],
        _ => vec![byte, 0, b'\n', 0x80, 0xff],
    };
    let mut ops: Vec<Op> = (0..=255_u8).map(|byte| Op::put([byte], value(byte))).collect();
    ops.extend((0..=255_u8).map(|byte| Op::put([byte, 0xff, 0], [byte])));
    ops.push(Op::put(vec![b'~'; 300], "after ~"));
    let log = log_of(0, 1, ops);
    let model = Model::after(&log);
    on_both!(|manager| {
        for part in log.chunks(50) {
            with_entries(part, |entries| {
                manager.apply_entries_sync(entries, LONG, &mut vec![]).unwrap();
            });
        }
        compare(manager.machine(), &model).unwrap();
        let machine = manager.machine();
        let mut into = b"old".to_vec();
        for (key, value) in &model.state {
            assert!(machine.contains(key).unwrap());
            assert!(machine.get_into(key, &mut into).unwrap());
            assert_eq!(&into, value);
            let with = machine.get_with(key, <[u8]>::to_vec).unwrap();
            assert_eq!(with.as_ref(), Some(value));
        }
        let missing = b"no such key";
        assert!(!machine.contains(missing).unwrap());
        assert!(!machine.get_into(missing, &mut into).unwrap());
        assert!(into.is_empty(), "what was in the buffer is gone");
        assert_eq!(machine.get_with(missing, |_| panic!("called")).unwrap(), None::<()>);
        assert!(!machine.is_empty().unwrap());
    });
}

#[test]
fn numbers_are_exact_decimals_and_nothing_else() {
    on_both!(|manager| {
        let mut index = 0;
        let mut run = |key: &[u8], value: Option<&[u8]>, by: i64| {
            if let Some(value) = value {
                index += 1;
                manager.apply(&Entry::put(index, 1, key, value), LONG).unwrap();
            }
            index += 1;
            manager.apply(&Entry::increment(index, 1, key, by), LONG).unwrap()
        };
        let (not, overflow) = (Rejection::NotANumber, Rejection::Overflow);
        assert_eq!(run(b"n", None, 5), Reply::Counter(5), "a missing key counts as 0");
        let above_2_to_53 = Some(&b"9007199254740993"[..]);
        assert_eq!(run(b"n", above_2_to_53, 2), Reply::Counter(9_007_199_254_740_995));
        assert_eq!(run(b"n", Some(b"-9223372036854775808"), 0), Reply::Counter(i64::MIN));
        assert_eq!(run(b"n", Some(b"9223372036854775807"), 0), Reply::Counter(i64::MAX));
        assert_eq!(run(b"n", None, 1), Reply::Rejected(overflow));
        assert_eq!(run(b"n", Some(b"-1"), i64::MIN), Reply::Rejected(overflow));
        assert_eq!(run(b"n", Some(b"0"), i64::MIN), Reply::Counter(i64::MIN));
        for text in
            ["", "-", "-0", "00", "+1", "01", "1.0", "1e2", " 1", "1 ", "0x1", "1_0", "\u{664}"]
        {
            assert_eq!(run(b"n", Some(text.as_bytes()), 1), Reply::Rejected(not), "{text:?}");
            let kept = manager.machine().get(b"n").unwrap().unwrap();
            assert_eq!(kept, text.as_bytes(), "a rejection changes nothing");
        }
        for text in ["9223372036854775808", "-9223372036854775809", "100000000000000000000"] {
            assert_eq!(run(b"n", Some(text.as_bytes()), 0), Reply::Rejected(not), "{text:?}");
        }
        assert_eq!(run(b"n", Some(b"10"), -11), Reply::Counter(-1));
        assert_eq!(manager.machine().get(b"n").unwrap().unwrap(), b"-1");
    });
}

#[test]
fn what_a_machine_does_not_know_is_rejected_and_counted_as_such() {
    on_both!(|manager| {
        manager.apply(&Entry::put(1, 1, b"k", b"v"), LONG).unwrap();
        let opaque = Entry::new(sprag::LogId::new(2, 1), Payload::Opaque(b"?"));
        let reply = manager.apply(&opaque, LONG).unwrap();
        assert_eq!(reply, Reply::Rejected(Rejection::Unsupported));
        manager.apply(&Entry::increment(3, 1, b"k", 1), LONG).unwrap();
        manager.apply(&Entry::noop(4, 1), LONG).unwrap();
        let stats = manager.stats();
        assert_eq!(stats.total_failed, 2);
        assert_eq!(stats.total_applied, 4);
        assert!((stats.success_rate - 50.0).abs() < 1e-9, "{}", stats.success_rate);
        assert_eq!(stats.machine.keys, 1);
        assert_eq!(stats.machine.last_applied, Some(4));
    });
}

/// Proves ORD-8.
#[test]
fn a_value_kept_never_changes() {
    on_both!(|manager| {
        let mut kept = Vec::new();
        let mut index = 0;
        for round in 0..60_u8 {
            // Use the same lengths repeatedly, so that a buffer overwritten in place would show.
            for (key, len) in [(b"short", 20), (b"limit", 129), (b"long.", 5000)] {
                index += 1;
                let value = vec![round; len];
                manager.apply(&Entry::put(index, 1, key, &value), LONG).unwrap();
                let got = manager.machine().get(key).unwrap().unwrap();
                kept.push((got.clone(), value.clone()));
                kept.push((got, value));
            }
        }
        index += 1;
        manager.apply(&Entry::delete(index, 1, b"long."), LONG).unwrap();
        for (got, value) in &kept {
            assert_eq!(got[..], value[..]);
        }
        let mut copy = Vec::new();
        manager.machine().get_into(b"short", &mut copy).unwrap();
        copy.fill(0xaa);
        assert_eq!(manager.machine().get(b"short").unwrap().unwrap(), [59; 20]);
    });
}

#[test]
fn a_closure_on_a_value_may_apply_and_read() {
    for len in [5, 128, 129, 5000] {
        on_both!(|manager| {
            let value = vec![1; len];
            manager.apply(&Entry::put(1, 1, b"k", &value), LONG).unwrap();
            let inner = Arc::clone(&manager);
            within(LONG, "apply from inside of a get", move || {
                let machine = inner.machine();
                machine
                    .get_with(b"k", |old| {
                        let changed = vec![2; len];
                        // Write the same key, a barrier, and read: everything that would deadlock
                        // with a guard.
                        inner.apply(&Entry::put(2, 1, b"k", &changed), LONG).unwrap();
                        let members = sprag::LogId::new(3, 1);
                        let members = Entry::new(members, Payload::Membership(b"m"));
                        inner.apply(&members, LONG).unwrap();
                        assert_eq!(machine.get(b"k").unwrap().unwrap(), changed[..]);
                        assert_eq!(machine.scan_sorted().unwrap().len(), 1);
                        assert_eq!(machine.len().unwrap(), 1);
                        assert_eq!(old, [1].repeat(len), "the old value, whole");
                        inner.apply(&Entry::delete(4, 1, b"k"), LONG).unwrap();
                        machine.get_with(b"k", |_| panic!("deleted")).unwrap()
                    })
                    .unwrap();
                assert_eq!(machine.get(b"k").unwrap(), None);
            });
        });
    }
}

#[test]
fn values_may_be_held_while_everything_goes_on() {
    on_both!(|manager| {
        let inner = Arc::clone(&manager);
        within(PATIENT, "applying under held values", move || {
            let mut held = Vec::new();
            let value = vec![9; 3000];
            for index in 1..=400_u64 {
                let key = (index % 16).to_be_bytes();
                inner.apply(&Entry::put(index, 1, &key, &value), LONG).unwrap();
                held.push(inner.machine().get(&key).unwrap().unwrap());
            }
            assert!(held.iter().all(|it| *it == value[..]));
        });
        assert_eq!(manager.stats().applied, Some(400));
    });
}

#[test]
fn a_machine_without_a_cache_says_so_instead_of_zero() {
    on_both!(|manager| {
        let stats = manager.stats().machine;
        assert_eq!((stats.cache_size, stats.cache_hits, stats.cache_misses), (None, None, None));
        assert_eq!(stats.cache_hit_rate, None);
        assert_eq!(manager.machine().count().unwrap(), 0);
    });
}

#[test]
fn an_error_or_a_value_printed_shows_no_bytes() {
    on_both!(|manager| {
        let secret = b"secret-key-and-value";
        manager.apply(&Entry::put(1, 1, secret, secret), LONG).unwrap();
        let value = manager.machine().get(secret).unwrap().unwrap();
        let error = manager.apply_entries(&[Entry::put(9, 1, secret, secret)]).unwrap_err();
        let entry = sprag::Entry::put(2, 1, &[], secret);
        let malformed = manager.apply_entries(&[entry]).unwrap_err();
        for text in [
            format!("{value:?}"),
            format!("{error} {error:?} {malformed} {malformed:?}"),
            format!("{:?}", manager.stats()),
        ] {
            assert!(!text.contains("secret") && !text.contains("115, 101, 99"), "{text}");
        }
    });
}
