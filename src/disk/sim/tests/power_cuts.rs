//! Tests of the content after a power cut.

use super::*;

#[test]
fn each_sector_survives_or_not_and_a_mask_enumerates_all_subsets() {
    let prepare = || {
        let (sim, _disk, file) = with_file(1);
        file.allocate(3 * SECTOR as u64).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&sectors(b"xyz"), 0).unwrap();
        sim
    };
    let seen = outcomes(3, prepare, |sim| sim.read_file("a").unwrap());
    for (mask, content) in seen.iter().enumerate() {
        let kept = |bit: usize, byte| if mask >> bit & 1 == 1 { byte } else { 0 };
        assert_eq!(*content, sectors(&[kept(0, b'x'), kept(1, b'y'), kept(2, b'z')]));
    }
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 8);
}

#[test]
fn the_latest_surviving_version_of_a_sector_counts_with_what_was_written_before_it() {
    let prepare = || {
        let (sim, _disk, file) = with_file(1);
        file.write_all_at(b"----", 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(b"1", 0).unwrap();
        file.write_all_at(b"2", 1).unwrap();
        sim
    };
    let seen = outcomes(2, prepare, |sim| sim.read_file("a").unwrap());
    assert_eq!(seen, [b"----".to_vec(), b"1---".to_vec(), b"12--".to_vec(), b"12--".to_vec()]);
}

#[test]
fn a_length_survives_or_not_by_itself() {
    let prepare = || {
        let (sim, _disk, file) = with_file(1);
        file.write_all_at(b"abc", 0).unwrap();
        sim
    };
    let seen = outcomes(2, prepare, |sim| sim.read_file("a").unwrap());
    assert_eq!(seen, [b"".to_vec(), b"\0\0\0".to_vec(), b"".to_vec(), b"abc".to_vec()]);
}

#[test]
fn bytes_beyond_a_lost_length_do_not_come_back_when_the_file_grows_again() {
    let (sim, _disk, file) = with_file(1);
    file.write_all_at(b"ab", 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&vec![b'x'; 2 * SECTOR], 2).unwrap();
    // Item 0 is the length.
    sim.power_cut(&mut |item| item != 0);
    assert_eq!(sim.read_file("a").unwrap(), b"ab");
    let file = sim.open(true).unwrap().open("a", Access::Write).unwrap();
    file.allocate(4 * SECTOR as u64).unwrap();
    let mut expected = b"ab".to_vec();
    expected.resize(4 * SECTOR, 0);
    assert_eq!(read_all(&*file), expected);
}

#[test]
fn a_created_file_may_vanish_until_the_directory_is_synced_also_when_its_data_is() {
    let prepare = || {
        let sim = SimDisk::new(1);
        let disk = sim.open(true).unwrap();
        let file = disk.open("a", Access::Create).unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        file.sync_data().unwrap();
        sim
    };
    let seen = outcomes(1, prepare, |sim| sim.read_file("a"));
    assert_eq!(seen, [None, Some(b"abc".to_vec())]);
}

#[test]
fn a_synced_name_does_not_make_the_content_durable() {
    let (sim, disk, file) = with_file(1);
    file.write_all_at(b"abc", 0).unwrap();
    disk.sync_dir().unwrap();
    sim.power_cut_keeping(0);
    assert_eq!(sim.read_file("a").unwrap(), b"");
}

#[test]
fn a_renaming_is_atomic_and_a_removal_may_be_undone() {
    let prepare = || {
        let (sim, disk, file) = with_file(1);
        file.write_all_at(b"old", 0).unwrap();
        file.sync_data().unwrap();
        let new = disk.open("tmp", Access::Create).unwrap();
        new.write_all_at(b"new", 0).unwrap();
        new.sync_data().unwrap();
        disk.open("b", Access::Create).unwrap();
        disk.sync_dir().unwrap();
        disk.rename("tmp", "a").unwrap();
        disk.remove("b").unwrap();
        sim
    };
    let seen = outcomes(2, prepare, |sim| (sim.file_names(), sim.read_file("a").unwrap()));
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        seen,
        [
            (names(&["a", "b", "tmp"]), b"old".to_vec()),
            (names(&["a", "b"]), b"new".to_vec()),
            (names(&["a", "tmp"]), b"old".to_vec()),
            (names(&["a"]), b"new".to_vec()),
        ]
    );
}

#[test]
fn a_file_has_one_name_whatever_survives_of_its_renamings() {
    let prepare = || {
        let (sim, disk, _file) = with_file(1);
        disk.rename("a", "b").unwrap();
        disk.rename("b", "c").unwrap();
        sim
    };
    let seen = outcomes(2, prepare, SimDisk::file_names);
    assert_eq!(seen, [["a"], ["b"], ["c"], ["c"]]);
}

