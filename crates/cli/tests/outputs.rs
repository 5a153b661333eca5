//! Tests of what a command does to the file that it is told to write.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::thread;

use crate::common::{command, content, fail, filled, fresh, sprag, succeed, text};

const MAGIC: &[u8] = b"SPRGSNAP";

fn snapshot_to(dir: &Path, out: &Path) -> std::process::Output {
    sprag(["snapshot", text(dir), "--out", text(out)])
}

fn fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_name_in_a_data_directory_is_refused_and_the_directory_stays_as_it_is() {
    let (temporary, dir) = fresh();
    filled(&dir, 10);
    let other = temporary.path().join("other");
    filled(&other, 3);
    fs::create_dir(temporary.path().join("sub")).unwrap();
    symlink(&dir, temporary.path().join("to-dir")).unwrap();
    symlink(other.join("new.snap"), temporary.path().join("dangling")).unwrap();
    symlink(temporary.path().join("dangling"), temporary.path().join("twice")).unwrap();
    let segment = fs::read_dir(&dir).unwrap().map(|file| file.unwrap().file_name());
    let segment = segment.filter_map(|name| name.into_string().ok());
    let segment = segment.filter(|name| name.ends_with(".seg")).min().unwrap();
    let mut names = vec![
        dir.join("META"),
        dir.join("LOCK"),
        dir.join("HARD"),
        dir.join(segment),
        dir.join("x.snap"),
        dir.join("acks"),
        dir.join("../data/x"),
        dir.join("no-such/../x"),
        other.join("META"),
        other.join("x"),
    ];
    names.push(temporary.path().join("to-dir/x"));
    names.push(temporary.path().join("sub/../to-dir/META"));
    names.extend(["dangling", "twice"].map(|name| temporary.path().join(name)));
    let before = (content(&dir), content(&other));
    for name in &names {
        for force in [&[][..], &["--force"]] {
            let run_dir = temporary.path().join("run");
            let run = ["run", "--entries", "1", "--gets", "1", "--keys", "1"];
            let run = run.into_iter().chain(["--dir", text(&run_dir), "--ack-file", text(name)]);
            let message = fail(1, run.chain(force.iter().copied()));
            assert!(message.contains("data directory") || message.contains("no-such"), "{message}");
            assert!(!run_dir.exists(), "decided before anything is made: {}", name.display());
            let snapshot = ["snapshot", text(&dir), "--out", text(name)];
            let message = fail(1, snapshot.into_iter().chain(force.iter().copied()));
            assert!(message.contains("data directory") || message.contains("no-such"), "{message}");
        }
    }
    assert_eq!((content(&dir), content(&other)), before);
}

#[test]
fn a_directory_is_known_for_ours_when_its_meta_is_damaged_or_gone() {
    let (_temporary, dir) = fresh();
    filled(&dir, 10);
    fs::write(dir.join("META"), [0x5a; 9000]).unwrap();
    assert!(fail(1, ["snapshot", text(&dir), "--out", text(&dir.join("x"))]).contains("lies in"));
    fs::remove_file(dir.join("META")).unwrap();
    assert!(fail(1, ["snapshot", text(&dir), "--out", text(&dir.join("x"))]).contains("lies in"));
    assert!(!dir.join("x").exists());
}

#[test]
fn no_directory_is_made_in_a_data_directory() {
    let (temporary, dir) = fresh();
    filled(&dir, 10);
    let file = temporary.path().join("x.snap");
    succeed(["snapshot", text(&dir), "--out", text(&file)]);
    symlink(&dir, temporary.path().join("link")).unwrap();
    let before = content(&dir);
    for sub in [dir.join("sub"), temporary.path().join("link/sub")] {
        let sub = text(&sub);
        let commands: [&[&str]; 4] = [
            &["put", sub, "key", "value"],
            &["restore", text(&file), sub],
            &["run", "--entries", "1", "--gets", "1", "--keys", "1", "--dir", sub],
            &["bench", "snapshot", "--entries", "1", "--dir", text(&dir)],
        ];
        for arguments in commands {
            let message = fail(1, arguments);
            assert!(message.contains("lies in the data directory"), "{message}");
        }
        let mut import = command(["import", sub, "-"]);
        let output = import.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let mut run = command(["run", "--entries", "1", "--gets", "1", "--keys", "1"]);
        let output = run.env("TMPDIR", &dir).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
    }
    assert_eq!(content(&dir), before);
}

