//! The rules of the house, checked over the program's own text: which room may import which, which crate
//! lives where, how long things may get, where panics and prints are forbidden. Reads `src/**`, needs
//! nothing but the standard library, and takes milliseconds.
//!
//! The rules see tokens, not types: a name that a macro puts together escapes them.

mod lex;
mod rules;
mod samples;
mod scan;

pub use rules::{CRATES, ROOMS};
use scan::File;
use std::path::Path;

/// All `.rs` files under `folder`, scanned, in the order of their names.
fn read(folder: &Path) -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.push(File::scan(&name, &std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    rules::mark_test_files(&mut files);
    files
}

fn program() -> Vec<File> {
    let files = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.iter().any(|f| f.path == "lib.rs") && files.len() > 5, "the program's text was not found");
    files
}

#[test]
fn the_program_keeps_the_rules_of_the_house() {
    let found = rules::check(&program());
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}

#[test]
fn no_test_is_ignored() {
    let tests = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests"));
    assert!(tests.iter().any(|f| f.path == "tidy.rs"), "the tests' text was not found");
    let found = rules::ignored(&tests);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// `scripts/function-lengths` shows what this prints.
#[test]
fn function_lengths() {
    let files = program();
    let functions: Vec<_> = files.iter().flat_map(|f| f.functions.iter().map(move |g| (f, g))).collect();
    let mut shipped: Vec<_> = functions.into_iter().filter(|(_, g)| !g.test).collect();
    shipped.sort_by_key(|(_, g)| g.lines);
    assert!(!shipped.is_empty(), "no function was found");
    let at = |percent: usize| shipped[(shipped.len() - 1) * percent / 100].1.lines;
    let over = shipped.iter().filter(|(_, g)| g.lines > rules::FUNCTION_LINES_MAX).count();
    println!(
        "{} functions outside tests: median {} lines, 90th percentile {}, longest {}, over {} lines: {over}",
        shipped.len(),
        at(50),
        at(90),
        at(100),
        rules::FUNCTION_LINES_MAX
    );
    for (file, g) in shipped.iter().rev().take(10) {
        println!("{:5}  {}:{} {}", g.lines, file.path, g.line, g.name);
    }
}
