//! The entries in flight: their ring, and the callers that still want their replies.

use super::cells::{ReplyCell, ReplyCells};
use super::claims::{Claim, Claims, Released};
use crate::entry::{Entry, Reply};
use crate::error::OpenError;
use crate::numbers::Mark;
use crate::ranges::in_flight_ring::{InFlightRing, REPLY_BYTES_MAX};

/// Most memory that the replies of bytes of one engine may take, in bytes.
const REPLY_ROOMS_BYTES_MAX: usize = 1 << 30;
/// Most entries of a call that applies them directly.
const DIRECT_ENTRIES_MAX: usize = 256;
/// Most memory that the replies of bytes of such a call take, but for a single one.
const DIRECT_ROOMS_BYTES_MAX: usize = 1 << 20;

/// The in-flight ring, the claims of calls, and the cells of futures.
///
/// An entry leaves the ring once it is applied, its reply is in its cell, and no claim keeps it.
#[derive(Debug)]
pub(crate) struct InFlight {
    ring: InFlightRing,
    /// The entries of the call that applies them directly. It belongs to the holder of the
    /// appender, and is small enough to stay in the caches.
    direct: InFlightRing,
    claims: Claims,
    cells: ReplyCells,
}

impl InFlight {
    /// Makes a ring for `entries` entries, with room for the replies that the machine declares.
    pub(in crate::apply) fn new(entries: usize, reply_bytes_max: usize) -> Result<Self, OpenError> {
        let ring = ring_for(entries, reply_bytes_max)?;
        let direct = ring_for(direct_entries(reply_bytes_max), reply_bytes_max)?;
        Ok(Self { ring, direct, claims: Claims::new(), cells: ReplyCells::new() })
    }

    #[inline]
    pub(in crate::apply) fn ring(&self) -> &InFlightRing {
        &self.ring
    }

    /// The slots of the call that applies its entries directly. The caller holds the appender.
    #[inline]
    pub(in crate::apply) fn direct(&self) -> &InFlightRing {
        &self.direct
    }

    /// Bytes of memory that both rings take.
    pub(in crate::apply) fn memory_bytes(&self) -> usize {
        self.ring.memory_bytes() + self.direct.memory_bytes()
    }

    /// The mark of the indexes that fit the ring beside unapplied entries and claimed replies.
    /// `unapplied` is the first index that is not applied.
    #[inline]
    pub(in crate::apply) fn limit(&self, unapplied: u64) -> Mark {
        self.limit_from(unapplied.min(self.claims.oldest()))
    }

    /// The mark of the indexes that fit the ring, if it keeps everything from `first` on.
    #[inline]
    pub(in crate::apply) fn limit_from(&self, first: u64) -> Mark {
        // There is no index behind the last one.
        Mark::before(first.saturating_add(self.ring.capacity()))
    }

    /// A claim that keeps nothing yet. The caller does not hold the appender; `owner` is told when
    /// the claim ends.
    pub(in crate::apply) fn claim<'a>(&'a self, owner: &'a dyn Released) -> Claim<'a> {
        self.claims.claim(owner)
    }

    /// Adds a cell for the reply of the entry at `index`, which is above all others. The caller
    /// holds the appender, and no worker has the entry yet.
    pub(super) fn add_cell(&self, index: u64) -> ReplyCell {
        self.cells.add(index)
    }

    /// Adds a cell for the replies of `entries`, at least one, in the same way.
    pub(super) fn add_cells(&self, entries: &[Entry<'_>]) -> ReplyCell {
        self.cells.add_all(entries)
    }

    /// Removes the cells from the entry at `index` on, because these entries are not committed. The
    /// caller holds the appender since it added them.
    pub(super) fn remove_cells_from(&self, index: u64) {
        self.cells.remove_from(index);
    }

    /// Moves the replies of entries below `mark` to their cells. The caller raises `applied` to
    /// `mark` afterwards, which frees their room in the ring.
    #[inline]
    pub(super) fn fill_cells_to(&self, mark: Mark) {
        self.cells.fill_to(mark, &self.ring);
    }

    /// The reply of an applied entry. A claim keeps it in the ring, or the caller knows of no later
    /// entry.
    #[inline]
    pub(crate) fn reply(&self, index: u64) -> Reply {
        // An entry without a reply of its own has none in the ring.
        self.ring.reply(index).unwrap_or(Reply::Applied)
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(in crate::apply) fn claims_are_free(&self) -> bool {
        self.claims.are_free()
    }
}

/// Most entries of a call that applies them directly: fewer where their replies would take over
/// [`DIRECT_ROOMS_BYTES_MAX`].
fn direct_entries(reply_bytes_max: usize) -> usize {
    let room = reply_bytes_max.next_multiple_of(8).max(1);
    let fits = DIRECT_ROOMS_BYTES_MAX.checked_div(room).unwrap_or(1);
    // The ring's length is the next power of two, which must not be more than what fits.
    let fits = fits.max(1);
    (1 << fits.ilog2()).min(DIRECT_ENTRIES_MAX)
}

fn ring_for(entries: usize, reply_bytes_max: usize) -> Result<InFlightRing, OpenError> {
    let refuse = |message| Err(OpenError::Config { option: "reply_bytes_max", message });
    if reply_bytes_max > REPLY_BYTES_MAX {
        let message =
            format!("{reply_bytes_max} bytes are more than the {REPLY_BYTES_MAX} of a reply");
        return refuse(message);
    }
    let bytes = InFlightRing::reply_rooms_bytes(entries, reply_bytes_max);
    if bytes > REPLY_ROOMS_BYTES_MAX {
        return refuse(format!(
            "replies of {reply_bytes_max} bytes would take {bytes} bytes of memory, more than \
             {REPLY_ROOMS_BYTES_MAX}: lower ApplyConfig::pipeline_depth"
        ));
    }
    InFlightRing::new(entries).with_reply_rooms(reply_bytes_max).map_err(|error| {
        OpenError::io("allocating memory for", "replies", std::io::Error::other(error))
    })
}
