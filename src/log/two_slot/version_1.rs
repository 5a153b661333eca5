//! Slots of version 1, as earlier builds wrote them.
//!
//! A slot has one header at its start. It is that of a sector of version 2, with zeros in the
//! fields at 6 and 36. One checksum, over the whole slot. The payload follows the header; zeros
//! follow the payload, to the end of the slot.
//!
//! A slot of several sectors that cannot be read back may be torn or damaged. Its bytes tell this
//! much:
//!
//! - If the checksum fits once everything behind the payload counts as zeros, then header and
//!   payload are whole. The bytes behind them are of the store two before, or damage; either way
//!   the payload is the stored one.
//! - A torn store in a slot that was never complete leaves zeros in the first sector, before other
//!   bytes.
//! - Otherwise the first sector is damaged, or a payload that goes beyond it. A payload that fits
//!   the first sector is never torn, but its length is one of the bytes that may be damaged. So the
//!   slot counts as damaged. Where its length field says that the payload goes beyond the first
//!   sector, the report says that a crash may also have done it.

use super::{
    CRC_AT, PAYLOAD_AT, SECTOR_BYTES, SECTOR_PAYLOAD_BYTES, Slot, SlotLayout, Stored, VERSION_1,
    VERSION_2, crc_of, is_placed, unknown_version,
};
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::OpenError;

/// Reads a slot that is not all zeros.
pub(super) fn read_slot(
    bytes: &[u8],
    number: usize,
    layout: &'static SlotLayout,
) -> Result<Slot, OpenError> {
    let length = u32_at(bytes, 32) as usize;
    let payload = bytes[PAYLOAD_AT..].get(..length);
    if u32_at(bytes, 0) != layout.magic || !checksum_fits(bytes, length, layout) {
        if bytes[..SECTOR_BYTES].iter().all(|byte| *byte == 0) {
            return Ok(Slot::Headless);
        }
        return Ok(Slot::Damaged { may_be_torn: length > SECTOR_PAYLOAD_BYTES });
    }
    let (version, sequence) = (u16_at(bytes, 4), u64_at(bytes, 8));
    match payload {
        _ if version > VERSION_2 => Err(unknown_version(layout, version)),
        Some(payload) if version == VERSION_1 && is_placed(sequence, number) => {
            Ok(Slot::Valid(Stored {
                version,
                sequence,
                database_id: std::array::from_fn(|byte| bytes[16 + byte]),
                payload: payload.to_vec(),
            }))
        }
        _ => Ok(Slot::Damaged { may_be_torn: false }),
    }
}

/// Whether the checksum fits the slot as it is, or with zeros behind the payload.
fn checksum_fits(bytes: &[u8], length: usize, layout: &SlotLayout) -> bool {
    let crc = u32_at(bytes, CRC_AT);
    if crc == crc_of(bytes) || layout.sectors == 1 {
        // A slot of one sector is never torn.
        return crc == crc_of(bytes);
    }
    let Some(end) = length.checked_add(PAYLOAD_AT).filter(|end| *end < bytes.len()) else {
        return false;
    };
    let mut cleared = bytes.to_vec();
    cleared[end..].fill(0);
    crc == crc_of(&cleared)
}
