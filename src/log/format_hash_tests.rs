//! The bytes of each format on disk, against hashes that are committed here.
//!
//! Each corpus is drawn from a seed, so it is the same in every run. Other tests check that what is
//! written reads back; they would pass if both sides changed together. These tests fail then.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::BTreeMap;

use crc32c::crc32c;

use crate::codec::{self, Limits};
use crate::config::{CommitMode, Contiguity};
use crate::disk::names::{HARD_FILE, META_FILE, segment_name, snapshot_name};
use crate::entry::{Command, Entry, LeaderTag, LogId, Note, Payload};
use crate::log::format::{FrameHeader, FrameKind, OpeningHalf};
use crate::log::hard::{HARD_BYTES_MAX, HardFile};
use crate::log::meta::{self, HardRecord, LogBase, Meta, MetaFile};
use crate::log::test_disk::MemoryDisk;
use crate::numbers::{FrameSequence, SegmentNumber};
use crate::snapshot::SnapshotKind;
use crate::snapshot::writer::{SnapshotMeta, SnapshotWriter};
use crate::testing::Random;

// The committed hashes.
const FRAME: u64 = 0xb986_198c_7f96_f095;
const META: u64 = 0xe534_46bf_21c2_c645;
const HARD: u64 = 0xd207_3741_6000_5282;
const SNAPSHOT: u64 = 0x2ed2_c13e_71a8_2416;

/// A hash of pieces of bytes: FNV-1a of 64 bits, over the length and the bytes of each. A CRC would
/// not do: the formats contain CRCs, and bytes that end with their CRC all have one CRC.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, piece: &[u8]) {
        for byte in (piece.len() as u64).to_le_bytes().iter().chain(piece) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Fails unless the hash is the committed one.
    #[track_caller]
    fn must_be(&self, committed: u64, format: &str, version: &str) {
        assert_eq!(
            self.0, committed,
            "The bytes of {format} changed: their hash is {:#018x}, and {committed:#018x} is committed. If that was not \
             meant, releases before this one cannot read what it writes: take the change back. If it was meant, raise \
             {version}, keep reading the version before, write the change into docs/format.md and under \"On-disk \
             format\" of CHANGELOG.md, and commit the new hash.",
            self.0,
        );
    }
}

const DATABASE_ID: [u8; 16] = *b"0123456789abcdef";

/// Segments have numbers of fewer than 32 bits.
const SEGMENT_MASK: u64 = 0x7fff_ffff;

/// A number of any length in bits.
fn number(random: &mut Random) -> u64 {
    random.next_u64() >> random.below(64)
}

fn log_id(random: &mut Random) -> LogId {
    let tag_bytes = random.below(17);
    let leader = LeaderTag::new(&random.bytes(tag_bytes)).unwrap();
    LogId { index: number(random) >> 1, term: number(random), leader }
}

fn bytes(random: &mut Random, below: usize) -> Vec<u8> {
    let len = random.below(below);
    random.bytes(len)
}

/// The bytes of one entry, of each kind in turn.
fn entry_bytes(random: &mut Random, kind: usize) -> Vec<u8> {
    let (key, value, other) = (bytes(random, 40), bytes(random, 200), bytes(random, 60));
    let key = [&[7], &key[..]].concat();
    let put = Command::Put { key: &key, value: &value };
    let by = random.next_u64().cast_signed();
    let (expected, new) = (random.coin(), random.coin());
    let swap = Command::CompareAndSet {
        key: &key,
        expected: Some(&other[..]).filter(|_| expected),
        new: Some(&value[..]).filter(|_| new),
    };
    let increment = Command::Increment { key: &key, by };
    let commands = [put, swap, increment, Command::Delete { key: &key }];
    let commands = &commands[..random.below(5)];
    let note = Some(Note { name: &other, value: &value }).filter(|_| random.coin());
    let payload = match kind % 8 {
        0 => Payload::Noop,
        1 => Payload::Membership(&value),
        2 => Payload::Opaque(&value),
        3 => Payload::Command(put),
        4 => Payload::Command(Command::Delete { key: &key }),
        5 => Payload::Command(increment),
        6 => Payload::Command(swap),
        _ => Payload::Command(Command::Batch { commands, note }),
    };
    let entry = Entry::new(LogId::new(1, 1), payload);
    let mut encoded = vec![0; codec::encoded_len(&entry, &Limits::new()).unwrap()];
    codec::encode(&entry, &mut encoded);
    encoded
}

#[test]
fn no_byte_of_a_frame_changes_unseen() {
    let mut random = Random::new(1);
    let mut hash = Hash::new();
    for number_of_it in 0..512 {
        let kind = [FrameKind::Entries, FrameKind::ApplyOnly, FrameKind::Truncation];
        let kind = kind[number_of_it % 3];
        let count = if kind == FrameKind::Truncation { 0 } else { 1 + random.below(4) };
        let body: Vec<u8> =
            (0..count).flat_map(|at| entry_bytes(&mut random, number_of_it / 3 + at)).collect();
        let LogId { index: first_index, term, leader } = log_id(&mut random);
        let sequence = 2 + (number(&mut random) >> 1);
        let header = FrameHeader {
            opening: OpeningHalf {
                kind,
                first_index,
                term,
                leader,
                sequence: FrameSequence::new(sequence),
                incarnation: number(&mut random),
            },
            body_bytes: body.len() as u32,
            count: count as u32,
            previous: random.next_u64(),
            durable_sequence: FrameSequence::new(number(&mut random) % sequence),
            committed: Some(number(&mut random) >> 1).filter(|_| random.coin()),
            segment: SegmentNumber::of_stored(number(&mut random) & SEGMENT_MASK),
            offset: u64::from(random.next_u64() as u32 >> 1) / 64 * 64,
            body_crc: if body.is_empty() { 0 } else { crc32c(&body) },
        };
        let header_bytes = header.to_bytes(&DATABASE_ID);
        assert_eq!(FrameHeader::parse(&header_bytes, &DATABASE_ID), Ok(header));
        hash.add(&header_bytes);
        hash.add(&body);
        hash.add(segment_name(header.segment).as_bytes());
    }
    hash.must_be(FRAME, "a frame or of an entry", "FRAME_VERSION in src/log/format.rs");
}

