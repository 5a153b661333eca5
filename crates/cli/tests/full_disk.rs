//! Tests of a full disk: the message names it, and everything acknowledged before is there.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{fail, fresh, json, last_acknowledged, succeed, text};

/// A small file system in memory, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir(path).unwrap();
        let options = format!("size={size},mode=700");
        Self::mount(&["-t", "tmpfs", "-o", &options, "tmpfs", text(path)])
            .then(|| Self(path.to_owned()))
    }

    fn resize(&self, size: &str) -> bool {
        Self::mount(&["-o", &format!("remount,size={size}"), text(&self.0)])
    }

    fn mount(arguments: &[&str]) -> bool {
        let output = Command::new("mount").args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_is_called_full_and_nothing_acknowledged_is_lost() {
    let (temporary, path) = fresh();
    let Some(mount) = Mount::new(&path, "8m") else {
        println!("skipped: no tmpfs could be mounted (that takes root)");
        return;
    };
    let dir = path.join("data");
    let file = temporary.path().join("acknowledged");
    let message = fail(
        1,
        [
            "run",
            "--dir",
            text(&dir),
            "--entries",
            "200000",
            "--keys",
            "100",
            "--segment-bytes",
            "1048576",
            "--ack-file",
            text(&file),
        ],
    );
    assert!(message.contains("the disk is full"), "{message}");
    let acknowledged = last_acknowledged(&file).unwrap();
    assert!(acknowledged > 1000, "several segments went in before: {acknowledged}");

    // Reading needs no room.
    assert_eq!(json(["verify", text(&dir), "--json"])["clean"], true);
    let stats = json(["stats", text(&dir), "--json"]);
    let last = stats["last_index"].as_u64().unwrap();
    assert!(last >= acknowledged, "{last} is less than {acknowledged}");
    assert_eq!(stats["keys"], 100);

    // A directory needs little room, so fill the disk completely before making one.
    let filler = path.join("filler");
    let mut rest = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut rest, &[1; 4096]).is_ok() {}
    let message = fail(1, ["put", text(&path.join("other")), "key", "value"]);
    assert!(message.contains("the disk is full"), "{message}");
    let message = fail(1, ["compact", text(&dir)]);
    assert!(message.contains("the disk is full"), "{message}");
    drop(rest);
    std::fs::remove_file(&filler).unwrap();

    // A backup that does not fit leaves no file, and an existing file of its name stays.
    let backup = path.join("backup.snap");
    std::fs::write(&backup, b"SPRGSNAP: the one before").unwrap();
    let large = temporary.path().join("large");
    crate::common::filled(&large, 200);
    let manager = crate::common::open(&large, 1);
    for index in 201..400_u64 {
        let value = vec![7; 60_000];
        let key = index.to_le_bytes();
        let entry = sprag::Entry::put(index, 1, &key, &value);
        manager.apply(&entry, crate::common::TIMEOUT).unwrap();
    }
    manager.close(crate::common::TIMEOUT).unwrap();
    let message = fail(1, ["snapshot", text(&large), "--out", text(&backup)]);
    assert!(message.contains("the disk is full"), "{message}");
    assert_eq!(std::fs::read(&backup).unwrap(), b"SPRGSNAP: the one before");
    let file = temporary.path().join("file.snap");
    succeed(["snapshot", text(&large), "--out", text(&file)]);
    let message = fail(1, ["restore", text(&file), text(&path.join("restored"))]);
    assert!(message.contains("the disk is full"), "{message}");
    // Compaction makes room, and needs only a little.
    succeed(["compact", text(&dir)]);
    assert_eq!(json(["verify", text(&dir), "--json"])["clean"], true);

    assert!(mount.resize("400m"));
    succeed(["restore", text(&file), text(&path.join("restored"))]);
    let put = json(["put", text(&dir), "key", "value", "--json"]);
    assert_eq!(put["index"].as_u64(), Some(last + 1));
    succeed(["verify", text(&dir)]);
    assert_eq!(succeed(["put", text(&path.join("other")), "k", "v"]), b"put at index 1 (new)\n");
}
