//! The records of [`Table::Meta`]: the current generation, the applied position of the log, and the
//! membership.
//!
//! ```text
//! state:       magic (8) | version (2) | kind (1) | log id present (1) | zero (4) | generation (8) | keys (8)
//!              | log id (33) | zero (3) | CRC-32C of all before (4)
//! membership:  log id (33) | membership | CRC-32C of all before (4)
//! log id:      index (8) | term (8) | leader tag (16) | bytes of the tag (1)
//! ```
//!
//! Numbers are little-endian. Magic, version and the checksum at the end stay in place in every
//! version.

use crc32c::crc32c;

use super::{StorageBatch, StorageSnapshot, Table};
use crate::entry::{LeaderTag, LogId};
use crate::error::{Corrupt, OpenError, StorageError};
use crate::snapshot::SnapshotKind;

/// The key of the record of the state.
pub(super) const STATE_KEY: &[u8] = b"state";
/// The key of the record of the membership; missing before the first.
pub(super) const MEMBERSHIP_KEY: &[u8] = b"membership";

const MAGIC: &[u8; 8] = b"SPRGSTOR";
/// The version that this release writes, and the only one that it reads.
const VERSION: u16 = 1;
const CRC_BYTES: usize = 4;
const LOG_ID_BYTES: usize = 33;
const LOG_ID_AT: usize = 32;
const STATE_BYTES: usize = 72;

const _: () = assert!(LOG_ID_AT + LOG_ID_BYTES + 3 + CRC_BYTES == STATE_BYTES);

/// The content of the record of the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StateRecord {
    /// Generation of the current tables.
    pub(crate) generation: u64,
    /// The last entry in the state.
    pub(crate) applied: Option<LogId>,
    /// Number of keys in the state.
    pub(crate) keys: u64,
}

/// A membership, and the log id of its entry.
pub(crate) type Membership = (LogId, Box<[u8]>);

/// Reason why a record is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    Damaged(&'static str),
    Version(u16),
    OtherKind(SnapshotKind),
}

impl Refused {
    /// The error of opening for the record `key` of the storage called `storage`.
    pub(super) fn into_open_error(self, storage: &str, key: &[u8]) -> OpenError {
        let file = place(storage, key);
        match self {
            Self::Damaged(what) => Corrupt { file, offset: 0, index: None, what }.into(),
            Self::Version(found) => OpenError::UnknownVersion { file, found, supported: VERSION },
            Self::OtherKind(found) => OpenError::OtherState {
                found: found.holds(),
                asked: SnapshotKind::KeyValue.holds(),
            },
        }
    }

    /// The error of a read.
    pub(super) fn into_storage_error(self) -> StorageError {
        let what = match self {
            Self::Damaged(what) => what,
            Self::Version(_) => "a record has another format version",
            Self::OtherKind(_) => "a record is of another kind of state",
        };
        StorageError::Corrupt { message: what.to_owned() }
    }
}

/// Name of a record in errors.
fn place(storage: &str, key: &[u8]) -> String {
    format!("{storage}: record {:?} of table {}", String::from_utf8_lossy(key), Table::Meta)
}

impl StateRecord {
    /// Adds the record to a batch.
    pub(super) fn put(&self, batch: &mut StorageBatch) {
        batch.put(Table::Meta, STATE_KEY, &self.encode());
    }