#[test]
fn no_byte_of_meta_changes_unseen() {
    let mut random = Random::new(2);
    let mut hash = Hash::new();
    for _ in 0..256 {
        let meta = Meta {
            database_id: random.bytes(16).try_into().unwrap(),
            hash_seed: random.next_u64(),
            commit_mode: [CommitMode::OnAppend, CommitMode::ByCommit][random.below(2)],
            contiguity: Contiguity::of_stored(u8::from(random.coin())),
            state: [None, Some(SnapshotKind::KeyValue), Some(SnapshotKind::Blob)][random.below(3)],
            is_kept: random.coin(),
            clean_close: random.coin(),
            base: LogBase {
                segment: SegmentNumber::of_stored(number(&mut random) & SEGMENT_MASK),
                sequence: FrameSequence::new(number(&mut random)),
                chain: random.next_u64(),
                last: Some(log_id(&mut random)).filter(|_| random.coin()),
            },
            incarnation: number(&mut random),
            durable_sequence: FrameSequence::new(number(&mut random)),
            committed: Some(number(&mut random) >> 1).filter(|_| random.coin()),
            hard: [HardRecord::Stored, HardRecord::Upgrading][random.below(2)](number(&mut random)),
        };
        let disk = MemoryDisk::default();
        let mut file = MetaFile::create(&disk, &meta).unwrap();
        file.store(&Meta { clean_close: !meta.clean_close, ..meta }).unwrap();
        hash.add(&disk.bytes(META_FILE));
    }
    hash.must_be(META, "META", "the version in src/log/two_slot.rs");
}

#[test]
fn no_byte_of_hard_changes_unseen() {
    let mut random = Random::new(3);
    let mut hash = Hash::new();
    let disk = MemoryDisk::default();
    let meta = meta::tests::meta();
    let mut hard = HardFile::open(&disk, &meta, true).unwrap();
    for _ in 0..64 {
        let below = [2, 500, HARD_BYTES_MAX + 1][random.below(3)];
        hard.store(&disk, &bytes(&mut random, below)).unwrap();
        hash.add(&disk.bytes(HARD_FILE));
    }
    hash.must_be(HARD, "HARD", "the version in src/log/two_slot.rs");
}

#[test]
fn no_byte_of_a_snapshot_changes_unseen() {
    let mut random = Random::new(4);
    let mut hash = Hash::new();
    for number_of_it in 0..96 {
        let notes = (0..random.below(4)).map(|_| {
            (bytes(&mut random, 20).into_boxed_slice(), bytes(&mut random, 90).into_boxed_slice())
        });
        let notes: BTreeMap<_, _> = notes.collect();
        let membership = (log_id(&mut random), bytes(&mut random, 60).into_boxed_slice());
        let meta = SnapshotMeta {
            log_id: Some(log_id(&mut random)).filter(|_| random.coin()),
            membership: Some(membership).filter(|_| random.coin()),
            notes,
        };
        let mut file = Vec::new();
        let chunk_bytes = 64 + random.below(4000);
        let writer = SnapshotWriter::new(&mut file).with_chunk_bytes(chunk_bytes);
        if number_of_it % 4 == 0 {
            let mut writer = writer.blob();
            for _ in 0..random.below(5) {
                writer.push_bytes(&bytes(&mut random, 3000)).unwrap();
            }
            writer.finish(&meta).unwrap();
        } else {
            let mut writer = writer;
            let entries = (0..random.below(40))
                .map(|_| ([&[1], &bytes(&mut random, 50)[..]].concat(), bytes(&mut random, 300)));
            for (key, value) in entries.collect::<BTreeMap<_, _>>() {
                writer.push(&key, &value).unwrap();
            }
            writer.finish(&meta).unwrap();
        }
        hash.add(&file);
        hash.add(snapshot_name(number(&mut random)).as_bytes());
    }
    hash.must_be(SNAPSHOT, "a snapshot", "the version in src/snapshot/format.rs");
}

/// The canary: a corpus of which one bit of one piece is another one has another hash.
#[test]
fn a_flipped_bit_anywhere_is_another_hash() {
    let mut piece = Random::new(5).bytes(64);
    let hash_of = |piece: &[u8]| {
        let mut hash = Hash::new();
        hash.add(piece);
        hash.add(&crc32c(piece).to_le_bytes());
        hash.0
    };
    let before = hash_of(&piece);
    for bit in 0..piece.len() * 8 {
        piece[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(hash_of(&piece), before, "bit {bit}");
        piece[bit / 8] ^= 1 << (bit % 8);
    }
}
