//! The names in a data directory: which are the engine's, and which appear there by themselves.
//!
//! The engine gives few forms of name. File systems, desktops and editors put other names into any directory, so a name
//! of another form is passed over. A name of an engine's form that is no regular file is a question: the engine needs
//! the name, and cannot tell what the file is for.

use super::LOCK_FILE;
use crate::log::format::{HARD_FILE, META_FILE, parse_segment_name};
use crate::snapshot::format::{is_temporary_name, parse_snapshot_name};

/// What a name says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    /// META.
    Meta,
    /// HARD.
    Hard,
    /// LOCK.
    Lock,
    /// A segment, of this number.
    Segment(u64),
    /// A snapshot.
    Snapshot,
    /// A snapshot that was never finished.
    Unfinished,
    /// A name that the engine gives to nothing.
    Foreign,
}

impl Name {
    /// Reads a name.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            META_FILE => Self::Meta,
            HARD_FILE => Self::Hard,
            LOCK_FILE => Self::Lock,
            _ if parse_snapshot_name(name).is_some() => Self::Snapshot,
            _ if is_temporary_name(name) => Self::Unfinished,
            _ => parse_segment_name(name).map_or(Self::Foreign, Self::Segment),
        }
    }

    /// Whether it is of a directory in which a log was begun. LOCK alone is not: it is made before anything is known.
    fn says_a_log(self) -> bool {
        !matches!(self, Self::Lock | Self::Unfinished | Self::Foreign)
    }
}

/// Whole names that systems put into directories, or that keep an empty one in a repository.
const BY_THEMSELVES: [&str; 21] = [
    "lost+found",
    ".snapshot",
    ".snapshots",
    ".snap",
    ".zfs",
    ".gitignore",
    ".gitkeep",
    ".keep",
    ".DS_Store",
    ".Spotlight-V100",
    ".TemporaryItems",
    ".Trashes",
    ".fseventsd",
    ".directory",
    ".glusterfs",
    "@eaDir",
    "#snapshot",
    "$RECYCLE.BIN",
    "System Volume Information",
    "Thumbs.db",
    "desktop.ini",
];
/// Beginnings of such names.
const BY_THEMSELVES_BEGIN: [&str; 6] =
    [".nfs", ".fuse_hidden", ".Trash-", "._", ".__afs", "aquota."];

/// Whether a system puts a file of this name into a directory by itself.
fn appears_by_itself(name: &str) -> bool {
    BY_THEMSELVES.contains(&name) || BY_THEMSELVES_BEGIN.iter().any(|begin| name.starts_with(begin))
}

/// The name for which a directory is no data directory, and must not become one: it holds no file of a log, and
/// something that does not appear by itself. A user's home, given by mistake, is such a directory.
pub(crate) fn claimed_by<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    if names.clone().any(|name| Name::of(name).says_a_log()) {
        return None;
    }
    names.filter(|name| Name::of(name) == Name::Foreign && !appears_by_itself(name)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_a_stranger_is_told_from_an_empty_volume_and_from_a_data_directory() {
        let claimed = |names: &[&'static str]| claimed_by(names.iter().copied());
        assert_eq!(claimed(&[]), None);
        assert_eq!(claimed(&["lost+found", ".nfs0001", ".DS_Store", "LOCK"]), None);
        assert_eq!(claimed(&["lost+found", "thesis.doc", ".bashrc"]), Some(".bashrc"));
        assert_eq!(claimed(&["LOCK", "notes.txt"]), Some("notes.txt"));
        assert_eq!(claimed(&["META", "thesis.doc"]), None);
        assert_eq!(claimed(&["0000000000000001.seg", "thesis.doc"]), None);
    }

    #[test]
    fn only_the_exact_form_of_a_name_is_the_engines() {
        for (name, read) in [
            ("META", Name::Meta),
            ("0000000000000001.seg", Name::Segment(1)),
            ("0000000000000001.snap", Name::Snapshot),
            ("0000000000000001.snap.tmp", Name::Unfinished),
        ] {
            assert_eq!(Name::of(name), read);
        }
        for name in ["META~", ".META.swp", "meta", "1.seg", "000000000000000A.seg", "x.snap"] {
            assert_eq!(Name::of(name), Name::Foreign, "{name}");
        }
    }
}
