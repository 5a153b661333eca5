//! The `import` command: a Redis command stream becomes entries.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use sprag::{PersistentConfig, PersistentStateMachine};
use sprag_import::{Engine, Importer, Shown, Source, Stop, Stream, Summary, note_name};

use crate::args::Import;
use crate::error::{Failure, Outcome, opening};
use crate::progress::Progress;
use crate::recovered::say_recovered;
use crate::text::{line, size};

/// Number of keys to make room for at first; the tables grow.
const EXPECTED_KEYS: usize = 64 << 10;

pub(crate) fn import(import: &Import, json: bool, out: &mut dyn Write) -> Outcome {
    // Open the input first: without an input, no directory is made.
    let Source { shown, path, parts, bytes } = Source::open(&import.file)?;
    let note = note_name(import.name.as_deref(), path.as_deref());
    let has_position = import.name.is_some() || path.is_some();
    let (names, readers): (Vec<_>, Vec<_>) =
        parts.into_iter().map(|part| (part.name, part.reader)).unzip();
    let mut bar = Progress::new(json).bytes("importing", bytes);
    let engine = Engine::open(&import.of.dir, note, open)?;
    let started = Instant::now();
    let mut importer = Importer::new(engine, Stream::of_parts(readers), import.skip_unknown);
    importer.resume(&Shown { name: &shown, has_position })?;
    let stopped = importer.run(|offset| bar.at(offset))?;
    drop(bar);
    // A stop names its part of the input, and the offset in that part.
    let stopped = stopped.map(|stop| {
        let (part, stop) = importer.in_part(stop);
        (names.get(part).cloned().unwrap_or(shown), stop)
    });
    let (summary, engine) = importer.finish();
    engine.close(stopped.is_none())?;
    print(&summary, started, stopped.as_ref(), json, out)?;
    match stopped {
        None => Ok(()),
        Some((name, stop)) => {
            let message = format!("{name}: stopped at: {stop}");
            Err(Failure::input(message, &name, stop.offset).into())
        }
    }
}

/// Opens the directory for writing, and says what was mended.
fn open(dir: &Path) -> Outcome<PersistentStateMachine> {
    let config = PersistentConfig::new(dir).expected_keys(EXPECTED_KEYS);
    let machine = PersistentStateMachine::open(config).map_err(opening(dir))?;
    say_recovered(dir, machine.recovery());
    Ok(machine)
}

fn print(
    summary: &Summary,
    started: Instant,
    stop: Option<&(String, Stop)>,
    json: bool,
    out: &mut dyn Write,
) -> Outcome {
    let seconds = started.elapsed().as_secs_f64();
    let bytes = summary.offset - summary.resumed_at;
    let skipped = summary.skipped.values().sum();
    if json {
        let skipped_commands =
            summary.skipped.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        let stopped = stop.map(|(file, stop)| StoppedJson {
            file,
            offset: stop.offset,
            reason: stop.what.to_string(),
        });
        let Summary { commands, entries, resumed_at, offset, .. } = *summary;
        return line(
            out,
            &SummaryJson {
                commands,
                skipped,
                skipped_commands,
                bytes,
                offset,
                resumed_at,
                entries,
                seconds,
                stopped,
            },
        );
    }
    if summary.resumed_at > 0 {
        writeln!(out, "resumed at byte {}", summary.resumed_at)?;
    }
    for (name, count) in &summary.skipped {
        writeln!(out, "skipped {count} {}", name.as_str())?;
    }
    let Summary { commands, entries, offset, .. } = summary;
    let (rate, byte_rate) = (per_second(*commands, seconds), per_second(bytes, seconds));
    Ok(writeln!(
        out,
        "imported {commands} commands as {entries} entries, up to byte {offset}, in {seconds:.2} s ({rate} commands/s, {}/s)",
        size(byte_rate)
    )?)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a rate for people"
)]
fn per_second(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds.max(1e-6)) as u64
}

#[derive(Serialize)]
struct SummaryJson<'a> {
    commands: u64,
    skipped: u64,
    skipped_commands: BTreeMap<&'a str, u64>,
    bytes: u64,
    offset: u64,
    resumed_at: u64,
    entries: u64,
    seconds: f64,
    stopped: Option<StoppedJson<'a>>,
}

#[derive(Serialize)]
struct StoppedJson<'a> {
    file: &'a str,
    /// Offset in that file.
    offset: u64,
    reason: String,
}
