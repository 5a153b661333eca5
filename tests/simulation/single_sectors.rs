//! Every change of one sector, and of two, in a directory that was closed: what is lost by it is named.
//!
//! A change puts something else into one sector: zeros, noise, what an earlier durable moment had there, or what another
//! sector of the same kind has now. Sectors are those of `META` and `HARD`, of the first and last frame of each segment, and of
//! each snapshot's header and index. Everything is enumerated, alone and in pairs.
//!
//! For each, `verify`, opening read-only and opening for writing must agree on whether something is wrong. What opens
//! without a word has every entry and the last vote; what was refused was not changed.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use sprag::disk::Access;
use sprag::error::OpenError;
use sprag::testing::{SimDisk, Stepped, verify_on_disk};
use sprag::{
    ApplyConfig, Entry, PersistentConfig, PersistentStateMachine, RecoveryReport, StateMachine,
};

use crate::random::Random;

const SECTOR: usize = 512;
const SNAPSHOT_FOOTER_BYTES: usize = 64;

type Files = BTreeMap<String, Vec<u8>>;
/// A file and the number of a sector in it.
type Place = (String, usize);

/// What is done in one opening of a directory; each is closed in the end.
#[derive(Clone, Copy, Debug)]
enum Do {
    Put,
    /// Of so many bytes.
    PutLong(usize),
    Vote,
    Compact,
    Snapshot,
}
use Do::{Compact, Put, PutLong, Snapshot, Vote};

