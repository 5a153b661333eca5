//! The `sprag` command: runs the main job, changes and reads a data directory, and looks into one.

mod alloc;
mod args;
mod batch;
mod bench;
mod disk;
mod dump;
mod edit;
mod error;
mod foreign;
mod generate;
mod import;
mod leftovers;
mod look;
mod memory;
mod metrics;
mod output;
mod progress;
mod read;
mod recovered;
mod repair;
mod run;
mod snapshot;
mod snapshot_file;
mod state;
mod stdout;
mod stored;
mod text;
mod version;
mod watch;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use alloc::Counting;
use args::{Args, Command};
use error::{FailureJson, Kind, Outcome, Place};
use stdout::Stdout;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    let json = args.json;
    let mut out = Stdout::new();
    let outcome = execute(args, &mut out);
    leftovers::settle();
    // Output from before a failure belongs above its message.
    let written = out.finish();
    match (outcome, written) {
        // The reader of the output has closed it.
        (_, Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        (Err(error), Ok(())) if error::is_broken_pipe(&*error) => ExitCode::SUCCESS,
        // A failed command may name another file in its message.
        (_, Err(error)) => fail(&*error::about("writing to standard output")(error), json),
        (Err(error), Ok(())) => fail(&*error, json),
        (Ok(()), Ok(())) => ExitCode::SUCCESS,
    }
}

/// Prints the failure as one line on standard error.
fn fail(error: &(dyn std::error::Error + 'static), json: bool) -> ExitCode {
    let place = Place::of(error);
    let is_usage = place.kind == Some(Kind::Usage);
    let message = error::one_line(error);
    let _closed =
        if json { say_json(&message, place) } else { writeln!(io::stderr(), "sprag: {message}") };
    if is_usage { ExitCode::from(2) } else { ExitCode::FAILURE }
}

fn say_json(message: &str, place: Place) -> io::Result<()> {
    let object = serde_json::to_string(&FailureJson::new(message, place))?;
    writeln!(io::stderr(), "{object}")
}

/// Prints the message of the argument parser: help, or an error of the arguments.
fn refuse(error: &clap::Error) -> ExitCode {
    let is_option = |argument: &std::ffi::OsString| argument != OsStr::new("--");
    let mut options = std::env::args_os().skip(1).take_while(is_option);
    let _closed = if error.use_stderr() && options.any(|argument| argument == "--json") {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default();
        let message = error::plain(message.strip_prefix("error: ").unwrap_or(message));
        say_json(&message, Place { kind: Some(Kind::Usage), ..Place::default() })
    } else {
        error.print()
    };
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn execute(args: Args, out: &mut dyn Write) -> Outcome {
    let json = args.json;
    if let Some((name, dir)) = args.command.of_log() {
        stored::log_only(name, dir)?;
    }
    match args.command {
        Command::Run(options) => run::run(&options, json, out),
        Command::Put(put) => edit::put(&put, json, out),
        Command::Delete(delete) => edit::delete(&delete, json, out),
        Command::Incr(incr) => edit::incr(&incr, json, out),
        Command::Cas(cas) => edit::cas(&cas, json, out),
        Command::Batch(options) => batch::batch(&options, json, out),
        Command::Keys(keys) => read::keys(&keys, json, out),
        Command::Watch(options) => watch::watch(&options, out),
        Command::Get(get) => read::get(&get, json, out),
        Command::Stats(stats) => read::stats(&stats.dir, json, out),
        Command::Export(export) => read::export(&export, out),
        Command::Import(import) => import::import(&import, json, out),
        Command::Snapshot(options) => snapshot::snapshot(&options, json, out),
        Command::Restore(options) => snapshot::restore(&options, json, out),
        Command::Compact(dir) => snapshot::compact(&dir, json, out),
        Command::Bench(options) => bench::bench(&options, json, out),
        Command::Verify(verify) => look::verify(&verify.dir, json, out),
        Command::Inspect(inspect) => look::inspect(&inspect, json, out),
        Command::Repair(options) => repair::repair(&options, json, out),
        Command::Dump(dump) => dump::dump(&dump, out),
        Command::Generate(options) => generate::generate(&options, out),
    }
}
