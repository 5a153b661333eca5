//! Every target, in the order of the questions.

mod durable;
mod memory;
mod reads;
mod size;

use super::{Held, Pick, Target};

/// Target with a floor.
const fn with_floor(
    row: u8,
    (name, says): (&'static str, &'static str),
    of: Pick,
    held: Held,
    goal: f64,
    floor: f64,
) -> Target {
    Target { row, name, says, of, held, goal, floor: Some(floor) }
}

/// Target that is missed below its goal.
const fn goal(
    row: u8,
    (name, says): (&'static str, &'static str),
    of: Pick,
    held: Held,
    goal: f64,
) -> Target {
    Target { row, name, says, of, held, goal, floor: None }
}

/// Every target.
pub(crate) fn all() -> impl Iterator<Item = &'static Target> {
    [memory::ALL, durable::ALL, reads::ALL, size::ALL].into_iter().flatten()
}
