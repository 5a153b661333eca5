//! What a directory takes on disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the files of a directory take, holes apart. A file that cannot be asked counts as nothing: it is a figure only.
pub(crate) fn bytes_on_disk(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}
