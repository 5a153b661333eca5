//! Frame decoding: a header, and the entries of its body.

use crc32c::{crc32c, crc32c_append};

use super::input::Input;
use super::model::Op;
use sprag::entry::{Entry, LogId};
use sprag::testing::internals::bytes::put;
use sprag::testing::internals::codec::{
    self, CommandRef, DecodeError, Encoded, FRAME_BYTES_MAX, HEADER_BYTES, Limits, PayloadRef,
    ValueRef,
};
use sprag::testing::internals::format::{
    DatabaseId, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, HeaderError,
};
use sprag::testing::internals::numbers::SegmentNumber;

pub(super) const ID: DatabaseId = *b"0123456789abcdef";

/// Offset of the segment's number in a header.
const SEGMENT_AT: usize = 96;
/// The number that stands for no segment.
const NOWHERE: SegmentNumber = SegmentNumber::of_stored(u64::MAX);

/// Runs the input. In the first byte, bit 0 repairs magic and header checksum, bit 1 the body's
/// length, and bit 2 its checksum. The next 128 bytes are the header, and the rest the body.
pub fn frame(data: &[u8]) {
    let mut input = Input::new(data);
    let repairs = input.u8();
    let mut header = [0; FRAME_HEADER_BYTES];
    let given = input.bytes(FRAME_HEADER_BYTES);
    header[..given.len()].copy_from_slice(given);
    let body = input.rest();
    if repairs & 2 != 0 {
        put(&mut header, 64, &(body.len() as u32).to_le_bytes());
    }
    if repairs & 4 != 0 {
        put(&mut header, 112, &crc32c(body).to_le_bytes());
    }
    if repairs & 1 != 0 {
        put(&mut header, 0, &FRAME_MAGIC.to_le_bytes());
        seal(&mut header, &ID);
    }
    check_header(&header, repairs & 1 != 0);
    check_body(body);
}

/// Recomputes the checksum of a header.
pub(super) fn seal(header: &mut [u8; FRAME_HEADER_BYTES], database_id: &DatabaseId) {
    let crc = crc32c_append(crc32c(database_id), &header[..124]);
    put(header, 124, &crc.to_le_bytes());
}

fn check_header(bytes: &[u8; FRAME_HEADER_BYTES], is_sealed: bool) {
    let header = match FrameHeader::parse(bytes, &ID) {
        Ok(header) => header,
        Err(error) => {
            let unread = matches!(error, HeaderError::NotAFrame | HeaderError::Checksum);
            assert!(!is_sealed || !unread, "{error}");
            return;
        }
    };
    let mut expected = *bytes;
    if header.segment == NOWHERE {
        // All numbers that no segment has are read as one.
        put(&mut expected, SEGMENT_AT, &NOWHERE.stored().to_le_bytes());
        seal(&mut expected, &ID);
    }
    assert_eq!(header.to_bytes(&ID), expected, "what is read is what would be written");
    let mut other = ID;
    other[0] ^= 1;
    assert_eq!(FrameHeader::parse(bytes, &other), Err(HeaderError::Checksum));
    assert!(header.frame_bytes() <= (FRAME_HEADER_BYTES + FRAME_BYTES_MAX) as u64);
    assert!(header.count as usize * HEADER_BYTES <= header.body_bytes as usize);
    if let Some(last) = header.last() {
        let first = header.first();
        assert!(first.index <= last.index && last.index < u64::MAX);
        assert_eq!(last.at(first.index), first);
    }
}

/// Goes from entry to entry until one does not decode.
fn check_body(body: &[u8]) {
    let mut next = Some(Encoded::elsewhere(body));
    while let Some(rest) = next.filter(|rest| !rest.is_empty()) {
        let deep = codec::decode_deep(rest);
        check_shallow(rest, &deep);
        let Ok((payload, len)) = deep else { break };
        assert!((HEADER_BYTES..=rest.len()).contains(&len), "an entry is inside of the input");
        check_places(body, &payload);
        check_again(&payload, len);
        let cut = rest.first(len - 1).unwrap();
        assert!(codec::decode_deep(cut).is_err(), "cut short, and taken");
        next = rest.skip(len);
    }
}

/// Checks that a worker's decoder agrees with recovery's.
fn check_shallow(rest: Encoded<'_>, deep: &Result<(PayloadRef<'_>, usize), DecodeError>) {
    match (codec::decode(rest), deep) {
        (Ok((one, one_len)), Ok((other, other_len))) => {
            assert_eq!(one_len, *other_len);
            assert_eq!(Op::decoded(&one), Op::decoded(other));
        }
        // The worker's decoder does not look inside of a batch.
        (Ok((payload, _)), Err(_)) => {
            assert!(matches!(payload, PayloadRef::Command(CommandRef::Batch(_))));
        }
        (Err(_), Err(_)) => {}
        (Err(error), Ok(_)) => panic!("deeply decoded, and yet: {error}"),
    }
}

fn check_places(body: &[u8], payload: &PayloadRef<'_>) {
    let PayloadRef::Command(command) = payload else { return };
    check_command_places(body, command);
}

fn check_command_places(body: &[u8], command: &CommandRef<'_>) {
    let check = |value: &ValueRef<'_>| {
        let (segment, offset, len) = codec::location_of(value);
        assert_eq!(segment, codec::NO_SEGMENT, "the input is in no segment");
        assert_eq!(len, value.bytes.len());
        let start = offset as usize;
        let there = body.get(start..start + value.bytes.len()).expect("inside of the input");
        assert_eq!(there.as_ptr(), value.bytes.as_ptr(), "a place is where the value lies");
    };
    match command {
        CommandRef::Put { value, .. } | CommandRef::CompareAndSet { new: Some(value), .. } => {
            check(value);
        }
        CommandRef::Batch(batch) => {
            for command in batch.commands() {
                check_command_places(body, &command);
            }
        }
        _ => {}
    }
}

/// Submits the payload again, and checks that it takes as many bytes, which decode to the same.
fn check_again(payload: &PayloadRef<'_>, len: usize) {
    let op = Op::decoded(payload);
    op.with_payload(|payload| {
        let entry = Entry::new(LogId::new(1, 1), payload);
        let mut again = vec![0; codec::encoded_len(&entry, &Limits::new()).unwrap()];
        assert_eq!(again.len(), len, "the encoding has one length");
        codec::encode(&entry, &mut again);
        let (payload, _) = codec::decode_deep(Encoded::elsewhere(&again)).unwrap();
        assert_eq!(Op::decoded(&payload), op);
    });
}
