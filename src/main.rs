//! The program: everything is in the library.

use std::process::ExitCode;

/// musl's own allocator is slow where large buffers come and go: with it a first backup takes a third longer.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(holdfast::cli::main())
}