#[test]
fn a_fifo_or_a_device_is_written_to_and_stays_what_it_is() {
    let (temporary, dir) = fresh();
    filled(&dir, 10);
    let pipe = temporary.path().join("pipe");
    fifo(&pipe);
    let reader = {
        let pipe = pipe.clone();
        thread::spawn(move || fs::read(pipe).unwrap())
    };
    assert!(snapshot_to(&dir, &pipe).status.success());
    let bytes = reader.join().unwrap();
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    let file = temporary.path().join("x.snap");
    assert!(snapshot_to(&dir, &file).status.success());
    assert_eq!(bytes, fs::read(&file).unwrap());
    // Use a link to the device, so that the command cannot replace the device itself.
    let null = temporary.path().join("null");
    symlink("/dev/null", &null).unwrap();
    assert!(snapshot_to(&dir, &null).status.success());
    assert_eq!(fs::read_link(&null).unwrap(), Path::new("/dev/null"));
    let full = temporary.path().join("full");
    symlink("/dev/full", &full).unwrap();
    let message = fail(1, ["snapshot", text(&dir), "--out", text(&full)]);
    assert!(message.contains("full") && message.contains("the disk is full"), "{message}");

    let run = ["run", "--entries", "9", "--gets", "1", "--keys", "1", "--ack-file"];
    let reader = {
        let pipe = pipe.clone();
        thread::spawn(move || fs::read_to_string(pipe).unwrap())
    };
    succeed(run.into_iter().chain([text(&pipe)]));
    assert_eq!(reader.join().unwrap().lines().last(), Some("10"));
    succeed(run.into_iter().chain([text(&null)]));
}

#[test]
fn a_fifo_that_no_process_reads_is_an_error_and_no_hang() {
    let (temporary, dir) = fresh();
    filled(&dir, 10);
    let pipe = temporary.path().join("pipe");
    fifo(&pipe);
    let message = fail(1, ["snapshot", text(&dir), "--out", text(&pipe)]);
    assert!(message.contains("pipe") && message.contains("start the reader first"), "{message}");
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
}

#[test]
fn a_link_to_a_file_stays_and_the_file_gets_the_content() {
    let (temporary, dir) = fresh();
    filled(&dir, 10);
    let folder = temporary.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let (link, target) = (temporary.path().join("link"), folder.join("target"));
    symlink("folder/target", &link).unwrap();
    for _ in 0..2 {
        assert!(snapshot_to(&dir, &link).status.success());
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("folder/target"));
        assert!(fs::read(&target).unwrap().starts_with(MAGIC));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing temporary is left");
    }
    fs::write(&target, "precious").unwrap();
    assert!(fail(1, ["snapshot", text(&dir), "--out", text(&link)]).contains("--force"));
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    let (acks, link) = (folder.join("acks"), temporary.path().join("acks-link"));
    symlink(&acks, &link).unwrap();
    let run = ["run", "--entries", "9", "--gets", "1", "--keys", "1", "--ack-file"];
    succeed(run.into_iter().chain([text(&link)]));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&acks).unwrap().ends_with("10\n"));
}

/// Proves DUR-18.
#[test]
fn a_file_of_other_content_gives_way_only_with_force() {
    let (temporary, dir) = fresh();
    filled(&dir, 10);
    let file = temporary.path().join("notes.txt");
    fs::write(&file, "precious").unwrap();
    let message = fail(1, ["snapshot", text(&dir), "--out", text(&file)]);
    assert!(message.contains("--force"), "{message}");
    let run = ["run", "--entries", "9", "--gets", "1", "--keys", "1", "--ack-file", text(&file)];
    assert!(fail(1, run).contains("--force"));
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    succeed(["snapshot", text(&dir), "--out", text(&file), "--force"]);
    assert!(fs::read(&file).unwrap().starts_with(MAGIC));
    // A snapshot is no file of acknowledged indexes; with --force the lines are appended.
    assert!(fail(1, run).contains("--force"));
    succeed(run.into_iter().chain(["--force"]));
    assert!(fs::read(&file).unwrap().starts_with(MAGIC));
    // An empty file has nothing to lose.
    fs::write(&file, "").unwrap();
    succeed(["snapshot", text(&dir), "--out", text(&file)]);
    let message = fail(1, ["snapshot", text(&dir), "--out", text(temporary.path())]);
    assert!(message.contains("is a directory"), "{message}");
    let nowhere = temporary.path().join("no-such/x");
    let message = fail(1, ["snapshot", text(&dir), "--out", text(&nowhere)]);
    assert!(message.contains("no-such"), "{message}");
}

#[test]
fn standard_output_gets_the_snapshot_and_standard_error_the_report() {
    let (temporary, dir) = fresh();
    filled(&dir, 10);
    let file = temporary.path().join("x.snap");
    assert!(snapshot_to(&dir, &file).status.success());
    let whole = fs::read(&file).unwrap();
    for name in ["-", "/dev/stdout", "/proc/self/fd/1"] {
        let output = sprag(["snapshot", text(&dir), "--out", name, "--json"]);
        assert!(output.status.success());
        assert_eq!(output.stdout, whole, "{name}");
        let report: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(report["bytes"], whole.len());
    }
    // The shell has made the file, and the command writes the same file from its start.
    let out = temporary.path().join("by-shell.snap");
    let mut by_shell = command(["snapshot", text(&dir), "--out", "/dev/stdout"]);
    let by_shell = by_shell.stdout(fs::File::create(&out).unwrap()).stderr(Stdio::null());
    assert!(by_shell.status().unwrap().success());
    assert_eq!(fs::read(&out).unwrap(), whole);
    assert!(!Path::new("-").exists());
    // A reader that closes early gets no whole snapshot.
    let mut cut = command(["snapshot", text(&dir), "--out", "-"]);
    let mut cut = cut.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(cut.stdout.take());
    let mut message = String::new();
    cut.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    assert_eq!(cut.wait().unwrap().code(), Some(1), "{message}");
}
