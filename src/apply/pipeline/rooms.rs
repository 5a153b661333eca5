//! Slots for the entries in flight, with room for replies of bytes.

use crate::error::OpenError;
use crate::ranges::slots::{REPLY_BYTES_MAX, SlotRing};

/// Most memory that the replies of bytes of one engine may take, in bytes.
const REPLY_ROOMS_BYTES_MAX: usize = 1 << 30;

/// Makes the slots of `entries` entries in flight, with room for the replies that the machine
/// declares.
pub(in crate::apply) fn slots_for(
    entries: usize,
    reply_bytes_max: usize,
) -> Result<SlotRing, OpenError> {
    let refuse = |message| Err(OpenError::Config { option: "reply_bytes_max", message });
    if reply_bytes_max > REPLY_BYTES_MAX {
        let message =
            format!("{reply_bytes_max} bytes are more than the {REPLY_BYTES_MAX} of a reply");
        return refuse(message);
    }
    let bytes = SlotRing::reply_rooms_bytes(entries, reply_bytes_max);
    if bytes > REPLY_ROOMS_BYTES_MAX {
        return refuse(format!(
            "replies of {reply_bytes_max} bytes would take {bytes} bytes of memory, more than \
             {REPLY_ROOMS_BYTES_MAX}: lower ApplyConfig::pipeline_depth"
        ));
    }
    SlotRing::new(entries).with_reply_rooms(reply_bytes_max).map_err(|error| {
        OpenError::io("allocating memory for", "replies", std::io::Error::other(error))
    })
}
