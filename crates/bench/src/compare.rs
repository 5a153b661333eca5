//! The `compare` subcommand: runs groups and hands the rows to the reports.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::groups::{self, Group, Settings};
use crate::html;
use crate::machine::Machine;
use crate::report::{Report, print_table, print_targets};
use crate::targets;

/// Groups to run, and files to write.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Runs fewer entries and three rounds: a look, not a figure to publish.
    #[arg(long)]
    quick: bool,
    /// Runs one group only; repeat it for more.
    #[arg(long, value_name = "GROUP")]
    only: Vec<String>,
    /// Rounds that count; one more runs first and is dropped.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Most keys of the group `growth`. 50,000,000 keys take some 15 GB of memory.
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    keys_max: usize,
    /// Runs one store only in the group `openraft`; repeat it for more.
    #[arg(long, value_name = "STORE")]
    store: Vec<String>,
    /// Runs so many clients only in the group `openraft`; repeat it for more.
    #[arg(long, value_name = "N")]
    clients: Vec<usize>,
    /// The directory for the files of durable cases. It must be on the disk that is measured. The
    /// files go when the run ends.
    #[arg(long, value_name = "DIR", default_value = "target/compare")]
    dir: PathBuf,
    /// Writes the rows as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes one self-contained page with charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Counts of a quick run are those of a full one by this.
const QUICK_DIVISOR: usize = 5;

pub(crate) fn run(options: &Options) -> Result<()> {
    let groups = chosen(&options.only)?;
    fs::create_dir_all(&options.dir)
        .with_context(|| format!("creating {}", options.dir.display()))?;
    // Hundreds of megabytes, which go when the run ends.
    let dir = tempfile::Builder::new().prefix("compare-").tempdir_in(&options.dir)?;
    let settings = Settings {
        keys: if options.quick { 100_000 } else { 1_000_000 },
        keys_max: options.keys_max,
        divisor: if options.quick { QUICK_DIVISOR } else { 1 },
        rounds: options.rounds.unwrap_or(if options.quick { 3 } else { 7 }).max(1),
        dir: dir.path().to_owned(),
        stores: options.store.clone(),
        clients: options.clients.clone(),
    };
    let (report, failed) = measure(&groups, &settings, options.quick);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &options.html {
        fs::write(path, html::page(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("\n")) }
}

/// The groups with these names; all if there are no names.
fn chosen(names: &[String]) -> Result<Vec<&'static Group>> {
    let unknown = names.iter().find(|name| !groups::ALL.iter().any(|group| group.name == **name));
    if let Some(name) = unknown {
        let known: Vec<_> = groups::ALL.iter().map(|group| group.name).collect();
        bail!("there is no group {name:?}; the groups are {}", known.join(", "));
    }
    let is_chosen =
        |group: &&Group| names.is_empty() || names.iter().any(|name| name == group.name);
    Ok(groups::ALL.iter().filter(is_chosen).collect())
}

/// Runs the groups. Returns the rows, and what the groups that failed say. The rows of the others
/// stay.
fn measure(groups: &[&Group], settings: &Settings, quick: bool) -> (Report, Vec<String>) {
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for group in groups {
        eprintln!("group {}: {}", group.name, group.about);
        let started = Instant::now();
        match (group.run)(settings) {
            Ok(more) => {
                print_table(&more);
                rows.extend(more);
            }
            Err(error) => {
                let said = format!("group {}: {error:#}", group.name);
                eprintln!("{said}");
                failed.push(said);
            }
        }
        eprintln!("group {}: {:.0} s", group.name, started.elapsed().as_secs_f64());
    }
    let targets = targets::outcomes(&rows).unwrap_or_else(|error| {
        failed.push(format!("{error:#}"));
        Vec::new()
    });
    print_targets(&targets);
    (Report { machine: Machine::here(&settings.dir), quick, targets, rows }, failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use super::*;

    fn report_of(name: &str) -> Report {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::of_test(dir.path());
        let (report, failed) = measure(&chosen(&[name.to_owned()]).unwrap(), &settings, true);
        assert_eq!(failed, [""; 0]);
        report
    }

    #[test]
    fn a_group_that_fails_takes_no_rows_of_the_others_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::of_test(dir.path());
        let refused = Group { name: "refused", about: "", run: |_| bail!("no limit") };
        let memory = chosen(&["memory".to_owned()]).unwrap()[0];
        let (report, failed) = measure(&[&refused, memory], &settings, true);
        assert_eq!(failed, ["group refused: no limit"]);
        assert!(report.rows.iter().any(|row| row.group == "memory"));
    }

    #[test]
    fn a_run_has_a_limit_sprag_and_peers_in_rows_of_the_published_shape() {
        // `space` runs this program again, which is the test here; `durable` has a test beside it.
        let others = groups::ALL.iter().filter(|group| !["space", "durable"].contains(&group.name));
        for group in others {
            let name = group.name;
            let report = report_of(name);
            let roles: BTreeSet<_> =
                report.rows.iter().map(|row| format!("{:?}", row.role)).collect();
            // Nothing else hands commands to workers, or has these options.
            let wanted = if ["workers", "options"].contains(&name) { 2 } else { 3 };
            assert_eq!(roles.len(), wanted, "{name}: {roles:?}");
            let json = serde_json::to_value(&report).unwrap();
            for row in json["rows"].as_array().unwrap() {
                for text in ["group", "case", "subject", "unit"] {
                    assert!(row[text].is_string(), "{text} of {row}");
                }
                for number in ["median", "low", "high", "rounds", "syncs"] {
                    assert!(row[number].is_number(), "{number} of {row}");
                }
                assert_eq!(row["rounds"], 1);
                for ratio in ["ratio_to_limit", "ratio_to_best_peer"] {
                    assert!(row[ratio].is_number() || row["why"].is_string(), "{ratio} of {row}");
                }
            }
            for target in json["targets"].as_array().unwrap() {
                assert!(target["target_row"].is_number() && target["measured"].is_number());
                let verdict = target["verdict"].as_str().unwrap();
                assert!(["reached", "floor reached", "missed"].contains(&verdict), "{verdict}");
            }
            let page = html::page(&report).unwrap();
            assert!(report.targets.iter().all(|target| page.contains(&target.says)), "{name}");
            assert!(report.rows.iter().all(|row| page.contains(&row.case)), "{name}");
        }
    }

    #[test]
    fn memory_that_a_subject_holds_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        // Other tests of this process may free memory meanwhile, so only the call is tested.
        for subject in ["hashbrown", "sprag persistent, compacted", "redb"] {
            groups::held(subject, 100, &dir.path().join("held")).unwrap();
        }
        assert!(groups::held("nothing", 100, dir.path()).is_err());
    }

    #[test]
    fn a_group_that_does_not_exist_is_refused_with_the_names_of_those_that_do() {
        let error = chosen(&["speed".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("\"speed\"") && error.contains("hand-off"), "{error}");
    }
}
