//! One durable entry in flight, each subject's call directly after the others': a disk that wanders
//! moves all of them alike.

use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use super::Settings;
use crate::latency::Waits;
use crate::measure::{Case, Figure, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::{Peer, Raw, Sprag, Store};
use crate::syncs;
use crate::workload::Writes;

/// Peers that a node could keep one entry at a time in.
const PEERS: [&str; 2] = ["fjall", "raft-engine"];
const CALLS: usize = 400;

/// One round of all subjects: made by the first that is asked, taken by each.
struct Rounds<'a> {
    stores: Vec<&'a dyn Store>,
    updates: &'a Writes,
    calls: usize,
    made: RefCell<Vec<Option<Measured>>>,
}

impl Rounds<'_> {
    fn take(&self, place: usize) -> Result<Measured> {
        let is_made = self.made.borrow().get(place).is_some_and(Option::is_some);
        if !is_made {
            let made = syncs::apart(|| self.round())?;
            *self.made.borrow_mut() = made.into_iter().map(Some).collect();
        }
        self.made.borrow_mut()[place].take().context("a round was taken twice")
    }

    fn round(&self) -> Result<Vec<Measured>> {
        let mut waits: Vec<_> =
            self.stores.iter().map(|_| Ok((Waits::new()?, 0))).collect::<Result<_>>()?;
        for call in 0..self.calls {
            for turn in 0..self.stores.len() {
                let at = (turn + call) % self.stores.len();
                let store = self.stores[at];
                let before = syncs::count() + store.own_syncs();
                let pair = self.updates.pair(call % self.updates.len());
                let called = Instant::now();
                store.write(&mut std::iter::once(pair))?;
                waits[at].0.record(called.elapsed())?;
                waits[at].1 += syncs::count() + store.own_syncs() - before;
            }
        }
        let measured = |(waits, own_syncs): (Waits, u64)| {
            let quantiles = waits.values(Unit::Microseconds);
            Measured { values: vec![quantiles[0], quantiles[2]], own_syncs }
        };
        Ok(waits.into_iter().map(measured).collect())
    }
}

pub(super) fn run(
    settings: &Settings,
    dir: &Path,
    sprag: &Sprag,
    peers: &[Peer],
    updates: &Writes,
) -> Result<Vec<Row>> {
    let written = Raw::create(&dir.join("turn-written"))?;
    let reserved = Raw::reserved(&dir.join("turn-reserved"), Raw::FILE_BYTES)?;
    let mut named: Vec<(&str, Role, Option<&'static str>, &dyn Store)> = vec![
        ("pwrite + fdatasync, written before", Role::Limit, None, &written),
        ("pwrite + fdatasync, reserved", Role::Limit, None, &reserved),
        ("sprag, default", Role::Sprag, None, sprag),
    ];
    let alone = peers.iter().filter(|peer| PEERS.contains(&peer.name));
    named.extend(alone.map(|peer| (peer.name, Role::Peer, peer.why, &*peer.store)));
    let rounds = Rounds {
        stores: named.iter().map(|(_, _, _, store)| *store).collect(),
        updates,
        calls: settings.scaled(CALLS),
        made: RefCell::default(),
    };
    let rounds = &rounds;
    let subjects = named.iter().enumerate().map(|(place, (name, role, why, _))| {
        Subject::new(*name, *role, move || rounds.take(place)).differs(*why)
    });
    let figures = ["p50", "p99"].map(|name| Figure {
        name: name.to_owned(),
        unit: Unit::Microseconds,
        point: None,
    });
    let case = Case {
        group: "durable",
        name: "one entry, op by op in turn".to_owned(),
        figures: figures.to_vec(),
        subjects: subjects.collect(),
    };
    case.run(settings.rounds)
}
