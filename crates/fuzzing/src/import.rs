//! The body of the target `import`: any bytes as a command stream, against a plain reading.

mod pieces;
mod reading;
mod run;
mod script;
mod seeds;
#[cfg(test)]
mod tests;

pub(super) use self::seeds::seeds;

use sprag_import::Map;

use self::pieces::{End, Pieces};
use self::run::{Run, run};
use super::input::Input;

/// Takes bytes for a command stream, or for a script that writes one, and for the ways of importing
/// it.
pub fn import(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let ways = Ways {
        skips: flags & 1 != 0,
        end: if flags & 4 != 0 { End::Failure } else { End::Silence },
        sizes: [input.u8(), input.u8(), input.u8()],
        cut: usize::from(input.u16()),
        crash: usize::from(input.u8()),
    };
    if flags & 2 == 0 {
        hold(input.rest(), &ways);
    } else {
        hold(&script::write(&mut input), &ways);
    }
}

/// Ways in which a stream is imported, beside all at once.
struct Ways {
    /// Whether unknown commands are passed over.
    skips: bool,
    /// Numbers of bytes that the reads return.
    sizes: [u8; 3],
    /// Offset at which the stream is cut.
    cut: usize,
    /// End of the source after the cut.
    end: End,
    /// Number of entries after which the import crashes.
    crash: usize,
}

fn hold(stream: &[u8], ways: &Ways) {
    let whole = run(Map::default(), stream, ways.skips);
    whole.is_what_a_plain_reading_makes_of(stream, ways.skips);
    pieces_make_no_difference(&whole, stream, ways);
    a_cut_counts_nothing_twice(&whole, stream, ways);
    a_crash_leaves_whole_units(&whole, stream, ways);
    another_input_is_refused(&whole, stream, ways);
}

fn pieces_make_no_difference(whole: &Run, stream: &[u8], ways: &Ways) {
    let pieces = Pieces::new(stream, ways.sizes, End::Silence);
    let run = run(Map::default(), pieces, ways.skips);
    assert_eq!(run.map.taken, whole.map.taken, "entries, read in pieces");
    whole.is_the_sum_of(&[&run]);
}

fn a_cut_counts_nothing_twice(whole: &Run, stream: &[u8], ways: &Ways) {
    // The cuts of a long stream are fewer than its bytes, and spread over all of it.
    let part = &stream[..(ways.cut * (1 + stream.len() / (1 << 16))) % (stream.len() + 1)];
    let first = run(Map::default(), Pieces::new(part, ways.sizes, ways.end), ways.skips);
    match ways.end {
        End::Silence => first.is_what_a_plain_reading_makes_of(part, ways.skips),
        End::Failure => first.is_a_plain_reading_that_fails_after(part, ways.skips),
    }
    let second = run(first.map.clone(), stream, ways.skips);
    assert_eq!(second.summary.resumed_at, first.summary.offset);
    whole.is_the_sum_of(&[&first, &second]);
    let third = run(second.map.clone(), stream, ways.skips);
    assert_eq!((third.summary.commands, third.summary.entries), (0, 0), "nothing is left");
    whole.is_the_sum_of(&[&first, &second, &third]);
}

fn a_crash_leaves_whole_units(whole: &Run, stream: &[u8], ways: &Ways) {
    let entries = whole.map.taken.len();
    let survive = ways.crash % entries.max(1);
    let failing = Map { fails_after: Some(survive), ..Map::default() };
    let crashed = run(failing, stream, ways.skips);
    assert_eq!(crashed.outcome.is_err(), entries > 0);
    assert_eq!(crashed.map.taken, whole.map.taken[..survive]);
    let reached = crashed.map.note.map_or(0, |note| note.offset);
    assert_eq!(crashed.map.keys, reading::state_at(stream, ways.skips, reached));

    let rest = run(Map { fails_after: None, ..crashed.map }, stream, ways.skips);
    assert_eq!(rest.stopped(), whole.stopped());
    assert_eq!(rest.map.keys, whole.map.keys, "crashed and imported again");
    assert_eq!(rest.map.note, whole.map.note);
}

fn another_input_is_refused(whole: &Run, stream: &[u8], ways: &Ways) {
    let reached = usize::try_from(whole.summary.offset).unwrap();
    if reached == 0 {
        return;
    }
    let at = ways.cut % reached;
    let mut other = stream.to_vec();
    other[at] ^= 1 << (ways.crash % 8);
    for input in [&stream[..at], &other] {
        let refused = run(whole.map.clone(), input, ways.skips);
        assert!(refused.outcome.is_err(), "it is not what was imported");
        assert_eq!((&refused.map.keys, refused.map.note), (&whole.map.keys, whole.map.note));
        assert_eq!(refused.map.taken, whole.map.taken);
    }
}
