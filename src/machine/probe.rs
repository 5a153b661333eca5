//! Access for benches of the store; not part of the public API.

use std::cell::Cell;

use super::cell::HeapCell;
use super::key_value::KeyValue;
use crate::bytes::at_most;
use crate::codec::{self, Encoded, EntryError, Limits};
use crate::entry::{Entry, LogId};
use crate::error::{Fatal, ReadError};
use crate::ranges::in_flight_ring::InFlightRing;
use crate::ranges::partition::{Footprint, Partition};
use crate::ranges::range::{EntryRange, Payloads, RangeParts, Replies};

/// A state with values on the heap, without a manager around it.
#[derive(Debug)]
pub struct Probe {
    state: KeyValue<HeapCell>,
}

/// Encoded entries without barriers, ready to be applied any number of times.
#[derive(Debug)]
pub struct Frame {
    in_flight: InFlightRing,
    bytes: Vec<u8>,
    first: LogId,
    count: u32,
}

impl Frame {
    /// The encoded entries.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Probe {
    /// Makes an empty state.
    #[must_use]
    pub fn new(expected_keys: usize) -> Self {
        Self { state: KeyValue::new(expected_keys, 7, ()) }
    }

    /// Encodes and hashes consecutive entries.
    ///
    /// # Errors
    ///
    /// Returns an error if an entry is malformed.
    pub fn frame(&self, entries: &[Entry<'_>]) -> Result<Frame, EntryError> {
        let in_flight = InFlightRing::new(entries.len());
        let mut frame = Frame { in_flight, bytes: Vec::new(), first: LogId::default(), count: 0 };
        self.refill(&mut frame, entries)?;
        Ok(frame)
    }

    /// Encodes as [`Probe::frame`] does, into a frame with as many entries or more, without
    /// allocating.
    ///
    /// # Errors
    ///
    /// Returns an error if an entry is malformed.
    pub fn refill(&self, frame: &mut Frame, entries: &[Entry<'_>]) -> Result<(), EntryError> {
        let Frame { in_flight, bytes, first, count } = frame;
        let mut start = 0;
        for entry in entries {
            let end = start + codec::encoded_len(entry, &Limits::new())?;
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            let out = &mut bytes[start..end];
            codec::encode(entry, out);
            let decoded = codec::decode(Encoded::elsewhere(out));
            let footprint = decoded.map(|(payload, _)| self.state.footprint(&payload));
            let offset = at_most(start as u64, u32::MAX);
            in_flight.classify(entry.log_id.index, footprint.unwrap_or(Footprint::All), offset);
            start = end;
        }
        bytes.truncate(start);
        *first = entries.first().map_or(LogId::default(), |entry| entry.log_id);
        *count = at_most(entries.len() as u64, u32::MAX);
        Ok(())
    }

    /// Applies a frame as one partition.
    ///
    /// # Errors
    ///
    /// Returns an error if the frame does not decode.
    pub fn apply(&self, frame: &Frame) -> Result<(), Fatal> {
        let progress = Cell::new(0);
        let Frame { in_flight, bytes, first, count } = frame;
        let encoded = Encoded::elsewhere(bytes);
        let parts = RangeParts {
            in_flight,
            first: *first,
            count: *count,
            barrier: false,
            payloads: Payloads::Encoded(encoded),
        };
        let range = EntryRange::new(parts, &progress);
        self.state.apply(&range, Partition::WHOLE, &mut Replies::new(in_flight))
    }

    /// Runs `read` over a value.
    ///
    /// # Errors
    ///
    /// Returns no error that a bench can meet.
    #[inline]
    pub fn get_with<R>(
        &self,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, ReadError> {
        self.state.get_with(key, read)
    }

    /// Replaces the content of `out` by a value.
    ///
    /// # Errors
    ///
    /// Returns no error that a bench can meet.
    #[inline]
    pub fn get_into(&self, key: &[u8], out: &mut Vec<u8>) -> Result<bool, ReadError> {
        self.state.get_into(key, out)
    }
}
