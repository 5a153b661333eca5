//! Tests of the bank of `examples/custom_state_machine.rs`: it conforms, and its balances are those
//! of its log, however often it is killed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../examples/custom_state_machine.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is a program of its own; here it is looked at")]
mod example;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use self::example::{ACCOUNTS, Bank, NOWHERE, decode, encode, order};
use crate::common::{
    LONG, PATIENT, Scratch, apply_config, child, child_directory, eventually, manage,
};
use sprag::error::OpenError;
use sprag::testing::Random;
use sprag::testing::conformance::{OwnedPayload, Subject, Suite};
use sprag::{ApplyManager, Journaled, Payload, StateMachine};

struct Banks;

impl Subject for Banks {
    type Machine = Bank;

    fn machine(&self) -> Result<Bank, OpenError> {
        Ok(Bank::default())
    }

    fn payload(&self, random: &mut Random) -> OwnedPayload {
        // Use few accounts, some of which do not exist, amounts that exist or not, and some that
        // overflow.
        let account = |random: &mut Random| random.next_u64() % 6 + ACCOUNTS - 5;
        let from = if random.below(3) > 0 { NOWHERE } else { account(random) };
        let amount = if random.below(20) == 0 { u64::MAX / 2 } else { random.next_u64() % 9 };
        match random.below(30) {
            0 => Payload::Opaque(b"not an order").into(),
            1 => Payload::Membership(b"members").into(),
            _ => Payload::Opaque(&encode([from, account(random), amount])).into(),
        }
    }

    fn digest(&self, machine: &Bank) -> Vec<u8> {
        machine.balances().flat_map(u64::to_le_bytes).collect()
    }
}

#[test]
fn the_bank_conforms_in_memory_and_over_the_log() {
    Suite::new().check_journaled(&Banks).unwrap();
}

/// Balances after `orders` orders, by definition.
fn books_of(orders: u64) -> Vec<u64> {
    let mut balances = vec![0_u64; usize::try_from(ACCOUNTS).unwrap()];
    for index in 1..=orders {
        let [from, to, amount] = order(index);
        let payer = from;
        let [from, to] = [from, to].map(|account| usize::try_from(account).unwrap());
        if payer == NOWHERE {
            balances[to] += amount;
        } else if from != to && balances[from] >= amount {
            balances[from] -= amount;
            balances[to] += amount;
        }
    }
    balances
}

/// Checks that the remaining log has the submitted orders, and returns their number.
fn check_log(manager: &ApplyManager<Journaled<Bank>>) -> u64 {
    let state = manager.log().unwrap().state().unwrap();
    let (Some(first), Some(last)) = (state.first, state.last) else { return 0 };
    let mut next = first;
    while next <= last.index {
        for (log_id, payload) in
            manager.log().unwrap().entries(next..=last.index, 1 << 20).unwrap().iter()
        {
            assert_eq!((log_id.index, decode(&payload)), (next, Some(order(next))));
            next += 1;
        }
    }
    next - first
}

/// The last index that the program has acknowledged. The last line may be incomplete.
fn acknowledged(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().last().map_or(0, |line| line.parse().unwrap())
}

#[test]
fn killed_at_any_moment_the_bank_has_all_it_acknowledged_and_its_money_is_what_its_log_says() {
    let scratch = Scratch::new();
    let mut random = Random::new(5);
    let (mut before, mut compacted) = (0, false);
    for round in 0..12 {
        let file = scratch.path().with_file_name("acknowledged");
        let mut process = child(module_path!(), "the_program", &scratch.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Kill at a moment that depends on the progress, or at once: the process may be killed
        // while it opens.
        let more = before + random.next_u64() % 3000 * u64::from(round % 4 != 3);
        let reached = eventually(PATIENT, || acknowledged(&file) >= more);
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(reached, "round {round}: stuck at {} of {more}", acknowledged(&file));

        let acknowledged = acknowledged(&file);
        let bank = Journaled::open(
            example::config(&scratch.path()).io(crate::common::io::asked()),
            Bank::default(),
        )
        .unwrap();
        let applied = bank.applied().map_or(0, |last| last.index);
        assert!(applied >= acknowledged, "round {round}: {applied} of {acknowledged} came back");
        assert!(bank.balances().eq(books_of(applied)), "round {round}");
        let manager = manage(bank, apply_config(2));
        let kept = check_log(&manager);
        compacted |= kept < applied;
        manager.close(LONG).unwrap();
        before = applied;
    }
    assert!(before > 1000 && compacted, "it got somewhere: {before}, {compacted}");
}

/// The example as a separate process, until it is killed.
#[test]
fn the_program() {
    let Some(directory) = child_directory() else { return };
    let acknowledged = directory.with_file_name("acknowledged");
    example::run(directory, u64::MAX / 2, Some(acknowledged)).unwrap();
}

#[test]
fn the_program_goes_on_where_it_was() {
    let scratch = Scratch::new();
    let file = scratch.path().with_file_name("acknowledged");
    for _ in 0..3 {
        example::run(scratch.path(), 120, Some(file.clone())).unwrap();
    }
    let lines: Vec<_> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines, ["50", "100", "120", "170", "220", "240", "290", "340", "360"]);
    let bank = Journaled::open_read_only(scratch.path(), Bank::default()).unwrap();
    assert_eq!(bank.applied().map(|last| last.index), Some(360));
    // The same orders in one run give the same result.
    let once = Scratch::new();
    example::run(once.path(), 360, None).unwrap();
    let other = Journaled::open_read_only(once.path(), Bank::default()).unwrap();
    assert!(bank.balances().sum::<u64>() > 0 && bank.balances().eq(other.balances()));
}
