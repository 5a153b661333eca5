#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::codec::{self, Encoded, Limits};
use crate::entry::{BatchRejection, Command, Entry, Note, Payload};
use crate::image::{HALF_HEADER_BYTES, Image, ImageWriter};
use crate::machine::cell::{HeapCell, PlaceCell};
use crate::numbers::SegmentNumber;
use crate::places::table::{PinCount, SegmentBytes, SegmentTable};
use crate::ranges::in_flight_ring::InFlightRing;
use crate::ranges::range::{Payloads, RangeParts};

const SEGMENT: SegmentNumber = SegmentNumber::new(3);

/// A state, the context of its values, and a way to feed it.
struct Bed<C: Cell> {
    state: KeyValue<C>,
    image: Option<ImageWriter>,
    partitions: usize,
    next_index: u64,
}

impl Bed<HeapCell> {
    fn heap(seed: u64, partitions: usize) -> Self {
        Self { state: KeyValue::new(64, seed, ()), image: None, partitions, next_index: 0 }
    }
}

impl Bed<PlaceCell> {
    fn places(seed: u64, partitions: usize) -> Self {
        let mut image = Image::begin(Arc::new(Image::new(2 << 20).unwrap()), SEGMENT, b"").unwrap();
        image.open_frame(&[0; HALF_HEADER_BYTES]).unwrap();
        let table = Arc::new(SegmentTable::new(1));
        table.set(SEGMENT, SegmentBytes::Image(Arc::clone(image.image()), PinCount::default()));
        let state = KeyValue::new(64, seed, table);
        Self { state, image: Some(image), partitions, next_index: 0 }
    }
}

impl<C: Cell> Bed<C> {
    /// Encodes the payloads as one frame and applies it: barriers alone, the other entries in
    /// ranges, partition by partition.
    fn run(&mut self, payloads: &[Payload<'_>]) -> Vec<Reply> {
        let first = self.next_index;
        self.next_index += payloads.len() as u64;
        let base = self.image.as_ref().map_or(0, ImageWriter::end);
        let mut bytes = Vec::new();
        let mut barriers = vec![];
        let in_flight = InFlightRing::new(payloads.len());
        for (index, payload) in (first..).zip(payloads) {
            let entry = Entry::new(LogId::new(index, 1), *payload);
            let start = bytes.len();
            bytes.resize(start + codec::encoded_len(&entry, &Limits::new()).unwrap(), 0);
            codec::encode(&entry, &mut bytes[start..]);
            let (decoded, _) = codec::decode_deep(Encoded::elsewhere(&bytes[start..])).unwrap();
            let footprint = self.state.footprint(&decoded);
            barriers.push(footprint == Footprint::All);
            let hash = if let Footprint::Key(hash) = footprint { hash } else { 0 };
            in_flight.fill(index, hash, (base + start) as u32);
        }
        let mut encoded = Encoded::elsewhere(&bytes);
        if let Some(image) = &mut self.image {
            let (extent, reserved) = image.reserve_entry(bytes.len()).unwrap();
            reserved.copy_from_slice(&bytes);
            image.publish();
            encoded = extent.over(&bytes).unwrap();
        }
        let mut start = 0;
        while start < barriers.len() {
            let run = barriers[start..].iter().take_while(|barrier| !**barrier).count();
            let (count, barrier) = if run == 0 { (1, true) } else { (run, false) };
            self.apply(&in_flight, first + start as u64, count, barrier, encoded);
            start += count;
        }
        (first..self.next_index).map(|index| in_flight.reply(index).unwrap()).collect()
    }

    fn apply(
        &self,
        in_flight: &InFlightRing,
        first: u64,
        count: usize,
        barrier: bool,
        encoded: Encoded<'_>,
    ) {
        let progress = std::cell::Cell::new(0);
        let first = LogId::new(first, 1);
        let range = EntryRange::new(
            RangeParts {
                in_flight,
                first,
                count: count as u32,
                barrier,
                payloads: Payloads::Encoded(encoded),
            },
            &progress,
        );
        let partitions = if barrier { 1 } else { self.partitions };
        // Begin with the last partition: the result must not depend on the order of partitions.
        for id in (0..partitions).rev() {
            let partition = Partition::new(id, partitions);
            self.state.apply(&range, partition, &mut Replies::new(in_flight)).unwrap();
        }
        assert_eq!(self.state.applied(), Some(range.last()));
    }

    fn command(&mut self, command: Command<'_>) -> Reply {
        self.run(&[Payload::Command(command)]).remove(0)
    }

    fn dump(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let entries = self.state.scan_sorted().unwrap();
        entries.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }
}

/// A command that owns its bytes.
#[derive(Clone, Debug)]
enum Owned {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Increment(Vec<u8>, i64),
    CompareAndSet(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>),
}

impl Owned {
    fn as_command(&self) -> Command<'_> {
        match self {
            Self::Put(key, value) => Command::Put { key, value },
            Self::Delete(key) => Command::Delete { key },
            Self::Increment(key, by) => Command::Increment { key, by: *by },
            Self::CompareAndSet(key, expected, new) => {
                Command::CompareAndSet { key, expected: expected.as_deref(), new: new.as_deref() }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Single(Owned),
    Batch(Vec<Owned>, Option<(Vec<u8>, Vec<u8>)>),
    Noop,
    Membership(Vec<u8>),
    Opaque(Vec<u8>),
}

/// The expected state, in the plainest form.
#[derive(Clone, Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, Vec<u8>>,
    notes: BTreeMap<Vec<u8>, Vec<u8>>,
    membership: Option<(u64, Vec<u8>)>,
}

impl Model {
    fn step(&mut self, index: u64, step: &Step) -> Reply {
        match step {
            Step::Single(command) => {
                self.command(command).unwrap_or_else(|reason| Reply::Rejected(reason.into()))
            }
            Step::Batch(commands, note) => {
                let before = self.clone();
                for (position, command) in (0..).zip(commands) {
                    if let Err(reason) = self.command(command) {
                        *self = before;
                        return Reply::Rejected(Rejection::InBatch { position, reason });
                    }
                }
                self.notes.extend(note.clone());
                Reply::Batch { commands: commands.len() as u32 }
            }
            Step::Noop => Reply::Applied,
            Step::Membership(bytes) => {
                self.membership = Some((index, bytes.clone()));
                Reply::Applied
            }
            Step::Opaque(_) => Reply::Rejected(Rejection::Unsupported),
        }
    }

