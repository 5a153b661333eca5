//! Tests of foreign files in a directory, and of content that must not get out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::common::{
    LONG, PATIENT, Scratch, apply_config, child, child_directory, manage, open, within,
};
use rustix::fs::{CWD, Mode, mkfifoat};
use sprag::error::{OpenError, Poison};
use sprag::testing::{Fault, FaultError, SimDisk, Stepped};
use sprag::{
    ApplyConfig, Entry, IoBackend, Limits, LogId, Payload, PersistentConfig,
    PersistentStateMachine, RepairOptions,
};

fn put(manager: &crate::common::Persistent, indexes: std::ops::RangeInclusive<u64>, bytes: usize) {
    for index in indexes {
        let value = vec![index as u8 | 1; bytes];
        manager.apply(&Entry::put(index, 1, format!("{index}").as_bytes(), &value), LONG).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The umask belongs to the process, so this runs in a separate one. It is not run as root, whom no
/// permission stops.
#[test]
fn the_umask_changes_no_permissions() {
    let name = "the_umask_changes_no_permissions";
    if let Some(directory) = child_directory() {
        for umask in [0, 0o777] {
            rustix::process::umask(Mode::from_raw_mode(umask));
            let path = directory.join(format!("{umask:o}"));
            let config = crate::common::io::config(&path).segment_bytes(64 << 10);
            let machine = PersistentStateMachine::open(config).unwrap();
            let manager = manage(machine, apply_config(1));
            put(&manager, 1..=100, 1000);
            manager.log().unwrap().save_hard_state(b"vote").unwrap();
            manager.close(LONG).unwrap();
            let meta = path.join("META");
            fs::OpenOptions::new().write(true).open(meta).unwrap().write_all_at(b"x", 99).unwrap();
            let repair = RepairOptions::new().write(true);
            let backup = sprag::repair(&path, repair).unwrap().backup.unwrap();
            for path in [path, backup] {
                assert_eq!(mode(&path), 0o700, "umask {umask:o}");
                for file in fs::read_dir(&path).unwrap() {
                    assert_eq!(mode(&file.unwrap().path()), 0o600, "umask {umask:o}");
                }
            }
        }
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut command = child(module_path!(), name, scratch.path());
    if rustix::process::geteuid().is_root() {
        use std::os::unix::process::CommandExt;
        let other_user = 65_534;
        let binary = scratch.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
        std::os::unix::fs::chown(scratch.path(), Some(other_user), None).unwrap();
        let mut other = std::process::Command::new(binary);
        other.args(command.get_args()).current_dir(scratch.path()).uid(other_user);
        other.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command = other;
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

/// Puts something that is no file of ours at `path`; `outside` is the target of a link.
type Plant = fn(path: &Path, outside: &Path);

const PLANTS: [(&str, Plant); 5] = [
    ("a symbolic link", |path, outside| symlink(outside, path).unwrap()),
    ("a dangling link", |path, outside| symlink(outside.with_extension("no"), path).unwrap()),
    ("a hard link", |path, outside| fs::hard_link(outside, path).unwrap()),
    ("a FIFO", |path, _| mkfifoat(CWD, path, Mode::RWXU).unwrap()),
    ("a directory", |path, _| fs::create_dir(path).unwrap()),
];

#[test]
fn what_is_planted_under_a_name_of_ours_is_refused_and_neither_followed_nor_waited_for() {
    let whole = Scratch::new();
    let manager = whole.open();
    put(&manager, 1..=100, 1000);
    manager.log().unwrap().save_hard_state(b"vote").unwrap();
    manager.close(LONG).unwrap();
    for (what, plant) in PLANTS {
        for name in ["META", "HARD", "LOCK", "0000000000000001.seg", "0000000000000002.seg"] {
            for fresh in [false, true] {
                let scratch = if fresh { Scratch::new() } else { whole.crash_image() };
                let path = scratch.path();
                if fresh {
                    fs::create_dir(&path).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
                } else {
                    fs::remove_file(path.join(name)).unwrap();
                }
                let outside = path.with_file_name("outside");
                fs::write(&outside, "foreign").unwrap();
                fs::set_permissions(&outside, fs::Permissions::from_mode(0o644)).unwrap();
                plant(&path.join(name), &outside);
                let shown = format!("{what} as {name}, fresh {fresh}");
                let config = scratch.config();
                let read = path.clone();
                let (written, read) = within(LONG, &shown, move || {
                    let written = PersistentStateMachine::open(config).map(drop);
                    let read = PersistentStateMachine::open_read_only(read);
                    (written, read.map(|machine| machine.recovery().clone()))
                });
                let refused = |error: &OpenError| {
                    let corrupt = matches!(error, OpenError::Corrupt(_));
                    corrupt || matches!(error, OpenError::Io { .. } | OpenError::NameTaken { .. })
                };
                assert!(written.as_ref().is_err_and(refused), "{shown}: {written:?}");
                match &read {
                    // Reading continues without it, and reports it.
                    Ok(recovery) => assert_eq!(recovery.foreign.taken, [name], "{shown}"),
                    Err(error) => assert!(refused(error), "{shown}: {error}"),
                }
                assert_eq!(fs::read(&outside).unwrap(), b"foreign", "{shown}");
                assert_eq!(mode(&outside), 0o644, "{shown}");
                assert!(!outside.with_extension("no").exists(), "{shown}");
            }
        }
    }
}

#[test]
fn what_is_planted_in_the_way_of_a_running_engine_poisons_it_and_is_not_written_to() {
    for (what, plant) in PLANTS {
        let scratch = Scratch::new();
        let manager = scratch.open();
        let outside = scratch.path().with_file_name("outside");
        fs::write(&outside, "foreign").unwrap();
        for number in 2..9 {
            let name = scratch.path().join(format!("{number:016x}.seg"));
            if !name.exists() {
                plant(&name, &outside);
            }
        }
        let error = within(PATIENT, what, move || {
            (1..=2000)
                .find_map(|index| {
                    let entry = Entry::put(index, 1, b"key", &[7; 1000]);
                    manager.apply(&entry, PATIENT).err().map(|error| {
                        println!("{index}: {error}");
                        manager.poison()
                    })
                })
                .unwrap()
        });
        assert!(matches!(error, Some(Poison::Io { .. })), "{what}: {error:?}");
        assert_eq!(fs::read(&outside).unwrap(), b"foreign", "{what}");
    }
}

/// This runs in a child whose address space is limited to half a gigabyte.
#[test]
fn a_hostile_length_neither_allocates_nor_hangs() {
    let name = "a_hostile_length_neither_allocates_nor_hangs";
    if let Some(directory) = child_directory() {
        return hostile_lengths(&directory);
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut command = child(module_path!(), name, scratch.path());
    // The allocator may take an arena for each thread.
    command.env("MALLOC_ARENA_MAX", "1");
    let output = within(PATIENT, name, move || command.output().unwrap());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

fn hostile_lengths(directory: &Path) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let make = |name: &str| {
        let path = directory.join(name);
        let config = crate::common::io::config(&path).segment_bytes(64 << 10);
        let manager = open(config.clone());
        put(&manager, 1..=5, 100);
        manager.log().unwrap().save_hard_state(b"vote").unwrap();
        manager.close(LONG).unwrap();
        (path, config)
    };
    let limit = Some(512 << 20);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
    let segment = "0000000000000001.seg";
    for name in [segment, "0000000000000002.seg", "META", "HARD"] {
        let (path, config) = make(name);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(path.join(name)).unwrap();
        file.set_len(1 << 40).unwrap();
        let opened = PersistentStateMachine::open(config).map(drop);
        let read = PersistentStateMachine::open_read_only(&path).unwrap();
        if name.ends_with(".seg") {
            assert!(matches!(opened, Err(OpenError::Corrupt(_))), "{name}: {opened:?}");
            assert_eq!(read.recovery().unreadable.as_ref().unwrap().file, name);
            assert!(!sprag::inspect::verify(&path).unwrap().is_clean());
            drop(read);
            let repaired = sprag::repair(&path, RepairOptions::new().write(true));
            assert!(matches!(repaired, Err(OpenError::Corrupt(_))), "{repaired:?}");
        } else {
            opened.unwrap();
            assert_eq!(read.recovery().applied, Some(5), "{name}");
        }
    }
    // Forge every length and number of a frame's header, with a checksum that fits.
    for (at, bytes) in
        [(64, 4), (68, 4), (7, 1), (8, 8), (16, 8), (40, 8), (48, 8), (80, 8), (88, 8)]
    {
        for hostile in [u64::MAX, u64::MAX >> 1, 1 << 31, 1 << 25] {
            let (path, config) = make(&format!("{at} {hostile}"));
            let mut file = fs::read(path.join(segment)).unwrap();
            let frame = file.chunks(64).rposition(|chunk| chunk.starts_with(b"SPRG")).unwrap() * 64;
            file[frame + at..][..bytes].copy_from_slice(&hostile.to_le_bytes()[..bytes]);
            let meta = fs::read(path.join("META")).unwrap();
            let crc = crc32c::crc32c(&meta[4096 + 16..][..16]);
            let crc = crc32c::crc32c_append(crc, &file[frame..frame + 124]);
            file[frame + 124..][..4].copy_from_slice(&crc.to_le_bytes());
            fs::write(path.join(segment), file).unwrap();
            let opened = PersistentStateMachine::open(config).map(drop);
            // An incarnation may be as high as it likes; the other fields decide whether a frame is
            // the next one.
            let read = PersistentStateMachine::open_read_only(&path).unwrap();
            assert!(opened.is_err() || read.recovery().applied == Some(5), "{at} {hostile}");
            drop(sprag::inspect::verify(&path).unwrap());
        }
    }
    // Forge every length of a slot.
    for name in ["META", "HARD"] {
        let slot = 512;
        let (path, config) = make(&format!("{name} slot"));
        let mut file = fs::read(path.join(name)).unwrap();
        for start in [0, 4096] {
            file[start + 32..start + 36].fill(0xff);
            let bytes = &file[start..start + slot];
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..60]), &bytes[64..]);
            file[start + 60..start + 64].copy_from_slice(&crc.to_le_bytes());
        }
        fs::write(path.join(name), file).unwrap();
        let refused = PersistentStateMachine::open(config).unwrap_err();
        assert!(matches!(refused, OpenError::Corrupt(_)), "{refused}");
    }
}

#[test]
fn each_directory_draws_a_hash_seed_of_its_own_and_does_not_show_it() {
    let mut seeds = BTreeSet::new();
    for _ in 0..8 {
        let scratch = Scratch::new();
        let manager = scratch.open();
        put(&manager, 1..=1, 1);
        let meta = fs::read(scratch.path().join("META")).unwrap();
        let seed = u64::from_le_bytes(meta[4096 + 64..][..8].try_into().unwrap());
        assert!(!format!("{manager:?} {:?}", manager.stats()).contains(&seed.to_string()));
        seeds.insert(seed);
    }
    assert_eq!(seeds.len(), 8);
}

#[test]
fn the_bytes_between_frames_and_behind_the_last_are_zero() {
    for io in [IoBackend::Pwrite, IoBackend::Uring] {
        let scratch = Scratch::new();
        let manager = crate::common::io::open_over(io, scratch.config(), apply_config(2));
        for round in 0..150 {
            put(&manager, round + 1..=round + 1, 1 + (round as usize * 37) % 900);
        }
        manager.close(LONG).unwrap();
        let mut ends: Vec<(String, u64, u64)> = Vec::new();
        sprag::inspect::frames(scratch.path(), &mut |frame| {
            ends.push((frame.file.clone(), frame.offset, frame.offset + frame.bytes));
            Ok(())
        })
        .unwrap();
        let mut gaps = 0;
        for (position, (file, _, end)) in ends.iter().enumerate() {
            let bytes = fs::read(scratch.path().join(file)).unwrap();
            let next = ends.get(position + 1).filter(|(next, ..)| next == file);
            let until = next.map_or(bytes.len(), |(_, start, _)| *start as usize);
            assert!(bytes[*end as usize..until].iter().all(|byte| *byte == 0), "{file} {end}");
            gaps += usize::from(until > *end as usize);
        }
        assert!(gaps > 100, "{gaps}");
    }
}

/// This runs in a child, where no other test opens anything.
#[test]
fn nothing_is_left_of_many_opens_and_closes() {
    let name = "nothing_is_left_of_many_opens_and_closes";
    let Some(directory) = child_directory() else {
        let scratch = tempfile::tempdir().unwrap();
        let output = child(module_path!(), name, scratch.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        return;
    };
    let path = directory.join("data");
    let count = |what: &str| fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let held = || {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let ours = maps.lines().filter(|line| line.contains("data/") || line.contains("io_uring"));
        (count("fd"), count("task"), ours.count())
    };
    let mut first = None;
    for round in 1..=1000 {
        let config = crate::common::io::config(&path).segment_bytes(64 << 10).expected_keys(64);
        let io = if round % 2 == 0 { IoBackend::Pwrite } else { IoBackend::Uring };
        // A short pipeline is made quickly, even without optimization.
        let manager = crate::common::io::open_over(io, config, apply_config(2).pipeline_depth(64));
        put(&manager, round..=round, 10);
        manager.close(LONG).unwrap();
        if round % 10 == 0 {
            drop(PersistentStateMachine::open_read_only(&path).unwrap());
        }
        // A joined thread may be in the list a moment longer.
        let first = *first.get_or_insert_with(held);
        let no_more = || {
            let now = held();
            now.0 <= first.0 && now.1 <= first.1 && now.2 <= first.2
        };
        assert!(crate::common::eventually(LONG, no_more), "{:?}, more than {first:?}", held());
    }
}

const KEY: &[u8] = b"PLANTED-KEY";
const VALUE: &[u8] = b"PLANTED-VALUE";

/// Everything printed by errors, by `Debug`, and by `tracing`.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Said {
    fn debug(&self, value: &impl fmt::Debug) {
        self.0.lock().unwrap().push_str(&format!("{value:?}\n{value:#?}\n"));
    }

    fn error<T, E: std::error::Error>(&self, outcome: Result<T, E>) {
        let error = outcome.err().expect("it fails");
        self.debug(&error);
        let mut next: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = next {
            self.0.lock().unwrap().push_str(&format!("{error}\n"));
            next = error.source();
        }
    }
}

impl tracing::field::Visit for Said {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0.lock().unwrap().push_str(&format!("{field}={value:?}\n"));
    }
}

impl tracing::Subscriber for Said {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        attributes.record(&mut self.clone());
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().unwrap().push_str("event\n");
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn no_key_and_no_value_is_in_any_error_debug_or_log_line() {
    let said = Said::default();
    // The subscriber covers the engine's threads too; only this test reads it.
    tracing::subscriber::set_global_default(said.clone()).unwrap();
    let scratch = Scratch::new();
    let limits = Limits::new().key_bytes_max(64).value_bytes_max(64).entry_bytes_max(256);
    let manager = open(scratch.config().limits(limits));
    let entry = Entry::put(1, 1, KEY, VALUE);
    manager.apply(&entry, LONG).unwrap();
    let reply = manager.apply(&Entry::increment(2, 1, KEY, 1), LONG).unwrap();
    said.debug(&reply);
    said.error(manager.apply_entries(&[Entry::put(3, 1, &KEY.repeat(10), VALUE)]));
    said.error(manager.apply_entries(&[Entry::put(3, 1, KEY, &VALUE.repeat(10))]));
    said.error(manager.apply_entries(&[Entry::put(9, 1, KEY, VALUE)]));
    said.error(manager.apply_entries(&[Entry::put(3, 0, KEY, VALUE)]));
    said.error(manager.apply_entries(&[Entry::put(2, 7, KEY, VALUE)]));
    said.error(manager.apply_entries(&[Entry::put(3, 1, &VALUE.repeat(10), KEY)]));
    said.error(manager.wait_for_apply(99, crate::common::SHORT));
    said.error(manager.consensus());
    said.debug(&manager.reader().get(KEY).unwrap());
    said.debug(&manager.log().unwrap().entries(1..=2, 1 << 20).unwrap());
    said.debug(&manager);
    let short = said.0.lock().unwrap().len() < 1 << 20;
    assert!(short, "a program may log it");
    said.debug(&manager.stats());
    said.debug(&manager.reader());
    manager.close(LONG).unwrap();

    // Damage each byte of the frames, and refuse, cut, verify, read and repair the result.
    let segment = scratch.path().join("0000000000000001.seg");
    let whole = fs::read(&segment).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let needles = |bytes: &[u8]| bytes.windows(KEY.len()).any(|window| window == KEY);
    assert!(needles(&whole), "the log holds what is looked for");
    for at in (0..=used).step_by(23) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fs::write(&segment, bytes).unwrap();
        if let Ok(report) = sprag::repair(scratch.path(), RepairOptions::new()) {
            said.debug(&report);
        }
        said.debug(&sprag::inspect::verify(scratch.path()).unwrap());
        let machine = PersistentStateMachine::open_read_only(scratch.path()).unwrap();
        said.debug(machine.recovery());
        said.debug(&machine);
        if let Err(error) = PersistentStateMachine::open(scratch.config()) {
            said.error(Err::<(), _>(error));
        } else {
            break;
        }
    }
    // The disk fails at each operation.
    for operation in 0..30 {
        let disk = SimDisk::new(operation);
        disk.fail_at(operation, Fault::Error(FaultError::Eio));
        let config = PersistentConfig::new("simulated").segment_bytes(64 << 10);
        match PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config) {
            Err(error) => said.error(Err::<(), _>(error)),
            Ok(machine) => {
                let engine = Stepped::new(machine, ApplyConfig::new()).unwrap();
                for index in 1..=60 {
                    let outcome = engine.apply_entries(&[Entry::put(index, 1, KEY, VALUE)]);
                    engine.run_until_idle();
                    if outcome.is_err() {
                        said.error(outcome);
                        said.debug(&engine);
                        break;
                    }
                }
            }
        }
    }
    let undecodable = Entry::new(LogId::new(1, 1), Payload::Opaque(VALUE));
    said.debug(&undecodable.log_id);
    let said = said.0.lock().unwrap();
    assert!(said.lines().count() > 500 && said.contains("event"), "{}", said.lines().count());
    let hidden = ["PLANTED", "80, 76, 65, 78, 84, 69, 68", "0x50, 0x4c, 0x41", "504c414e"];
    for line in said.lines() {
        assert!(!hidden.iter().any(|needle| line.contains(needle)), "{line}");
    }
    // A value printed over several lines, one byte a line, is found as well.
    assert!(!said.replace([' ', '\n'], "").contains("80,76,65,78,84,69,68"));
}
