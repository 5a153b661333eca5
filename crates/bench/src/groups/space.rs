//! Bytes that a state takes, on disk and in memory. Memory is measured in a process of its own.

use std::any::Any;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, anyhow, ensure};
use sprag::{ApplyConfig, IoBackend};

use super::{Settings, VALUE_BYTES};
use crate::measure::{Case, Figure, Measured, Subject};
use crate::report::{Role, Row, Unit};
use crate::subjects::maps::{Dash, Papaya, Scc, Table, Tree, engine, filled};
use crate::subjects::{self, STORAGES, Sprag, Store, preload};
use crate::workload::{KEY_BYTES, pieces};

/// Subjects in memory.
const MAPS: [&str; 6] = ["hashbrown", "dashmap", "papaya", "scc", "BTreeMap", "sprag memory"];
const PERSISTENT: &str = "sprag persistent";
const COMPACTED: &str = "sprag persistent, compacted";

/// Bytes that the files of a directory take on disk.
fn allocated_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            allocated_bytes(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}

/// Anonymous memory of this process, in bytes.
pub(super) fn anonymous_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()).context("RssAnon")?;
    Ok(kib.parse::<u64>()? << 10)
}

/// Bytes that the memory of this process grew by as a subject took `keys` keys.
pub(crate) fn held(subject: &str, keys: usize, dir: &Path) -> Result<u64> {
    let before = anonymous_bytes()?;
    let held: Box<dyn Any> = match subject {
        "hashbrown" => Box::new(filled::<Table>(keys)),
        "dashmap" => Box::new(filled::<Dash>(keys)),
        "papaya" => Box::new(filled::<Papaya>(keys)),
        "scc" => Box::new(filled::<Scc>(keys)),
        "BTreeMap" => Box::new(filled::<Tree>(keys)),
        "sprag memory" => Box::new(engine(keys, ApplyConfig::new())?),
        PERSISTENT | COMPACTED => {
            let sprag = Sprag::create(dir, keys, IoBackend::Auto)?;
            put_all(&sprag, keys)?;
            if subject == COMPACTED {
                sprag.manager.snapshots().compact()?;
            }
            Box::new(sprag)
        }
        name => {
            let open = STORAGES.iter().find(|(storage, _)| *storage == name);
            let (_, open) = open.ok_or_else(|| anyhow!("there is no subject {name:?}"))?;
            subjects::fresh(dir)?;
            let store = open(dir)?;
            put_all(&*store, keys)?;
            Box::new(store)
        }
    };
    let bytes = anonymous_bytes()?.saturating_sub(before);
    drop(held);
    Ok(bytes)
}

/// Puts every key in, in pieces: all at once would count as memory of the subject.
fn put_all(store: &dyn Store, keys: usize) -> Result<()> {
    pieces(keys, VALUE_BYTES).try_for_each(|piece| preload(store, &piece))
}

#[allow(clippy::cast_precision_loss, reason = "bytes of a benchmark are far below 2^53")]
fn of_key(bytes: u64, keys: usize) -> Measured {
    (bytes as f64 / keys as f64).into()
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Row>> {
    let keys = settings.keys;
    let place = |name: &str| subjects::place(&settings.dir, "space", name);
    let own = env::current_exe()?;
    let in_process = |name: &str| -> Result<Measured> {
        let output = Command::new(&own)
            .args(["held", name, &keys.to_string()])
            .arg(place(name))
            .output()
            .context("measuring in a process of its own")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(of_key(String::from_utf8(output.stdout)?.trim().parse()?, keys))
    };
    let roles = MAPS.iter().map(|name| match *name {
        "hashbrown" => (*name, Role::Limit),
        "sprag memory" => (*name, Role::Sprag),
        _ => (*name, Role::Peer),
    });
    let subjects = roles.map(|(name, role)| Subject::new(name, role, move || in_process(name)));
    let case = Case {
        group: "space",
        name: format!("anonymous memory, {keys} keys in memory"),
        figures: Figure::only(Unit::Bytes),
        subjects: subjects.collect(),
    };
    let mut rows = case.run(settings.rounds.min(3))?;

    let ours = [PERSISTENT, COMPACTED].map(|name| (name, Role::Sprag));
    let persistent = ours.into_iter().chain(STORAGES.iter().map(|(name, _)| (*name, Role::Peer)));
    let persistent: Vec<_> = persistent.collect();
    let subjects = persistent.iter().map(|(name, role)| {
        let subject = Subject::new(*name, *role, move || in_process(name));
        let why = "it keeps keys on disk, and reads them from its cache or the page cache";
        subject.differs((*role == Role::Peer).then_some(why))
    });
    let case = Case {
        group: "space",
        name: format!("anonymous memory, {keys} keys, durable"),
        figures: Figure::only(Unit::Bytes),
        subjects: subjects.collect(),
    };
    rows.extend(case.run(1)?);

    // The directories are those that the processes left.
    let mut subjects = vec![Subject::new("key and value", Role::Limit, || {
        Ok(of_key((KEY_BYTES + VALUE_BYTES) as u64, 1))
    })];
    subjects.extend(persistent.iter().map(|(name, role)| {
        Subject::new(*name, *role, move || Ok(of_key(allocated_bytes(&place(name))?, keys)))
    }));
    let case = Case {
        group: "space",
        name: format!("on disk, {keys} keys put once"),
        figures: Figure::only(Unit::Bytes),
        subjects,
    };
    rows.extend(case.run(1)?);
    Ok(rows)
}
