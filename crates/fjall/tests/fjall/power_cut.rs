//! Tests of power cuts: a cut leaves a prefix of the batches, none of them in part. Any part of the
//! unsynced batches may be missing; synced batches are there.
//!
//! A cut is a copy of the directory while the storage is open. In the journal of the copy, parts
//! written since the last sync become zeros again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use sprag::StorageConfig;
use sprag::machine::storage::{Storage, StorageBatch, Table};
use sprag::testing::Random;
use sprag_fjall::{FjallStorage, OpenError};

use crate::over_storage::{PATIENT, applied, entry, manage};
use crate::{STATE, Scratch, all, get, small};

/// The files of a directory: name, content up to the last byte that is not zero, length.
#[derive(Clone)]
pub struct Image(Vec<(PathBuf, Option<Vec<u8>>, u64)>);

/// The content of a file up to the last byte that is not zero, and its length.
fn trimmed(path: &Path) -> (Vec<u8>, u64) {
    let mut content = fs::read(path).unwrap();
    let len = content.len() as u64;
    // Compare whole blocks first, because that is fast.
    let zeros = [0; 4096];
    while content.ends_with(&zeros) {
        content.truncate(content.len() - zeros.len());
    }
    content.truncate(content.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1));
    (content, len)
}

impl Image {
    pub fn of(path: &Path) -> Self {
        let (mut files, mut folders) = (Vec::new(), vec![path.to_path_buf()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let found = entry.unwrap().path();
                let name = found.strip_prefix(path).unwrap().to_path_buf();
                if found.is_dir() {
                    files.push((name, None, 0));
                    folders.push(found);
                } else {
                    let (content, len) = trimmed(&found);
                    files.push((name, Some(content), len));
                }
            }
        }
        Self(files)
    }

    pub fn write(&self, path: &Path) {
        fs::create_dir(path).unwrap();
        for (name, content, len) in &self.0 {
            let Some(content) = content else {
                fs::create_dir(path.join(name)).unwrap();
                continue;
            };
            let mut file = File::create(path.join(name)).unwrap();
            file.write_all(content).unwrap();
            file.set_len(*len).unwrap();
        }
    }

    /// The journal with this number.
    fn journal(&mut self, number: u32) -> &mut Vec<u8> {
        let name = PathBuf::from(format!("{number}.jnl"));
        let found = self.0.iter_mut().find(|(path, _, _)| *path == name);
        found.and_then(|(_, content, _)| content.as_mut()).unwrap()
    }

    /// Opens a changed copy.
    fn open<T>(
        &self,
        change: impl FnOnce(&mut Self),
        look: impl FnOnce(Result<FjallStorage, OpenError>) -> T,
    ) -> T {
        let mut image = self.clone();
        change(&mut image);
        let scratch = Scratch::new();
        image.write(&scratch.path());
        look(FjallStorage::open(scratch.path(), small()))
    }
}

/// Batch number `round`. It writes its number to two tables, a key under that number, and a large
/// value.
fn batch(round: u64, random: &mut Random) -> StorageBatch {
    let mut batch = StorageBatch::new();
    batch.put(Table::Meta, b"last", &round.to_be_bytes());
    batch.put(STATE, &round.to_be_bytes(), &random.bytes(100));
    if round.is_multiple_of(3) {
        // fjall compresses this value in the journal.
        batch.put(STATE, b"large", &[1; 6000]);
    } else {
        batch.put(STATE, b"large", &random.bytes(3000));
    }
    batch.remove(STATE, &(round / 2).to_be_bytes());
    batch
}

/// The number of the last batch in the storage. Checks that this batch is whole, and that nothing
/// of later ones is there.
fn last(storage: &impl Storage) -> u64 {
    let last = get(storage, Table::Meta, b"last");
    let last = last.map_or(0, |last| u64::from_be_bytes(last.try_into().unwrap()));
    let numbers: Vec<_> = all(&storage.snapshot().unwrap(), STATE)
        .into_iter()
        .filter_map(|(key, _)| key.try_into().ok().map(u64::from_be_bytes))
        .collect();
    assert!(numbers.iter().copied().eq(last / 2 + 1..=last), "{numbers:?} with {last}");
    assert_eq!(get(storage, STATE, b"large").is_some(), last > 0);
    last
}

