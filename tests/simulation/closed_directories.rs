//! Directories that were closed, and every change of one of their sectors or files.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use sprag::testing::{SimDisk, Stepped};
use sprag::{ApplyConfig, Entry, PersistentConfig, PersistentStateMachine};

use crate::simulation::random::Random;

const SECTOR: usize = 512;
const SNAPSHOT_FOOTER_BYTES: usize = 64;

pub(crate) type Files = BTreeMap<String, Vec<u8>>;
/// A file and the number of a sector in it.
pub(crate) type Place = (String, usize);

/// Actions in one opening of a directory, which ends with a close.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Do {
    Put,
    /// A put with a value of this length.
    PutLong(usize),
    Vote,
    Compact,
    Snapshot,
}
use Do::{Compact, Put, PutLong, Snapshot, Vote};

/// The directories.
pub(crate) const SHAPES: [(&str, &[&[Do]]); 9] = [
    ("nothing", &[&[]]),
    ("one put", &[&[Put]]),
    ("three puts", &[&[Put, Put, Put]]),
    ("one vote", &[&[Vote]]),
    ("a put between two votes", &[&[Vote, Put, Vote]]),
    ("three votes over two openings", &[&[Put, Vote], &[Vote, Put, Vote]]),
    ("two segments", &[&[Put, PutLong(7000), PutLong(7000), Put]]),
    ("a compaction and a tail", &[&[PutLong(7000), PutLong(7000), Put, Compact, Put, Put]]),
    (
        "compactions, a snapshot and votes over three openings",
        &[
            &[PutLong(7000), Put, Vote, Compact],
            &[PutLong(7000), Vote, Compact, Put],
            &[Put, Snapshot],
        ],
    ),
];

pub(crate) fn config() -> PersistentConfig {
    PersistentConfig::new("simulated")
        .segment_bytes(16 << 10)
        .segment_images(2)
        .expected_keys(16)
        .batch_size(1)
        .spare_segments(1)
}

pub(crate) fn apply_config() -> ApplyConfig {
    ApplyConfig::new().worker_count(NonZeroUsize::MIN).pipeline_depth(16)
}

/// A closed directory, and its history.
pub(crate) struct Made {
    files: Files,
    /// Content of each sector at each durable moment.
    versions: BTreeMap<Place, Vec<Vec<u8>>>,
    /// All files, at each durable moment.
    moments: Vec<Files>,
    pub(crate) values: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) last: Option<u64>,
    pub(crate) vote: Option<Vec<u8>>,
}

