//! Finds the commit that the command is built from, where git knows it. A crate from a registry has
//! none.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Some(commit) = commit() {
        println!("cargo:rustc-env=SPRAG_COMMIT={commit}");
    }
}

fn commit() -> Option<String> {
    let here = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    let top = git(&here, &["rev-parse", "--show-toplevel"])?;
    // A copy of the sources within another repository is not of its commits.
    if Path::new(&top).join("crates/cli") != Path::new(&here) {
        return None;
    }
    // It gets a line with each commit, also in a work tree of its own.
    let log = git(&here, &["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo:rerun-if-changed={}", Path::new(&here).join(log).display());
    git(&here, &["rev-parse", "--short=12", "HEAD"])
}

fn git(within: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(["-C", within]).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}
