//! Detection of an outdated META: a copy of another day, put back by a backup or left by a copying
//! tool.
//!
//! Such a META reads well, and was true once. A later opening or a later snapshot shows that it no
//! longer is.

use crate::disk::names::META_FILE;
use crate::entry::LogId;
use crate::error::Corrupt;
use crate::log::meta::{Meta, MetaDamage};
use crate::log::recovery::scan::ScanResult;

/// Evidence that META is older than the log or than a snapshot.
///
/// - META gets the incarnation of an opening before the opening appends its first frame. So a frame
///   of a later incarnation belongs to an opening that META does not know. If a slot of META is
///   damaged, that slot may have known it.
/// - A snapshot that the log does not have belongs to an installation that a crash ended. A closed
///   log has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OlderMeta {
    /// A frame has this incarnation, which is above META's.
    Incarnation(u64),
    /// A snapshot has this entry, which the log that META calls closed does not have.
    Snapshot(LogId),
}

impl OlderMeta {
    /// The evidence in a scan. `damage` is that of META's slots.
    pub(crate) fn of_scan(meta: &Meta, damage: &MetaDamage, result: &ScanResult) -> Option<Self> {
        if result.unreadable.is_some() {
            return None;
        }
        let slots_hold = damage.slot_offset.is_none();
        Self::of(meta, slots_hold, result.tail.incarnation_seen_max, result.lacks_snapshot)
    }

    /// The evidence of the highest incarnation seen, and of a snapshot that the log does not have.
    pub(in crate::log) fn of(
        meta: &Meta,
        slots_hold: bool,
        incarnation_seen_max: u64,
        lacks_snapshot: Option<LogId>,
    ) -> Option<Self> {
        if slots_hold && incarnation_seen_max > meta.incarnation {
            return Some(Self::Incarnation(incarnation_seen_max));
        }
        lacks_snapshot.filter(|_| meta.clean_close).map(Self::Snapshot)
    }

    /// The damage, under META's name.
    pub(crate) fn place(self) -> Corrupt {
        let (index, what) = match self {
            Self::Incarnation(_) => {
                (None, "it is older than the log: a later opening wrote a frame")
            }
            Self::Snapshot(log_id) => {
                let what = "it is older than a snapshot, whose entry the log that it closed lacks";
                (Some(log_id.index), what)
            }
        };
        Corrupt { file: META_FILE.to_owned(), offset: 0, index, what }
    }
}
