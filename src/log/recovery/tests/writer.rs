//! Logs for tests, written as a log writer would.

use crc32c::crc32c;

use super::{ID, segment, segment_name};
use crate::bytes::put;
use crate::codec::{self, Limits};
use crate::entry::{Entry, LeaderTag};
use crate::log::format::{FrameHeader, FrameKind, OpeningHalf};
use crate::log::test_disk::MemoryDisk;
use crate::numbers::FrameSequence;

/// A log being written.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) segments: Vec<Vec<u8>>,
    /// Segment, start and end of each frame.
    pub(super) frames: Vec<(usize, usize, usize)>,
    pub(super) sequence: u64,
    pub(super) chain: u64,
    pub(super) incarnation: u64,
    pub(super) term: u64,
    pub(super) next_index: u64,
    pub(super) durable_sequence: u64,
    pub(super) committed: Option<u64>,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            segments: vec![Vec::new()],
            frames: Vec::new(),
            sequence: 0,
            chain: 0,
            incarnation: 1,
            term: 1,
            next_index: 0,
            durable_sequence: 0,
            committed: None,
        }
    }

    pub(super) fn bodies(&self, keys: &[&str]) -> Vec<u8> {
        let mut body = Vec::new();
        for key in keys {
            let entry = Entry::put(0, 0, key.as_bytes(), b"a value");
            let start = body.len();
            body.resize(start + codec::encoded_len(&entry, &Limits::new()).unwrap(), 0);
            codec::encode(&entry, &mut body[start..]);
        }
        body
    }

    pub(super) fn header(
        &self,
        kind: FrameKind,
        first_index: u64,
        count: u32,
        body: &[u8],
    ) -> FrameHeader {
        FrameHeader {
            opening: OpeningHalf {
                kind,
                first_index,
                term: self.term,
                leader: LeaderTag::EMPTY,
                sequence: FrameSequence::new(self.sequence + 1),
                incarnation: self.incarnation,
            },
            body_bytes: u32::try_from(body.len()).unwrap(),
            count,
            previous: self.chain,
            durable_sequence: FrameSequence::new(self.durable_sequence),
            committed: self.committed,
            segment: segment(self.segments.len() - 1),
            offset: self.segments.last().unwrap().len().next_multiple_of(64) as u64,
            body_crc: crc32c(body),
        }
    }

    pub(super) fn write(&mut self, header: &FrameHeader, body: &[u8]) -> &mut Self {
        let number = self.segments.len() - 1;
        let segment = &mut self.segments[number];
        let start = segment.len().next_multiple_of(64);
        segment.resize(start, 0);
        segment.extend_from_slice(&header.to_bytes(&ID));
        segment.extend_from_slice(body);
        self.frames.push((number, start, segment.len()));
        self.sequence = header.opening.sequence.get();
        self.chain = header.checksum(&ID);
        self
    }

    pub(super) fn entries(&mut self, keys: &[&str]) -> &mut Self {
        let body = self.bodies(keys);
        let count = u32::try_from(keys.len()).unwrap();
        let header = self.header(FrameKind::Entries, self.next_index, count, &body);
        self.next_index += keys.len() as u64;
        self.write(&header, &body)
    }

    pub(super) fn truncation(&mut self, first_removed: u64) -> &mut Self {
        let header = self.header(FrameKind::Truncation, first_removed, 0, b"");
        self.next_index = first_removed;
        self.write(&header, b"")
    }

    pub(super) fn segment(&mut self) -> &mut Self {
        self.segments.push(Vec::new());
        self
    }

    /// The log on a disk, with `zeros` preallocated bytes behind each segment.
    pub(super) fn disk(&self, zeros: usize) -> MemoryDisk {
        let disk = MemoryDisk::default();
        for (number, bytes) in self.segments.iter().enumerate() {
            let bytes = [&bytes[..], &vec![0; zeros][..]].concat();
            disk.set(&segment_name(number), bytes);
        }
        disk
    }
}

/// Recomputes the checksum of a header.
pub(super) fn reseal(header: &mut [u8]) {
    let crc = crc32c::crc32c_append(crc32c(&ID), &header[..124]);
    put(header, 124, &crc.to_le_bytes());
}