/// The directories.
const SHAPES: [(&str, &[&[Do]]); 9] = [
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

fn config() -> PersistentConfig {
    PersistentConfig::new("simulated")
        .segment_bytes(16 << 10)
        .segment_images(2)
        .expected_keys(16)
        .batch_size(1)
        .spare_segments(1)
}

fn apply_config() -> ApplyConfig {
    ApplyConfig::new().worker_count(NonZeroUsize::MIN).pipeline_depth(16)
}

/// A directory as it was closed, and what is in it.
struct Made {
    files: Files,
    /// What each sector held at each durable moment.
    versions: BTreeMap<Place, Vec<Vec<u8>>>,
    /// All files, at each durable moment.
    moments: Vec<Files>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    last: Option<u64>,
    vote: Option<Vec<u8>>,
}

impl Made {
    fn of(openings: &[&[Do]]) -> Self {
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
                        node.save_hard_state(&vote(votes)).unwrap();
                    }
                    Compact => drop(node.compact().unwrap()),
                    Snapshot => drop(node.snapshot().unwrap()),
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

    /// A durable moment.
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
        // The last one of a snapshot may be shorter.
        self.files[name].chunks(SECTOR).nth(*number).unwrap()
    }

    /// The sectors that are changed.
    fn places(&self) -> Vec<Place> {
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
                        // Of a long frame the first sectors and the last one.
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

    /// What a sector is changed to.
    fn variants(&self, place: &Place) -> Vec<Vec<u8>> {
        let (name, number) = place;
        let now = self.sector(place);
        let mut variants = vec![vec![0; now.len()]];
        let mut random = Random::new(*number as u64 + 1);
        variants.push(now.iter().map(|_| random.next() as u8).collect());
        variants.extend(self.versions[place].iter().cloned());
        let other = match &**name {
            // The same sector of the other slot.
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
    fn changes(&self, places: &[Place]) -> Vec<Change> {
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

    /// Every earlier copy of each file, each file cut short, and each file gone.
    fn file_changes(&self) -> Vec<Change> {
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

    /// What a changed directory holds.
    fn changed(&self, changes: &[&Change]) -> Files {
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

    /// Whether entries may go unsaid: META is as of an earlier moment, and no segment holds anything that is not of that
    /// moment. Both copies of what the log had are rolled back alike, and nothing is left that knows better.
    fn is_log_rolled_back(&self, files: &Files) -> bool {
        let now = without_zeros(files);
        self.earlier().any(|then| {
            let segments = now.iter().filter(|(name, _)| name.ends_with(".seg"));
            now.get("META") == then.get("META") && { segments }
                .all(|(name, bytes)| then.get(name) == Some(bytes))
        })
    }

    /// Whether a vote may go unsaid: META is as of an earlier moment, and HARD of that or a later one. A vote that is newer
    /// than META is what a crash leaves, and one that is lost there left nothing else.
    fn is_vote_rolled_back(&self, files: &Files) -> bool {
        let now = without_zeros(files);
        let mut metas = self.earlier().scan(false, |met, then| {
            *met |= now.get("META") == then.get("META");
            Some((*met, then))
        });
        metas.any(|(met, then)| met && now.get("HARD") == then.get("HARD"))
    }

    /// What the directory held before, from nothing on.
    fn earlier(&self) -> impl Iterator<Item = BTreeMap<&str, &[u8]>> {
        let (_, before) = self.moments.split_last().unwrap();
        std::iter::once(BTreeMap::new()).chain(before.iter().map(without_zeros))
    }
}

/// What the files hold. Zeros at the end of a file, or a file of zeros, are room that nothing was written to.
fn without_zeros(files: &Files) -> BTreeMap<&str, &[u8]> {
    let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let files = files.iter().map(|(name, bytes)| (&**name, &bytes[..used(bytes)]));
    files.filter(|(_, bytes)| !bytes.is_empty()).collect()
}

/// One change of a directory.
struct Change {
    what: String,
    file: String,
    /// The sector; `None`: the whole file.
    part: Option<usize>,
    edit: Edit,
}

enum Edit {
    /// From an offset on, other bytes.
    Bytes(usize, Vec<u8>),
    /// Another file, or none.
    File(Option<Vec<u8>>),
}

impl Change {
    /// Whether both can be made at once.
    fn is_beside(&self, other: &Self) -> bool {
        self.file != other.file
            || (self.part.is_some() && other.part.is_some() && self.part != other.part)
    }
}

fn vote(number: u64) -> Vec<u8> {
    format!("vote {number}").into_bytes()
}

fn files(disk: &SimDisk) -> Files {
    let names = disk.file_names().into_iter();
    names.map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}

/// A disk with these files.
fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new(5);
    let handle = disk.open(true).unwrap();
    for (name, bytes) in files {
        let file = handle.open(name, Access::Create).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
    }
    handle.sync_dir().unwrap();
    drop(handle);
    disk
}

/// What one way to look at a directory says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    /// What is wrong, in words; `None`: nothing is.
    named: Option<String>,
    /// Whether all entries are there.
    has_entries: bool,
    /// Whether the last vote is.
    has_vote: bool,
}

impl Said {
    fn error(error: &OpenError) -> Self {
        Self { named: Some(error.to_string()), has_entries: false, has_vote: false }
    }

    fn is_exact(&self) -> bool {
        self.has_entries && self.has_vote
    }
}

fn named(report: &RecoveryReport) -> Option<String> {
    let mut named = Vec::new();
    named.extend(report.unreadable.as_ref().map(ToString::to_string));
    named.extend(report.meta_slot_damaged.then(|| "a slot of META".to_owned()));
    named.extend(report.cut.as_ref().map(|cut| format!("{cut:?}")));
    named.extend(report.damaged_snapshots.iter().cloned());
    (!named.is_empty()).then(|| named.join(", "))
}

fn verified(disk: &SimDisk) -> Option<String> {
    match verify_on_disk(disk) {
        Err(error) => Some(error.to_string()),
        Ok(report) => {
            let first = report.findings.first();
            first.map(|finding| format!("{} ({})", finding.place, finding.was_durable))
        }
    }
}

fn has_entries(made: &Made, machine: &PersistentStateMachine) -> bool {
    let state = machine.scan_sorted();
    machine.applied().map(|last| last.index) == made.last
        && state.is_ok_and(|state| {
            let state = state.iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
            state.collect::<BTreeMap<_, _>>() == made.values
        })
}

fn read(made: &Made, disk: &SimDisk) -> Said {
    match PersistentStateMachine::open_read_only_on_disk(disk.open(false).unwrap()) {
        Err(error) => Said::error(&error),
        Ok(machine) => {
            let (named, has_entries) = (named(machine.recovery()), has_entries(made, &machine));
            // What reads a vote is an engine that may write.
            Said { named, has_entries, has_vote: true }
        }
    }
}

fn written(made: &Made, disk: &SimDisk, goes_on: bool) -> Result<Said, String> {
    let before = files(disk);
    match PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config()) {
        Err(error) => {
            if files(disk) != before {
                return Err(format!("refused, and changed: {error}"));
            }
            Ok(Said::error(&error))
        }
        Ok(machine) => {
            let named = named(machine.recovery());
            let has_entries = has_entries(made, &machine);
            let node = Stepped::new(machine, apply_config()).unwrap();
            let vote = node.hard_state().unwrap();
            let said = Said { named, has_entries, has_vote: vote == made.vote };
            if goes_on && said.is_exact() {
                go_on(made, disk, node)?;
            }
            Ok(said)
        }
    }
}

/// One more entry and a power cut lose nothing either.
fn go_on(made: &Made, disk: &SimDisk, node: Stepped<PersistentStateMachine>) -> Result<(), String> {
    let next = made.last.map_or(1, |last| last + 1);
    let taken = node.apply_entries(&[Entry::put(next, 1, b"one more", b"value")]);
    let taken = taken.map_err(|error| format!("it takes no entry: {error}"))?;
    assert_eq!(taken.new, 1);
    node.run_until_idle();
    disk.power_cut_keeping(0);
    drop(node);
    let machine = PersistentStateMachine::open_on_disk(disk.open(true).unwrap(), config());
    let machine = machine.map_err(|error| format!("it does not open again: {error}"))?;
    let last = machine.applied().map(|last| last.index);
    let state = machine.scan_sorted().map_err(|error| error.to_string())?;
    let vote = Stepped::new(machine, apply_config()).unwrap().hard_state().unwrap();
    if last != Some(next) || state.len() != made.values.len() + 1 || vote != made.vote {
        return Err("something was lost when it went on".to_owned());
    }
    Ok(())
}

/// What the campaign counts.
#[derive(Debug, Default)]
struct Tried {
    changes: usize,
    refused: usize,
    named: usize,
    unsaid: usize,
    /// Lost without a word, as META and what it vouches for are rolled back alike: no design with these files can tell.
    untold: usize,
}

/// Which report the engine is taken to have forgotten: the canary.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Forgets {
    Nothing,
    /// What opening for writing says.
    Opening,
    /// What `verify` finds.
    Verify,
}

/// Looks at a changed directory in all ways.
fn judge(
    made: &Made,
    changes: &[&Change],
    forgets: Forgets,
    tried: &mut Tried,
) -> Result<(), String> {
    // A pair that goes on says no more than its changes do alone.
    let goes_on = changes.len() < 2;
    let files = made.changed(changes);
    let disk = disk_of(&files);
    let verified = verified(&disk).filter(|_| forgets != Forgets::Verify);
    let read = read(made, &disk);
    let mut written = written(made, &disk, goes_on)?;
    tried.changes += 1;
    tried.refused += usize::from(written.named.is_some() && !written.is_exact());
    tried.named += usize::from(written.named.is_some() && written.is_exact());
    tried.unsaid += usize::from(written.named.is_none());
    if forgets == Forgets::Opening {
        written.named = None;
    }
    let is_untold = (!written.has_entries && made.is_log_rolled_back(&files))
        || (!written.has_vote && made.is_vote_rolled_back(&files));
    if written.named.is_none() && is_untold && forgets == Forgets::Nothing {
        tried.untold += 1;
    } else if written.named.is_none() && !written.is_exact() {
        return Err("opening for writing lost something, and said nothing".to_owned());
    } else if read.named.is_none() && !read.is_exact() {
        return Err("reading lost something, and said nothing".to_owned());
    }
    let said = [&verified, &read.named, &written.named];
    if said.iter().any(|said| said.is_some() != verified.is_some()) {
        return Err(format!("verify, reading and writing do not agree: {said:?}"));
    }
    Ok(())
}

/// What is enumerated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Sectors,
    Files,
}

fn campaign(of: Of, pairs: bool, forgets: Forgets) -> (Tried, Vec<String>) {
    let (mut tried, mut wrong) = (Tried::default(), Vec::new());
    for (shape, openings) in SHAPES {
        let made = Made::of(openings);
        let changes = match of {
            Of::Sectors => {
                let mut places = made.places();
                if pairs {
                    // The sectors of a slot are alike: the first and the last stand for all.
                    places.retain(|(name, number)| {
                        !matches!(&**name, "META" | "HARD") || [0, 7].contains(&(number % 8))
                    });
                }
                made.changes(&places)
            }
            Of::Files => made.file_changes(),
        };
        let mut check = |changes: &[&Change]| {
            if let Err(what) = judge(&made, changes, forgets, &mut tried) {
                let each: Vec<&str> = changes.iter().map(|change| &*change.what).collect();
                wrong.push(format!("{shape}: {}: {what}", each.join(" and ")));
            }
        };
        if !pairs {
            check(&[]);
            changes.iter().for_each(|change| check(&[change]));
            continue;
        }
        for (at, one) in changes.iter().enumerate() {
            changes[at + 1..].iter().filter(|other| one.is_beside(other)).for_each(|other| {
                check(&[one, other]);
            });
        }
    }
    (tried, wrong)
}

fn assert_none(wrong: &[String]) {
    let shown = wrong.iter().take(50).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} are wrong:\n{shown}", wrong.len());
}

