//! A check of fjall's journals before fjall opens them: it cuts what a crash has torn, and refuses
//! damage.
//!
//! fjall writes each batch to its active journal as a start, the items, and an end. The start has
//! the number of items and the sequence number; the end has the items' checksum and magic bytes. At
//! open, fjall cuts the journal at the first unreadable place, whatever follows. Where a batch
//! reads well but has another checksum, fjall refuses to open. A power cut may leave such a
//! checksum in an honest journal. The pages of a batch reach the disk in any order, and a missing
//! page inside a large value reads as zeros. Cutting at the first unreadable place may hide damage
//! to durable batches. So this module checks first:
//!
//! - A sealed journal was synced before its successor was made. A batch in it that is not whole is
//!   damage.
//! - The active journal is cut after its last whole batch. With every batch synced, only the last
//!   one can be torn, so a whole batch beyond the cut is damage. Where batches were committed
//!   without sync (a marker file says so), several may be torn in any order, and all of them are
//!   cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::error::OpenError;

/// The bytes at the end of a batch, after the checksum.
const END_MAGIC: [u8; 4] = *b"FJL\x03";
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

/// Name of the marker file that is in the directory while batches may have been committed without
/// sync.
pub(crate) const UNSYNCED: &str = "sprag-unsynced";

/// Checks the journals in `path`, and cuts a torn end off the active one. Returns the number of
/// bytes cut.
pub(crate) fn check(path: &Path) -> Result<u64, OpenError> {
    let failed =
        |source| OpenError::Io { what: "reading the journals of", path: path.into(), source };
    let mut journals = journals(path).map_err(failed)?;
    let Some((_, active)) = journals.pop() else { return Ok(0) };
    for (_, sealed) in journals {
        let end = whole_until(&sealed).map_err(failed)?;
        if has_bytes_after(&sealed, end.offset).map_err(failed)? {
            return Err(damaged(path, &sealed, end.offset));
        }
    }
    let end = whole_until(&active).map_err(failed)?;
    if !has_bytes_after(&active, end.offset).map_err(failed)? {
        return Ok(0);
    }
    let were_unsynced = path.join(UNSYNCED).try_exists().map_err(failed)?;
    if !were_unsynced && has_batch_after(&active, &end).map_err(failed)? {
        return Err(damaged(path, &active, end.offset));
    }
    let cut = cut(&active, end.offset).map_err(failed)?;
    let journal = active.display().to_string();
    tracing::warn!(journal, offset = end.offset, bytes = cut, "cut a torn batch off a journal");
    Ok(cut)
}

fn damaged(path: &Path, journal: &Path, offset: u64) -> OpenError {
    let name = journal.file_name().unwrap_or_default().display();
    let message = format!("the batch at offset {offset} of {name} is not what was written");
    OpenError::Damaged { path: path.into(), message }
}

