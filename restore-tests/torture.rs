//! Same bytes back: everything that a file system can hold goes in and comes out, or is named.

mod again;
mod large;
mod moving;
mod outside;
mod parts;
mod tree;
mod walk;

use crate::harness::Bench;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use walk::{assert_equal, look};

/// A place in memory: it has long attributes, all times, and is quick with many files.
fn place() -> TempDir {
    TempDir::new_in("/dev/shm").expect("a directory in memory")
}

fn text(path: &Path) -> String {
    path.to_str().expect("the tests' own paths are text").to_owned()
}

/// A place with a tree in it, and a bench with a repository.
struct Case {
    place: TempDir,
    bench: Bench,
}

impl Case {
    fn new() -> Case {
        Case { place: place(), bench: Bench::new(&["a"]) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        text(&self.path(name))
    }
}

#[test]
fn same_bytes_back() {
    let case = Case::new();
    tree::build(&case.path("source"));
    let before = look(&case.path("source"));
    let first = case.bench.ok(&["backup", &case.text("source")]);
    assert_eq!(first["errors_total"], 0);
    assert_equal(&before, &look(&case.path("source")));
    case.bench.ok(&["restore", "latest", "--target", &case.text("target")]);
    assert_equal(&before, &look(&case.path("target")));
}
