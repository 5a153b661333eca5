//! The `snapshot`, `restore` and `compact` commands: a state as one file, back again, and giving up
//! the log before it.

use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use sprag::error::{OpenError, SnapshotError};
use sprag::snapshot::SnapshotKind;
use sprag::{
    ApplyConfig, ApplyManager, CommitMode, CompactionReport, Contiguity, PersistentConfig,
    PersistentStateMachine, SnapshotReport, View,
};

use crate::args::{Dir, Kept, Restore, Snapshot};
use crate::error::{self, Outcome, about, about_file, is_full, opening};
use crate::look::whole;
use crate::output::{Content, Output};
use crate::progress::Progress;
use crate::recovered::say_recovered;
use crate::state::open_directory;
use crate::stored;
use crate::text::{line, size};

/// Timeout of closing, long enough for a slow disk.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Number of keys to make room for at first; the tables grow with the log's content.
const EXPECTED_KEYS: usize = 1024;

pub(crate) fn snapshot(snapshot: &Snapshot, json: bool, out: &mut dyn Write) -> Outcome {
    let dir = &snapshot.of.dir;
    let output = match &snapshot.out {
        Some(path) => Some((path, decide(path, snapshot.force)?)),
        None => None,
    };
    if output.is_none() {
        stored::log_only("snapshot without --out", dir)?;
    }
    if stored::kept_in(dir)? == Kept::Log {
        refuse_foreign_state(dir)?;
    }
    let report = match &output {
        Some((path, output)) => export_file(dir, path, output, json)?,
        None => {
            let manager = open(dir, json)?;
            let report = {
                let _spinner = Progress::new(json).spinner("writing the snapshot");
                manager.snapshots().write().map_err(about(dir.display()))?
            };
            manager.close(TIMEOUT).map_err(about(dir.display()))?;
            report
        }
    };
    let Some(log_id) = report.log_id else {
        return Err(
            format!("{}: there is nothing in it to take a snapshot of", dir.display()).into()
        );
    };
    let name = || dir.join(format!("{:016x}.snap", log_id.index));
    let file = snapshot.out.clone().unwrap_or_else(name);
    // Standard output carries the snapshot, so the report goes to standard error.
    let mut stderr = io::stderr();
    let is_taken = output.is_some_and(|(_, output)| output == Output::Standard);
    let out: &mut dyn Write = if is_taken { &mut stderr } else { out };
    if json {
        return line(out, &SnapshotJson { file: file.display().to_string(), report: &report });
    }
    let SnapshotReport { keys, bytes, elapsed, .. } = report;
    let (file, bytes, ms) = (file.display(), size(bytes), elapsed.as_millis());
    Ok(writeln!(out, "{file}: state at {log_id}, {keys} keys, {bytes}, in {ms} ms")?)
}

/// The report, and the file that was written.
#[derive(Serialize)]
struct SnapshotJson<'a> {
    file: String,
    #[serde(flatten)]
    report: &'a SnapshotReport,
}

/// First bytes of a snapshot file.
const SNAPSHOT_MAGIC: &[u8] = b"SPRGSNAP";

const SNAPSHOT: Content = Content {
    name: "a snapshot",
    is_same: |file| {
        let mut start = Vec::new();
        file.take(SNAPSHOT_MAGIC.len() as u64).read_to_end(&mut start)?;
        Ok(start == SNAPSHOT_MAGIC)
    },
};

/// Decides where a snapshot to `path` goes, before any file is made.
fn decide(path: &Path, force: bool) -> Outcome<Output> {
    let output = Output::decide(path, SNAPSHOT, None, force)?;
    if output == Output::Standard && io::stdout().is_terminal() {
        return Err("standard output is a terminal; send the snapshot into a file or a pipe".into());
    }
    Ok(output)
}

/// Writes the state to any file, with the directory opened read-only. A regular file is whole under
/// its name, or keeps its earlier content.
fn export_file(dir: &Path, path: &Path, output: &Output, json: bool) -> Outcome<SnapshotReport> {
    let began = Instant::now();
    let view = view_of(dir, json)?;
    if view.log_id().is_none() {
        return Ok(SnapshotReport::default());
    }
    let _spinner = Progress::new(json).spinner("writing the snapshot");
    let written = output.write(|mut out| view.snapshot_to(&mut out).map_err(Failure::Snapshot));
    let mut report = written.map_err(|failure| match failure {
        Failure::Snapshot(error) => about(path.display())(error),
        Failure::Io(error) => full(path, error),
    })?;
    report.elapsed = began.elapsed();
    Ok(report)
}

/// The whole state of a directory.
fn view_of(dir: &Path, json: bool) -> Outcome<View> {
    if let Some(machine) = stored::open(dir)? {
        return machine.view(dir);
    }
    let machine = open_directory(dir, json)?;
    // A snapshot of a part of the state would look like one of all of it.
    whole(dir, machine.recovery().unreadable.as_ref())?;
    machine.view_read_only().map_err(about(dir.display()))
}