    fn encode(&self) -> [u8; STATE_BYTES] {
        let mut out = [0; STATE_BYTES];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(target) = out.get_mut(at..at + bytes.len()) {
                target.copy_from_slice(bytes);
            }
        };
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(10, &[SnapshotKind::KeyValue.code(), u8::from(self.applied.is_some())]);
        put(16, &self.generation.to_le_bytes());
        put(24, &self.keys.to_le_bytes());
        put(LOG_ID_AT, &encode_log_id(self.applied.unwrap_or_default()));
        let (body, crc) = out.split_at_mut(STATE_BYTES - CRC_BYTES);
        crc.copy_from_slice(&crc32c(body).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        if !bytes.starts_with(MAGIC) {
            return Err(Refused::Damaged("it does not begin as a record of sprag does"));
        }
        let body = checked(bytes)?;
        match u16::from_le_bytes(array(body, 8)?) {
            VERSION => {}
            version => return Err(Refused::Version(version)),
        }
        let [kind, present, zeros @ ..] = array::<6>(body, 10)?;
        let rest: [u8; 3] = array(body, LOG_ID_AT + LOG_ID_BYTES)?;
        if bytes.len() != STATE_BYTES || zeros != [0; 4] || rest != [0; 3] {
            return Err(Refused::Damaged("a record of the state has bytes it cannot have"));
        }
        match SnapshotKind::of_code(kind) {
            Some(SnapshotKind::KeyValue) => {}
            Some(other) => return Err(Refused::OtherKind(other)),
            None => return Err(Refused::Damaged("the kind of the state is not known")),
        }
        let log_id = decode_log_id(&array(body, LOG_ID_AT)?)?;
        let applied = match present {
            1 => Some(log_id),
            0 if log_id == LogId::default() => None,
            _ => return Err(Refused::Damaged("the log id of the state is none")),
        };
        let generation = u64::from_le_bytes(array(body, 16)?);
        Ok(Self { generation, applied, keys: u64::from_le_bytes(array(body, 24)?) })
    }
}

/// Adds the record of a membership to a batch, or removes the record.
pub(super) fn put_membership(batch: &mut StorageBatch, membership: Option<(LogId, &[u8])>) {
    match membership {
        Some((log_id, bytes)) => {
            batch.put(Table::Meta, MEMBERSHIP_KEY, &encode_membership(log_id, bytes));
        }
        None => batch.remove(Table::Meta, MEMBERSHIP_KEY),
    }
}

fn encode_membership(log_id: LogId, bytes: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(LOG_ID_BYTES + bytes.len() + CRC_BYTES);
    record.extend_from_slice(&encode_log_id(log_id));
    record.extend_from_slice(bytes);
    record.extend_from_slice(&crc32c(&record).to_le_bytes());
    record
}

fn decode_membership(bytes: &[u8]) -> Result<Membership, Refused> {
    let body = checked(bytes)?;
    let log_id = decode_log_id(&array(body, 0)?)?;
    // The log id before it was read, so this is the rest, which may be empty.
    Ok((log_id, body.get(LOG_ID_BYTES..).unwrap_or_default().into()))
}

fn encode_log_id(log_id: LogId) -> [u8; LOG_ID_BYTES] {
    let mut out = [0; LOG_ID_BYTES];
    let tag_len = [log_id.leader.len()];
    let (index, term) = (log_id.index.to_le_bytes(), log_id.term.to_le_bytes());
    let parts = [(0, &index[..]), (8, &term), (16, log_id.leader.padded()), (32, &tag_len)];
    for (at, part) in parts {
        if let Some(target) = out.get_mut(at..at + part.len()) {
            target.copy_from_slice(part);
        }
    }
    out
}

fn decode_log_id(bytes: &[u8; LOG_ID_BYTES]) -> Result<LogId, Refused> {
    let damaged = Refused::Damaged("a log id has bytes it cannot have");
    let (padded, tag_len) = (array::<16>(bytes, 16)?, array::<1>(bytes, 32)?);
    let tag = padded.get(..usize::from(tag_len[0])).and_then(LeaderTag::new).ok_or(damaged)?;
    let index = u64::from_le_bytes(array(bytes, 0)?);
    if *tag.padded() != padded || index == u64::MAX {
        return Err(damaged);
    }
    Ok(LogId { index, term: u64::from_le_bytes(array(bytes, 8)?), leader: tag })
}

