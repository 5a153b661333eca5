//! The program of the page on embedding (`docs/embedding.md`): a machine that replies with bytes,
//! on disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sprag::error::SnapshotError;
use sprag::{
    ApplyConfig, ApplyManager, Entry, EntryRange, Fatal, Footprint, Journaled, LogId, Partition,
    Payload, PayloadRef, PersistentConfig, Rejection, Replies, Reply, SnapshotSink, SnapshotSource,
    StateMachine,
};

/// The longest message.
const TEXT_MAX: usize = 64;

#[derive(Default)]
pub(crate) struct Board(pub(crate) Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

/// Parses a payload: a writer, a colon, and the message.
fn parse<'a>(payload: &PayloadRef<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let PayloadRef::Opaque(bytes) = payload else { return None };
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    Some((&bytes[..colon], &bytes[colon + 1..]))
}

impl StateMachine for Board {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        Footprint::key(parse(payload).map_or(b"", |(writer, _text)| writer))
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            let entry = entry?;
            let Some((writer, text)) = parse(&entry.payload) else { continue };
            if text.len() > TEXT_MAX {
                replies.set(&entry, Reply::Rejected(Rejection::Custom(413)));
                continue;
            }
            let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let before = board.insert(writer.to_vec(), text.to_vec());
            replies.set_bytes(&entry, &before.unwrap_or_default());
        }
        Ok(())
    }

    fn reply_bytes_max(&self) -> usize {
        TEXT_MAX
    }

    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        let board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Write the number first, so that a reader can tell a part of the messages from all of
        // them.
        out.write(&(board.len() as u64).to_le_bytes())?;
        for part in board.iter().flat_map(|(writer, text)| [writer, text]) {
            out.write(&(part.len() as u64).to_le_bytes())?;
            out.write(part)?;
        }
        Ok(())
    }

    fn restore(&self, source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        let bytes = source.read_all(1 << 30)?;
        let corrupt = || {
            let (file, what) = ("a board".to_owned(), "it is not whole");
            SnapshotError::Corrupt { file, offset: 0, what }
        };
        let number = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes));
        let (count, mut rest) = bytes.split_first_chunk().ok_or_else(corrupt)?;
        let mut parts = Vec::new();
        while let Some((len, after)) = rest.split_first_chunk() {
            let len = number(len).map_err(|_too_long| corrupt())?;
            let (part, after) = after.split_at_checked(len).ok_or_else(corrupt)?;
            parts.push(part.to_vec());
            rest = after;
        }
        if !rest.is_empty() || number(count) != Ok(parts.len() / 2) || parts.len() % 2 != 0 {
            return Err(corrupt());
        }
        let pairs = parts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pairs.collect();
        Ok(())
    }
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("board-{}", std::process::id()));
    let timeout = Duration::from_secs(10);
    for run in 0..3 {
        // Everything acknowledged is there, however the run before ended.
        let board = Journaled::open(PersistentConfig::new(&directory), Board::default())?;
        let manager = ApplyManager::new(board, ApplyConfig::new())?;
        let next = manager.applied().map_or(1, |last| last.index + 1);
        assert_eq!(next, run + 1);
        let text = format!("ann:message {run}");
        let entry = Entry::new(LogId::new(next, 1), Payload::Opaque(text.as_bytes()));
        let reply = manager.apply(&entry, timeout)?;
        let before = if run == 0 { String::new() } else { format!("message {}", run - 1) };
        assert_eq!(reply.as_bytes(), Some(before.as_bytes()));
        if run == 1 {
            // Give up the log so far: the next run starts from a snapshot.
            manager.snapshots().compact()?;
        }
        manager.close(timeout)?;
    }
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
