//! Inputs of an import: a file, standard input or another pipe, or the files of a manifest.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use super::{kind, manifest};
use crate::error::{Outcome, about};

/// Longest manifest: a line has some 60 bytes.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// Number of bytes that suffice to recognise a manifest or an RDB file.
const HEAD_BYTES: u64 = 8;

/// An input.
pub struct Source {
    /// Name of the input in messages.
    pub shown: String,
    /// Key of the input's position; `None` for a pipe, which has no lasting name.
    pub path: Option<PathBuf>,
    /// Files of the input, in order.
    pub parts: Vec<Part>,
    /// Length of the input, if it is known.
    pub bytes: Option<u64>,
}

/// One file of an input.
pub struct Part {
    /// Name of the file in messages.
    pub name: String,
    /// The bytes of the file.
    pub reader: Box<dyn Read>,
}

impl Source {
    /// Opens the input that `file` names (`-` is standard input). Reports every error that is
    /// visible before reading.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or a directory has no manifest, or a manifest is wrong.
    pub fn open(file: &Path) -> Outcome<Self> {
        let shown = file.display().to_string();
        if file == Path::new("-") {
            return Ok(Self::pipe("standard input".to_owned(), Box::new(io::stdin())));
        }
        let metadata = fs::metadata(file).map_err(about(&shown))?;
        if metadata.is_dir() {
            return Self::directory(file, &shown);
        }
        if !metadata.is_file() && is_standard_input(file) {
            // A socket, for example, cannot be opened again.
            return Ok(Self::pipe(shown, Box::new(io::stdin())));
        }
        let mut opened = File::open(file).map_err(about(&shown))?;
        if !metadata.is_file() {
            // The path of an anonymous pipe leads nowhere; a FIFO has one.
            let path = file.canonicalize().ok();
            return Ok(Self { path, ..Self::pipe(shown, Box::new(opened)) });
        }
        if head(&mut opened).map_err(about(&shown))?.starts_with(b"file ") {
            return Self::manifest(file, &shown);
        }
        let path = Some(file.canonicalize().map_err(about(&shown))?);
        let parts = vec![Part { name: shown.clone(), reader: Box::new(opened) }];
        Ok(Self { shown, path, parts, bytes: Some(metadata.len()) })
    }

    fn pipe(shown: String, reader: Box<dyn Read>) -> Self {
        let parts = vec![Part { name: shown.clone(), reader }];
        Self { shown, path: None, parts, bytes: None }
    }

    /// Opens the directory in which Redis 7 keeps its append-only file, or the directory above it.
    fn directory(directory: &Path, shown: &str) -> Outcome<Self> {
        if directory.join("META").is_file() {
            let what =
                "a directory of sprag (sprag export DIR --format resp prints a command stream)";
            return Err(format!("{shown}: {what}").into());
        }
        let mut found = manifests(directory).map_err(about(shown))?;
        let below = directory.join("appendonlydir");
        if found.is_empty() && below.is_dir() {
            found = manifests(&below).map_err(about(below.display()))?;
        }
        match found.as_slice() {
            [one] => Self::manifest(one, &one.display().to_string()),
            [] => Err(format!(
                "{shown}: a directory without a manifest (*.manifest) of Redis 7: give the append-only file"
            )
            .into()),
            [..] => Err(format!("{shown}: a directory with several manifests: give one of them").into()),
        }
    }

    fn manifest(file: &Path, shown: &str) -> Outcome<Self> {
        let mut text = Vec::new();
        let opened = File::open(file).map_err(about(shown))?;
        opened.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(about(shown))?;
        let names = manifest::files(&text).map_err(|what| format!("{shown}: {what}"))?;
        if names.is_empty() {
            return Err(format!("{shown}: a manifest that names no file").into());
        }
        let (mut parts, mut bytes) = (Vec::new(), 0);
        for name in names {
            let path = file.with_file_name(name);
            let name = path.display().to_string();
            let mut part = File::open(&path).map_err(about(&name))?;
            if head(&mut part).map_err(about(&name))?.starts_with(kind::RDB) {
                return Err(format!("{name}: {}", kind::RDB_IS).into());
            }
            bytes += part.metadata().map_err(about(&name))?.len();
            parts.push(Part { name, reader: Box::new(part) });
        }
        let path = Some(file.canonicalize().map_err(about(shown))?);
        Ok(Self { shown: shown.to_owned(), path, parts, bytes: Some(bytes) })
    }
}

/// Whether the path is one of the system's names for standard input.
fn is_standard_input(file: &Path) -> bool {
    ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"].iter().any(|name| file == Path::new(name))
}

/// The first bytes of a file that can be read again from its start.
fn head(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(head)
}

fn manifests(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("manifest")) {
            found.push(path);
        }
    }
    Ok(found)
}
