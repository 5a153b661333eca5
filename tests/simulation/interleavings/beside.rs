//! Steps in the middle of a call. The call runs in a separate thread. The thread stops wherever it
//! asks the disk for a file without a lock that other steps need, until some steps were taken. Only
//! one of the two threads runs at a time.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use sprag::disk::{Access, Disk, DiskFile, WriteQueue};

use super::World;
use crate::simulation::world::Node;

thread_local! {
    /// Channels by which such a thread reports its stop, and is told to continue.
    static PLACE: RefCell<Option<(Sender<()>, Receiver<()>)>> = const { RefCell::new(None) };
}

fn stop() {
    PLACE.with_borrow(|place| {
        if let Some((stops, goes_on)) = place {
            // The thread that took the steps may have failed.
            let _gone = stops.send(()).is_err() || goes_on.recv().is_err();
        }
    });
}

/// A disk that stops there.
#[derive(Debug)]
pub(super) struct Stopping(pub(super) Arc<dyn Disk>);

impl Disk for Stopping {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        stop();
        self.0.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        // A thread that makes a segment ready holds a lock.
        if access == Access::Read || !name.ends_with(".seg") {
            stop();
        }
        self.0.open(name, access)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if !to.ends_with(".seg") {
            stop();
        }
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !name.ends_with(".seg") {
            stop();
        }
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.0.random(bytes)
    }

    fn queue(&self) -> io::Result<Box<dyn WriteQueue>> {
        self.0.queue()
    }
}

impl World {
    /// Makes a call, and takes steps in the middle of it.
    pub(super) fn beside<T: Send>(
        &mut self,
        node: &Node,
        call: impl FnOnce(&Node) -> T + Send,
    ) -> Result<T, String> {
        if self.random.one_in(3) {
            return Ok(call(node));
        }
        let most = 1 + self.random.below(8);
        self.told.push_str(" {");
        let (stops, stopped) = channel();
        let (go_on, goes_on) = channel();
        thread::scope(|scope| {
            let calling = scope.spawn(move || {
                PLACE.set(Some((stops, goes_on)));
                let done = call(node);
                PLACE.set(None);
                done
            });
            let mut steps = Ok(());
            while stopped.recv().is_ok() {
                self.told.push_str(" |");
                if steps.is_ok() && !self.disk.is_power_off() && node.poison().is_none() {
                    let count = self.random.below(most);
                    steps = self.note(node).and_then(|()| self.drive(node, count, true));
                }
                let _gone = go_on.send(()).is_err();
            }
            let done = calling.join();
            self.told.push_str(" }");
            steps?;
            done.map_err(|_| "a call panicked".to_owned())
        })
    }
}
