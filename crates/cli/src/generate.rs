//! The `generate` command: shell completions and man pages, made from the description that parses
//! the arguments.
//!
//! The help hides this subcommand: packagers call it once, and users do not need it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::args::Args;
use crate::error::{Outcome, about_file};
use crate::output::make_directory;

/// Name of the program in completions and pages.
const NAME: &str = "sprag";

/// Options of `generate`.
#[derive(clap::Args, Debug)]
pub(crate) struct Generate {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        #[arg(value_name = "SHELL", value_enum)]
        shell: Shell,
    },
    /// Write a man page of each command into a directory, which is made if it is missing.
    Man {
        /// The directory. Pages of the same names are replaced.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

pub(crate) fn generate(generate: &Generate, out: &mut dyn Write) -> Outcome {
    match &generate.what {
        What::Completions { shell } => completions(*shell, out),
        What::Man { out } => man_pages(out),
    }
}

fn completions(shell: Shell, out: &mut dyn Write) -> Outcome {
    // The generator panics where its output fails, so it writes into memory first.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut without_hidden(&Args::command()), NAME, &mut script);
    Ok(out.write_all(&script)?)
}

/// The command without the subcommands that the help hides; the generator for bash would offer
/// them.
fn without_hidden(command: &Command) -> Command {
    let shown = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    Command::new(NAME)
        .version(crate::version::text())
        .args(command.get_arguments())
        .subcommands(shown)
}

fn man_pages(out: &Path) -> Outcome {
    make_directory(out)?;
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    pages_of(&command, out)
}

/// Writes the page of a command and those of its subcommands.
fn pages_of(command: &Command, out: &Path) -> Outcome {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        pages_of(subcommand, out)?;
    }
    let source = format!("{NAME} {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(source).manual("sprag manual");
    let path = out.join(man.get_filename());
    let page = render(&man, command).map_err(about_file(&path))?;
    fs::write(&path, page).map_err(about_file(&path))
}

/// Writes the sections of a page. `Man::render` would set the examples as running text, under the
/// heading EXTRA.
fn render(man: &Man, command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(after) = command.get_after_help() {
        let after = after.to_string();
        let (notes, examples) = after.split_once("Examples:\n").unwrap_or((&after, ""));
        let mut roff = Roff::new();
        roff.control("SH", ["NOTES"]);
        for paragraph in notes.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
            roff.control("PP", []).text([roman(paragraph)]);
        }
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        for example in examples.lines() {
            roff.text([roman(example.trim_start())]);
        }
        roff.control("fi", []);
        roff.to_writer(&mut page)?;
    }
    Ok(page)
}
