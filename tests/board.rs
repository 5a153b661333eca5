//! Tests of the program of the page on embedding: it is the example, it runs, and its machine
//! conforms.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/board.rs"]
mod example;

use self::example::Board;
use sprag::Payload;
use sprag::error::OpenError;
use sprag::testing::Random;
use sprag::testing::conformance::{OwnedPayload, Subject, Suite};

struct Boards;

impl Subject for Boards {
    type Machine = Board;

    fn machine(&self) -> Result<Board, OpenError> {
        Ok(Board::default())
    }

    fn payload(&self, random: &mut Random) -> OwnedPayload {
        let text = format!("{}:{}", random.below(3), "x".repeat(random.below(80)));
        Payload::Opaque(text.as_bytes()).into()
    }

    fn digest(&self, machine: &Board) -> Vec<u8> {
        format!("{:?}", machine.0.lock().unwrap()).into_bytes()
    }
}

#[test]
fn the_board_conforms() {
    Suite::new().check_journaled(&Boards).unwrap();
}

#[test]
fn the_program_runs() {
    example::main().unwrap();
}

#[test]
fn the_page_has_the_program_as_it_is() {
    let page = include_str!("../docs/embedding.md");
    let (_, program) = include_str!("../examples/board.rs").split_once("\n\n").unwrap();
    let program = program.replace("pub(crate) ", "");
    assert!(page.contains(&format!("```rust\n{program}```")));
    let (_, subject) = include_str!("board.rs").split_once("struct Boards;").unwrap();
    let (subject, _) = subject.split_once("#[test]").unwrap();
    assert!(page.contains(&format!("struct Boards;{subject}")));
}
