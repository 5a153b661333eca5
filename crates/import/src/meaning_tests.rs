//! Tests of each command's meaning to an import, and of inputs that are no command stream.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::map::{Keys, Map};
use super::tests::{Dribble, SHOWN, array, import, import_into};
use super::*;

/// The rows of the table in docs/operating.md, with the commands that each names.
fn decisions() -> Vec<(&'static str, Vec<&'static str>)> {
    let page = include_str!("../../../docs/operating.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| **"));
    let rows = rows.map(|row| {
        let (decision, rest) = row.split_once("** | ").unwrap();
        let commands = rest.split('|').next().unwrap();
        let names = commands.split('`').skip(1).step_by(2).filter(|name| !name.contains(' '));
        (decision, names.collect())
    });
    rows.collect()
}

/// The write commands of Redis 7.2 (`COMMAND LIST FILTERBY ACLCAT write`), those of strings and
/// keys first.
const WRITE_COMMANDS: &str = "APPEND BITFIELD BITOP COPY DECR DECRBY DEL EVAL EVALSHA EXPIRE EXPIREAT FCALL \
    FLUSHALL FLUSHDB FUNCTION GETDEL GETEX GETSET INCR INCRBY INCRBYFLOAT MIGRATE MOVE MSET MSETNX PERSIST PEXPIRE \
    PEXPIREAT PFADD PFDEBUG PFMERGE PSETEX RENAME RENAMENX RESTORE RESTORE-ASKING SET SETBIT SETEX SETNX SETRANGE SORT \
    SWAPDB UNLINK BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH LINSERT LMOVE LMPOP LPOP LPUSH LPUSHX LREM LSET LTRIM RPOP \
    RPOPLPUSH RPUSH RPUSHX HDEL HINCRBY HINCRBYFLOAT HMSET HSET HSETNX SADD SDIFFSTORE SINTERSTORE SMOVE SPOP SREM \
    SUNIONSTORE BZMPOP BZPOPMAX BZPOPMIN ZADD ZDIFFSTORE ZINCRBY ZINTERSTORE ZMPOP ZPOPMAX ZPOPMIN ZRANGESTORE ZREM \
    ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZUNIONSTORE GEOADD GEORADIUS GEORADIUSBYMEMBER GEOSEARCHSTORE XACK \
    XADD XAUTOCLAIM XCLAIM XDEL XGROUP XREADGROUP XSETID XTRIM";

#[test]
fn every_write_command_of_redis_7_is_decided_as_the_table_says() {
    let decisions = decisions();
    let decided: Vec<&str> = decisions.iter().flat_map(|(_, names)| names.clone()).collect();
    for name in WRITE_COMMANDS.split_whitespace() {
        let times = decided.iter().filter(|decided| **decided == name).count();
        assert_eq!(times, 1, "{name} is in {times} rows");
    }
    for (decision, names) in decisions {
        for name in names {
            let arguments = match name {
                "SET" => "k v",
                "SETEX" | "PSETEX" => "k 9 v",
                "SORT" => "k STORE d",
                "GEORADIUS" => "k 1 1 1 m STORE d",
                "GEORADIUSBYMEMBER" => "k m 1 m STOREDIST d",
                "SELECT" => "1",
                "INCR" | "DECR" | "DEL" | "UNLINK" | "GETDEL" => "k",
                "FLUSHALL" | "FLUSHDB" | "MULTI" => "",
                "MSET" | "MSETNX" | "SETNX" | "GETSET" | "APPEND" => "k v",
                _ => "k 1",
            };
            let line = match name {
                "MULTI" => "MULTI\nEXEC\n".to_owned(),
                "EXEC" | "DISCARD" => format!("MULTI\n{name}\n"),
                name => format!("{name} {arguments}\n"),
            };
            let stops = |skip| import_into(Map::default(), line.as_bytes(), skip).0.is_some();
            let expected = match decision {
                "imported" => (false, false),
                "left out" | "in part" => (true, false),
                "stops" => (true, true),
                other => panic!("{other}"),
            };
            assert_eq!((stops(false), stops(true)), expected, "{decision}: {line}");
        }
    }
}

