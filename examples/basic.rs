//! The README's example: entries in, durable state out. Run it with `cargo run --example basic`.

use std::time::Duration;

use sprag::{ApplyConfig, ApplyManager, Entry, PersistentConfig, PersistentStateMachine, Reply};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("sprag-basic-{}", std::process::id()));
    let timeout = Duration::from_secs(10);

    let machine = PersistentStateMachine::open(PersistentConfig::new(&directory))?;
    let manager = ApplyManager::new(machine, ApplyConfig::new())?;
    // Index, term, command: as the consensus engine committed them.
    let taken = manager.apply_entries(&[Entry::put(1, 1, b"color", b"green")])?;
    assert_eq!(taken.new, 1);
    manager.wait_for_apply(1, timeout)?; // in the state, and on stable storage
    let reply = manager.apply(&Entry::increment(2, 1, b"visits", 42), timeout)?;
    assert_eq!(reply, Reply::Counter(42));
    assert_eq!(manager.machine().get(b"color")?.as_deref(), Some(&b"green"[..]));
    manager.close(timeout)?;

    let machine = PersistentStateMachine::open(PersistentConfig::new(&directory))?;
    assert_eq!(machine.get(b"visits")?.as_deref(), Some(&b"42"[..]));
    Ok(std::fs::remove_dir_all(&directory)?)
}
