//! Tests of damage below the durable watermark: `verify` names it, writing refuses it, and no
//! command changes it.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use crate::common::{content, fail, filled, flip, fresh, json, sprag, succeed, text};
use sprag::inspect::FrameInfo;

#[test]
fn a_flipped_byte_is_named_and_refused_and_left_as_it_is() {
    let (_temporary, dir) = fresh();
    filled(&dir, 1500);
    succeed(["verify", text(&dir)]);
    let mut frames: Vec<FrameInfo> = Vec::new();
    sprag::inspect::frames(&dir, &mut |frame| {
        frames.push(frame.clone());
        Ok(())
    })
    .unwrap();
    assert!(frames.iter().any(|frame| frame.file != frames[0].file), "several segments");
    let last = frames.len() - 1;
    // Flip bits in header and body of the first, middle and last frame, and of the first frame of a
    // later segment.
    let rolled = frames.iter().position(|frame| frame.file != frames[0].file).unwrap();
    for at in [0, 1, 700, rolled - 1, rolled, last - 1, last] {
        let frame = &frames[at];
        for into in [0, 5, 64, 100, 127, 128, frame.bytes - 1] {
            let path = dir.join(&frame.file);
            flip(&path, frame.offset + into);
            let before = content(&dir);

            let message = fail(1, ["verify", text(&dir)]);
            // Nothing before the first frame says which index it must have. Its own header does, if
            // it is intact.
            let index = (at > 0 || into >= 128).then_some(frame.first.index);
            let place = format!("{} is damaged at offset {}", frame.file, frame.offset);
            let index_part = index.map_or(String::new(), |index| format!(", index {index}: "));
            assert!(message.contains(&(place + &index_part)), "{message}");
            let output = sprag(["verify", text(&dir), "--json"]);
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["clean"], false);
            assert_eq!(report["findings"].as_array().unwrap().len(), 1, "{report}");
            assert_eq!(report["findings"][0]["file"], frame.file.as_str());
            assert_eq!(report["findings"][0]["offset"], frame.offset);
            assert_eq!(report["findings"][0]["index"].as_u64(), index);

            let message = fail(1, ["put", text(&dir), "key", "value"]);
            assert!(message.contains("corrupt") && message.contains(&frame.file), "{message}");
            assert!(fail(1, ["stats", text(&dir)]).contains("corrupt"));
            assert_eq!(content_bytes(&before), content_bytes(&content(&dir)));
            flip(&path, frame.offset + into);
        }
    }
    succeed(["verify", text(&dir)]);
    assert_eq!(json(["stats", text(&dir), "--json"])["last_index"], 1500);
}

/// Content of all files but the lock file: a refused open for writing takes the lock.
fn content_bytes(
    content: &[(std::path::PathBuf, Vec<u8>, [i64; 4], u64)],
) -> Vec<(&std::path::PathBuf, &Vec<u8>, [i64; 4])> {
    content.iter().map(|(path, bytes, times, _)| (path, bytes, *times)).collect()
}

#[test]
fn a_missing_segment_and_a_damaged_meta_are_named() {
    let (_temporary, dir) = fresh();
    filled(&dir, 1500);
    let inspected = json(["inspect", text(&dir), "--json"]);
    let first = inspected["segments"][0]["file"].as_str().unwrap().to_owned();
    let path = dir.join(&first);
    let whole = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(fail(1, ["verify", text(&dir)]).contains(&first));
    assert!(fail(1, ["put", text(&dir), "key", "value"]).contains(&first));
    std::fs::write(&path, whole).unwrap();
    succeed(["verify", text(&dir)]);

    let whole = std::fs::read(dir.join("META")).unwrap();
    for slot in [0, 4096] {
        flip(&dir.join("META"), slot + 80);
        let message = fail(1, ["verify", text(&dir)]);
        assert!(message.contains("META"), "{message}");
        std::fs::write(dir.join("META"), &whole).unwrap();
    }
    flip(&dir.join("META"), 80);
    flip(&dir.join("META"), 4096 + 80);
    for arguments in [&["verify", text(&dir)][..], &["stats", text(&dir)], &["inspect", text(&dir)]]
    {
        assert!(fail(1, arguments).contains("META"));
    }
}

/// A command that writes names the damage that `verify` names, if it can go on.
#[test]
fn a_command_that_writes_says_what_it_went_on_from() {
    for at in [70, 4096 + 70] {
        let (_temporary, dir) = fresh();
        succeed(["put", text(&dir), "key", "value"]);
        flip(&dir.join("META"), at);
        assert!(fail(1, ["verify", text(&dir)]).contains("META is damaged"));
        let output = sprag(["put", text(&dir), "other", "value"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && said.contains("a slot of META did not read back"),
            "{said}"
        );
        let output = sprag(["put", text(&dir), "third", "value"]);
        assert!(output.status.success() && output.stderr.is_empty());
        assert_eq!(succeed(["get", text(&dir), "key"]), b"value\n");
        succeed(["verify", text(&dir)]);
    }
}