/// Reason why a snapshot was not written: making it failed, or the file did.
enum Failure {
    Snapshot(SnapshotError),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// An error of writing `file`, which says so if the disk is full.
fn full(file: &Path, error: io::Error) -> Box<dyn std::error::Error> {
    let why = if is_full(&error) { " (the disk is full)" } else { "" };
    error::Failure::about(format!("writing {} failed{why}: {error}", file.display()), &error)
}

pub(crate) fn restore(restore: &Restore, json: bool, out: &mut dyn Write) -> Outcome {
    let Restore { file, dir, storage, by_commit, monotone } = restore;
    let mode = if *by_commit { CommitMode::ByCommit } else { CommitMode::OnAppend };
    let contiguity = if *monotone { Contiguity::Monotone } else { Contiguity::Strict };
    // Check the file first: its errors are not the directory's.
    if std::fs::metadata(file).map_err(about_file(file))?.is_dir() {
        let what = "a directory; give a snapshot file (sprag snapshot DIR --out FILE writes one)";
        return Err(format!("{}: {what}", file.display()).into());
    }
    let snapshot = sprag::Snapshot::open(file)?;
    let spinner = Progress::new(json).spinner("verifying and writing");
    let stored = stored::restore(*storage, &snapshot, file, dir)?;
    drop(snapshot);
    let (log_id, keys, bytes) = match stored {
        Some(restored) => restored,
        None => {
            let made = sprag::restore(file, dir, mode, contiguity);
            let sprag::RestoreReport { log_id, keys, bytes, .. } =
                made.map_err(opening_from(file, dir))?;
            (log_id, keys, bytes)
        }
    };
    drop(spinner);
    if json {
        let dir = dir.display().to_string();
        return line(
            out,
            &RestoreJson { dir, index: log_id.index, term: log_id.term, keys, bytes },
        );
    }
    let (dir, bytes) = (dir.display(), size(bytes));
    Ok(writeln!(out, "{dir}: restored to {log_id}, {keys} keys, {bytes}")?)
}

/// Wraps a failure to make `dir` from `file`. The message first names the one that failed.
fn opening_from(file: &Path, dir: &Path) -> impl Fn(OpenError) -> Box<dyn std::error::Error> {
    let about_file = file.display().to_string();
    let about_dir = opening(dir);
    move |error| match error.to_string() {
        text if text.starts_with(&about_file) => error::Failure::about(text, &error),
        _ => about_dir(error),
    }
}

#[derive(Serialize)]
struct RestoreJson {
    dir: String,
    index: u64,
    term: u64,
    keys: u64,
    bytes: u64,
}

pub(crate) fn compact(of: &Dir, json: bool, out: &mut dyn Write) -> Outcome {
    let dir = &of.dir;
    refuse_foreign_state(dir)?;
    let manager = open(dir, json)?;
    let report = {
        let _spinner =
            Progress::new(json).spinner("writing a snapshot and giving up the log before it");
        manager.snapshots().compact().map_err(about(dir.display()))?
    };
    manager.close(TIMEOUT).map_err(about(dir.display()))?;
    let CompactionReport { snapshot, purged, segments, elapsed, .. } = report;
    let Some(log_id) = snapshot.log_id else {
        return Err(format!("{}: there is nothing in it to compact", dir.display()).into());
    };
    if json {
        return line(out, &report);
    }
    let gone = purged.map_or("nothing is".to_owned(), |index| format!("all up to {index} is"));
    writeln!(
        out,
        "snapshot at {log_id}, {} keys, {}; {gone} gone from the log, {segments} segments; in {} ms",
        snapshot.keys,
        size(snapshot.bytes),
        elapsed.as_millis()
    )?;
    Ok(())
}

/// Opens the directory for writing, in its own commit mode. The directory must exist.
fn open(dir: &Path, json: bool) -> Outcome<ApplyManager<PersistentStateMachine>> {
    let _spinner = Progress::new(json).spinner("opening");
    let found = sprag::inspect::meta(dir).map_err(opening(dir))?;
    let (mode, contiguity) = found.map_or((CommitMode::OnAppend, Contiguity::Strict), |meta| {
        (meta.commit_mode, meta.contiguity)
    });
    let config = PersistentConfig::new(dir)
        .create(false)
        .expected_keys(EXPECTED_KEYS)
        .commit_mode(mode)
        .contiguity(contiguity)
        .compaction(None);
    let machine = PersistentStateMachine::open(config).map_err(opening(dir))?;
    say_recovered(dir, machine.recovery());
    ApplyManager::new(machine, ApplyConfig::new()).map_err(opening(dir))
}

/// Refuses a directory of another state machine than the built-in one: a key-value state would
/// replace the log's own state.
fn refuse_foreign_state(dir: &Path) -> Outcome {
    let Some(meta) = sprag::inspect::meta(dir).map_err(opening(dir))? else { return Ok(()) };
    let what = match meta.state {
        Some(SnapshotKind::KeyValue) => return Ok(()),
        Some(_) => {
            "it is of another state machine than the built-in one: only its program can take a snapshot"
        }
        None => {
            "an earlier build made it, and did not record its state machine: open it with its own program first"
        }
    };
    Err(format!("{}: {what}", dir.display()).into())
}
