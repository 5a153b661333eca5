//! Commands that must not be left out, because later commands would mean something else without
//! them.

/// The reason why an import stops at this command even with `--skip-unknown`; `None` if it may go
/// on.
pub(super) fn why(name: &str) -> Option<&'static str> {
    match name {
        "SWAPDB" | "MOVE" | "RENAME" | "RENAMENX" | "COPY" | "RESTORE" | "RESTORE-ASKING"
        | "MIGRATE" => Some("it moves or makes whole keys, of which later commands may be"),
        "SETRANGE" | "SETBIT" | "BITFIELD" | "BITOP" | "INCRBYFLOAT" | "PFADD" | "PFMERGE"
        | "PFDEBUG" | "MSETEX" | "DELEX" | "DELIFEQ" => {
            Some("it changes a string, on which later commands may build")
        }
        "EVAL" | "EVALSHA" | "FCALL" => Some("a script may change any key"),
        "REPLICAOF" | "SLAVEOF" | "FAILOVER" | "DEBUG" => {
            Some("it may replace the whole state of a server")
        }
        "SHUTDOWN" | "QUIT" | "RESET" | "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" | "MONITOR"
        | "SYNC" | "PSYNC" => Some("a server would not run the commands after it as it does now"),
        _ => None,
    }
}

/// The reason why an import stops at `name`, a command that stores its result depending on its
/// arguments; `None` if it may go on.
pub(super) fn why_it_stores(name: &str, arguments: &[&[u8]]) -> Option<&'static str> {
    let stores = |argument: &&[u8]| {
        argument.eq_ignore_ascii_case(b"STORE") || argument.eq_ignore_ascii_case(b"STOREDIST")
    };
    let may = matches!(name, "SORT" | "GEORADIUS" | "GEORADIUSBYMEMBER");
    (may && arguments.iter().any(stores)).then_some("it replaces a key, which may be a string")
}

/// Whether the first argument of a command is a key that its result, never a string, replaces.
pub(super) fn replaces_first_key(name: &str) -> bool {
    matches!(
        name,
        "SDIFFSTORE"
            | "SINTERSTORE"
            | "SUNIONSTORE"
            | "ZDIFFSTORE"
            | "ZINTERSTORE"
            | "ZUNIONSTORE"
            | "ZRANGESTORE"
            | "GEOSEARCHSTORE"
    )
}