/// The files of a storage with `synced` synced batches and `unsynced` other ones, and the end of
/// each batch in the journal.
fn written(synced: u64, unsynced: u64) -> (Image, Vec<usize>) {
    let scratch = Scratch::new();
    let storage = scratch.open();
    storage.create_table(Table::Meta).unwrap();
    let (mut random, mut ends) = (Random::new(7), vec![0]);
    for round in 1..=synced + unsynced {
        assert_eq!(
            storage.commit(&batch(round, &mut random), round <= synced).unwrap(),
            round <= synced
        );
        // A batch ends with fjall's magic, whose last byte is 3.
        ends.push(trimmed(&scratch.path().join("0.jnl")).0.len());
    }
    (Image::of(&scratch.path()), ends)
}

/// Proves DUR-28.
#[test]
fn a_journal_cut_anywhere_gives_the_whole_batches_before_the_cut() {
    let (image, ends) = written(0, 6);
    let mut random = Random::new(2);
    let mut cuts: Vec<_> = (0..20).map(|_| random.below(ends[6] + 1)).collect();
    cuts.extend(&ends);
    for cut in cuts {
        let expected = ends.iter().filter(|end| **end <= cut).count() as u64 - 1;
        let truncate = |image: &mut Image| image.journal(0).truncate(cut);
        image.open(truncate, |storage| {
            let storage = storage.unwrap();
            assert_eq!(last(&storage), expected, "cut at {cut}");
            // The storage continues from there, and the cut batches do not come back.
            storage.commit(&batch(expected + 1, &mut random), true).unwrap();
            assert_eq!(last(&storage), expected + 1);
        });
    }
}

#[test]
fn pages_that_did_not_reach_the_disk_cost_the_batches_from_them_on() {
    const SECTOR: usize = 512;
    let (image, ends) = written(3, 4);
    let mut random = Random::new(5);
    for round in 0..20 {
        // Take the unsynced sectors; the sector in which the synced part ends keeps that part.
        let mut first = usize::MAX;
        let mut lose = |image: &mut Image| {
            let journal = image.journal(0);
            let from = ends[3].div_ceil(SECTOR);
            for _ in 0..random.below(4) + 1 {
                let at = (from + random.below(journal.len() / SECTOR - from + 1)) * SECTOR;
                let end = (at + SECTOR).min(journal.len());
                journal[at..end].fill(0);
                first = first.min(at);
            }
        };
        let mut lost = image.clone();
        lose(&mut lost);
        let expected = ends.iter().filter(|end| **end <= first).count() as u64 - 1;
        lost.open(
            |_| {},
            |storage| {
                let storage = storage.unwrap();
                // A sector of zeros loses nothing.
                assert!((expected..=7).contains(&last(&storage)), "round {round} from {first}");
                assert!(last(&storage) >= 3, "what was synced is there");
            },
        );
    }
}

#[test]
fn a_batch_that_is_torn_inside_a_value_is_cut_though_it_reads_well() {
    // fjall alone refuses to open this journal, because of the checksum.
    let (image, ends) = written(4, 1);
    let at = ends[5] - 600;
    let tear = |image: &mut Image| image.journal(0)[at..at + 200].fill(0);
    image.open(tear, |storage| {
        let storage = storage.unwrap();
        assert_eq!(last(&storage), 4);
        assert_eq!(storage.cut_bytes(), (ends[5] - ends[4]) as u64);
    });
    image.open(|_| {}, |storage| assert_eq!(storage.unwrap().cut_bytes(), 0));
}

