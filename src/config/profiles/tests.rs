//! Tests that the profiles set what `docs/operating.md` says.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::config::CommitMode;

/// An option and its value, as the table shows it.
type Shown = (&'static str, String);

/// A number in groups of three digits.
fn count(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

fn bytes(bytes: usize) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

fn policy(policy: CompactionPolicy) -> String {
    let CompactionPolicy { garbage_ratio, log_bytes, entries, interval } = policy;
    let entries = entries.map(|entries| format!(", every {entries} entries")).unwrap_or_default();
    let interval = interval.map(|time| format!(", every {}", seconds(time))).unwrap_or_default();
    let log_bytes = bytes(usize::try_from(log_bytes).unwrap());
    format!("ratio {garbage_ratio} from {log_bytes}{entries}{interval}")
}

/// Every option of the manager: a new option does not compile before it is here.
fn of_manager(config: &ApplyConfig) -> Vec<Shown> {
    let ApplyConfig {
        pipeline_depth,
        worker_count,
        batch_size,
        batch_timeout,
        pin_workers,
        worker_cores,
        log_writer_core,
        inline_apply,
        by_hand,
        close_timeout,
        host,
    } = config;
    assert!(by_hand.is_none() && host.is_none());
    let workers = match worker_count {
        None => "up to 4".to_owned(),
        Some(count) => {
            assert_eq!(*count, workers_at_most(8));
            "up to 8".to_owned()
        }
    };
    vec![
        ("pipeline_depth", count(*pipeline_depth)),
        ("worker_count", workers),
        ("ApplyConfig::batch_size", count(*batch_size)),
        ("batch_timeout", seconds(*batch_timeout)),
        ("pin_workers", pin_workers.to_string()),
        ("worker_cores", format!("{worker_cores:?}")),
        ("log_writer_core", format!("{log_writer_core:?}")),
        ("inline_apply", inline_apply.to_string()),
        ("close_timeout", seconds(*close_timeout)),
    ]
}

/// Every option of the persistent machine, and the total of its images.
fn of_machine(config: &PersistentConfig) -> Vec<Shown> {
    let images_bytes = config.memory_bytes();
    let PersistentConfig {
        path,
        create,
        strict,
        durability,
        commit_mode,
        contiguity,
        batch_size,
        batch_interval,
        frame_bytes,
        group_bytes,
        segment_bytes,
        segment_images,
        pinned_images,
        spare_segments,
        expected_keys,
        limits,
        hash_seed,
        io,
        io_uring_refused,
        retain_entries,
        snapshot_chunk_bytes,
        compaction,
        compaction_default,
    } = config;
    assert_eq!((path.to_str(), compaction), (Some("data"), &None), "the policy is a default");
    vec![
        ("create", create.to_string()),
        ("strict", strict.to_string()),
        ("durability", format!("{durability:?}")),
        ("commit_mode", format!("{commit_mode:?}")),
        ("contiguity", format!("{contiguity:?}")),
        ("PersistentConfig::batch_size", count(*batch_size)),
        ("batch_interval", seconds(*batch_interval)),
        ("frame_bytes", bytes(*frame_bytes)),
        ("group_bytes", bytes(*group_bytes)),
        ("segment_bytes", bytes(*segment_bytes)),
        ("segment_images", segment_images.to_string()),
        ("pinned_images", pinned_images.to_string()),
        ("images in memory, together", bytes(images_bytes)),
        ("spare_segments", spare_segments.to_string()),
        ("expected_keys", count(*expected_keys)),
        ("limits", format!("{limits:?}")),
        ("hash_seed", format!("{hash_seed:?}")),
        ("io", format!("{io:?}")),
        ("io_uring_refused", io_uring_refused.to_string()),
        ("retain_entries", count(usize::try_from(*retain_entries).unwrap())),
        ("snapshot_chunk_bytes", snapshot_chunk_bytes.to_string()),
        ("compaction", policy(*compaction_default)),
    ]
}

fn options(apply: &ApplyConfig, machine: &PersistentConfig, storage: &StorageConfig) -> Vec<Shown> {
    let number = |text: String| text.parse().map_or(text, count);
    let storage = storage.shown().map(|(name, value)| (name, number(value)));
    [of_manager(apply), of_machine(machine), storage.to_vec()].concat()
}

fn options_of(profile: Profile) -> Vec<Shown> {
    options(&profile.apply_config(), &profile.persistent_config("data"), &profile.storage_config())
}

/// The table: a row for each option that a profile sets, and a cell only for a value that is not
/// the default.
fn table() -> String {
    let defaults =
        options(&ApplyConfig::new(), &PersistentConfig::new("data"), &StorageConfig::new());
    let profiles = Profile::ALL.map(options_of);
    let names = Profile::ALL.map(|profile| format!("`{}`", profile.name().replace('-', "_")));
    let mut table = format!("| option | default | {} |\n|---|---|", names.join(" | "));
    table += &"---|".repeat(names.len());
    for (at, (name, default)) in defaults.iter().enumerate() {
        let cells = profiles.each_ref().map(|options| {
            let (other, value) = &options[at];
            assert_eq!(other, name);
            if value == default { String::new() } else { value.clone() }
        });
        if cells.iter().all(String::is_empty) {
            continue;
        }
        let name = if name.contains(' ') { (*name).to_owned() } else { format!("`{name}`") };
        let cells =
            cells.map(|cell| if cell.is_empty() { " |".to_owned() } else { format!(" {cell} |") });
        table += &format!("\n| {name} | {default} |{}", cells.concat());
    }
    table
}

#[test]
fn the_table_of_the_documents_is_what_the_profiles_set() {
    let document = include_str!("../../../docs/operating.md");
    let table = table();
    assert!(document.contains(&table), "docs/operating.md must have this table:\n{table}");
}

#[test]
fn every_profile_has_constructors_of_its_name() {
    type Constructors =
        (fn() -> ApplyConfig, fn(&'static str) -> PersistentConfig, fn() -> StorageConfig);
    macro_rules! named {
        ($name:ident) => {
            (ApplyConfig::$name, PersistentConfig::$name, StorageConfig::$name)
        };
    }
    let constructors: [Constructors; 7] = [
        named!(low_latency),
        named!(high_throughput),
        named!(memory_efficient),
        named!(durable),
        named!(small_cluster),
        named!(medium_cluster),
        named!(large_cluster),
    ];
    for (profile, (apply, machine, storage)) in Profile::ALL.into_iter().zip(constructors) {
        let named = options(&apply(), &machine("data"), &storage());
        assert_eq!(named, options_of(profile), "{}", profile.name());
    }
}

#[test]
fn a_profile_leaves_compaction_to_a_consensus_engine_and_to_the_caller() {
    for profile in Profile::ALL {
        let config = profile.persistent_config("data");
        assert!(config.compaction_policy().is_some());
        let by_commit = config.clone().commit_mode(CommitMode::ByCommit);
        assert_eq!(by_commit.compaction_policy(), None, "{}", profile.name());
        assert_eq!(config.compaction(None).compaction_policy(), None, "{}", profile.name());
    }
}

#[test]
fn a_builder_method_after_a_profile_counts() {
    let apply = ApplyConfig::large_cluster().worker_count(NonZeroUsize::MIN).pipeline_depth(9);
    assert_eq!((apply.worker_count, apply.pipeline_depth), (Some(NonZeroUsize::MIN), 9));
    let machine = PersistentConfig::memory_efficient("data").segment_bytes(1 << 20);
    assert_eq!(machine.memory_bytes(), 2 << 20);
}
