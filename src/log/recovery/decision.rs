//! The recovery decision: what becomes of the log at one place, given what is found there. Pure.
//!
//! The same table is in `docs/format.md`; the test below reads it there.

/// Whether a check held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Check {
    /// It held.
    Ok,
    /// It did not, or could not be made.
    Bad,
}

impl From<bool> for Check {
    fn from(ok: bool) -> Self {
        if ok { Self::Ok } else { Self::Bad }
    }
}

/// The incarnation of what is found, next to that of the last good frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Incarnation {
    /// The same or a later one.
    NotOlder,
    /// An earlier one: left behind by something that was cut or recycled.
    Older,
}

/// What is found where the next frame should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    /// The header's checksum fits and its fields are in range.
    pub(crate) header: Check,
    /// The body's checksum fits.
    pub(crate) body: Check,
    /// It is where it says it is, names the last good frame as its previous, and goes on from its sequence, index
    /// and term.
    pub(crate) chain: Check,
    /// Of the frame found.
    pub(crate) incarnation: Incarnation,
    /// After it there is a valid header, not older than the last good frame.
    pub(crate) later_valid_frame: bool,
    /// META, a clean close, or the header of a frame before or after says that the sequence expected here was durable.
    pub(crate) at_or_below_durable: bool,
}

/// What to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It is the next frame.
    Replay,
    /// The log ends before it. If something was there, that is reported.
    Cut,
    /// Something durable is gone. Nothing is changed.
    Corrupt,
}

/// The table.
pub(crate) const fn decide(finding: &Finding) -> Outcome {
    use Check::{Bad, Ok};
    use Incarnation::{NotOlder, Older};
    use Outcome::{Corrupt, Cut, Replay};
    let Finding { header, body, chain, incarnation, later_valid_frame, at_or_below_durable } =
        *finding;
    match (header, body, chain, incarnation, later_valid_frame, at_or_below_durable) {
        // Everything holds. Whether it was known to be durable no longer matters: it is there.
        (Ok, Ok, Ok, NotOlder, _, _) => Replay,

        // A durable frame's header does not read back: damage, or a write that was lost after its sync.
        (Bad, _, _, _, _, true) => Corrupt,
        // Several groups were in flight, and a later one reached the disk where this one did not.
        (Bad, _, _, _, true, false) => Cut,
        // The end of the log: zeros, or the start of a frame whose header was not written whole.
        (Bad, _, _, _, false, false) => Cut,

        // A durable frame's body was damaged.
        (Ok, Bad, _, _, _, true) => Corrupt,
        // The header's sector reached the disk and not all of the body; a later group did.
        (Ok, Bad, _, _, true, false) => Cut,
        // The same in the last group.
        (Ok, Bad, _, _, false, false) => Cut,

        // A whole frame that is not the next one stands where a durable one was: misdirected, lost, or swapped.
        (Ok, Ok, Bad, _, _, true) => Corrupt,
        // Left behind by a cut or by the segment's last use, and the write over it never reached the disk; a later one did.
        (Ok, Ok, Bad, _, true, false) => Cut,
        // Left behind, and nothing of ours after it: the usual end of a log that was cut once, or of a recycled segment.
        (Ok, Ok, Bad, _, false, false) => Cut,

        // It claims to be the next frame, but from before the last good one, where a durable frame was.
        (Ok, Ok, Ok, Older, _, true) => Corrupt,
        // A tail that was cut chains on by accident; it was cut, and stays so.
        (Ok, Ok, Ok, Older, true, false) => Cut,
        (Ok, Ok, Ok, Older, false, false) => Cut,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn all() -> Vec<Finding> {
        let bit = |bits: u8, at: u8| bits >> at & 1 == 1;
        (0..64)
            .map(|bits| Finding {
                header: bit(bits, 0).into(),
                body: bit(bits, 1).into(),
                chain: bit(bits, 2).into(),
                incarnation: if bit(bits, 3) { Incarnation::Older } else { Incarnation::NotOlder },
                later_valid_frame: bit(bits, 4),
                at_or_below_durable: bit(bits, 5),
            })
            .collect()
    }

    #[test]
    fn every_combination_obeys_the_prefix_law() {
        let mut counts = [0; 3];
        for finding in all() {
            let whole = finding.header == Check::Ok
                && finding.body == Check::Ok
                && finding.chain == Check::Ok
                && finding.incarnation == Incarnation::NotOlder;
            let expected = match (whole, finding.at_or_below_durable) {
                (true, _) => Outcome::Replay,
                (false, true) => Outcome::Corrupt,
                (false, false) => Outcome::Cut,
            };
            assert_eq!(decide(&finding), expected, "{finding:?}");
            counts[expected as usize] += 1;
        }
        assert_eq!(counts, [4, 30, 30]);
    }

    #[test]
    fn the_document_has_the_same_table() {
        let document = include_str!("../../../docs/format.md");
        let rows: Vec<Vec<&str>> = document
            .lines()
            .skip_while(|line| !line.starts_with("| header | body | chain |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        assert!(!rows.is_empty());
        let mut used = vec![false; rows.len()];
        for finding in all() {
            let word = |yes: bool, [on, off]: [&'static str; 2]| if yes { on } else { off };
            let found = [
                word(finding.header == Check::Ok, ["ok", "bad"]),
                word(finding.body == Check::Ok, ["ok", "bad"]),
                word(finding.chain == Check::Ok, ["ok", "bad"]),
                word(finding.incarnation == Incarnation::Older, ["older", "not older"]),
                word(finding.later_valid_frame, ["yes", "no"]),
                word(finding.at_or_below_durable, ["yes", "no"]),
            ];
            let fits =
                |row: &Vec<&str>| (0..6).all(|cell| ["any", found[cell]].contains(&row[cell]));
            let fitting: Vec<usize> = (0..rows.len()).filter(|row| fits(&rows[*row])).collect();
            assert_eq!(fitting.len(), 1, "one row for {finding:?}");
            let outcome = format!("{:?}", decide(&finding)).to_lowercase();
            assert_eq!(rows[fitting[0]][6], outcome, "{finding:?}");
            used[fitting[0]] = true;
        }
        assert!(used.iter().all(|used| *used), "a row that is never reached");
    }
}