#[test]
fn every_change_of_one_sector_is_named_or_costs_nothing() {
    let (tried, wrong) = campaign(Of::Sectors, false, Forgets::Nothing);
    println!("{tried:?}");
    assert_none(&wrong);
    assert!(tried.changes > 300 && tried.refused > 100 && tried.unsaid > 0, "{tried:?}");
}

#[test]
fn every_change_of_two_sectors_is_named_or_costs_nothing() {
    let (tried, wrong) = campaign(Of::Sectors, true, Forgets::Nothing);
    println!("{tried:?}");
    assert_none(&wrong);
    assert!(tried.changes > 5000 && tried.untold < 100, "{tried:?}");
}

#[test]
fn every_older_shorter_or_missing_file_is_named_or_costs_nothing() {
    let (tried, wrong) = campaign(Of::Files, false, Forgets::Nothing);
    println!("{tried:?}");
    assert_none(&wrong);
    assert!(tried.changes > 100 && tried.refused > 50, "{tried:?}");
}

#[test]
fn every_two_older_shorter_or_missing_files_are_named_or_cost_nothing() {
    let (tried, wrong) = campaign(Of::Files, true, Forgets::Nothing);
    println!("{tried:?}");
    assert_none(&wrong);
}

/// The canary: with a report that is forgotten the campaign must fail.
#[test]
fn a_report_that_is_forgotten_is_caught() {
    for forgets in [Forgets::Opening, Forgets::Verify] {
        let (tried, wrong) = campaign(Of::Sectors, false, forgets);
        assert!(wrong.len() >= tried.refused, "{} of {tried:?}", wrong.len());
    }
}
