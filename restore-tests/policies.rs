//! Every example of the configuration language in the tree is read by the program.

use holdfast::policy::{TEXT_BYTES_MAX, parse};
use std::path::Path;

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_examples_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let mut read = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        parse(path.to_str().unwrap(), &text(&path)).unwrap_or_else(|e| panic!("{e}"));
        read += 1;
    }
    assert!(read > 0, "no example was found");
}

#[test]
fn the_documented_example_says_what_its_comments_say() {
    let example = text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/repository.yaml"));
    assert!(example.len() < TEXT_BYTES_MAX);
    let plain = parse("holdfast.yaml", &example).unwrap();
    assert_eq!(plain.regions().len(), 3);
    assert_eq!(plain.copies_min(), 2);
    assert_eq!(plain.repository_id(), None);
    let pinned = parse("holdfast.yaml", &example.replace("# repositoryId", "repositoryId")).unwrap();
    assert!(pinned.repository_id().is_some(), "the commented field is no field");
    let by_default = parse("holdfast.yaml", &example.replace("  copies:\n    min: 2\n", "")).unwrap();
    assert_eq!(by_default.copies_min(), 2);
}