/// The bytes before the checksum, if it fits.
fn checked(bytes: &[u8]) -> Result<&[u8], Refused> {
    match bytes.split_last_chunk::<CRC_BYTES>() {
        Some((body, crc)) if crc32c(body) == u32::from_le_bytes(*crc) => Ok(body),
        Some(_) => Err(Refused::Damaged("the checksum of a record does not fit")),
        None => Err(Refused::Damaged("a record is too short")),
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Refused> {
    let part = bytes.get(at..).and_then(<[u8]>::first_chunk);
    part.copied().ok_or(Refused::Damaged("a record is too short"))
}

/// Failure of reading a record: the storage failed, or the record is unreadable.
#[derive(Debug)]
pub(crate) enum MetaError {
    Storage(StorageError),
    Refused(Refused, &'static [u8]),
}

impl MetaError {
    pub(super) fn into_open_error(self, storage: &'static str) -> OpenError {
        match self {
            Self::Storage(source) => OpenError::Storage { storage, source },
            Self::Refused(refused, key) => refused.into_open_error(storage, key),
        }
    }

    pub(super) fn into_storage_error(self) -> StorageError {
        match self {
            Self::Storage(source) => source,
            Self::Refused(refused, _) => refused.into_storage_error(),
        }
    }
}

/// Reads the record of the state; `None` if there is none.
pub(crate) fn read_state(snapshot: &dyn StorageSnapshot) -> Result<Option<StateRecord>, MetaError> {
    read_record(snapshot, STATE_KEY, StateRecord::decode)
}

/// Reads the record of the membership; `None` if there is none.
pub(crate) fn read_membership(
    snapshot: &dyn StorageSnapshot,
) -> Result<Option<Membership>, MetaError> {
    read_record(snapshot, MEMBERSHIP_KEY, decode_membership)
}

fn read_record<R>(
    snapshot: &dyn StorageSnapshot,
    key: &'static [u8],
    decode: fn(&[u8]) -> Result<R, Refused>,
) -> Result<Option<R>, MetaError> {
    let mut record = None;
    snapshot
        .get(Table::Meta, key, &mut |bytes| record = Some(decode(bytes)))
        .map_err(MetaError::Storage)?;
    record.transpose().map_err(|refused| MetaError::Refused(refused, key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn records() -> [StateRecord; 3] {
        let leader = LeaderTag::new(b"leader 7").unwrap();
        let applied = Some(LogId { index: 7, term: 3, leader });
        [
            StateRecord { generation: 1, applied: None, keys: 0 },
            StateRecord { generation: 1, applied: Some(LogId::default()), keys: 0 },
            StateRecord { generation: u64::MAX, applied, keys: 1 << 40 },
        ]
    }

    #[test]
    fn a_record_of_the_state_reads_back() {
        for record in records() {
            assert_eq!(StateRecord::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn the_bytes_of_a_record_of_the_state_stay_what_they_are() {
        let bytes = records()[2].encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "5350524753544f52",                 // magic
            "0100",                             // version
            "0101",                             // kind, log id present
            "00000000",                         // zero
            "ffffffffffffffff",                 // generation
            "0000000000010000",                 // keys
            "0700000000000000",                 // index
            "0300000000000000",                 // term
            "6c656164657220370000000000000000", // leader tag
            "08",                               // its bytes
            "000000",                           // zero
        );
        assert_eq!(hex.strip_prefix(expected).map(str::len), Some(8), "{hex}");
    }

    #[test]
    fn no_flipped_bit_of_a_record_goes_unseen() {
        let membership = encode_membership(LogId::new(9, 2), b"n1,n2");
        let (log_id, bytes) = decode_membership(&membership).unwrap();
        assert_eq!((log_id, &*bytes), (LogId::new(9, 2), &b"n1,n2"[..]));
        for record in records() {
            let good = record.encode();
            for bit in 0..good.len() * 8 {
                let mut bad = good;
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(matches!(StateRecord::decode(&bad), Err(Refused::Damaged(_))), "{bit}");
            }
            assert!(StateRecord::decode(&good[..good.len() - 1]).is_err());
        }
        for bit in 0..membership.len() * 8 {
            let mut bad = membership.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_membership(&bad).is_err(), "{bit}");
        }
    }

    #[test]
    fn another_version_is_refused_by_its_number_whatever_else_it_has() {
        let mut record = records()[1].encode().to_vec();
        record.splice(STATE_BYTES - CRC_BYTES.., [1, 2, 3]);
        record[8..10].copy_from_slice(&513_u16.to_le_bytes());
        let crc = crc32c(&record).to_le_bytes();
        record.extend_from_slice(&crc);
        assert_eq!(StateRecord::decode(&record), Err(Refused::Version(513)));
        let error = Refused::Version(513).into_open_error("memory", STATE_KEY);
        assert!(error.to_string().contains("format version 513"), "{error}");
    }
}
