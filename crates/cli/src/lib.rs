//! The `sprag` command: runs the main job, changes and reads a data directory, and looks into one.
//!
//! A library only so that the fuzzer reaches what the command is made of; there is no interface here for anybody else.

#[doc(hidden)]
pub mod alloc;
mod args;
mod bench;
mod edit;
mod error;
mod foreign;
mod import;
mod look;
mod output;
mod progress;
mod read;
mod repair;
mod run;
mod snapshot;
mod text;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use error::Outcome;

/// What a fuzzer of the import calls.
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub use import::fuzzing;

/// The command, with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let outcome = execute(args, &mut out).and_then(|()| Ok(out.flush()?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough of it.
        Err(error) if error::is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            // What was printed before the failure belongs above its message; a failing output is reported below.
            let _lost = out.flush();
            let _closed = writeln!(io::stderr(), "sprag: {}", error::one_line(&*error));
            ExitCode::FAILURE
        }
    }
}

fn execute(args: Args, out: &mut dyn Write) -> Outcome {
    let json = args.json;
    match args.command {
        Command::Run(options) => run::run(&options, json, out),
        Command::Put(put) => edit::put(&put, json, out),
        Command::Delete(delete) => edit::delete(&delete, json, out),
        Command::Incr(incr) => edit::incr(&incr, json, out),
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
        Command::Dump(dump) => look::dump(&dump, out),
    }
}
