//! A state that does not change while a snapshot of it is written.

use std::cell::Cell;
use std::time::Instant;

use super::views::PausedWorkers;
use super::write::report;
use crate::apply::manager::snapshots::SnapshotReport;
use crate::contract::machine::StateMachine;
use crate::contract::view::View;
use crate::entry::LogId;
use crate::error::SnapshotError;
use crate::snapshot::SnapshotSink;
use crate::snapshot::writer::{SnapshotMeta, SnapshotWriter, Summary};
use crate::sync::set_aside;

/// Interval, in entries, at which writing a snapshot checks whether the engine is being closed.
const LOOK_ENTRIES: u32 = 4096;

/// A state that does not change while it is written.
pub(super) enum Still<'a, M: StateMachine> {
    View(View),
    /// The last entry in the state is this one, and nothing is applied until the posts are
    /// released.
    Paused(&'a M, Option<LogId>, Cell<Option<PausedWorkers<'a, M>>>),
}

impl<M: StateMachine> Still<'_, M> {
    pub(super) fn log_id(&self) -> Option<LogId> {
        match self {
            Self::View(view) => view.log_id(),
            Self::Paused(_, applied, _) => *applied,
        }
    }

    pub(super) fn meta(&self) -> SnapshotMeta {
        match self {
            Self::View(view) => view.meta(),
            Self::Paused(machine, applied, _) => {
                let membership = machine.last_membership();
                SnapshotMeta {
                    log_id: *applied,
                    membership: membership
                        .map(|(log_id, bytes)| (log_id, bytes.into_boxed_slice())),
                    ..SnapshotMeta::default()
                }
            }
        }
    }

    pub(super) fn write(
        &self,
        writer: SnapshotWriter<'_>,
        meta: &SnapshotMeta,
        stopping: &dyn Fn() -> bool,
    ) -> Result<Summary, SnapshotError> {
        match self {
            Self::View(view) => view.write(writer, meta, stopping),
            Self::Paused(machine, _, posts) => {
                let mut writer = writer.blob();
                let aside = set_aside();
                let written = machine.snapshot(&mut writer);
                drop(aside);
                // The machine has written everything, so the workers need not wait for the disk.
                drop(posts.take());
                written?;
                if stopping() {
                    return Err(SnapshotError::Closed);
                }
                writer.finish(meta)
            }
        }
    }
}

impl View {
    /// Writes the bytes of a snapshot file, with the state of this view, to `out`.
    ///
    /// # Errors
    ///
    /// Returns [`SnapshotError::Io`] with the error of `out`, and [`SnapshotError::Poisoned`] after
    /// the engine has failed.
    pub fn snapshot_to(&self, out: &mut dyn SnapshotSink) -> Result<SnapshotReport, SnapshotError> {
        let began = Instant::now();
        let summary = self.write(SnapshotWriter::new(out), &self.meta(), &|| false)?;
        Ok(report(self.log_id(), summary, began))
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            log_id: self.log_id(),
            membership: self.membership().map(|(log_id, bytes)| (log_id, bytes.into())),
            notes: self.notes().map(|(name, value)| (name.into(), value.into())).collect(),
        }
    }

    fn write(
        &self,
        mut writer: SnapshotWriter<'_>,
        meta: &SnapshotMeta,
        stopping: &dyn Fn() -> bool,
    ) -> Result<Summary, SnapshotError> {
        let mut pushed = 0_u32;
        self.try_for_each(|key, value| {
            pushed = pushed.wrapping_add(1);
            if pushed.is_multiple_of(LOOK_ENTRIES) && stopping() {
                return Err(SnapshotError::Closed);
            }
            writer.push(key, value)
        })?;
        writer.finish(meta)
    }
}
