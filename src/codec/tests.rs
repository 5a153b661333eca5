//! Entries as bytes, and what bytes are no entry.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::entry::LogId;

fn encoded(payload: Payload<'_>) -> Vec<u8> {
    let entry = Entry::new(LogId::new(1, 1), payload);
    let mut out = vec![0; encoded_len(&entry, &Limits::new()).unwrap()];
    encode(&entry, &mut out);
    out
}

fn all_kinds() -> Vec<Vec<u8>> {
    let commands = [
        Command::Put { key: b"a", value: b"one" },
        Command::Increment { key: b"bb", by: -7 },
        Command::CompareAndSet { key: b"c", expected: Some(b"x"), new: Some(b"yy") },
        Command::Delete { key: &[0xff; 300] },
    ];
    let note = Some(Note { name: b"position", value: b"77" });
    vec![
        encoded(Payload::Noop),
        encoded(Payload::Membership(b"m")),
        encoded(Payload::Opaque(b"")),
        encoded(Payload::Command(Command::Put { key: &[9; KEY_BYTES_MAX], value: b"" })),
        encoded(Payload::Command(Command::CompareAndSet { key: b"k", expected: None, new: None })),
        encoded(Payload::Command(Command::Batch { commands: &commands, note })),
        encoded(Payload::Command(Command::Batch { commands: &[], note: None })),
    ]
}

#[test]
fn a_payload_as_given_says_what_its_encoding_decodes_to() {
    let value = &b"value"[..];
    let key = &b"key"[..];
    let swap = |expected, new| Payload::Command(Command::CompareAndSet { key, expected, new });
    let payloads = [
        Payload::Noop,
        Payload::Membership(b"m"),
        Payload::Opaque(b"o"),
        Payload::Command(Command::Put { key, value }),
        Payload::Command(Command::Put { key, value: b"" }),
        Payload::Command(Command::Delete { key }),
        Payload::Command(Command::Increment { key, by: -7 }),
        swap(None, None),
        swap(Some(b"old"), None),
        swap(None, Some(value)),
        swap(Some(b""), Some(b"")),
    ];
    // Places differ: what is given is in no segment.
    let shown = |payload: PayloadRef<'_>| match payload {
        PayloadRef::Command(CommandRef::Put { key, value }) => format!("{key:?} {:?}", value.bytes),
        PayloadRef::Command(CommandRef::CompareAndSet { key, expected, new }) => {
            format!("{key:?} {expected:?} {:?}", new.map(|new| new.bytes))
        }
        other => format!("{other:?}"),
    };
    for payload in payloads {
        let bytes = encoded(payload);
        let (decoded, _) = decode(Encoded::elsewhere(&bytes)).unwrap();
        assert_eq!(shown(PayloadRef::of_given(&payload).unwrap()), shown(decoded));
    }
    let batch = Payload::Command(Command::Batch { commands: &[], note: None });
    assert!(PayloadRef::of_given(&batch).is_none(), "a batch is read as it is encoded");
}

#[test]
fn the_short_way_to_a_puts_length_gives_what_the_whole_check_gives() {
    let limits = Limits::new().key_bytes_max(10).value_bytes_max(20).entry_bytes_max(35);
    for (key_bytes, value_bytes) in (0..=11).flat_map(|key| (0..=21).map(move |value| (key, value)))
    {
        let (key, value) = (vec![1; key_bytes], vec![2; value_bytes]);
        let put = Entry::put(1, 1, &key, &value);
        assert_eq!(encoded_len(&put, &limits), any_encoded_len(&put, &limits));
    }
}

#[test]
fn a_batch_decodes_to_what_was_encoded_and_places_point_at_the_bytes() {
    let commands = [
        Command::Put { key: b"a", value: b"one" },
        Command::CompareAndSet { key: b"c", expected: Some(b"x"), new: Some(b"yy") },
    ];
    let note = Some(Note { name: b"n", value: b"v" });
    let bytes = encoded(Payload::Command(Command::Batch { commands: &commands, note }));
    let (payload, len) = decode_deep(Encoded::elsewhere(&bytes)).unwrap();
    assert_eq!(len, bytes.len());
    let PayloadRef::Command(CommandRef::Batch(batch)) = payload else { panic!("not a batch") };
    assert_eq!(batch.note(), note);
    let decoded: Vec<_> = batch.commands().collect();
    assert_eq!(decoded.len(), 2);
    let at = |place: Place| {
        let at = place::Location::from(place);
        &bytes[at.offset() as usize..][..at.len()]
    };
    match decoded[0] {
        CommandRef::Put { key, value } => {
            assert_eq!((key, value.bytes, at(value.place)), (&b"a"[..], &b"one"[..], &b"one"[..]));
        }
        other => panic!("{other:?}"),
    }
    match decoded[1] {
        CommandRef::CompareAndSet { key, expected, new: Some(new) } => {
            assert_eq!((key, expected), (&b"c"[..], Some(&b"x"[..])));
            assert_eq!((new.bytes, at(new.place)), (&b"yy"[..], &b"yy"[..]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_kind_cut_anywhere_is_an_error_and_never_a_panic() {
    for bytes in all_kinds() {
        assert_eq!(decode_deep(Encoded::elsewhere(&bytes)).map(|(_, len)| len), Ok(bytes.len()));
        for cut in (0..bytes.len()).filter(|cut| bytes.len() < 2000 || cut % 997 == 0) {
            assert!(decode_deep(Encoded::elsewhere(&bytes[..cut])).is_err(), "cut at {cut}");
        }
    }
}

#[test]
fn limits_are_checked_before_anything_is_taken() {
    let limits = Limits { key_bytes_max: 4, value_bytes_max: 8, entry_bytes_max: 18 };
    let check = |command| encoded_len(&Entry::command(1, 1, command), &limits);
    assert_eq!(check(Command::Delete { key: b"" }), Err(EntryError::EmptyKey));
    assert_eq!(
        check(Command::Delete { key: b"12345" }),
        Err(EntryError::KeyTooLong { bytes: 5, limit: 4 })
    );
    assert_eq!(
        check(Command::Put { key: b"1", value: &[0; 9] }),
        Err(EntryError::ValueTooLong { bytes: 9, limit: 8 })
    );
    assert_eq!(
        check(Command::Put { key: b"1234", value: &[0; 8] }),
        Err(EntryError::EntryTooLong { bytes: 20, limit: 18 })
    );
    let inner = [Command::Delete { key: b"1" }, Command::Batch { commands: &[], note: None }];
    assert_eq!(
        check(Command::Batch { commands: &inner, note: None }),
        Err(EntryError::NestedBatch { position: 1 })
    );
}