    fn command(&mut self, command: &Owned) -> Result<Reply, BatchRejection> {
        match command.clone() {
            Owned::Put(key, value) => {
                Ok(Reply::Put { replaced: self.keys.insert(key, value).is_some() })
            }
            Owned::Delete(key) => Ok(Reply::Deleted { existed: self.keys.remove(&key).is_some() }),
            Owned::Increment(key, by) => {
                let text = self.keys.get(&key).cloned().unwrap_or_else(|| b"0".to_vec());
                let number =
                    String::from_utf8(text.clone()).ok().and_then(|text| text.parse().ok());
                let number: i64 = number.ok_or(BatchRejection::NotANumber)?;
                if number.to_string().as_bytes() != text {
                    return Err(BatchRejection::NotANumber);
                }
                let sum = number.checked_add(by).ok_or(BatchRejection::Overflow)?;
                self.keys.insert(key, sum.to_string().into_bytes());
                Ok(Reply::Counter(sum))
            }
            Owned::CompareAndSet(key, expected, new) => {
                if self.keys.get(&key) != expected.as_ref() {
                    return Err(BatchRejection::Mismatch);
                }
                match new {
                    Some(value) => drop(self.keys.insert(key, value)),
                    None => drop(self.keys.remove(&key)),
                }
                Ok(Reply::Swapped)
            }
        }
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(b'a'..=b'c', 1..=2),
        1 => Just(vec![0xff; 22]),
        1 => Just(vec![0xff; 23]),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let texts = ["", "0", "7", "-0", "07", "x", "9223372036854775807", "-9223372036854775808"];
    let texts = texts.to_vec();
    prop_oneof![
        4 => prop::sample::select(texts).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::sample::select(vec![1usize, 128, 129, 200, 5000])
            .prop_flat_map(|len| (0u8..3).prop_map(move |byte| vec![byte; len])),
    ]
}

fn command() -> impl Strategy<Value = Owned> {
    let by = prop::sample::select(vec![0, 1, -1, 10, i64::MAX, i64::MIN, i64::MAX - 1]);
    prop_oneof![
        3 => (key(), value()).prop_map(|(key, value)| Owned::Put(key, value)),
        1 => key().prop_map(Owned::Delete),
        3 => (key(), by).prop_map(|(key, by)| Owned::Increment(key, by)),
        2 => (key(), prop::option::of(value()), prop::option::of(value()))
            .prop_map(|(key, expected, new)| Owned::CompareAndSet(key, expected, new)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let note = || prop::option::weighted(0.3, (key(), value()));
    // Use mostly commands that are accepted; otherwise no long batch would be.
    let mild = prop_oneof![
        (key(), value()).prop_map(|(key, value)| Owned::Put(key, value)),
        key().prop_map(Owned::Delete),
    ];
    prop_oneof![
        12 => command().prop_map(Step::Single),
        4 => (prop::collection::vec(command(), 0..4), note())
            .prop_map(|(commands, note)| Step::Batch(commands, note)),
        2 => (prop::collection::vec(mild, 0..20), note())
            .prop_map(|(commands, note)| Step::Batch(commands, note)),
        1 => Just(Step::Noop),
        1 => value().prop_map(Step::Membership),
        1 => value().prop_map(Step::Opaque),
    ]
}

/// Runs the steps in frames of up to 20, and compares replies, contents and every way to read with
/// the model.
fn check<C: Cell>(mut bed: Bed<C>, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let mut index = 0;
    for frame in steps.chunks(20) {
        let batches: Vec<Vec<Command<'_>>> = frame
            .iter()
            .map(|step| match step {
                Step::Batch(commands, _) => commands.iter().map(Owned::as_command).collect(),
                _ => vec![],
            })
            .collect();
        let payloads: Vec<Payload<'_>> = frame
            .iter()
            .zip(&batches)
            .map(|(step, commands)| match step {
                Step::Single(command) => Payload::Command(command.as_command()),
                Step::Batch(_, note) => Payload::Command(Command::Batch {
                    commands,
                    note: note.as_ref().map(|(name, value)| Note { name, value }),
                }),
                Step::Noop => Payload::Noop,
                Step::Membership(bytes) => Payload::Membership(bytes),
                Step::Opaque(bytes) => Payload::Opaque(bytes),
            })
            .collect();
        for (reply, step) in bed.run(&payloads).into_iter().zip(frame) {
            prop_assert_eq!(reply, model.step(index, step), "at {}", index);
            index += 1;
        }
        let keys: Vec<_> = model.keys.clone().into_iter().collect();
        prop_assert_eq!(bed.dump(), keys);
    }
    check_reads(&bed.state, &model)?;
    prop_assert_eq!(bed.state.stats().applied_count, index);
    Ok(())
}

fn check_reads<C: Cell>(state: &KeyValue<C>, model: &Model) -> Result<(), TestCaseError> {
    let mut out = b"old".to_vec();
    for (key, value) in &model.keys {
        prop_assert!(state.get(key).unwrap().unwrap() == value[..]);
        prop_assert_eq!(state.get_with(key, |bytes| bytes == value).unwrap(), Some(true));
        prop_assert!(state.contains(key).unwrap() && state.get_into(key, &mut out).unwrap());
        prop_assert_eq!(&out, value);
    }
    let absent = b"never written";
    prop_assert_eq!(state.get(absent).unwrap(), None);
    prop_assert!(!state.contains(absent).unwrap() && !state.get_into(absent, &mut out).unwrap());
    prop_assert!(out.is_empty());
    prop_assert_eq!(state.len().unwrap(), model.keys.len());
    for (name, value) in &model.notes {
        prop_assert!(state.note(name).as_ref() == Some(value));
    }
    prop_assert_eq!(state.notes.lock().len(), model.notes.len());
    let membership = state.membership().map(|(log_id, bytes)| (log_id.index, bytes));
    prop_assert_eq!(&membership, &model.membership);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_state_of_bytes_is_what_the_model_says(
        steps in prop::collection::vec(step(), 0..80), seed: u64, partitions in 1usize..6,
    ) {
        check(Bed::heap(seed, partitions), &steps)?;
    }

    #[test]
    fn a_state_of_places_is_what_the_model_says(
        steps in prop::collection::vec(step(), 0..80), seed: u64, partitions in 1usize..6,
    ) {
        check(Bed::places(seed, partitions), &steps)?;
    }
}

fn all_first_bytes_and_the_longest_key<C: Cell>(mut bed: Bed<C>) {
    let mut keys: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    keys.push(vec![0xff; 64 << 10]);
    let puts: Vec<_> = keys
        .iter()
        .map(|key| Payload::Command(Command::Put { key, value: &key[..key.len() / 2] }))
        .collect();
    for _ in 0..2 {
        bed.run(&puts);
        let dump = bed.dump();
        let half = |key: &Vec<u8>| (key.clone(), key[..key.len() / 2].to_vec());
        assert_eq!(dump, keys.iter().map(half).collect::<Vec<_>>());
    }
    for key in &keys {
        assert_eq!(bed.command(Command::Delete { key }), Reply::Deleted { existed: true });
    }
    assert_eq!(bed.state.len().unwrap(), 0);
}

#[test]
fn every_first_byte_the_empty_value_and_a_key_of_64_kib_are_kept_and_sorted() {
    all_first_bytes_and_the_longest_key(Bed::heap(1, 4));
    all_first_bytes_and_the_longest_key(Bed::places(1, 4));
}

#[test]
fn a_batch_is_a_barrier_only_if_its_keys_or_its_note_reach_beyond_one_hash_part() {
    let bed = Bed::heap(9, 1);
    let part = |key: &[u8]| hash_part(bed.state.store.hash(key));
    let keys: Vec<[u8; 2]> = (0..2000u16).map(u16::to_le_bytes).collect();
    let near = keys[1..].iter().find(|key| part(&**key) == part(&keys[0])).unwrap();
    let far = keys.iter().find(|key| part(&**key) != part(&keys[0])).unwrap();
    let footprint = |keys: &[&[u8; 2]], note| {
        let commands: Vec<_> = keys.iter().map(|key| Command::Delete { key: &key[..] }).collect();
        let entry = Entry::command(0, 1, Command::Batch { commands: &commands, note });
        let mut bytes = vec![0; codec::encoded_len(&entry, &Limits::new()).unwrap()];
        codec::encode(&entry, &mut bytes);
        bed.state.footprint(&codec::decode(Encoded::elsewhere(&bytes)).unwrap().0)
    };
    let first = Footprint::Key(bed.state.store.hash(&keys[0]));
    assert_eq!(footprint(&[&keys[0], near], None), first);
    assert_eq!(footprint(&[&keys[0], near, far], None), Footprint::All);
    assert_eq!(footprint(&[], None), Footprint::Key(0));
    assert_eq!(footprint(&[&keys[0]], Some(Note { name: b"n", value: b"" })), Footprint::All);
}

#[test]
fn a_reader_never_sees_a_part_of_a_rejected_batch() {
    let mut bed = Bed::heap(2, 1);
    bed.command(Command::Put { key: b"a", value: b"old" });
    let commands = [
        Command::Put { key: b"a", value: b"new" },
        Command::CompareAndSet { key: b"a", expected: Some(b"old"), new: None },
    ];
    let batch = Payload::Command(Command::Batch { commands: &commands, note: None });
    let started = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    // The state is shared, and the bed is not, so swap the state out for the time of the threads.
    let state = std::mem::replace(&mut bed.state, KeyValue::new(0, 0, ()));
    let state = Arc::new(state);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                assert_eq!(state.get(b"a").unwrap().unwrap(), b"old");
                started.store(true, Ordering::Release);
            }
        });
        while !started.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        let _finish = Finish(&done);
        let frame = encode_one(&batch);
        let Ok((PayloadRef::Command(CommandRef::Batch(batch)), _)) =
            codec::decode(Encoded::elsewhere(&frame))
        else {
            panic!("not a batch")
        };
        let rejected = Rejection::InBatch { position: 1, reason: BatchRejection::Mismatch };
        for _ in 0..20_000 {
            assert_eq!(state.apply_batch(&batch, 0, None), Ok(Reply::Rejected(rejected)));
        }
    });
}

