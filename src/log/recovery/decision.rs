//! The recovery table decides what becomes of the log at one place, given the finding there. This
//! module does no I/O.
//!
//! The same table is in `docs/format.md`; the test below reads it there.

/// Result of a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Check {
    /// The check passed.
    Ok,
    /// The check failed, or could not be made.
    Bad,
}

impl From<bool> for Check {
    fn from(ok: bool) -> Self {
        if ok { Self::Ok } else { Self::Bad }
    }
}

/// The incarnation of the finding, compared with that of the last good frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Incarnation {
    /// The same or a later one.
    NotOlder,
    /// An earlier one: the rest of something that was cut or recycled.
    Older,
}

/// The finding at the place of the next frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    /// The header's checksum fits and its fields are in range.
    pub(crate) header: Check,
    /// The body's checksum fits.
    pub(crate) body: Check,
    /// Whether the frame is where it says, names the last good frame as its previous, and continues
    /// its sequence, index and term.
    pub(crate) chain: Check,
    /// Incarnation of the frame found.
    pub(crate) incarnation: Incarnation,
    /// Whether a valid header follows that is not older than the last good frame.
    pub(crate) later_valid_frame: bool,
    /// Whether META, a clean close, or the header of a frame before or after says that the expected
    /// sequence was durable.
    pub(crate) at_or_below_durable: bool,
}

/// The action on a finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The frame is the next one.
    Replay,
    /// The log ends before this place. Bytes that were there are reported.
    Cut,
    /// Durable bytes are gone. Nothing is changed.
    Corrupt,
}

/// Decides by the table.
pub(crate) const fn decide(finding: &Finding) -> Outcome {
    use Check::{Bad, Ok};
    use Incarnation::{NotOlder, Older};
    use Outcome::{Corrupt, Cut, Replay};
    let Finding { header, body, chain, incarnation, later_valid_frame, at_or_below_durable } =
        *finding;
    match (header, body, chain, incarnation, later_valid_frame, at_or_below_durable) {
        // Every check passed. Whether the frame was known to be durable does not matter: it is
        // there.
        (Ok, Ok, Ok, NotOlder, _, _) => Replay,

        // A durable frame's header cannot be read: damage, or a write that was lost after its sync.
        (Bad, _, _, _, _, true) => Corrupt,
        // Several groups were in flight. A later one reached the disk, and this one did not.
        (Bad, _, _, _, true, false) => Cut,
        // The end of the log: zeros, or the start of a frame whose header was not written whole.
        (Bad, _, _, _, false, false) => Cut,

        // A durable frame's body was damaged.
        (Ok, Bad, _, _, _, true) => Corrupt,
        // The header's sector reached the disk, and not all of the body; a later group did.
        (Ok, Bad, _, _, true, false) => Cut,
        // The same happened in the last group.
        (Ok, Bad, _, _, false, false) => Cut,

        // A whole frame that is not the next one stands in place of a durable one: misdirected,
        // lost, or swapped.
        (Ok, Ok, Bad, _, _, true) => Corrupt,
        // A cut or the segment's last use left this frame. The write over it never reached the
        // disk, and a later one did.
        (Ok, Ok, Bad, _, true, false) => Cut,
        // A cut or the segment's last use left this frame, and nothing of ours follows: the usual
        // end.
        (Ok, Ok, Bad, _, false, false) => Cut,

        // It claims to be the next frame, but is older than the last good one, in place of a
        // durable frame.
        (Ok, Ok, Ok, Older, _, true) => Corrupt,
        // A cut tail fits the chain by accident; it stays cut.
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
