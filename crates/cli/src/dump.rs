//! The `dump` command: the entries of a log, as JSON lines.

use std::io::{self, Write};

use serde::Serialize;
use sprag::inspect::LiveEntry;
use sprag::{CommandRef, LeaderTag, LogId, Note, PayloadRef};

use crate::args::Dump;
use crate::error::{Failure, Outcome, opening};
use crate::look::whole;
use crate::text::Bytes;

pub(crate) fn dump(dump: &Dump, out: &mut dyn Write) -> Outcome {
    let dir = &dump.of.dir;
    if dump.from.zip(dump.to).is_some_and(|(from, to)| from > to) {
        return Err(Failure::usage("--from is after --to: there is no such range"));
    }
    // An option that is not given leaves that end open.
    let indexes = dump.from.unwrap_or(0)..=dump.to.unwrap_or(u64::MAX);
    let seen =
        sprag::inspect::dump(dir, indexes, &mut |entry| json_line(out, &EntryJson::new(entry)))
            .map_err(opening(dir))?;
    whole(dir, seen.unreadable.as_ref())
}

/// Writes one JSON object as a line; a failure is always one of the output.
pub(crate) fn json_line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// An entry as a JSON object.
#[derive(Serialize)]
pub(crate) struct EntryJson<'a> {
    index: u64,
    term: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<Bytes<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    committed: Option<bool>,
    #[serde(flatten)]
    payload: PayloadJson<'a>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum PayloadJson<'a> {
    Noop,
    Membership {
        data: Bytes<'a>,
    },
    Opaque {
        data: Bytes<'a>,
    },
    Put {
        key: Bytes<'a>,
        value: Bytes<'a>,
    },
    Delete {
        key: Bytes<'a>,
    },
    Increment {
        key: Bytes<'a>,
        by: i64,
    },
    CompareAndSet {
        key: Bytes<'a>,
        expected: Option<Bytes<'a>>,
        new: Option<Bytes<'a>>,
    },
    Batch {
        commands: Vec<PayloadJson<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<NoteJson<'a>>,
    },
}

#[derive(Serialize)]
struct NoteJson<'a> {
    name: Bytes<'a>,
    value: Bytes<'a>,
}

impl<'a> EntryJson<'a> {
    pub(crate) fn new(entry: &'a LiveEntry<'a>) -> Self {
        let LogId { index, term, leader } = &entry.log_id;
        Self {
            index: *index,
            term: *term,
            leader: (*leader != LeaderTag::EMPTY).then(|| Bytes(leader.as_bytes())),
            committed: (!entry.committed).then_some(false),
            payload: match entry.payload {
                PayloadRef::Noop => PayloadJson::Noop,
                PayloadRef::Membership(data) => PayloadJson::Membership { data: Bytes(data) },
                PayloadRef::Opaque(data) => PayloadJson::Opaque { data: Bytes(data) },
                PayloadRef::Command(command) => PayloadJson::command(command),
            },
        }
    }
}

impl<'a> PayloadJson<'a> {
    fn command(command: CommandRef<'a>) -> Self {
        match command {
            CommandRef::Put { key, value } => {
                Self::Put { key: Bytes(key), value: Bytes(value.bytes) }
            }
            CommandRef::Delete { key } => Self::Delete { key: Bytes(key) },
            CommandRef::Increment { key, by } => Self::Increment { key: Bytes(key), by },
            CommandRef::CompareAndSet { key, expected, new } => Self::CompareAndSet {
                key: Bytes(key),
                expected: expected.map(Bytes),
                new: new.map(|new| Bytes(new.bytes)),
            },
            CommandRef::Batch(batch) => Self::Batch {
                commands: batch.commands().map(Self::command).collect(),
                note: batch.note().map(|Note { name, value }| NoteJson {
                    name: Bytes(name),
                    value: Bytes(value),
                }),
            },
        }
    }
}
