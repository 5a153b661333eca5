//! The names in a data directory: names of the engine, and names that appear there by themselves.
//!
//! The engine gives few forms of name. File systems, desktops and editors put other names into any
//! directory, so a name of another form is ignored. A name of an engine's form that is no regular
//! file is a problem. The engine needs the name, and does not know the file's purpose.

use super::LOCK_FILE;
use crate::numbers::SegmentNumber;

/// The file that holds META.
pub const META_FILE: &str = "META";
/// The file that holds the hard state.
pub const HARD_FILE: &str = "HARD";

/// The file name of a segment: its number as 16 hexadecimal digits, so that names sort as numbers
/// do.
pub fn segment_name(number: SegmentNumber) -> String {
    format!("{:016x}.seg", number.stored())
}

/// The number in a segment's file name; `None` for any other name, also one with a number that no
/// segment has.
pub fn parse_segment_name(name: &str) -> Option<SegmentNumber> {
    let number = parse_number(name, ".seg").map(SegmentNumber::of_stored);
    number.filter(|number| *number < SegmentNumber::NOWHERE)
}

/// The file name of the snapshot of this index: 16 hexadecimal digits, so that names sort as
/// indexes do.
pub fn snapshot_name(index: u64) -> String {
    format!("{index:016x}.snap")
}

/// The index in a snapshot's file name; `None` for any other name, a temporary one too.
pub(crate) fn parse_snapshot_name(name: &str) -> Option<u64> {
    parse_number(name, ".snap")
}

/// The name a snapshot has while it is being written or received.
pub(crate) fn temporary_name(name: &str) -> String {
    format!("{name}.tmp")
}

/// Whether a file of this name is a snapshot of the engine that was never finished. It has no use.
pub(crate) fn is_temporary_name(name: &str) -> bool {
    name.strip_suffix(".tmp").is_some_and(|name| parse_snapshot_name(name).is_some())
}

/// The number in a file name of this ending: 16 hexadecimal digits; `None` for any other name.
fn parse_number(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending)?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 16 || !digits.bytes().all(is_digit) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// Meaning of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    /// The META file.
    Meta,
    /// The HARD file.
    Hard,
    /// The LOCK file.
    Lock,
    /// A segment with this number.
    Segment(SegmentNumber),
    /// A snapshot.
    Snapshot,
    /// An unfinished snapshot.
    Unfinished,
    /// A name that the engine never gives.
    Foreign,
}

impl Name {
    /// Classifies a name.
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

    /// Whether the name proves that a log was begun in the directory. LOCK alone does not: it is
    /// made before anything is known.
    fn says_a_log(self) -> bool {
        !matches!(self, Self::Lock | Self::Unfinished | Self::Foreign)
    }
}

/// Names that systems put into directories, or that keep an empty one in a repository.
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
/// Prefixes of such names.
const BY_THEMSELVES_BEGIN: [&str; 6] =
    [".nfs", ".fuse_hidden", ".Trash-", "._", ".__afs", "aquota."];

/// Whether a system puts a file of this name into directories.
fn appears_by_itself(name: &str) -> bool {
    BY_THEMSELVES.contains(&name) || BY_THEMSELVES_BEGIN.iter().any(|begin| name.starts_with(begin))
}

/// The name that proves that a directory is no data directory, and must not become one. The
/// directory has no file of a log, and a file that does not appear by itself. A user's home
/// directory, given by mistake, is an example.
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
            ("0000000000000001.seg", Name::Segment(SegmentNumber::new(1))),
            ("0000000000000001.snap", Name::Snapshot),
            ("0000000000000001.snap.tmp", Name::Unfinished),
        ] {
            assert_eq!(Name::of(name), read);
        }
        for name in ["META~", ".META.swp", "meta", "1.seg", "000000000000000A.seg", "x.snap"] {
            assert_eq!(Name::of(name), Name::Foreign, "{name}");
        }
    }

    #[test]
    fn segment_names_read_back_and_nothing_else_does() {
        for number in [0, 1, 0xabc, u32::MAX - 1].map(SegmentNumber::new) {
            assert_eq!(parse_segment_name(&segment_name(number)), Some(number));
        }
        for name in [
            "",
            "1.seg",
            "00000000ffffffff.seg",
            "ffffffffffffffff.seg",
            "000000000000000A.seg",
            "+00000000000000a.seg",
            "META",
        ] {
            assert_eq!(parse_segment_name(name), None, "{name}");
        }
    }
}
