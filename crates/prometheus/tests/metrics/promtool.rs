//! Calls of `promtool`, where it is installed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether `promtool` is installed; prints a note if it is not.
pub(crate) fn is_there() -> bool {
    let found = Command::new("promtool").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no promtool in PATH (Debian's package prometheus has it)");
    }
    found
}

/// The complaint of `promtool` about `input`, if there is one.
pub(crate) fn complaint(arguments: &[&str], input: &str) -> Option<String> {
    let mut promtool = Command::new("promtool");
    promtool.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, failed) = (said(&output.stdout), said(&output.stderr));
    // A lint alone is no failure.
    let is_fine = output.status.success() && failed.is_empty();
    (!is_fine).then(|| format!("{printed}{failed}"))
}

/// The directory of the dashboard and the rules.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics")
}

#[test]
fn the_alert_rules_are_valid_and_pass_their_unit_tests() {
    if !is_there() {
        return;
    }
    let file = |name: &str| directory().join(name).to_str().unwrap().to_owned();
    assert_eq!(complaint(&["check", "rules", &file("alerts.yml")], ""), None);
    assert_eq!(complaint(&["test", "rules", &file("alerts_test.yml")], ""), None);
}

#[test]
fn every_alert_has_a_unit_test_and_a_row_in_the_documentation() {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    let (rules, tests) =
        (read(directory().join("alerts.yml")), read(directory().join("alerts_test.yml")));
    let document = read(directory().join("../operating.md"));
    let names: Vec<_> = rules.lines().filter_map(|line| line.split_once("- alert: ")).collect();
    assert!(names.len() >= 10, "{names:?}");
    for (_, name) in names {
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} is not tested");
        assert!(document.contains(&format!("| `{name}` |")), "{name} is in no row");
    }
}
