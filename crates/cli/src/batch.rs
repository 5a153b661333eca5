//! The `batch` command: several commands, one JSON object a line, as one atomic entry.
//!
//! The objects are the ones that `dump` prints for a command, without the index.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use sprag::{Command, Rejection, Reply};

use crate::args::Batch;
use crate::edit::{apply, check_key, unexpected};
use crate::error::{Failure, Kind, Outcome, about, about_file};
use crate::text::line;

/// Longest line that can hold a command: a value of 16 MiB has this many bytes in base64, or as
/// `\u00xx` escapes.
const LINE_BYTES_MAX: u64 = 128 << 20;

pub(crate) fn batch(batch: &Batch, json: bool, out: &mut dyn Write) -> Outcome {
    let lines = if batch.file.as_os_str() == "-" {
        read("standard input", io::stdin().lock())?
    } else {
        let file = File::open(&batch.file).map_err(about_file(&batch.file))?;
        read(&batch.file.display().to_string(), BufReader::new(file))?
    };
    let commands: Vec<Command<'_>> = lines.iter().map(Line::command).collect();
    if commands.is_empty() {
        return Err(
            Failure::new(Kind::Input, "there is no command in it; nothing was changed").into()
        );
    }
    let (index, reply) = apply(&batch.of.dir, Command::Batch { commands: &commands, note: None })?;
    let commands = match reply {
        Reply::Batch { commands } => commands,
        Reply::Rejected(Rejection::InBatch { position, reason }) => {
            let reply = Reply::Rejected(reason.into());
            let message = format!("command {}: {}", u64::from(position) + 1, unexpected(reply));
            return Err(Failure::new(Kind::Rejected, message).into());
        }
        other => return Err(unexpected(other)),
    };
    if json {
        return line(out, &BatchJson { index, commands });
    }
    Ok(writeln!(out, "{commands} commands at index {index}")?)
}

#[derive(Serialize)]
struct BatchJson {
    index: u64,
    commands: u32,
}

/// Reads all lines. Empty lines are passed over.
fn read(name: &str, mut input: impl BufRead) -> Outcome<Vec<Line>> {
    let (mut lines, mut text) = (Vec::new(), Vec::new());
    for number in 1_u64.. {
        text.clear();
        let read = Read::by_ref(&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
        if read.map_err(about(name))? == 0 {
            break;
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let wrong = |what: String| {
            let message = format!("{name}: line {number}: {what}; nothing was changed");
            Failure::new(Kind::Input, message).of_file(name)
        };
        let parsed: Line = serde_json::from_slice(&text).map_err(|error| {
            // serde counts the lines of this one-line text; the message names the line of the file
            // instead.
            let place = format!(" at line {} column {}", error.line(), error.column());
            wrong(format!("{}, column {}", error.to_string().replace(&place, ""), error.column()))
        })?;
        check_key(&parsed.key().0).map_err(|error| wrong(error.to_string()))?;
        lines.push(parsed);
    }
    Ok(lines)
}

/// One line of the input: a command.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Put {
        key: Data,
        value: Data,
    },
    Delete {
        key: Data,
    },
    Increment {
        key: Data,
        by: i64,
    },
    CompareAndSet {
        key: Data,
        #[serde(deserialize_with = "said")]
        expected: Option<Data>,
        #[serde(deserialize_with = "said")]
        new: Option<Data>,
    },
}

/// A field that may be null but must be there. A forgotten field would otherwise mean that the key
/// must be absent.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Data>, D::Error> {
    Option::deserialize(deserializer)
}

impl Line {
    fn key(&self) -> &Data {
        match self {
            Self::Put { key, .. }
            | Self::Delete { key }
            | Self::Increment { key, .. }
            | Self::CompareAndSet { key, .. } => key,
        }
    }

    fn command(&self) -> Command<'_> {
        match self {
            Self::Put { key, value } => Command::Put { key: &key.0, value: &value.0 },
            Self::Delete { key } => Command::Delete { key: &key.0 },
            Self::Increment { key, by } => Command::Increment { key: &key.0, by: *by },
            Self::CompareAndSet { key, expected, new } => Command::CompareAndSet {
                key: &key.0,
                expected: expected.as_ref().map(|value| &*value.0),
                new: new.as_ref().map(|value| &*value.0),
            },
        }
    }
}

/// Bytes in JSON: a string, or `{"base64": ".."}`.
struct Data(Vec<u8>);

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, deny_unknown_fields)]
        enum Form {
            Text(String),
            Encoded { base64: String },
        }
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(Self(text.into_bytes())),
            Form::Encoded { base64 } => {
                STANDARD.decode(base64).map(Self).map_err(serde::de::Error::custom)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_line_that_is_no_command_is_named_by_its_number() {
        for (text, what) in [
            (
                "{\"kind\":\"delete\",\"key\":\"a\"}\n\nnothing\n",
                "line 3: expected ident, column 2;",
            ),
            ("{\"kind\":\"drop\",\"key\":\"a\"}", "line 1: unknown variant"),
            ("{\"kind\":\"put\",\"key\":\"a\"}", "line 1: missing field `value`"),
            ("{\"kind\":\"put\",\"key\":\"\",\"value\":\"\"}", "line 1: the key is empty"),
            ("{\"kind\":\"delete\",\"key\":\"a\",\"x\":1}", "line 1: unknown field"),
            (
                "{\"kind\":\"compare_and_set\",\"key\":\"a\",\"new\":\"b\"}",
                "missing field `expected`",
            ),
            ("{\"kind\":\"delete\",\"key\":{\"base64\":\"?\"}}", "line 1: "),
        ] {
            let error = read("x", text.as_bytes()).err().unwrap().to_string();
            assert!(error.contains(what), "{error}");
        }
        let text = b"{\"kind\":\"put\",\"key\":{\"base64\":\"/w==\"},\"value\":\"v\"}";
        let lines = read("x", text.as_slice()).unwrap();
        assert!(matches!(lines[0].command(), Command::Put { key: &[0xff], value: b"v" }));
    }
}
