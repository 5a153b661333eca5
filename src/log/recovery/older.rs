//! A META that is older than what is beside it: a copy of another day, put back by a backup or left by a copying tool.
//!
//! It reads well, and what it says was true once. A later opening or a later snapshot shows that it is no longer.

use crate::entry::LogId;
use crate::error::Corrupt;
use crate::log::format::META_FILE;
use crate::log::meta::{Meta, MetaDamage};
use crate::log::recovery::scan::ScanResult;

/// What shows that META is older than the log or than a snapshot.
///
/// - META gets the incarnation of an opening before that appends its first frame. A frame of a later incarnation is of an
///   opening that META does not know. Where a slot of META is damaged, that slot may have known it.
/// - A snapshot that the log does not have is of an installation that a crash ended. A log that was closed has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OlderMeta {
    /// A frame is of this incarnation, which is above META's.
    Incarnation(u64),
    /// A snapshot is of this entry, which the log that META calls closed does not have.
    Snapshot(LogId),
}

impl OlderMeta {
    /// What a scan shows. `damage` is that of META's slots.
    pub(crate) fn of_scan(meta: &Meta, damage: &MetaDamage, result: &ScanResult) -> Option<Self> {
        if result.unreadable.is_some() {
            return None;
        }
        let slots_hold = damage.slot_offset.is_none();
        Self::of(meta, slots_hold, result.tail.incarnation_seen_max, result.lacks_snapshot)
    }

    /// What the highest incarnation seen shows, and a snapshot that the log does not have.
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

    /// The damage, in META's name.
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
