//! Seeds of the fuzzer: inputs made from the engine's files, and those of the import.

use super::bases::bases;
use sprag::testing::internals::bytes::u32_at;
use sprag::testing::internals::format::FRAME_HEADER_BYTES;

/// One input.
#[derive(Debug)]
pub struct Seed {
    /// The target of the input.
    pub target: &'static str,
    /// The name of its file.
    pub name: String,
    /// Content of the file.
    pub bytes: Vec<u8>,
}

/// Longest frame in a seed: longer ones teach the fuzzer nothing more.
const FRAME_BYTES_MAX: usize = 800;

/// All seeds, the same in every run.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let mut seeds = frames();
    seeds.extend(damages());
    seeds.extend(stores());
    seeds.extend(runs());
    seeds.extend(snapshots());
    seeds.extend(super::import::seeds());
    seeds
}

fn seed(target: &'static str, name: String, bytes: Vec<u8>) -> Seed {
    Seed { target, name, bytes }
}

/// Frames that the engine wrote, unchanged and with a flag for repair.
fn frames() -> Vec<Seed> {
    let mut seeds = Vec::new();
    // Frames of recycled files are no different.
    for (number, base) in bases().iter().enumerate().take(4) {
        let mut count = 0;
        for segment in base.segments.values() {
            let mut at = 0;
            while let Some(header) = segment.get(at..at + FRAME_HEADER_BYTES) {
                let end = at + FRAME_HEADER_BYTES + u32_at(header, 64) as usize;
                let Some(frame) = segment.get(at..end).filter(|_| header[0] != 0) else { break };
                if frame.len() <= FRAME_BYTES_MAX {
                    let repairs = if count % 2 == 0 { 0 } else { 7 };
                    let name = format!("base-{number}-frame-{count}");
                    seeds.push(seed("frame", name, [&[repairs], frame].concat()));
                    count += 1;
                }
                at = end.next_multiple_of(64);
            }
        }
    }
    seeds
}

/// Each log unchanged, and with one damage of each kind, repaired and not.
fn damages() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for base in 0..bases().len() as u8 {
        seeds.push(seed("recovery", format!("base-{base}"), vec![base, 0]));
        for kind in 0..12 {
            for flags in [0, 1, 3] {
                let fill = kind * 3 + flags;
                let damage = [base, 0, flags, kind, 1, 0, fill, 2, 8, 0, 5, 1, fill, 3, 2, 1, 4, 9];
                let name = format!("base-{base}-kind-{kind}-flags-{flags}");
                seeds.push(seed("recovery", name, damage.to_vec()));
            }
        }
    }
    seeds
}

fn stores() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for flags in 0..8 {
        for kind in 0..8 {
            let stores = [flags, 3, 3, 7, 100, 0, 3, 9, 2, 3, 1, 1];
            let damage = [1, kind, 8, 0, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
            let name = format!("flags-{flags}-kind-{kind}");
            seeds.push(seed("slots", name, [&stores[..], &damage].concat()));
        }
    }
    seeds
}

/// A few runs of every shape, with every kind of crash and fault.
fn runs() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for shape in [0, 1, 2, 3, 0x14, 0x15, 0x28, 0x29] {
        for end in 11..20 {
            let mut bytes = vec![shape];
            for number in 0..6 {
                // Submissions of every kind, with some steps between them.
                bytes.extend([0, 1, number * 37 + end, 210, 7, 5, 0, 0, 6, 8]);
                if number == 3 {
                    bytes.extend([11, 3, 0, 9, 12, 4, 0]);
                }
            }
            bytes.extend([15, end % 5, 2, 0, end % 7, 0, 3, 1, 5, 1, 9]);
            bytes.extend([end, 0xaa, 0x55, 1, 2, 3, 4, 5, 6, 0, 7, 1, 9, 1, 9, 16, 9]);
            seeds.push(seed("engine", format!("shape-{shape}-end-{end}"), bytes));
        }
    }
    seeds
}

/// Snapshots of both kinds, unchanged and with one damage of each kind at each place, repaired and
/// not.
fn snapshots() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for flags in 0..16 {
        // The bytes are: the chunk length; index, tag and term of each log id; and one note.
        let mut base = vec![flags, 12];
        if flags & 8 == 0 {
            base.extend([3, 9, 4, 0, 3, 2]);
        }
        if flags & 4 != 0 {
            base.extend([3, 5, 2, 0, 3, 1, 7, 0]);
        }
        base.extend([1, b'n', 2, 0, b'v', 5, 0, 12]);
        for number in 0..12 {
            base.extend([1, 0, b'a' + number, number, number, 10 + number, 0]);
        }
        seeds.push(seed("snapshot", format!("flags-{flags}"), base.clone()));
        // The data beside the state does not affect where damage is found.
        for place in 0..if flags < 4 { 4 } else { 0 } {
            for kind in 0..7 {
                let damage = [place, kind, 5 + 4 * kind, 0, 4, 1, 6, 2];
                let name = format!("flags-{flags}-place-{place}-kind-{kind}");
                seeds.push(seed("snapshot", name, [&base[..], &damage].concat()));
            }
        }
    }
    seeds
}
