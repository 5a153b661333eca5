//! Seeds of the fuzzer: pieces of a Redis server's output, streams written here, and scripts.

use super::script::{DAMAGE, NOTHING, RAW, REPEAT, array, operation};
use crate::seeds::Seed;

const FIXTURE: &[u8] = include_bytes!("../../../cli/tests/fixtures/redis-7.0.15.aof");
/// Longest piece: longer ones teach the fuzzer nothing more, and it cuts them at 4,096.
const PIECE_BYTES_MAX: usize = 1500;
/// Distance between the pieces taken from a fixture.
const PIECES_APART: usize = 7;

/// All seeds, the same in every run.
pub(crate) fn seeds() -> Vec<Seed> {
    let mut seeds = fixture();
    seeds.extend(streams());
    seeds.extend(scripts());
    seeds
}

/// One seed: the flags, sizes of reads, the cut, the crash, and the rest.
fn seed(name: String, flags: u8, cut: u16, bytes: &[u8]) -> Seed {
    let sizes = [[0, 6, 255], [40, 40, 40]][usize::from(cut % 2)];
    let head = [&[flags][..], &sizes, &cut.to_le_bytes(), &[0]].concat();
    Seed { target: "import", name, bytes: [&head, bytes].concat() }
}

/// The append-only file of the tests, in pieces of whole commands.
fn fixture() -> Vec<Seed> {
    let starts =
        |at: &usize| FIXTURE[*at..].starts_with(b"*") && (*at == 0 || FIXTURE[at - 1] == b'\n');
    let mut pieces = Vec::new();
    let (mut from, mut end) = (0, 0);
    for at in (0..FIXTURE.len()).filter(starts).chain([FIXTURE.len()]) {
        if at - from > PIECE_BYTES_MAX {
            pieces.push(&FIXTURE[from..end]);
            from = end;
        }
        end = at;
    }
    pieces.push(&FIXTURE[from..]);
    let pieces = pieces.into_iter().enumerate().step_by(PIECES_APART);
    let pieces = pieces.filter(|(_, piece)| piece.len() <= 2 * PIECE_BYTES_MAX);
    pieces
        .map(|(number, piece)| {
            let cut = u16::try_from(number * 211).unwrap();
            seed(format!("fixture-{number}"), [0, 4][number % 2], cut, piece)
        })
        .collect()
}

