//! The entries in flight: a slot for each, and the callers that still want its reply.

use std::sync::Arc;

use super::cells::{ReplyCell, ReplyCells};
use super::claims::{Claim, Claims, Released};
use crate::entry::Reply;
use crate::error::OpenError;
use crate::numbers::Mark;
use crate::ranges::slots::{REPLY_BYTES_MAX, SlotRing};

/// Most memory that the replies of bytes of one engine may take, in bytes.
const REPLY_ROOMS_BYTES_MAX: usize = 1 << 30;

/// The slots of the entries in flight, the claims of calls, and the cells of futures.
///
/// A slot is used again once its entry is applied, its reply is in its cell, and no claim keeps it.
#[derive(Debug)]
pub(crate) struct InFlight {
    slots: SlotRing,
    claims: Claims,
    cells: ReplyCells,
}

impl InFlight {
    /// Makes slots for `entries` entries, with room for the replies that the machine declares.
    pub(in crate::apply) fn new(entries: usize, reply_bytes_max: usize) -> Result<Self, OpenError> {
        let slots = slots_for(entries, reply_bytes_max)?;
        Ok(Self { slots, claims: Claims::new(), cells: ReplyCells::new() })
    }

    #[inline]
    pub(in crate::apply) fn slots(&self) -> &SlotRing {
        &self.slots
    }

    /// The first index whose slot is taken, by an entry that is not applied or by a claimed reply.
    /// `unapplied` is the first index that is not applied.
    #[inline]
    pub(in crate::apply) fn limit(&self, unapplied: u64) -> Mark {
        self.limit_from(unapplied.min(self.claims.oldest()))
    }

    /// The first index without a slot, if the slots from `first` on are taken.
    #[inline]
    pub(in crate::apply) fn limit_from(&self, first: u64) -> Mark {
        // There is no index behind the last one.
        Mark::before(first.saturating_add(self.slots.capacity()))
    }

    /// A claim that keeps nothing yet. The caller does not hold the appender; `owner` is told when
    /// the claim ends.
    pub(in crate::apply) fn claim<'a>(&'a self, owner: &'a dyn Released) -> Claim<'a> {
        self.claims.claim(owner)
    }

    /// Adds a cell for the reply of the entry at `index`, which is above all others. The caller
    /// holds the appender, and no worker has the entry yet.
    pub(super) fn add_cell(&self, index: u64) -> Arc<ReplyCell> {
        self.cells.add(index)
    }

    /// Removes the cells from the entry at `index` on, because these entries are not committed. The
    /// caller holds the appender since it added them.
    pub(super) fn remove_cells_from(&self, index: u64) {
        self.cells.remove_from(index);
    }

    /// Moves the replies of entries below `mark` to their cells. The caller raises `applied` to
    /// `mark` afterwards, which frees their slots.
    #[inline]
    pub(super) fn fill_cells_to(&self, mark: Mark) {
        self.cells.fill_to(mark, &self.slots);
    }

    /// The reply of an applied entry, whose slot a claim keeps, or a caller that knows of no later
    /// entry.
    #[inline]
    pub(crate) fn reply(&self, index: u64) -> Reply {
        // The slot of an entry without a reply of its own has none.
        self.slots.reply(index).unwrap_or(Reply::Applied)
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(in crate::apply) fn claims_are_free(&self) -> bool {
        self.claims.are_free()
    }
}

fn slots_for(entries: usize, reply_bytes_max: usize) -> Result<SlotRing, OpenError> {
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
