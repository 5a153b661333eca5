//! Recognition of inputs that are no command stream, by their first bytes.

/// First bytes of the RDB form, in every version.
pub(super) const RDB: &[u8] = b"REDIS0";

/// Message about an RDB file.
pub(super) const RDB_IS: &str = "an RDB file or preamble, which sprag does not read (with aof-use-rdb-preamble no, \
                                 BGREWRITEAOF writes a command stream)";

const KINDS: [(&[u8], &str); 18] = [
    (RDB, RDB_IS),
    (b"\x1f\x8b", "it is compressed with gzip (gunzip -c FILE | sprag import DIR -)"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd (zstd -dc FILE | sprag import DIR -)"),
    (b"\xfd7zXZ\0", "it is compressed with xz (xz -dc FILE | sprag import DIR -)"),
    (b"BZh", "it is compressed with bzip2 (bzip2 -dc FILE | sprag import DIR -)"),
    (b"\x04\x22\x4d\x18", "it is compressed with lz4 (lz4 -dc FILE | sprag import DIR -)"),
    (b"PK\x03\x04", "it is a zip archive: unpack it first"),
    (b"SPRGSNAP", "it is a snapshot of sprag (sprag restore FILE DIR makes a directory of it)"),
    (b"SPRG", SEGMENT_IS),
    (b"SPRM", SEGMENT_IS),
    (b"SPRH", SEGMENT_IS),
    (b"SQLite format 3", "it is a SQLite database"),
    (b"\x7fELF", "it is a program"),
    (b"\xff\xfe", "it is UTF-16 text, and must be bytes as Redis writes them"),
    (b"\xfe\xff", "it is UTF-16 text, and must be bytes as Redis writes them"),
    (b"\xef\xbb\xbf", "it begins with a byte order mark: remove these three bytes"),
    (b"{", "it is JSON (sprag export --format resp prints a command stream)"),
    (b"file ", "it is a manifest of Redis 7: give its path, so that its files are found"),
];

const SEGMENT_IS: &str =
    "it is a file of a sprag directory (sprag export DIR --format resp prints a command stream)";

/// Whether `head` is too short to decide: it is a proper prefix of one of the kinds.
pub(super) fn is_begun_by(head: &[u8]) -> bool {
    KINDS.iter().any(|(magic, _)| head.len() < magic.len() && magic.starts_with(head))
}

/// The kind of an input that begins with `head`; `None` if it may be a command stream.
pub(super) fn of(head: &[u8]) -> Option<&'static str> {
    let kind = KINDS.iter().find(|(magic, _)| head.starts_with(magic));
    kind.map(|(_, what)| *what)
}
