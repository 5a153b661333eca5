//! The README's example: commands in, durable state out. Run it with `cargo run --example basic`.

use std::time::Duration;

use sprag::{ApplyConfig, ApplyManager, Command, PersistentConfig, PersistentStateMachine, Reply};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("sprag-basic-{}", std::process::id()));
    let timeout = Duration::from_secs(10);

    let machine = PersistentStateMachine::open(PersistentConfig::new(&directory))?;
    let manager = ApplyManager::new(machine, ApplyConfig::new())?;
    // Each call returns when its command is in the state, and on stable storage.
    manager.propose(Command::put(b"color", b"green"), timeout)?;
    let reply = manager.propose(Command::increment(b"visits", 42), timeout)?;
    assert_eq!(reply, Reply::Counter(42));
    assert_eq!(manager.machine().get(b"color")?.as_deref(), Some(&b"green"[..]));
    manager.close(timeout)?;

    let machine = PersistentStateMachine::open(PersistentConfig::new(&directory))?;
    assert_eq!(machine.get(b"visits")?.as_deref(), Some(&b"42"[..]));
    Ok(std::fs::remove_dir_all(&directory)?)
}
