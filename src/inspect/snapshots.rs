//! The snapshots of a directory: their entries, and whether they can be read back.

use std::io;
use std::sync::Arc;

use super::Looked;
use crate::disk::names::{parse_snapshot_name, snapshot_name};
use crate::entry::LogId;
use crate::error::{Corrupt, OpenError, SnapshotError};
use crate::log::meta::Meta;
use crate::log::recovery::files::list_files;
use crate::snapshot::{Snapshot, SnapshotKind};

/// One snapshot of a directory.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Name of the file.
    pub file: String,
    /// Kind of the content; `None` if header, footer or index cannot be read back, and then the
    /// figures below are unknown.
    pub kind: Option<SnapshotKind>,
    /// The last entry in the snapshot.
    #[cfg_attr(feature = "serde", serde(flatten, serialize_with = "crate::serial::entry"))]
    pub log_id: Option<LogId>,
    /// Length of the file.
    pub bytes: u64,
    /// Number of keys; 0 for an embedder's machine.
    pub keys: u64,
    /// Number of chunks.
    pub chunks: u64,
    /// Bytes of the membership, if there is one.
    pub membership_bytes: Option<usize>,
    /// Number of notes.
    pub notes: usize,
    /// Damage of header, footer or index, or a name that belongs to another entry. Only
    /// [`verify`](super::verify()) reads the chunks.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::text"))]
    pub damage: Option<Corrupt>,
}

impl SnapshotInfo {
    fn new(name: &str, snapshot: &Snapshot) -> Self {
        Self {
            file: name.to_owned(),
            kind: Some(snapshot.kind()),
            log_id: snapshot.log_id(),
            bytes: snapshot.bytes(),
            keys: snapshot.len(),
            chunks: snapshot.chunk_count() as u64,
            membership_bytes: snapshot.membership().map(|(_, bytes)| bytes.len()),
            notes: snapshot.notes().count(),
            damage: misnamed(name, snapshot),
        }
    }

    fn damaged(name: &str, damage: Corrupt) -> Self {
        Self {
            file: name.to_owned(),
            kind: None,
            log_id: None,
            bytes: 0,
            keys: 0,
            chunks: 0,
            membership_bytes: None,
            notes: 0,
            damage: Some(damage),
        }
    }
}

/// The damage of a snapshot of another entry than its name says, which another program must have
/// put there.
fn misnamed(name: &str, snapshot: &Snapshot) -> Option<Corrupt> {
    let of = snapshot.log_id().map(|log_id| log_id.index);
    let what = "the snapshot is of another entry than its name says";
    let corrupt = || Corrupt { file: name.to_owned(), offset: 0, index: None, what };
    (of != parse_snapshot_name(name)).then(corrupt)
}

/// An opened snapshot, and its name.
type Opened = (String, Result<Snapshot, Corrupt>);

impl Looked {
    /// Opens every snapshot of the directory, by rising index. A snapshot that its writer has
    /// removed meanwhile is left out.
    fn open_snapshots(&self) -> Result<Vec<Opened>, OpenError> {
        let disk = Arc::clone(&self.disk);
        let mut names = list_files(&*disk)?.snapshots;
        names.sort_unstable();
        let mut opened = Vec::with_capacity(names.len());
        for name in names {
            let snapshot = match Snapshot::open_on(&disk, &name) {
                Ok(snapshot) => Ok(snapshot),
                Err(SnapshotError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && self.is_beside_a_writer() =>
                {
                    continue;
                }
                Err(error) => Err(damage_of(error)?),
            };
            opened.push((name, snapshot));
        }
        Ok(opened)
    }

    /// The information on each snapshot, without reading its chunks.
    pub(super) fn snapshots(&self) -> Result<Vec<SnapshotInfo>, OpenError> {
        let opened = self.open_snapshots()?;
        Ok(opened
            .into_iter()
            .map(|(name, opened)| match opened {
                Ok(snapshot) => SnapshotInfo::new(&name, &snapshot),
                Err(damage) => SnapshotInfo::damaged(&name, damage),
            })
            .collect())
    }

    /// Reads every byte of every snapshot, and calls `found` for every damaged place. Returns the
    /// number of good snapshots, and the entry of the newest of them.
    pub(super) fn verify_snapshots(
        &self,
        meta: &Meta,
        found: &mut dyn FnMut(Corrupt),
    ) -> Result<(u64, Option<LogId>), OpenError> {
        let (mut whole, mut reached, mut newest) = (0, meta.base.last.is_none(), None);
        for (name, opened) in self.open_snapshots()? {
            let snapshot = match opened {
                Ok(snapshot) => snapshot,
                Err(place) => {
                    found(place);
                    continue;
                }
            };
            let mut places: Vec<_> = misnamed(&name, &snapshot).into_iter().collect();
            for error in snapshot.damages() {
                places.push(damage_of(error)?);
            }
            if places.is_empty() {
                whole += 1;
                newest = snapshot.log_id();
                let index = snapshot.log_id().map(|log_id| log_id.index);
                reached |= index >= meta.base.last.map(|last| last.index);
            }
            places.into_iter().for_each(&mut *found);
        }
        // Beside a writer, the snapshot may be newer than the META that was read before it, or
        // removed with it.
        let is_missing = !reached && !meta.is_kept && !self.is_beside_a_writer();
        if let Some(base) = meta.base.last.filter(|_| is_missing) {
            found(Corrupt {
                file: snapshot_name(base.index),
                offset: 0,
                index: Some(base.index),
                what: "the log begins after this entry, and no snapshot has what is before",
            });
        }
        Ok((whole, newest))
    }
}

/// The damage that an error names; another error if it names none.
fn damage_of(error: SnapshotError) -> Result<Corrupt, OpenError> {
    match error {
        SnapshotError::NotASnapshot { file } => {
            let what = "it does not start as a snapshot does";
            Ok(Corrupt { file, offset: 0, index: None, what })
        }
        error => match OpenError::of_snapshot(error) {
            OpenError::Corrupt(place) => Ok(place),
            other => Err(other),
        },
    }
}
