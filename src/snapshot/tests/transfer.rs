//! Tests of moving a snapshot: in order, whole and verified, or not at all.

use std::sync::{Arc, Weak};

use super::*;
use crate::disk::names::{is_temporary_name, snapshot_name};
use crate::disk::sim::SimDisk;
use crate::disk::{Access, Disk};
use crate::snapshot::{SnapshotPiece, SnapshotReceiver};
use crate::sync::{Mutex, Rank};

fn state() -> State {
    (0..100_u8).map(|byte| (vec![byte, 1], vec![byte; usize::from(byte)])).collect()
}

/// No receiver has a turn.
fn turns() -> Mutex<Weak<()>> {
    Mutex::new(Rank::SnapshotReceiver, Weak::new())
}

fn receiver(sim: &SimDisk) -> (Arc<dyn Disk>, SnapshotReceiver) {
    let disk = sim.open(true).unwrap();
    (Arc::clone(&disk), SnapshotReceiver::new(disk, &turns()).unwrap())
}

/// Sends everything from the receiver's position on.
fn send(snapshot: &Snapshot, receiver: &mut SnapshotReceiver, piece_bytes: usize) {
    for piece in snapshot.pieces(receiver.next_offset(), piece_bytes) {
        receiver.receive(&piece).unwrap();
    }
}

#[test]
fn pieces_of_any_length_make_the_same_file() {
    let bytes = file_of(&state(), &meta(), 1000);
    let snapshot = open(&bytes).unwrap();
    for piece_bytes in [1, 63, 4096, 5000, usize::MAX] {
        let sim = SimDisk::new(1);
        let (_disk, mut receiver) = receiver(&sim);
        assert!(!receiver.is_complete());
        send(&snapshot, &mut receiver, piece_bytes);
        assert!(receiver.is_complete());
        let received = receiver.finish(|_| Ok(())).unwrap();
        assert_eq!(entries(&received).unwrap(), state());
        assert_eq!(sim.file_names(), [snapshot_name(9)]);
        sim.power_cut_keeping(0);
        assert_eq!(sim.read_file(&snapshot_name(9)).as_deref(), Some(&bytes[..]), "durable");
    }
}

