//! Tests that completions and man pages cover every command.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::common::{fail, filled, fresh, succeed, text};

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = String::from_utf8(succeed(["--help"])).unwrap();
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let names = list.lines().filter(is_name).filter_map(|line| line.split_whitespace().next());
    let names: Vec<_> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    assert!(names.len() >= 20, "{names:?}");
    names
}

#[test]
fn the_subcommand_that_generates_is_hidden_and_explains_itself() {
    assert!(!commands().contains(&"generate".to_owned()));
    let help = String::from_utf8(succeed(["generate", "--help"])).unwrap();
    assert!(help.contains("completions") && help.contains("man"), "{help}");
    assert!(!fail(2, ["generate", "completions", "cmd"]).is_empty());
    assert!(!fail(2, ["generate", "man"]).is_empty());
}

#[test]
fn every_command_and_option_has_its_man_page() {
    let (_temporary, dir) = fresh();
    assert_eq!(succeed(["generate", "man", "--out", text(&dir)]), b"");
    // Write the pages again, over the existing ones.
    succeed(["generate", "man", "--out", text(&dir)]);
    let pages = fs::read_dir(&dir).unwrap();
    let pages: BTreeSet<_> =
        pages.map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    let mut expected: BTreeSet<_> =
        commands().iter().map(|name| format!("sprag-{name}.1")).collect();
    expected.extend(["sprag.1", "sprag-bench-snapshot.1", "sprag-bench-open.1"].map(String::from));
    assert_eq!(pages, expected);
    let page = fs::read_to_string(dir.join("sprag.1")).unwrap();
    for expected in [".SH NOTES", "Exit status: 0 done", ".SH EXAMPLES\n.nf\nsprag run  "] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    for name in commands() {
        let escaped = format!("sprag\\-{name}(1)");
        assert!(page.contains(&escaped), "{escaped}: {page}");
        let page = fs::read_to_string(dir.join(format!("sprag-{name}.1"))).unwrap();
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
    }
    let run = fs::read_to_string(dir.join("sprag-run.1")).unwrap();
    for option in ["durability", "machine", "json"] {
        assert!(run.contains(&format!("\\-\\-{option}")), "{option}");
    }
}

#[test]
fn man_pages_are_not_written_into_a_data_directory() {
    let (temporary, dir) = fresh();
    filled(&dir, 3);
    for out in [dir.clone(), dir.join("man")] {
        let message = fail(1, ["generate", "man", "--out", text(&out)]);
        assert!(message.contains("data directory"), "{message}");
    }
    assert!(!dir.join("man").exists());
    let nowhere = temporary.path().join("no/man");
    let message = fail(1, ["generate", "man", "--out", text(&nowhere)]);
    assert!(message.contains("make it first"), "{message}");
}

#[test]
fn each_shell_gets_completions_that_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = String::from_utf8(succeed(["generate", "completions", shell])).unwrap();
        for name in commands() {
            assert!(script.contains(&name), "{shell}: {name}");
        }
    }
}

/// Runs a script in a shell; `None` where the shell is not installed.
fn run_in(shell: &str, arguments: &[&str]) -> Option<std::process::Output> {
    let mut command = Command::new(shell);
    let output = command.args(arguments).stdin(Stdio::null()).output();
    match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {shell} is not installed");
            None
        }
        output => Some(output.unwrap()),
    }
}

#[test]
fn shells_parse_their_completions() {
    let (temporary, _) = fresh();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = temporary.path().join(shell);
        fs::write(&script, succeed(["generate", "completions", shell])).unwrap();
        let Some(output) = run_in(shell, &[check, text(&script)]) else { continue };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{shell}: {said}");
    }
}

#[test]
fn bash_completes_commands_and_option_values() {
    let (temporary, _) = fresh();
    let script = temporary.path().join("sprag.bash");
    fs::write(&script, succeed(["generate", "completions", "bash"])).unwrap();
    let complete = |words: &str, current: &str, previous: &str| {
        let position = words.split(' ').count() - 1;
        let program = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={position}; \
             _sprag sprag {current} {previous}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            text(&script)
        );
        run_in("bash", &["-c", &program]).map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let Some(shown) = complete("sprag ver", "ver", "sprag") else { return };
    assert_eq!(complete("sprag gen", "gen", "sprag").unwrap(), "\n", "it is hidden");
    assert_eq!(shown, "verify\n");
    assert_eq!(complete("sprag run --dur", "--dur", "run").unwrap(), "--durability\n");
    let values = complete("sprag run --durability s", "s", "--durability").unwrap();
    assert_eq!(values, "sync\n");
}