impl Made {
    pub(crate) fn of(openings: &[&[Do]]) -> Self {
        let disk = SimDisk::new(11);
        let (mut values, mut votes, mut next) = (BTreeMap::new(), 0_u64, 1_u64);
        let mut made = Self {
            files: Files::new(),
            versions: BTreeMap::new(),
            moments: Vec::new(),
            values: BTreeMap::new(),
            last: None,
            vote: None,
        };
        for steps in openings {
            let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config());
            let node = Stepped::new(machine.unwrap(), apply_config()).unwrap();
            made.note(&disk);
            for step in *steps {
                match step {
                    Put | PutLong(_) => {
                        let bytes = if let PutLong(bytes) = step { *bytes } else { 20 };
                        let (key, value) = (vec![b'k', next as u8], vec![next as u8; bytes]);
                        let entry = Entry::put(next, 1, &key, &value);
                        assert_eq!(node.apply_entries(&[entry]).unwrap().new, 1);
                        values.insert(key, value);
                        next += 1;
                    }
                    Vote => {
                        votes += 1;
                        node.log().unwrap().save_hard_state(&vote(votes)).unwrap();
                    }
                    Compact => drop(node.snapshots().compact().unwrap()),
                    Snapshot => drop(node.snapshots().write().unwrap()),
                }
                node.run_until_idle();
                made.note(&disk);
            }
            node.into_manager().close(std::time::Duration::from_secs(9)).unwrap();
            disk.crash_process();
            made.note(&disk);
        }
        made.values = values;
        made.last = (next > 1).then(|| next - 1);
        made.vote = (votes > 0).then(|| vote(votes));
        made
    }

    /// Records a durable moment.
    fn note(&mut self, disk: &SimDisk) {
        self.files = files(disk);
        self.moments.push(self.files.clone());
        for (name, bytes) in &self.files {
            for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                let known = self.versions.entry((name.clone(), number)).or_default();
                if !known.iter().any(|version| version == sector) {
                    known.push(sector.to_vec());
                }
            }
        }
    }

    fn sector(&self, (name, number): &Place) -> &[u8] {
        // The last sector of a snapshot may be shorter.
        self.files[name].chunks(SECTOR).nth(*number).unwrap()
    }

    /// The sectors that are changed.
    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places = BTreeSet::new();
        for (name, bytes) in &self.files {
            let mut add = |from: usize, to: usize| {
                places.extend((from / SECTOR..to.div_ceil(SECTOR)).map(|at| (name.clone(), at)));
            };
            let sectors = bytes.len() / SECTOR * SECTOR;
            match name.rsplit('.').next() {
                Some("META" | "HARD") => add(0, sectors),
                Some("seg") => {
                    let starts: Vec<usize> = (0..sectors)
                        .step_by(64)
                        .filter(|at| {
                            bytes[*at..].starts_with(b"SPRG")
                                && bytes[*at + 104..][..8] == (*at as u64).to_le_bytes()
                        })
                        .collect();
                    for at in [starts.first(), starts.last()].into_iter().flatten() {
                        let body = u32::from_le_bytes(bytes[*at + 64..][..4].try_into().unwrap());
                        // Of a long frame, take the first sectors and the last one.
                        let end = at + 128 + body as usize;
                        add(*at, end.min(at + 2 * SECTOR));
                        add(end - 1, end);
                    }
                }
                Some("snap") => {
                    let footer = &bytes[bytes.len() - SNAPSHOT_FOOTER_BYTES..];
                    let index = u64::from_le_bytes(footer[8..16].try_into().unwrap());
                    add(0, SECTOR);
                    add(index as usize, bytes.len());
                }
                _ => {}
            }
        }
        places.into_iter().collect()
    }

    /// The changed contents of a sector.
    fn variants(&self, place: &Place) -> Vec<Vec<u8>> {
        let (name, number) = place;
        let now = self.sector(place);
        let mut variants = vec![vec![0; now.len()]];
        let mut random = Random::new(*number as u64 + 1);
        variants.push(now.iter().map(|_| random.next() as u8).collect());
        variants.extend(self.versions[place].iter().cloned());
        let other = match &**name {
            // Use the same sector of the other slot.
            "META" | "HARD" => (number + 8) % 16,
            _ => number + 1,
        };
        if (other + 1) * SECTOR <= self.files[name].len() {
            variants.push(self.sector(&(name.clone(), other)).to_vec());
        }
        let mut flipped = now.to_vec();
        flipped[if name.ends_with(".snap") { now.len() - 1 } else { 70 }] ^= 4;
        variants.push(flipped);
        let mut kept: Vec<Vec<u8>> = Vec::new();
        for variant in variants {
            if variant.len() == now.len() && variant != now && !kept.contains(&variant) {
                kept.push(variant);
            }
        }
        kept
    }

    /// Every change of one of the sectors.
    pub(crate) fn changes(&self, places: &[Place]) -> Vec<Change> {
        let of = |place: &Place| {
            let (name, number) = place.clone();
            self.variants(place).into_iter().map(move |bytes| {
                let first: Vec<String> = bytes[..16].iter().map(|b| format!("{b:02x}")).collect();
                let what = format!("{name} sector {number}: {}..", first.concat());
                let edit = Edit::Bytes(number * SECTOR, bytes);
                Change { what, file: name.clone(), part: Some(number), edit }
            })
        };
        places.iter().flat_map(of).collect()
    }

    /// Every earlier copy of each file, each file cut short, and each file removed.
    pub(crate) fn file_changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, now) in &self.files {
            let mut add = |what: String, edit: Edit| {
                changes.push(Change { what, file: name.clone(), part: None, edit });
            };
            let mut known = vec![now];
            for (at, moment) in self.moments.iter().enumerate() {
                match moment.get(name) {
                    Some(then) if !known.contains(&then) => {
                        known.push(then);
                        add(format!("{name} as of moment {at}"), Edit::File(Some(then.clone())));
                    }
                    _ => {}
                }
            }
            for length in [0, SECTOR, 8 * SECTOR] {
                if length < now.len() {
                    add(
                        format!("{name} cut to {length}"),
                        Edit::File(Some(now[..length].to_vec())),
                    );
                }
            }
            add(format!("{name} all zeros"), Edit::File(Some(vec![0; now.len()])));
            add(format!("{name} gone"), Edit::File(None));
        }
        changes
    }

    /// The files of a changed directory.
    pub(crate) fn changed(&self, changes: &[&Change]) -> Files {
        let mut files = self.files.clone();
        for Change { file, edit, .. } in changes {
            match edit {
                Edit::Bytes(offset, bytes) => {
                    let file = files.get_mut(file).unwrap();
                    file[*offset..][..bytes.len()].copy_from_slice(bytes);
                }
                Edit::File(Some(bytes)) => drop(files.insert(file.clone(), bytes.clone())),
                Edit::File(None) => drop(files.remove(file)),
            }
        }
        files
    }

    /// Whether entries may be lost without a report: META is from an earlier moment, and no segment
    /// holds anything from another moment. Both records of the log are rolled back alike, and
    /// nothing else knows of the lost entries.
    pub(crate) fn is_log_rolled_back(&self, files: &Files) -> bool {
        let now = without_zeros(files);
        self.earlier().any(|then| {
            let segments = now.iter().filter(|(name, _)| name.ends_with(".seg"));
            now.get("META") == then.get("META") && { segments }
                .all(|(name, bytes)| then.get(name) == Some(bytes))
        })
    }

    /// Whether a vote may be lost without a report: META is from an earlier moment, and HARD from
    /// that or a later one. A crash leaves a vote that is newer than META, and a lost one leaves no
    /// other trace.
    pub(crate) fn is_vote_rolled_back(&self, files: &Files) -> bool {
        let now = without_zeros(files);
        let mut metas = self.earlier().scan(false, |met, then| {
            *met |= now.get("META") == then.get("META");
            Some((*met, then))
        });
        metas.any(|(met, then)| met && now.get("HARD") == then.get("HARD"))
    }

    /// Earlier contents of the directory, from the empty one on.
    fn earlier(&self) -> impl Iterator<Item = BTreeMap<&str, &[u8]>> {
        let (_, before) = self.moments.split_last().unwrap();
        std::iter::once(BTreeMap::new()).chain(before.iter().map(without_zeros))
    }
}

/// The contents of files. Zeros at the end of a file, or a file of zeros, are reserved space
/// without content.
fn without_zeros(files: &Files) -> BTreeMap<&str, &[u8]> {
    let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let files = files.iter().map(|(name, bytes)| (&**name, &bytes[..used(bytes)]));
    files.filter(|(_, bytes)| !bytes.is_empty()).collect()
}

/// One change of a directory.
pub(crate) struct Change {
    pub(crate) what: String,
    file: String,
    /// The sector; `None`: the whole file.
    part: Option<usize>,
    edit: Edit,
}

enum Edit {
    /// Other bytes from an offset on.
    Bytes(usize, Vec<u8>),
    /// Another file, or none.
    File(Option<Vec<u8>>),
}

impl Change {
    /// Whether both changes can be made at once.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        self.file != other.file
            || (self.part.is_some() && other.part.is_some() && self.part != other.part)
    }
}

fn vote(number: u64) -> Vec<u8> {
    format!("vote {number}").into_bytes()
}

pub(crate) fn files(disk: &SimDisk) -> Files {
    let names = disk.file_names().into_iter();
    names.map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}