#[test]
fn damage_to_a_synced_batch_is_refused_where_whole_batches_follow() {
    let (image, ends) = written(5, 0);
    for damaged in 1..5 {
        // Damage the frame of a batch and a value; fjall alone would silently cut at the frame.
        for at in [ends[damaged - 1], ends[damaged - 1] + 20, ends[damaged] - 60] {
            let damage = |image: &mut Image| image.journal(0)[at] ^= 0x40;
            image.open(damage, |storage| {
                let error = storage.unwrap_err();
                let text = error.to_string();
                assert!(matches!(error, OpenError::Damaged { .. }), "{text}");
                let offset = format!("offset {} of 0.jnl", ends[damaged - 1]);
                assert!(text.contains(&offset), "{text}");
            });
        }
    }
    // Where several batches may be torn, the cut is before the first one.
    let (image, ends) = written(2, 3);
    let damage = |image: &mut Image| image.journal(0)[ends[3] - 60] ^= 0x40;
    image.open(damage, |storage| assert_eq!(last(&storage.unwrap()), 2));
    // After an opening everything found is durable, so only the last batches can be torn again.
    let scratch = Scratch::new();
    image.write(&scratch.path());
    let storage = FjallStorage::open(scratch.path(), small()).unwrap();
    storage.commit(&batch(6, &mut Random::new(1)), true).unwrap();
    let image = Image::of(&scratch.path());
    image.open(damage, |storage| {
        assert!(matches!(storage.unwrap_err(), OpenError::Damaged { .. }));
    });
}

#[test]
fn a_sealed_journal_that_is_not_whole_is_refused() {
    let scratch = Scratch::new();
    let storage = scratch.open();
    storage.create_table(Table::Meta).unwrap();
    let mut random = Random::new(1);
    // fjall keeps the first journal, because this table has no full buffer.
    storage.commit(&batch(1, &mut random), false).unwrap();
    // fjall begins another journal after 64 MB.
    while !scratch.path().join("1.jnl").exists() {
        let mut large = StorageBatch::new();
        large.put(STATE, b"large", &random.bytes(8 << 20));
        storage.commit(&large, false).unwrap();
    }
    drop(storage);
    let image = Image::of(&scratch.path());
    image.open(|_| {}, |storage| assert_eq!(last(&storage.unwrap()), 1));
    let damage = |image: &mut Image| image.journal(0)[1000] ^= 1;
    image.open(damage, |storage| {
        let error = storage.unwrap_err();
        assert!(error.to_string().contains("offset 0 of 0.jnl"), "{error}");
    });
}

#[test]
fn a_power_cut_takes_nothing_acknowledged_of_a_machine_and_nothing_is_applied_twice() {
    const ENTRIES: u64 = 6;
    let scratch = Scratch::new();
    let storage = FjallStorage::open(scratch.path(), small()).unwrap();
    let manager = manage(storage, StorageConfig::new()).unwrap();
    let mut ends = vec![trimmed(&scratch.path().join("0.jnl")).0.len()];
    for index in 1..=ENTRIES {
        manager.apply(&entry(index), PATIENT).unwrap();
        ends.push(trimmed(&scratch.path().join("0.jnl")).0.len());
    }
    let image = Image::of(&scratch.path());
    let mut random = Random::new(3);
    for _ in 0..10 {
        let cut = ends[0] + random.below(ends[6] - ends[0] + 1);
        let acknowledged = ends.iter().filter(|end| **end <= cut).count() as u64 - 1;
        // Either the end is lost, or a part before the end.
        let until = if random.below(2) == 0 { ends[6] } else { (cut + 20).min(ends[6]) };
        let lose = |image: &mut Image| {
            let next = ends.iter().copied().find(|end| *end > cut).unwrap_or(ends[6]);
            let journal = image.journal(0);
            journal[cut..until].fill(0);
            // Each batch was synced before the next one was written.
            journal.truncate(next);
        };
        image.open(lose, |storage| {
            let manager = manage(storage.unwrap(), StorageConfig::new()).unwrap();
            assert_eq!(applied(&manager), acknowledged, "cut at {cut}");
            for index in acknowledged + 1..=ENTRIES {
                manager.apply(&entry(index), PATIENT).unwrap();
            }
            assert_eq!(applied(&manager), ENTRIES, "cut at {cut}");
        });
    }
}