#[test]
fn gaps_damage_and_pieces_of_others_are_refused_duplicates_ignored_and_the_transfer_goes_on() {
    let bytes = file_of(&state(), &meta(), 1000);
    let snapshot = open(&bytes).unwrap();
    let other = file_of(&State::new(), &meta(), 1000);
    let other = open(&other).unwrap();
    let sim = SimDisk::new(1);
    let (_disk, mut receiver) = receiver(&sim);
    let pieces: Vec<_> = snapshot.pieces(0, 3000).collect();
    let refused = receiver.receive(&pieces[1]).unwrap_err();
    assert!(matches!(refused, SnapshotError::Gap { expected: 0, got: 3000 }), "{refused}");
    assert_eq!(receiver.receive(&pieces[0]).unwrap(), 3000);
    assert_eq!(receiver.receive(&pieces[0]).unwrap(), 3000, "a duplicate");
    let damages: [fn(&mut SnapshotPiece<'_>); 5] = [
        |piece| piece.crc ^= 1,
        |piece| piece.offset += 1,
        |piece| piece.bytes = &piece.bytes[1..],
        |piece| piece.last ^= true,
        |piece| piece.snapshot.file_bytes += 1,
    ];
    for damage in damages {
        let mut piece = pieces[1];
        damage(&mut piece);
        let refused = receiver.receive(&piece).unwrap_err();
        assert!(matches!(refused, SnapshotError::DamagedPiece { .. }), "{refused}");
    }
    let foreign = other.pieces(0, 3000).next().unwrap();
    assert!(matches!(receiver.receive(&foreign), Err(SnapshotError::OtherSnapshot)));
    // A piece that overlaps the received bytes counts from their end on.
    let overlapping = snapshot.pieces(2000, 3000).next().unwrap();
    assert_eq!(receiver.receive(&overlapping).unwrap(), 5000);
    send(&snapshot, &mut receiver, 700);
    let received = receiver.finish(|_| Ok(())).unwrap();
    assert_eq!(entries(&received).unwrap(), state());
}

#[test]
fn what_is_incomplete_refused_or_dropped_leaves_nothing() {
    let bytes = file_of(&state(), &meta(), 1000);
    let snapshot = open(&bytes).unwrap();
    let sim = SimDisk::new(1);
    let (disk, mut first) = receiver(&sim);
    assert!(sim.file_names().iter().all(|name| is_temporary_name(name)));
    first.receive(&snapshot.pieces(0, 3000).next().unwrap()).unwrap();
    let refused = first.finish(|_| Ok(())).unwrap_err();
    assert!(matches!(refused, SnapshotError::Incomplete { received: 3000, .. }), "{refused}");
    assert_eq!(sim.file_names(), [""; 0]);

    let mut second = SnapshotReceiver::new(Arc::clone(&disk), &turns()).unwrap();
    send(&snapshot, &mut second, 4096);
    assert!(matches!(second.finish(|_| Err(SnapshotError::Busy)), Err(SnapshotError::Busy)));
    assert_eq!(sim.file_names(), [""; 0]);

    drop(SnapshotReceiver::new(disk, &turns()).unwrap());
    assert_eq!(sim.file_names(), [""; 0]);
}

#[test]
fn a_sender_whose_file_is_damaged_installs_nothing() {
    let bytes = file_of(&state(), &meta(), 1000);
    let whole = open(&bytes).unwrap();
    // The damage is in a chunk, which opening does not check; the pieces' checksums are those of
    // the damaged bytes.
    let mut damaged = bytes.clone();
    damaged[5000] ^= 1;
    let damaged = open(&damaged).unwrap();
    assert_eq!(damaged.id(), whole.id());
    let sim = SimDisk::new(1);
    let (_disk, mut receiver) = receiver(&sim);
    send(&damaged, &mut receiver, 4096);
    let refused = receiver.finish(|_| Ok(())).unwrap_err();
    assert!(matches!(refused, SnapshotError::Corrupt { .. }), "{refused}");
    assert_eq!(sim.file_names(), [""; 0]);
}

#[test]
fn a_leftover_of_an_earlier_transfer_is_replaced() {
    let bytes = file_of(&state(), &meta(), 1000);
    let snapshot = open(&bytes).unwrap();
    let sim = SimDisk::new(1);
    let disk = sim.open(true).unwrap();
    let left = crate::disk::names::temporary_name(&snapshot_name(u64::MAX));
    disk.open(&left, Access::Create).unwrap().write_all_at(&[9; 100_000], 0).unwrap();
    let mut receiver = SnapshotReceiver::new(disk, &turns()).unwrap();
    send(&snapshot, &mut receiver, 4096);
    receiver.finish(|_| Ok(())).unwrap();
    assert_eq!(sim.read_file(&snapshot_name(9)).as_deref(), Some(&bytes[..]));
}

#[test]
fn a_receiver_verifies_every_byte_before_an_installation() {
    let bytes = file_of(&state(), &meta(), 1000);
    let whole = bytes.len() as u64;
    for at in (0..bytes.len()).step_by(61) {
        let (_disk, mut receiver) = receiver(&SimDisk::new(1));
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        receiver.receive_bytes(0, &damaged).unwrap();
        let error = receiver.verify().unwrap_err();
        assert!(!matches!(error, SnapshotError::Incomplete { .. }), "{at}: {error}");
        assert!(receiver.verified().is_none());
    }
    let sim = SimDisk::new(1);
    let (_disk, mut receiver) = receiver(&sim);
    let error = receiver.verify().unwrap_err();
    assert!(matches!(error, SnapshotError::Incomplete { received: 0, .. }), "{error}");
    let pieces: Vec<_> =
        open(&bytes).unwrap().pieces(0, 5000).map(|piece| piece.bytes.len()).collect();
    assert!(pieces.len() > 1);
    receiver.receive_bytes(0, &bytes[..pieces[0]]).unwrap();
    receiver.verify().unwrap_err();
    receiver.receive_bytes(pieces[0] as u64, &bytes[pieces[0]..]).unwrap();
    assert_eq!(receiver.verify().unwrap().bytes(), whole);
    assert_eq!(entries(receiver.verified().unwrap()).unwrap(), state());
    receiver.receive_bytes(whole, b"more").unwrap();
    assert!(receiver.verified().is_none(), "the file is another one");
    receiver.verify().unwrap_err();
    receiver.finish(|_| Ok(())).unwrap_err();
    assert_eq!(sim.file_names(), Vec::<String>::new());
}

#[test]
fn a_snapshot_is_made_of_the_bytes_of_its_file_unless_they_are_damaged() {
    let bytes = file_of(&state(), &meta(), 1000);
    let snapshot = Snapshot::from_bytes(bytes.clone()).unwrap();
    assert_eq!(entries(&snapshot).unwrap(), state());
    let again: Vec<u8> = snapshot.pieces(0, 999).flat_map(|piece| piece.bytes.to_vec()).collect();
    assert_eq!(again, bytes);
    let mut damaged = bytes;
    damaged[2000] ^= 1;
    Snapshot::from_bytes(damaged).unwrap_err();
}
