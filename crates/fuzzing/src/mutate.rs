//! Damage of a log, read from the fuzzer's bytes, and the repair of its checksums, so that later
//! checks meet the damage.

use crc32c::crc32c;

use super::bases::{Base, SEGMENT_BYTES};
use super::files::Files;
use super::frame::{ID, seal};
use super::input::Input;
use sprag::entry::{LeaderTag, LogId};
use sprag::testing::internals::bytes::{put, u32_at, u64_at};
use sprag::testing::internals::format::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameKind, OpeningHalf, chain_of,
};
use sprag::testing::internals::meta::Meta;
use sprag::testing::internals::names::{parse_segment_name, segment_name};
use sprag::testing::internals::numbers::{FrameSequence, SegmentNumber};

const MUTATIONS_MAX: usize = 24;
/// Limit of a file's length.
const FILE_BYTES_MAX: usize = 3 * SEGMENT_BYTES;

/// Offset and length of fields in a header, without the magic and the header checksum.
const FIELDS: &[(usize, usize)] = &[
    (4, 2),
    (6, 1),
    (7, 1),
    (8, 8),
    (16, 8),
    (24, 8),
    (40, 8),
    (48, 8),
    (56, 8),
    (64, 4),
    (68, 4),
    (72, 8),
    (80, 8),
    (88, 8),
    (96, 8),
    (104, 8),
    (112, 4),
    (116, 8),
];

#[derive(Debug)]
pub(super) struct Damaged {
    pub(super) meta: Meta,
    pub(super) segments: Files,
}

/// Damages a log. In the first byte, bit 0 repairs checksums, bit 1 relinks the chain, and bit 2
/// keeps META unchanged. The damage follows.
pub(super) fn damage(base: &Base, input: &mut Input<'_>) -> Damaged {
    let flags = input.u8();
    let mut damaged = Damaged { meta: base.meta, segments: base.segments.clone() };
    for _ in 0..MUTATIONS_MAX {
        if input.is_empty() {
            break;
        }
        damaged.mutate(input, flags & 4 == 0);
    }
    if flags & 1 != 0 {
        damaged.segments.values_mut().for_each(|bytes| repair(bytes));
    }
    if flags & 2 != 0 {
        damaged.relink();
    }
    damaged
}

impl Damaged {
    fn mutate(&mut self, input: &mut Input<'_>, may_change_meta: bool) {
        match input.u8() % 12 {
            0 => {
                let Some((bytes, at)) = self.place(input) else { return };
                let len = input.below(64).min(bytes.len() - at);
                let new = input.bytes(len);
                put(bytes, at, new);
            }
            1 => self.copy_frame(input),
            2 | 3 => self.set_field(input),
            4 => {
                let Some((bytes, at)) = self.place(input) else { return };
                bytes.truncate(at);
            }
            5 => {
                let more = input.below(4096);
                let Some((bytes, _)) = self.place(input) else { return };
                bytes.resize((bytes.len() + more).min(FILE_BYTES_MAX), 0);
            }
            6 => {
                let Some((bytes, at)) = self.place(input) else { return };
                let end = (at + input.below(4096)).min(bytes.len());
                bytes[at..end].fill(0);
            }
            7 => {
                let numbers: Vec<_> = self.segments.keys().cloned().collect();
                let (one, other) = (input.below(numbers.len()), input.below(numbers.len()));
                let (Some(one), Some(other)) = (numbers.get(one), numbers.get(other)) else {
                    return;
                };
                let moved = self.segments.insert(one.clone(), self.segments[other].clone());
                self.segments.insert(other.clone(), moved.unwrap());
            }
            8 => {
                let at = input.below(self.segments.len());
                if let Some(name) = self.segments.keys().nth(at).cloned() {
                    self.segments.remove(&name);
                }
            }
            9 | 10 => self.append_frame(input),
            _ if may_change_meta => self.change_meta(input),
            _ => {}
        }
    }