fn keys_of(pairs: &[(&str, &str)]) -> Keys {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

#[test]
fn what_changes_the_meaning_of_what_follows_stops_though_the_unknown_is_passed_over() {
    for decisive in
        ["SWAPDB 0 1", "RENAME a b", "SETRANGE a 0 x", "EVAL x 0", "RESTORE a 0 x", "QUIT"]
    {
        let input = format!("SET a 1\n{decisive}\nSET a 2\n");
        let (stop, _, model) = import_into(Map::default(), input.as_bytes(), true);
        let stop = stop.unwrap().to_string();
        assert!(
            stop.starts_with("byte 8: ") && stop.contains("does not go on without it"),
            "{stop}"
        );
        assert_eq!(model.keys, keys_of(&[("a", "1")]));
        let input = format!("MULTI\nSET a 1\n{decisive}\nEXEC\n");
        let (stop, _, model) = import_into(Map::default(), input.as_bytes(), true);
        assert!(stop.unwrap().to_string().contains("in the MULTI at byte 0"));
        assert!(model.keys.is_empty());
    }
}

#[test]
fn options_of_set_are_kept_to() {
    let (stop, model) = import(
        b"SET a 1\nSET a 2.5 KEEPTTL\nSET a 3 NX\nSET b 4 XX\nSET c 5 NX GET\nSET c 6 XX KEEPTTL\n",
    );
    assert!(stop.is_none());
    assert_eq!(model.keys, keys_of(&[("a", "2.5"), ("c", "6")]));
    let (stop, model) = import(b"MSETNX a 1 b 2\nMSETNX b 3 c 4\nGETSET b 5\nGETDEL a\n");
    assert!(stop.is_none());
    assert_eq!(model.keys, keys_of(&[("b", "5")]));
}

#[test]
fn an_expiry_is_left_out_if_asked_and_its_put_is_not() {
    let input: &[u8] = b"SET a 1\nSET a 5 PXAT 1700000000000\nINCR a\nMULTI\nSETEX b 9 x\nSET c 1 NX EX 9\nSET c 2 NX EX 9\nEXEC\n\
        SET s 1\nSUNIONSTORE s x y\nSETNX s 2\n";
    let (stop, summary, model) = import_into(Map::default(), input, true);
    assert!(stop.is_none(), "{stop:?}");
    assert_eq!(model.keys, keys_of(&[("a", "6"), ("b", "x"), ("c", "1"), ("s", "2")]));
    let skipped: Vec<_> = summary.skipped.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(skipped, [("SET", 3), ("SETEX", 1), ("SUNIONSTORE", 1)]);
}

#[test]
fn a_flush_deletes_every_key_there_is_then() {
    let before = Map { keys: keys_of(&[("old", "1"), ("z", "2")]), ..Map::default() };
    let input: &[u8] = b"SET a 1\nFLUSHALL\nSETNX a 2\nINCR old\n";
    let (stop, summary, model) = import_into(before.clone(), input, false);
    assert!(stop.is_none());
    assert_eq!(model.keys, keys_of(&[("a", "2"), ("old", "1")]));
    assert_eq!((summary.commands, model.note.unwrap().offset), (4, input.len() as u64));
    // In a MULTI, the deletes cover the keys that the MULTI itself puts, and all of it is one
    // entry.
    let input: &[u8] =
        b"MULTI\nSET a 1\nDEL z\nFLUSHDB SYNC\nAPPEND a x\nflushall\nAPPEND old y\nEXEC\n";
    let (stop, _, model) = import_into(before.clone(), input, false);
    assert!(stop.is_none());
    assert_eq!(model.keys, keys_of(&[("old", "y")]));
    assert_eq!(model.taken, [input.len() as u64]);
    let (stop, _, model) = import_into(before.clone(), b"MULTI\nFLUSHALL\nBAD\n".as_slice(), false);
    assert!(stop.is_some() && model.keys == before.keys);
}

/// An input with more keys than an entry of a group holds. The deletes are several entries, and
/// each may be the last before a crash.
#[test]
fn a_flush_of_many_keys_is_done_again_after_a_crash_in_it() {
    let many = |bytes: usize, count: u32| -> Keys {
        (0..count).map(|n| (format!("{n:0bytes$}").into_bytes(), b"v".to_vec())).collect()
    };
    let before = Map { keys: many(1000, 2000), ..Map::default() };
    let input: &[u8] = b"FLUSHALL\nINCR n\n";
    let (stop, whole, model) = import_into(before.clone(), input, false);
    assert!(stop.is_none() && whole.entries >= 8, "{whole:?}");
    assert_eq!(model.keys, keys_of(&[("n", "1")]));
    for crash in 0..usize::try_from(whole.entries).unwrap() {
        let failing = Map { fails_after: Some(crash), ..before.clone() };
        let mut importer = Importer::new(failing, Stream::new(input), false);
        importer.resume(&SHOWN).unwrap();
        assert!(importer.run(|_| ()).is_err());
        let crashed = importer.finish().1;
        assert!(crashed.keys.len() <= 2000 && crashed.note.is_none_or(|note| note.offset == 0));
        let rest = Map { fails_after: None, ..crashed };
        let (stop, _, model) = import_into(rest, input, false);
        assert!(stop.is_none());
        assert_eq!(model.keys, keys_of(&[("n", "1")]), "crashed after {crash} entries");
    }
    // As a part of a MULTI, a flush is one entry, or none.
    let input: &[u8] = b"MULTI\nFLUSHALL\nINCR n\nEXEC\n";
    let (stop, summary, _) = import_into(before, input, false);
    assert!(stop.is_none() && summary.entries == 1);
    let huge = Map { keys: many(60_000, 600), ..Map::default() };
    let (stop, _, model) = import_into(huge, input, false);
    let stop = stop.unwrap().to_string();
    assert!(
        stop.starts_with("byte 6: deleting every key in a MULTI: more than the limit"),
        "{stop}"
    );
    assert_eq!(model.keys.len(), 600);
}

#[test]
fn zeros_at_the_end_are_named_as_such() {
    let whole = array(&[b"SET", b"a", b"1"]);
    for zeros in [1, 2, 3, 31, 32, 33, 4096, 65_535, 65_537, 131_072, 1 << 20] {
        for cut in [0, 2, 3, 4, 6, 8, 11, 12, 13, whole.len() - 2, whole.len() - 1] {
            let bytes = [&whole[..], &whole[..cut], &vec![0; zeros]].concat();
            let (stop, model) = import(&bytes);
            let stop = stop.unwrap();
            assert_eq!((stop.offset, model.keys.len()), (whole.len() as u64, 1));
            match stop.what {
                What::Zeros { from, bytes } => {
                    assert_eq!((from, bytes), ((whole.len() + cut) as u64, zeros as u64));
                }
                // A value may begin with zeros.
                What::CutOff => assert!(zeros < 8, "{zeros} zeros after {cut} bytes"),
                what => panic!("{zeros} zeros after {cut} bytes: {what}"),
            }
        }
        let line = [&b"SET a 1\nSET b"[..], &vec![0; zeros]].concat();
        let stop = import(&line).0.unwrap().to_string();
        assert!(stop.starts_with("byte 8: all bytes from byte 13 to the end are zero"), "{stop}");
        let stop = import(&[line.as_slice(), b"x\n"].concat()).0.unwrap().to_string();
        assert!(stop.starts_with("byte 8: not a Redis command stream"), "{stop}");
    }
}

#[test]
fn what_is_no_command_stream_is_named_as_what_it_is() {
    for (bytes, what) in [
        (&b"\x1f\x8b\x08\x00"[..], "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd\x00", "compressed with zstd"),
        (b"REDIS0011\xfa\x09redis-ver", "an RDB file or preamble"),
        (b"SPRGSNAP\x01\x00", "a snapshot of sprag"),
        (b"SPRG\x01\x00\x01\x00", "a file of a sprag directory"),
        (b"SPRM\x01\x00\x01\x00", "a file of a sprag directory"),
        (b"{\"key\":\"a\",\"value\":\"1\"}\n", "it is JSON"),
        (b"file a.1.base.aof seq 1 type b\n", "a manifest of Redis 7"),
        (b"*3\n$3\nSET\n$1\na\n$1\n1\n", "its lines end with LF only"),
        (b"\xff\xfeS\0E\0T\0", "UTF-16"),
    ] {
        for pieces in [false, true] {
            let (stop, _, model) = match pieces {
                false => import_into(Map::default(), bytes, true),
                true => import_into(Map::default(), Dribble(bytes, 0), true),
            };
            let stop = stop.unwrap().to_string();
            assert!(stop.starts_with("byte 0: not a Redis command stream: "), "{stop}");
            assert!(stop.contains(what), "{stop}");
            assert!(model.keys.is_empty() && model.taken.is_empty());
        }
    }
}

#[test]
fn parts_are_one_input_and_a_stop_is_told_by_its_part() {
    let parts: [&[u8]; 4] =
        [b"SET a 1\nINCR a\n", b"", b"INCR a\nMULTI\nINCR a\nEXEC\n", b"INCR a\nBAD\n"];
    let whole = parts.concat();
    let import_parts = |parts: &[&'static [u8]], map: Map| {
        let mut importer = Importer::new(map, Stream::of_parts(parts.to_vec()), false);
        importer.resume(&SHOWN).unwrap();
        let stop = importer.run(|_| ()).unwrap();
        let place = stop.map(|stop| importer.stream.part_of(stop.offset));
        (place, importer.finish())
    };
    let (place, (summary, model)) = import_parts(&parts, Map::default());
    assert_eq!(place, Some((3, (whole.len() - 11) as u64)));
    assert_eq!((summary.commands, &model.keys), (5, &keys_of(&[("a", "5")])));
    let (_, one) = import(&whole);
    assert_eq!(model.note, one.note);
    // The first parts are not imported again.
    for some in 0..parts.len() {
        let (_, (_, map)) = import_parts(&parts[..some], Map::default());
        let (_, (_, map)) = import_parts(&parts, map);
        assert_eq!(map.keys, keys_of(&[("a", "5")]), "{some} parts first");
    }
    // A command may not span two parts.
    let (place, (_, model)) = import_parts(&[b"SET a 1\nSET b ", b"2\n"], Map::default());
    assert_eq!((place, model.keys.len()), (Some((0, 0)), 1));
}