/// Commands as arrays and as lines, each with one error or none.
fn streams() -> Vec<Seed> {
    const LINES: [(&str, &str); 20] = [
        ("plain", "SET a 1;APPEND a 2;INCR a;DEL b;SETNX b 3;MSET c 4 d 5;DECRBY c 9;UNLINK d x"),
        ("multi", "SET a 1;MULTI;INCR a;APPEND a x;SET b 2;EXEC;SETNX b 3;MULTI;SET d 4;DISCARD"),
        ("multi-refused", "SET a x;MULTI;SET b 1;INCR a;EXEC;SET c 1"),
        ("multi-left-open", "SET a 1;MULTI;SET b 1;PING;INCR a"),
        ("multi-in-multi", "MULTI;SET a 1;MULTI;EXEC"),
        ("exec-alone", "SET a 1;EXEC;SET b 1"),
        ("unknown", "SET a 1;EXPIRE a 9;MULTI;INCR a;HSET h f v;EXEC;SET b 1 NX;SET c 3;PING"),
        (
            "flush",
            "SET a 1;SET b 2;FLUSHALL;SETNX a 2;MULTI;SET c 1;flushdb async;INCR c;EXEC;FLUSHALL x",
        ),
        (
            "options",
            "SET a 1 KEEPTTL;SET a 2 NX GET;SET b 3 xx;SET b 4 NX;SET a 5 EX 9;SET a 6 EX 0",
        ),
        (
            "in-part",
            "SET a 1;SETEX a 9 5;INCR a;PSETEX b 9 x;SUNIONSTORE a b;GETSET a 7;GETDEL b;SORT a;SETEX a 0 1",
        ),
        ("decisive", "SET a 1;MULTI;MSETNX b 1 c 2;RENAME a b;EXEC"),
        ("database", "SELECT 0;SET a 1;SELECT 1;SET a 2"),
        ("arity", "SET a 1;MSET b 1 c;SET b 2"),
        ("overflow", "SET a 9223372036854775806;INCR a;INCR a"),
        ("underflow", "SET a -9223372036854775807;DECR a;DECRBY a -9223372036854775808"),
        ("numbers", "INCRBY a -12;DECRBY a -12;SET b 01;INCR b"),
        ("quoted", r#"SET "a b" 'c d';SET "\x00\xff\n\r\t\a\b\"\\" '\'';SET "" x"#),
        ("quotes", r#"SET a "x;SET a 'x"#),
        ("nothing", ";#TS:1700000000;*0;*-1;SET a 1; ;"),
        ("preamble", "REDIS0011 something"),
    ];
    let mut seeds = Vec::new();
    for (number, (name, lines)) in LINES.iter().enumerate() {
        let cut = u16::try_from(number * 13 + 9).unwrap();
        let text = format!("{}\r\n", lines.replace(';', "\r\n"));
        let mut arrays = Vec::new();
        for line in lines.split(';') {
            array(&mut arrays, &line.split(' ').collect::<Vec<_>>());
        }
        seeds.push(seed(format!("lines-{name}"), 0, cut, text.as_bytes()));
        seeds.push(seed(format!("lines-{name}-skipping"), 1, cut, text.as_bytes()));
        seeds.push(seed(format!("arrays-{name}"), 0, cut, &arrays));
        seeds.push(seed(format!("arrays-{name}-failing"), 5, cut, &arrays));
    }
    for (number, zeros) in [1, 2, 31, 4000].into_iter().enumerate() {
        for (name, cut) in [("end", 33), ("value", 31), ("length", 27)] {
            let text = b"*2\r\n$4\r\nINCR\r\n$1\r\na\r\n*2\r\n$4\r\nINCR\r\n$1\r\na\r\n";
            let text = [&text[..cut], &vec![0; zeros]].concat();
            seeds.push(seed(format!("zeros-{name}-{number}"), [0, 4][number % 2], 30, &text));
        }
        let text = [&b"SET a 1\nSET b 2"[..], &vec![0; zeros]].concat();
        seeds.push(seed(format!("zeros-line-{number}"), 0, 9, &text));
    }
    for (number, length) in ["$99999999999", "$-1", "$2", "$01", "$", ":1"].iter().enumerate() {
        let text = format!("*2\r\n$4\r\nINCR\r\n$1\r\na\r\n*2\r\n{length}\r\nINCR\r\n$1\r\na\r\n");
        seeds.push(seed(format!("length-{number}"), 0, 24, text.as_bytes()));
    }
    seeds
}

/// Scripts of every operation, and scripts that make several entries.
fn scripts() -> Vec<Seed> {
    let of = operation;
    let (multi, exec) = ([of("MULTI", ""), 7], [of("EXEC", ""), 7]);
    let repeat = |times: u16| [&[REPEAT][..], &times.to_le_bytes()].concat();
    let count = [of("INCR", "k"), 3, 7];
    let long = [of("SET", "kv"), 0, 255, 7];
    let append = [of("APPEND", "kv"), 0, 254, 7];
    let scripts: [(&str, Vec<u8>); 8] = [
        ("counting", [&count[..], &repeat(599)].concat()),
        ("long-values", [&long[..], &repeat(3)].concat()),
        ("appending", [&append[..], &repeat(3), &count].concat()),
        ("long-multi", [&multi[..], &append, &repeat(2), &exec, &count].concat()),
        ("full-multi", [&count[..], &repeat(511), &multi, &count, &repeat(9), &exec].concat()),
        ("crowded", [&long[..], &multi, &long, &count, &exec, &long].concat()),
        (
            "damaged",
            [&count[..], &[DAMAGE, 5, 0, 1], &count, &[RAW, 3, b'*', b'1', b'\r']].concat(),
        ),
        ("nothing", [&[NOTHING, 2][..], &count, &[NOTHING, 4, NOTHING, 0], &count].concat()),
    ];
    let mut seeds = Vec::new();
    for (number, (name, script)) in scripts.iter().enumerate() {
        let cut = u16::try_from(number * 1001 + 40).unwrap();
        seeds.push(seed(format!("script-{name}"), [2, 7][number % 2], cut, script));
    }
    // Write every operation once in each form, over the same two keys.
    for form in 0..4 {
        let every: Vec<u8> =
            (0..REPEAT).flat_map(|command| [command, 0, 101, 1, 102, 2, 103, form]).collect();
        seeds.push(seed(format!("script-every-command-{form}"), 3, 999, &every));
    }
    seeds
}