    /// A file, and an offset in it.
    fn place(&mut self, input: &mut Input<'_>) -> Option<(&mut Vec<u8>, usize)> {
        let file = input.below(self.segments.len());
        let bytes = self.segments.values_mut().nth(file)?;
        let at = input.below(bytes.len());
        Some((bytes, at))
    }

    /// Places of all frame starts, in order.
    fn frames(&self) -> Vec<(String, usize)> {
        let starts = |(name, bytes): (&String, &Vec<u8>)| {
            let number = parse_segment_name(name).unwrap();
            let starts = frame_starts(bytes, number).into_iter();
            starts.map(|at| (name.clone(), at)).collect::<Vec<_>>()
        };
        self.segments.iter().flat_map(starts).collect()
    }

    fn one_frame(&self, input: &mut Input<'_>) -> Option<(String, usize)> {
        let frames = self.frames();
        frames.get(input.below(frames.len())).cloned()
    }

    fn copy_frame(&mut self, input: &mut Input<'_>) {
        let (Some((from, from_at)), Some((to, to_at))) =
            (self.one_frame(input), self.one_frame(input))
        else {
            return;
        };
        let source = &self.segments[&from][from_at..];
        let len = FRAME_HEADER_BYTES.saturating_add(u32_at(source, 64) as usize);
        let frame = source[..len.min(source.len())].to_vec();
        let target = self.segments.get_mut(&to).unwrap();
        let len = frame.len().min(target.len() - to_at);
        put(target, to_at, &frame[..len]);
    }

    fn set_field(&mut self, input: &mut Input<'_>) {
        let Some((name, start)) = self.one_frame(input) else { return };
        let (at, len) = FIELDS[input.below(FIELDS.len())];
        let header = &mut self.segments.get_mut(&name).unwrap()[start..];
        let mut now = [0; 8];
        now[..len].copy_from_slice(&header[at..at + len]);
        let value = input.number(u64::from_le_bytes(now)).to_le_bytes();
        put(header, at, &value[..len]);
    }

    /// Appends a frame after the last one: a truncation, or any bytes as its entries.
    fn append_frame(&mut self, input: &mut Input<'_>) {
        let Some((name, start)) = self.frames().pop() else { return };
        let number = parse_segment_name(&name).unwrap();
        let bytes = self.segments.get_mut(&name).unwrap();
        let old: [u8; FRAME_HEADER_BYTES] = *bytes[start..].first_chunk().unwrap();
        let old_end = start + FRAME_HEADER_BYTES + u32_at(&old, 64) as usize;
        let at = old_end.next_multiple_of(64);
        if at + 512 > FILE_BYTES_MAX {
            return;
        }
        let is_truncation = input.u8().is_multiple_of(4);
        let next = u64_at(&old, 8).wrapping_add(u64::from(u32_at(&old, 68)));
        let count = if is_truncation { 0 } else { u32::from(input.u8() % 4) + 1 };
        let first_index = if is_truncation { input.number(next) } else { next };
        let len = if is_truncation { 0 } else { input.below(256) };
        let body = input.bytes(len);
        let header = FrameHeader {
            opening: OpeningHalf {
                kind: if is_truncation { FrameKind::Truncation } else { FrameKind::Entries },
                first_index,
                term: u64_at(&old, 16),
                leader: LeaderTag::EMPTY,
                sequence: FrameSequence::new(u64_at(&old, 40).wrapping_add(1)),
                incarnation: u64_at(&old, 48),
            },
            body_bytes: body.len() as u32,
            count,
            previous: chain_of(old.last_chunk().unwrap()),
            durable_sequence: FrameSequence::new(u64_at(&old, 80)),
            committed: u64_at(&old, 88).checked_sub(1),
            segment: number,
            offset: at as u64,
            body_crc: crc32c(body),
        };
        let end = at + FRAME_HEADER_BYTES + body.len();
        bytes.resize(bytes.len().max(end), 0);
        put(bytes, at, &header.to_bytes(&ID));
        put(bytes, at + FRAME_HEADER_BYTES, body);
    }