/// Ends the other thread even if this one panics.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn encode_one(payload: &Payload<'_>) -> Vec<u8> {
    let entry = Entry::new(LogId::new(0, 1), *payload);
    let mut bytes = vec![0; codec::encoded_len(&entry, &Limits::new()).unwrap()];
    codec::encode(&entry, &mut bytes);
    bytes
}

#[test]
fn a_value_handed_out_never_changes_and_user_code_may_call_back() {
    let mut bed = Bed::heap(3, 1);
    bed.command(Command::Put { key: b"k", value: &[1; 4000] });
    let held = bed.state.get(b"k").unwrap().unwrap();
    bed.command(Command::Put { key: b"k", value: &[2; 4000] });
    assert_eq!(held, [1; 4000]);
    let state = &bed.state;
    let nested = state.get_with(b"k", |outer| {
        // A write under a read guard of the same shard would never return.
        let place = codec::Place::NOWHERE;
        let put = CommandRef::Put { key: b"k", value: crate::ValueRef { bytes: b"3", place } };
        state.apply_command(state.store.hash(b"k"), &put, 0, None).unwrap();
        (outer.len(), state.get(b"k").unwrap().unwrap().to_vec())
    });
    assert_eq!(nested.unwrap(), Some((4000, b"3".to_vec())));
}

