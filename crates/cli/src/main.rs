//! The process of the `sprag` command, and its allocator; a library sets no allocator.

use std::process::ExitCode;

use sprag_cli::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    sprag_cli::main()
}