    fn change_meta(&mut self, input: &mut Input<'_>) {
        let meta = &mut self.meta;
        match input.u8() % 6 {
            0 => {
                meta.durable_sequence =
                    FrameSequence::new(input.number(meta.durable_sequence.get()));
            }
            1 => {
                let now = meta.committed.unwrap_or(0);
                meta.committed = Some(input.number(now)).filter(|index| *index < u64::MAX);
            }
            2 => meta.clean_close = !meta.clean_close,
            3 => meta.incarnation = input.number(meta.incarnation),
            // Use fewer frames than the whole range: see `docs/testing.md`.
            4 => {
                let sequence = input.number(meta.base.sequence.get()) >> 2;
                meta.base.sequence = FrameSequence::new(sequence);
            }
            _ => {
                let last = LogId::new(input.number(1).min(u64::MAX - 1), input.number(1));
                meta.base.last = Some(last);
            }
        }
    }

    /// Makes every frame continue the one before it.
    fn relink(&mut self) {
        let mut before: Option<[u8; FRAME_HEADER_BYTES]> = None;
        for number in (1..16).map(SegmentNumber::of_stored) {
            let Some(bytes) = self.segments.get_mut(&segment_name(number)) else { continue };
            for at in frame_starts(bytes, number) {
                let mut header: [u8; FRAME_HEADER_BYTES] = *bytes[at..].first_chunk().unwrap();
                let (sequence, chain) = match &before {
                    Some(before) => (u64_at(before, 40), chain_of(before.last_chunk().unwrap())),
                    None => (self.meta.base.sequence.get(), self.meta.base.chain),
                };
                put(&mut header, 40, &sequence.wrapping_add(1).to_le_bytes());
                put(&mut header, 72, &chain.to_le_bytes());
                put(&mut header, 96, &number.stored().to_le_bytes());
                put(&mut header, 104, &(at as u64).to_le_bytes());
                let end = at + FRAME_HEADER_BYTES + u32_at(&header, 64) as usize;
                if let Some(body) = bytes.get(at + FRAME_HEADER_BYTES..end) {
                    put(&mut header, 112, &crc32c(body).to_le_bytes());
                }
                seal(&mut header, &ID);
                put(bytes, at, &header);
                before = Some(header);
            }
        }
    }
}

fn is_frame(bytes: &[u8], at: usize) -> bool {
    bytes.len() >= at + FRAME_HEADER_BYTES && u32_at(bytes, at) == FRAME_MAGIC
}

/// The starts of consecutive frames. Frames inside a body do not count, nor frames of an earlier
/// segment, which the file had before.
fn frame_starts(bytes: &[u8], number: SegmentNumber) -> Vec<usize> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at + FRAME_HEADER_BYTES <= bytes.len() {
        if is_frame(bytes, at) && u64_at(bytes, at + 96) >= number.stored() {
            found.push(at);
            let body = u32_at(bytes, at + 64) as usize;
            if at + FRAME_HEADER_BYTES + body <= bytes.len() {
                at = (at + FRAME_HEADER_BYTES + body).next_multiple_of(64);
                continue;
            }
        }
        at += 64;
    }
    found
}

/// Recomputes the checksums of everything that starts as a frame, from the end to the start. A
/// frame in another frame's body is under that one's checksum.
fn repair(bytes: &mut [u8]) {
    for at in (0..bytes.len()).step_by(64).rev().collect::<Vec<_>>() {
        if !is_frame(bytes, at) {
            continue;
        }
        let mut header: [u8; FRAME_HEADER_BYTES] = *bytes[at..].first_chunk().unwrap();
        let end = (at + FRAME_HEADER_BYTES).saturating_add(u32_at(&header, 64) as usize);
        if let Some(body) = bytes.get(at + FRAME_HEADER_BYTES..end) {
            let crc = if body.is_empty() { 0 } else { crc32c(body) };
            put(&mut header, 112, &crc.to_le_bytes());
        }
        seal(&mut header, &ID);
        put(bytes, at, &header);
    }
}