#[test]
fn values_of_places_are_pinned_up_to_the_budget_and_copied_beyond() {
    let mut bed = Bed::places(4, 1);
    bed.command(Command::Put { key: b"k", value: &[7; 300] });
    let table = bed.state.context.clone();
    let held = bed.state.get(b"k").unwrap().unwrap();
    let cell = bed.state.store.read(bed.state.store.hash(b"k"), b"k", |cell| cell.copied());
    let Some(PlaceCell::Place(place)) = cell else { panic!("not a place") };
    assert_eq!(table.get(SEGMENT).unwrap().value(place.into()), Some(&[7; 300][..]));
    assert_eq!(held.as_ptr(), table.read(place.into(), <[u8]>::as_ptr).unwrap(), "not copied");

    let none = Arc::new(SegmentTable::new(0));
    let bytes = Arc::clone(bed.image.as_ref().unwrap().image());
    none.set(SEGMENT, SegmentBytes::Image(bytes, PinCount::default()));
    let copy = cell.unwrap().value(&none).unwrap();
    assert_eq!(copy, [7; 300]);
    assert_ne!(copy.as_ptr(), held.as_ptr());
}

#[test]
fn a_retired_segment_makes_a_get_fail_and_apply_fatal() {
    let state = KeyValue::<PlaceCell>::new(0, 5, Arc::new(SegmentTable::new(1)));
    let place = codec::Place::NOWHERE;
    let nowhere = place.segment().get();
    let put = CommandRef::Put { key: b"k", value: crate::ValueRef { bytes: b"1", place } };
    state.apply_command(state.store.hash(b"k"), &put, 0, None).unwrap();
    assert!(
        matches!(state.get(b"k"), Err(ReadError::Misplaced { segment, .. }) if segment == nowhere)
    );
    assert!(state.scan_sorted().is_err());
    assert!(state.get_into(b"k", &mut vec![]).is_err());
    let hash = state.store.hash(b"k");
    assert!(
        state.apply_command(hash, &CommandRef::Increment { key: b"k", by: 1 }, 0, None).is_err()
    );
    assert!(state.contains(b"k").unwrap(), "nothing was changed");
}

#[test]
fn a_recovered_state_says_what_it_was_given() {
    let state = KeyValue::<HeapCell>::new(0, 6, ());
    state.set_note(b"n", b"1");
    state.set_membership(LogId::new(4, 2), b"m");
    state.set_applied(Some(LogId::new(5, 2)));
    assert_eq!(state.note(b"n"), Some(b"1".to_vec()));
    assert_eq!(state.membership(), Some((LogId::new(4, 2), b"m".to_vec())));
    assert_eq!(state.applied(), Some(LogId::new(5, 2)));
    assert_eq!(state.stats().last_applied, Some(5));
}