/// The journals of a directory with their numbers, the active one last.
fn journals(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let (true, Some(number)) = (is_journal, number) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The end of the whole batches at the start of a journal.
struct End {
    offset: u64,
    /// Sequence number of the last whole batch.
    sequence: Option<u64>,
    /// End of the batch after them, if only its checksum is wrong.
    mismatch: Option<u64>,
}

/// The content at one place of a journal.
enum Found {
    Whole { sequence: u64 },
    Mismatch,
    NoBatch,
}

fn whole_until(journal: &Path) -> io::Result<End> {
    let mut reader =
        Counted { reader: BufReader::with_capacity(1 << 18, File::open(journal)?), at: 0 };
    let mut end = End { offset: 0, sequence: None, mismatch: None };
    loop {
        match batch(&mut reader)? {
            Found::Whole { sequence } => {
                end.offset = reader.at;
                end.sequence = Some(sequence);
            }
            Found::Mismatch => {
                end.mismatch = Some(reader.at);
                return Ok(end);
            }
            Found::NoBatch => return Ok(end),
        }
    }
}

struct Counted<R> {
    reader: R,
    at: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Reads one batch. An error is one of the disk; the end of the file counts as no batch.
fn batch(reader: &mut impl Read) -> io::Result<Found> {
    match read_batch(reader) {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Found::NoBatch),
        Err(error) => Err(error),
    }
}

fn read_batch(reader: &mut impl Read) -> io::Result<Found> {
    let [tag] = take(reader)?;
    if tag != START {
        return Ok(Found::NoBatch);
    }
    let count = u32::from_le_bytes(take(reader)?);
    let sequence = u64::from_le_bytes(take(reader)?);
    let mut checksum = Xxh3::new();
    for _ in 0..count {
        let [tag] = take(reader)?;
        checksum.update(&[tag]);
        match tag {
            ITEM => {
                // The head holds kind, compression, keyspace, and the lengths of key, value and
                // value in the file.
                let head: [u8; 20] = take(reader)?;
                checksum.update(&head);
                let [.., k0, k1, _, _, _, _, v0, v1, v2, v3] = head;
                let key = u64::from(u16::from_le_bytes([k0, k1]));
                let value = u64::from(u32::from_le_bytes([v0, v1, v2, v3]));
                pass(reader, key + value, &mut checksum)?;
            }
            CLEAR => checksum.update(&take::<8>(reader)?),
            _ => return Ok(Found::NoBatch),
        }
    }
    let [tag] = take(reader)?;
    let expected = u64::from_le_bytes(take(reader)?);
    if tag != END || take(reader)? != END_MAGIC {
        return Ok(Found::NoBatch);
    }
    Ok(if checksum.digest() == expected { Found::Whole { sequence } } else { Found::Mismatch })
}

fn take<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads over `len` bytes, piece by piece, because a length in a torn batch may have any value.
fn pass(reader: &mut impl Read, mut len: u64, checksum: &mut Xxh3) -> io::Result<()> {
    let mut piece = [0; 1 << 12];
    while len > 0 {
        // The piece is shorter than what does not fit.
        let next = usize::try_from(len).unwrap_or(usize::MAX).min(piece.len());
        // `next` is at most the length of the piece.
        let piece = piece.get_mut(..next).unwrap_or_default();
        reader.read_exact(piece)?;
        checksum.update(piece);
        len -= next as u64;
    }
    Ok(())
}

/// Whether anything but zeros follows; fjall makes a journal longer than its content.
fn has_bytes_after(journal: &Path, offset: u64) -> io::Result<bool> {
    let mut file = File::open(journal)?;
    file.seek(SeekFrom::Start(offset))?;
    let (mut piece, zeros) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = file.read(&mut piece)?;
        // A comparison of slices takes a fraction of a loop over bytes.
        if piece.get(..count) != zeros.get(..count) {
            return Ok(true);
        }
        if count == 0 {
            return Ok(false);
        }
    }
}

/// Whether a whole batch of a later sequence number follows the torn one.
fn has_batch_after(journal: &Path, end: &End) -> io::Result<bool> {
    let mut file = File::open(journal)?;
    // Bytes inside a value of the torn batch may look like a batch, so the search starts after it.
    file.seek(SeekFrom::Start(end.mismatch.unwrap_or(end.offset)))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    let mut left = rest.as_slice();
    while let Some(next) = left.iter().position(|byte| *byte == START) {
        let (_, candidate) = left.split_at(next);
        let mut reader = candidate;
        if let Found::Whole { sequence } = batch(&mut reader)?
            && end.sequence.is_none_or(|last| sequence > last)
        {
            return Ok(true);
        }
        // The search ends where nothing is left.
        left = candidate.get(1..).unwrap_or_default();
    }
    Ok(false)
}

/// Cuts the journal, durably. Returns the number of bytes up to the last one that is not zero.
fn cut(journal: &Path, offset: u64) -> io::Result<u64> {
    let mut file = OpenOptions::new().read(true).write(true).open(journal)?;
    file.seek(SeekFrom::Start(offset))?;
    let (mut cut, mut at) = (0, 0);
    let (mut piece, zeros) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            break;
        }
        // A read fills at most the piece.
        let read = piece.get(..count).unwrap_or_default();
        if Some(read) != zeros.get(..count) {
            let last = read.iter().rposition(|byte| *byte != 0).unwrap_or_default();
            cut = at + last as u64 + 1;
        }
        at += count as u64;
    }
    file.set_len(offset)?;
    file.sync_all()?;
    Ok(cut)
}