#[test]
fn a_synced_directory_keeps_its_changes() {
    let (sim, disk, _file) = with_file(1);
    disk.rename("a", "b").unwrap();
    disk.open("c", Access::Create).unwrap();
    disk.open("d", Access::Create).unwrap();
    disk.remove("d").unwrap();
    disk.sync_dir().unwrap();
    assert_eq!(sim.unsynced(), 0);
    sim.power_cut_keeping(0);
    assert_eq!(sim.file_names(), ["b", "c"]);
}

#[test]
fn items_are_in_the_order_they_happened_in() {
    let (sim, disk, file) = with_file(1);
    file.write_all_at(b"x", 0).unwrap();
    disk.open("b", Access::Create).unwrap();
    file.write_all_at(b"y", 0).unwrap();
    let mut asked = Vec::new();
    sim.power_cut(&mut |item| {
        asked.push(item);
        item < 2
    });
    assert_eq!(asked, [0, 1, 2, 3]);
    assert_eq!((sim.file_names().len(), sim.read_file("a").unwrap()), (1, b"x".to_vec()));
}

#[test]
fn what_is_unlinked_for_good_counts_for_nothing() {
    let (sim, disk, file) = with_file(1);
    disk.open("b", Access::Create).unwrap();
    disk.remove("a").unwrap();
    disk.sync_dir().unwrap();
    file.write_all_at(b"x", 0).unwrap();
    assert_eq!(read_all(&*file), b"x");
    assert_eq!(sim.unsynced(), 0);
}

/// Rewrites and syncs a file at random. Each sector must have its last synced content, or something
/// written later. With `sync` off the same run must find a loss; otherwise it could not find one.
fn synced_data_is_lost(seed: u64, sync: bool) -> bool {
    const SECTORS: usize = 8;
    let (sim, disk, file) = with_file(seed);
    sim.set_sync_disabled(!sync);
    let mut random = crate::disk::sim::random::Random::new(seed);
    let mut allowed: Vec<BTreeSet<u8>> = vec![BTreeSet::from([0]); SECTORS];
    let mut now = [0; SECTORS];
    let mut durable_names = BTreeSet::from(["a".to_owned()]);
    file.allocate((SECTORS * SECTOR) as u64).unwrap();
    file.sync_data().unwrap();
    for version in 1..=60_u8 {
        match random.below(5) {
            0 => {
                file.sync_data().unwrap();
                allowed = now.iter().map(|byte| BTreeSet::from([*byte])).collect();
            }
            1 => {
                disk.open(&format!("{version}"), Access::Create).unwrap();
                disk.sync_dir().unwrap();
                durable_names.insert(format!("{version}"));
            }
            _ => {
                let sector = random.below(SECTORS);
                file.write_all_at(&[version; SECTOR], (sector * SECTOR) as u64).unwrap();
                now[sector] = version;
                allowed[sector].insert(version);
            }
        }
    }
    sim.power_cut_random();
    let names: BTreeSet<String> = sim.file_names().into_iter().collect();
    let content = sim.read_file("a").unwrap_or_default();
    let whole = content.len() == SECTORS * SECTOR
        && content.chunks(SECTOR).zip(&allowed).all(|(sector, allowed)| {
            sector.iter().all(|byte| *byte == sector[0]) && allowed.contains(&sector[0])
        });
    names != durable_names || !whole
}

#[test]
fn nothing_synced_is_lost_in_200_random_cuts() {
    for seed in 0..200 {
        assert!(!synced_data_is_lost(seed, true), "seed {seed}");
    }
}

#[test]
fn with_syncs_disabled_cuts_lose_data() {
    let lost = (0..200).filter(|seed| synced_data_is_lost(*seed, false)).count();
    assert!(lost > 190, "{lost} of 200");
}

#[test]
fn with_syncs_disabled_a_cut_that_keeps_nothing_leaves_nothing() {
    let sim = SimDisk::new(1);
    sim.set_sync_disabled(true);
    let disk = sim.open(true).unwrap();
    let file = disk.open("a", Access::Create).unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    assert_eq!(sim.trace().len(), 4, "disabled syncs are still counted");
    sim.power_cut_keeping(0);
    assert!(sim.file_names().is_empty());
}

#[test]
fn the_seed_decides_a_random_cut() {
    let run = |seed| {
        let (sim, _disk, file) = with_file(seed);
        file.write_all_at(&sectors(&[7; 64]), 0).unwrap();
        sim.power_cut_random();
        sim.read_file("a").unwrap()
    };
    assert_eq!(run(5), run(5));
    assert!((0..20).map(run).collect::<BTreeSet<_>>().len() > 5);
}
