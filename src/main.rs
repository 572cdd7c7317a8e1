//! The command-line program: parse, run one verb, turn its error into an exit code.
fn main() {}
